"""A real `AgentPool` in a process of its own, and calls played through it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rollbackd_openrtc.check import answers, judge, problems, read
from tests.conftest import SECRET, FakeRollbackd, Signer, until


class Harness:
    """One harness process, its control endpoint, its metrics and its record."""

    def __init__(self, process: Process, facts: dict[str, Any], record: Path) -> None:
        self.process = process
        self.facts = facts
        self.record = record

    async def post(self, path: str, **body: Any) -> int:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.facts['control']}{path}", json=body) as response,
        ):
            return response.status

    async def metrics(self) -> dict[tuple[str, ...], float]:
        """`{(name, agent, tenant): value}`; the worker's own have no agent and tenant."""
        async with aiohttp.ClientSession() as http, http.get(self.facts["metrics"]) as response:
            text = await response.text()
        return {
            (sample.name, sample.labels.get("agent", ""), sample.labels.get("tenant", "")): (
                sample.value
            )
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(text) for text in self.record.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def outcomes(self) -> dict[str, str]:
        return {line["id"]: line["outcome"] for line in self.lines("call_ended")}


@asynccontextmanager
async def harness(directory: Path, *options: str, worker_id: str = "w1") -> AsyncIterator[Harness]:
    record = directory / f"{worker_id}.jsonl"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rollbackd_openrtc.harness"),
        *("--version-label", "v2", "--worker-id", worker_id, "--tenants", "a,b"),
        *("--workers-dir", str(directory), "--record", str(record), *options),
        stdout=PIPE,
    )
    try:
        assert process.stdout is not None
        facts = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        yield Harness(process, facts, record)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def every_call_succeeds_fails_or_outlives_the_drain_in_the_real_pool(tmp_path: Path) -> None:
    async with harness(tmp_path) as worker:
        metrics = await worker.metrics()
        assert metrics["openrtc_sessions_failed_total", "support", "b"] == 0
        assert metrics["openrtc_worker_draining", "", ""] == 0

        who = {"agent": "support", "tenant": "b"}
        assert await worker.post("/call", id="good", length=0.05, **who) == 202
        assert await worker.post("/call", id="setup", length=0.05, fail="setup", **who) == 202
        assert await worker.post("/call", id="mid", length=0.05, fail="mid", **who) == 202
        # A tenant that OpenRTC does not take: the session is never built.
        assert await worker.post("/call", id="unbuilt", tenant="not one") == 202
        assert await worker.post("/call", id="left", length=60) == 202
        assert await worker.post("/call", id="long", length=60, **who) == 202
        assert await worker.post("/call", length=-1) == 400
        await until(lambda: len(worker.outcomes()) == 4)
        metrics = await worker.metrics()
        assert metrics["openrtc_active_sessions", "booking", "a"] == 1
        assert metrics["openrtc_active_sessions", "support", "b"] == 1
        # Hung up: ended by the caller.
        assert await worker.post("/hangup", id="left") == 200

        worker.process.send_signal(signal.SIGTERM)
        await until(lambda: worker.lines("drain_started"))
        assert await worker.post("/call", id="late", **who) == 503
        state = json.loads((tmp_path / "w1.json").read_text())["state"]
        assert state == "draining"
        metrics = await worker.metrics()
        assert metrics["openrtc_sessions_started_total", "support", "b"] == 4
        assert metrics["openrtc_sessions_failed_total", "support", "b"] == 2
        assert metrics["openrtc_sessions_started_total", "booking", "a"] == 1
        assert metrics["openrtc_sessions_failed_total", "booking", "a"] == 0
        assert metrics["openrtc_sessions_failed_total", "_unknown", "_unknown"] == 1
        assert metrics["openrtc_active_sessions", "booking", "a"] == 0
        assert metrics["openrtc_worker_draining", "", ""] == 1
        # It waits for its last call, and only then goes.
        assert worker.process.returncode is None
        assert await worker.post("/hangup", id="long") == 200
        assert await asyncio.wait_for(worker.process.wait(), 10) == 0
        assert worker.outcomes() == {
            "good": "success",
            "setup": "failed",
            "mid": "failed",
            "unbuilt": "failed",
            "left": "cancelled",
            "long": "cancelled",
        }
        assert [line["id"] for line in worker.lines("call_refused")] == ["late"]
        assert worker.lines("worker_exited")[0]["code"] == 0
        assert not (tmp_path / "w1.json").exists()


