from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from openrtc.core.membership import MembershipVerifier

from rollbackd_openrtc.heartbeat import Heartbeat, Settings, VersionDenied
from tests.conftest import SECRET, FakeRollbackd, Signer, until


@dataclass
class FakeWorker:
    version: str = "v2"
    active_sessions: int = 2
    draining: bool = False
    drains: int = 0

    @property
    def drained(self) -> bool:
        return self.draining and self.active_sessions == 0

    def begin_drain(self) -> None:
        self.draining = True
        self.drains += 1


def beating(url: str, signer: Signer, worker: FakeWorker, **changes: Any) -> Heartbeat:
    settings: dict[str, Any] = {
        "url": url,
        "fleet": "voice",
        "worker_id": "w\n1",
        "secret": SECRET,
        "public_key": signer.public_key,
        "spacing_min_seconds": 0.01,
        "interval_seconds": 0.02,
        "retry_max_seconds": 0.05,
        "timeout_seconds": 2.0,
    }
    return Heartbeat(Settings(**{**settings, **changes}), worker)


@asynccontextmanager
async def running(heartbeat: Heartbeat) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(heartbeat.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def a_heartbeat_carries_a_token_that_openrtc_verifies(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    await beating(rollbackd.url, signer, FakeWorker()).admit()
    beat = rollbackd.beats[0]
    assert {key: beat[key] for key in ("fleet", "version", "draining", "active_sessions")} == {
        "fleet": "voice",
        "version": "v2",
        "draining": False,
        "active_sessions": 2,
    }
    membership = {key: beat[key] for key in ("token", "version", "worker_id", "timestamp")}
    MembershipVerifier(secrets=["another", SECRET], expected_version="v2").verify(**membership)
    assert not MembershipVerifier(secrets=["another"]).is_valid(**membership)


async def a_worker_denied_from_the_beginning_does_not_start(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    rollbackd.answer = signer.manifest(denied=["v2"], last_good="v1")
    with pytest.raises(VersionDenied, match=r"'v2' is denied.*last good: v1.*not starting"):
        await beating(rollbackd.url, signer, FakeWorker()).admit()


async def a_worker_starts_when_nobody_can_say_that_it_must_not(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    await beating("http://127.0.0.1:1", signer, FakeWorker()).admit()
    await beating(rollbackd.url, signer, FakeWorker()).admit()  # 204
    for status in (401, 403, 500):
        rollbackd.status = status
        await beating(rollbackd.url, signer, FakeWorker()).admit()
    rollbackd.status = 200
    rollbackd.answer = Signer().manifest(denied=["v2"])
    await beating(rollbackd.url, signer, FakeWorker()).admit()


async def a_worker_told_to_drain_does_reports_it_and_leaves_when_empty(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    rollbackd.answer = signer.manifest(serial=1)
    worker = FakeWorker()
    heartbeat = beating(rollbackd.url, signer, worker)
    async with running(heartbeat) as task:
        # Held until the manifest changes.
        await until(lambda: {"wait": "30s", "serial": "1"} in rollbackd.queries)
        assert not worker.draining
        rollbackd.answer = signer.manifest(serial=2, denied=["v2"], draining=["v2"])
        await until(lambda: worker.draining)
        await until(lambda: rollbackd.beats[-1]["draining"])
        beats = len(rollbackd.beats)
        await until(lambda: len(rollbackd.beats) > beats + 3)
        assert heartbeat.told_to_drain
        assert not task.done()
        worker.active_sessions = 0
        await asyncio.wait_for(task, 5)
        assert rollbackd.beats[-1]["active_sessions"] == 0


async def a_denied_worker_serves_on_until_it_is_told_to_drain(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    rollbackd.answer = signer.manifest(serial=1)
    worker = FakeWorker()
    heartbeat = beating(rollbackd.url, signer, worker)
    async with running(heartbeat) as task:
        # The good version cannot carry the load yet.
        rollbackd.answer = signer.manifest(serial=2, denied=["v2"])
        await until(lambda: {"wait": "30s", "serial": "2"} in rollbackd.queries)
        await asyncio.sleep(0.1)
        assert worker.drains == 0
        assert not heartbeat.told_to_drain
        assert not task.done()
        rollbackd.answer = signer.manifest(serial=3, denied=["v2"], draining=["v2"])
        await until(lambda: worker.drains > 0)


async def a_worker_told_to_drain_goes_on_when_rollbackd_has_gone(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    rollbackd.answer = signer.manifest(denied=["v2"], draining=["v2"])
    worker = FakeWorker()
    async with running(beating(rollbackd.url, signer, worker)) as task:
        await until(lambda: worker.draining)
        rollbackd.status = 500
        worker.active_sessions = 0
        await asyncio.wait_for(task, 5)


async def a_worker_that_drains_for_another_reason_is_not_told_to_leave(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    rollbackd.answer = signer.manifest()
    worker = FakeWorker(active_sessions=0)
    async with running(beating(rollbackd.url, signer, worker)) as task:
        await until(lambda: any("wait" in query for query in rollbackd.queries))
        # It does not wait for the held request to end before it says so.
        worker.draining = True
        await until(lambda: rollbackd.beats[-1]["draining"], seconds=2)
        beats = len(rollbackd.beats)
        await until(lambda: len(rollbackd.beats) > beats + 3)
        assert not task.done()
        assert worker.drains == 0


async def an_older_manifest_drains_nobody(
    rollbackd: FakeRollbackd, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    rollbackd.answer = signer.manifest(serial=5)
    worker = FakeWorker()
    heartbeat = beating(rollbackd.url, signer, worker, wait_seconds=0)
    async with running(heartbeat):
        await until(lambda: {"wait": "0s", "serial": "5"} in rollbackd.queries)
        rollbackd.answer = signer.manifest(serial=4, denied=["v2"], draining=["v2"])
        await until(lambda: "older than 5" in caplog.text)
        assert worker.drains == 0
        # And it keeps going: the next good one counts.
        rollbackd.answer = signer.manifest(serial=6, denied=["v2"], draining=["v2"])
        await until(lambda: worker.drains > 0)


async def a_refusal_is_logged_once_a_cause_and_outlived(
    rollbackd: FakeRollbackd, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rollbackd.status = 403
    worker = FakeWorker()
    async with running(beating(rollbackd.url, signer, worker)) as task:
        await until(lambda: len(rollbackd.beats) > 4)
        assert caplog.text.count("refused the heartbeat") == 1
        rollbackd.status = 401
        beats = len(rollbackd.beats)
        await until(lambda: len(rollbackd.beats) > beats + 3)
        assert caplog.text.count("refused the heartbeat") == 2
        rollbackd.status = 200
        rollbackd.answer = signer.manifest()
        await until(lambda: "answers again" in caplog.text)
        assert not task.done()
        assert worker.drains == 0
    assert SECRET not in caplog.text


async def an_unreachable_rollbackd_is_tried_again_and_again(
    signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    worker = FakeWorker()
    async with running(beating("http://127.0.0.1:1", signer, worker)) as task:
        await until(lambda: "serving on" in caplog.text)
        await asyncio.sleep(0.2)
        assert not task.done()
    assert caplog.text.count("cannot be reached") == 1
    assert worker.drains == 0


async def a_rollbackd_that_does_not_hold_requests_is_not_asked_in_a_circle(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    rollbackd.answer = signer.manifest()
    worker = FakeWorker()
    heartbeat = beating(rollbackd.url, signer, worker, wait_seconds=0, spacing_min_seconds=0.2)
    async with running(heartbeat):
        await asyncio.sleep(0.5)
    assert len(rollbackd.beats) <= 7


async def a_drain_is_reported_at_once(rollbackd: FakeRollbackd, signer: Signer) -> None:
    rollbackd.answer = signer.manifest(denied=["v2"], draining=["v2"])
    heartbeat = beating(rollbackd.url, signer, FakeWorker(), interval_seconds=60.0)
    async with running(heartbeat):
        await until(lambda: rollbackd.beats and rollbackd.beats[-1]["draining"], seconds=5)


async def a_worker_leaves_at_once_when_its_last_call_ends(
    rollbackd: FakeRollbackd, signer: Signer
) -> None:
    rollbackd.answer = signer.manifest(denied=["v2"], draining=["v2"])
    worker = FakeWorker()
    heartbeat = beating(rollbackd.url, signer, worker, interval_seconds=60.0)
    async with running(heartbeat) as task:
        await until(lambda: worker.draining)
        worker.active_sessions = 0
        await asyncio.wait_for(task, 5)


async def an_answer_without_an_end_is_not_read(
    rollbackd: FakeRollbackd,
    signer: Signer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rollbackd_openrtc.heartbeat.ANSWER_BYTES_MAX", 100)
    rollbackd.answer = signer.manifest(denied=["v2"])
    await beating(rollbackd.url, signer, FakeWorker()).admit()
    assert "more than 100 bytes" in caplog.text


def the_secret_is_not_in_the_settings_text(signer: Signer) -> None:
    assert SECRET not in repr(Settings("http://x", "voice", "w1", SECRET, signer.public_key))
