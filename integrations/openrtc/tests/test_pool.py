"""`PoolWorker` against a pool that does only what the test tells it to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit.agents.ipc.job_executor import JobStatus
from openrtc import AgentPool
from openrtc.observability.base_observer import SessionInfo, SessionOutcome, SessionStatus
from prometheus_client import CollectorRegistry

from rollbackd_openrtc.pool import PoolWorker
from tests.conftest import until


class FakeServer:
    def __init__(self, events: list[str]) -> None:
        self.setup_fnc: Callable[[Any], Any] | None = lambda process: events.append("prewarmed")
        self.draining = False
        self.coroutine_pool = SimpleNamespace(processes=[], started=True, on=self._on)
        self.job_closed: Callable[[Any], None] | None = None
        self._job_lifecycle_tasks: set[asyncio.Task[None]] = set()
        self._events = events

    def _on(self, event: str, callback: Callable[[Any], None]) -> None:
        assert event == "process_closed"
        self.job_closed = callback

    async def drain(self, timeout: float | None) -> None:  # noqa: ASYNC109
        assert timeout is None
        self.draining = True
        self._events.append("full")


class FakePool:
    deployment_version: str | None = "v2"
    isolation = "coroutine"

    def __init__(self) -> None:
        self.events: list[str] = []
        self.server = FakeServer(self.events)
        self.draining = False
        self.active = 0
        self.observers: list[Any] = []

    def list_agents(self) -> list[str]:
        return ["booking"]

    def add_observer(self, observer: Any) -> None:
        self.observers.append(observer)

    def runtime_snapshot(self) -> SimpleNamespace:
        return SimpleNamespace(active_sessions=self.active)

    def begin_drain(self) -> None:
        self.draining = True
        self.events.append("closed")

    def set_up(self) -> None:
        assert self.server.setup_fnc is not None
        self.server.setup_fnc(None)


def watched(pool: FakePool) -> tuple[PoolWorker, CollectorRegistry]:
    registry = CollectorRegistry()
    worker = PoolWorker(cast("AgentPool", pool), worker_id="w1", tenants=("a",), registry=registry)
    return worker, registry


async def a_drain_tells_livekit_first_and_launches_what_was_accepted() -> None:
    pool = FakePool()
    worker, _ = watched(pool)
    pool.set_up()
    launched = asyncio.Event()

    async def launch() -> None:
        await launched.wait()
        pool.events.append("launched")

    pool.server._job_lifecycle_tasks.add(asyncio.create_task(launch()))
    # From another thread, as the heartbeat's is.
    await asyncio.to_thread(worker.begin_drain)
    assert worker.draining
    await until(lambda: "full" in pool.events)
    await asyncio.sleep(0.1)
    assert not pool.draining
    launched.set()
    await until(lambda: pool.draining)
    worker.begin_drain()
    await asyncio.sleep(0.05)
    assert pool.events == ["prewarmed", "full", "launched", "closed"]


async def an_accepted_job_that_never_comes_does_not_keep_the_door_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rollbackd_openrtc.pool.ACCEPTED_WAIT_MAX_SECONDS", 0.05)
    pool = FakePool()
    worker, _ = watched(pool)
    pool.set_up()
    stuck: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(60))
    pool.server._job_lifecycle_tasks.add(stuck)
    worker.begin_drain()
    await until(lambda: pool.draining, seconds=5)
    stuck.cancel()


async def a_drain_asked_for_before_the_pool_runs_begins_with_it() -> None:
    pool = FakePool()
    worker, _ = watched(pool)
    worker.begin_drain()
    assert worker.draining
    assert not worker.drained
    pool.set_up()
    await until(lambda: pool.draining)


async def a_job_launched_a_moment_ago_is_an_active_session() -> None:
    pool = FakePool()
    worker, _ = watched(pool)
    pool.draining = True
    assert worker.drained
    pool.server.coroutine_pool.processes.append(object())
    assert (worker.active_sessions, worker.drained) == (1, False)
    pool.server.coroutine_pool.processes.clear()
    pool.active = 2
    assert (worker.active_sessions, worker.drained) == (2, False)


@pytest.mark.parametrize(("started", "failed"), [(True, 0.0), (False, 1.0)])
async def a_session_cancelled_by_the_end_of_its_pool_failed(started: bool, failed: float) -> None:
    pool = FakePool()
    _, registry = watched(pool)
    info = SessionInfo("booking", "room", "job", {}, time.time(), "a", "v2")
    await pool.observers[0].on_session_start(info, None)
    pool.server.coroutine_pool.started = started
    end = SessionOutcome(SessionStatus.CANCELLED, asyncio.CancelledError(), time.time(), 1.0)
    await pool.observers[0].on_session_end(info, end)
    labels = {"deployment_version": "v2", "agent": "booking", "tenant": "a"}
    assert registry.get_sample_value("openrtc_sessions_failed_total", labels) == failed


async def a_job_that_failed_without_a_session_is_counted() -> None:
    pool = FakePool()
    _, registry = watched(pool)
    pool.set_up()
    job = SimpleNamespace(job=SimpleNamespace(id="job"))
    assert pool.server.job_closed is not None
    pool.server.job_closed(SimpleNamespace(running_job=job, status=JobStatus.FAILED))
    labels = {"deployment_version": "v2", "agent": "_unknown", "tenant": "_unknown"}
    assert registry.get_sample_value("openrtc_sessions_failed_total", labels) == 1


def a_pool_without_a_version_or_with_processes_is_not_watched() -> None:
    unversioned, processes = FakePool(), FakePool()
    unversioned.deployment_version = None
    processes.isolation = "process"
    for pool, says in ((unversioned, "deployment_version"), (processes, "coroutine")):
        with pytest.raises(ValueError, match=says):
            watched(pool)