async def a_call_cut_off_with_its_worker_is_a_drop_and_a_failure(tmp_path: Path) -> None:
    # OpenRTC's supervisor closes a worker after so many failures in a row, calls and all.
    async with harness(tmp_path, "--failure-limit", "2") as worker:
        assert await worker.post("/call", id="live", length=60) == 202
        for name in ("one", "two"):
            assert await worker.post("/call", id=name, fail="setup") == 202
        assert await asyncio.wait_for(worker.process.wait(), 15) == 1
        assert worker.outcomes()["live"] == "dropped"


async def a_killed_worker_leaves_a_record_that_shows_the_drop(tmp_path: Path) -> None:
    async with harness(tmp_path) as worker:
        assert await worker.post("/call", id="live", length=60) == 202
        facts = judge(read(tmp_path), bad="v1", alive=answers)
        assert facts.live_by_version == {"v2": 1}
        assert problems(facts, bad="v1", good="v2") == []
        worker.process.kill()
        await worker.process.wait()
    facts = judge(read(tmp_path), bad="v1", alive=answers)
    assert facts.dropped == ["live on w1: no end"]
    assert facts.killed == ["w1 (v2)"]


async def a_worker_fails_its_shares_of_calls(tmp_path: Path) -> None:
    options = ("--fail-setup", "1", "--fail-tenant", "b", "--length", "0")
    async with harness(tmp_path, *options) as worker:
        for tenant in ("a", "b"):
            assert await worker.post("/call", id=tenant, tenant=tenant) == 202
        await until(lambda: worker.outcomes() == {"a": "success", "b": "failed"})
        assert await worker.post("/faults", fail_setup=2) == 400
        assert await worker.post("/faults", fail_setup=0, fail_mid=1, tenant="a") == 200
        assert await worker.post("/call", id="c", tenant="a") == 202
        await until(lambda: worker.outcomes().get("c") == "failed")


async def a_worker_makes_its_own_traffic_and_the_dispatcher_more(tmp_path: Path) -> None:
    options = ("--rate", "40", "--length", "0.01")
    async with harness(tmp_path, *options) as worker:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rollbackd_openrtc.dispatch", "--workers-dir", str(tmp_path)),
            *("--rate", "40", "--length", "0.01", "--for", "1", "--tenants", "a,b"),
            stdout=PIPE,
        )
        stdout, _ = await asyncio.wait_for(process.communicate(), 30)
        counts = json.loads(stdout)
        assert counts["accepted"] == counts["offered"] > 0
        assert counts["accepted_by_version"] == {"v2": counts["accepted"]}
        worker.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.process.wait(), 15) == 0
        dispatched = [name for name in worker.outcomes() if name.startswith("call-")]
        assert len(dispatched) == counts["accepted"]
        assert len(worker.outcomes()) > len(dispatched)
        assert set(worker.outcomes().values()) == {"success"}


@pytest.fixture
def files(tmp_path: Path, signer: Signer) -> tuple[str, ...]:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "key.pub").write_text(f"{signer.public_key}\n")
    return (
        *("--secret-file", str(tmp_path / "secret")),
        *("--public-key-file", str(tmp_path / "key.pub")),
    )


async def a_harness_worker_told_to_drain_lets_its_call_end_and_exits_with_75(
    tmp_path: Path, rollbackd: FakeRollbackd, signer: Signer, files: tuple[str, ...]
) -> None:
    rollbackd.answer = signer.manifest(serial=1)
    async with harness(tmp_path, "--rollbackd-url", rollbackd.url, *files) as worker:
        assert await worker.post("/call", id="live", length=1.5) == 202
        rollbackd.answer = signer.manifest(serial=2, denied=["v2"])
        await until(lambda: {"wait": "30s", "serial": "2"} in rollbackd.queries)
        assert await worker.post("/call", id="served on", length=0.1) == 202
        rollbackd.answer = signer.manifest(serial=3, denied=["v2"], draining=["v2"])
        await until(lambda: worker.lines("drain_started"))
        assert await worker.post("/call", id="late") == 503
        assert await asyncio.wait_for(worker.process.wait(), 15) == 75
        assert worker.outcomes() == {"live": "success", "served on": "success"}
        assert any(beat["draining"] and beat["active_sessions"] for beat in rollbackd.beats)
        assert rollbackd.beats[-1]["active_sessions"] == 0


async def a_harness_worker_denied_from_the_beginning_exits_with_78(
    tmp_path: Path, rollbackd: FakeRollbackd, signer: Signer, files: tuple[str, ...]
) -> None:
    rollbackd.answer = signer.manifest(denied=["v2"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rollbackd_openrtc.harness", "--version-label", "v2"),
        *("--worker-id", "w1", "--rollbackd-url", rollbackd.url, *files),
        stderr=PIPE,
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 78
    assert "is denied" in stderr.decode()
