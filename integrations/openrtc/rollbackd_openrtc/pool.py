"""An OpenRTC pool as a worker of a fleet: what it serves, and how its door is closed.

`AgentPool.begin_drain()` alone refuses a job only when it is *launched*, after
LiveKit was told that this worker takes it: that call would be lost. So a drain
first tells LiveKit that the worker is full, lets the jobs already accepted
start, and then closes the pool.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any, cast

from livekit.agents import JobProcess
from livekit.agents.ipc.job_executor import JobExecutor, JobStatus
from openrtc import AgentPool
from openrtc.runtime.coroutine_runtime import CoroutinePool
from prometheus_client import REGISTRY, CollectorRegistry

from rollbackd_openrtc.metrics import PoolMetrics

ACCEPTED_WAIT_MAX_SECONDS = 10.0
"""How long jobs may take from accepted to launched; LiveKit gives an assignment 7.5 s."""


class PoolWorker:
    """Watches a pool and drains it. Make it before the pool runs.

    `begin_drain` may be called from any thread; the rest happens on the pool's loop.
    """

    def __init__(
        self,
        pool: AgentPool,
        *,
        worker_id: str,
        tenants: Iterable[str] = (),
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        if pool.deployment_version is None:
            raise ValueError("the pool has no deployment_version")
        if pool.isolation != "coroutine":
            raise ValueError("the pool must run with isolation='coroutine'")
        self._pool = pool
        self._version: str = pool.deployment_version
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._drain_wanted = False
        self._drain: asyncio.Task[None] | None = None
        self._metrics = PoolMetrics(
            version=self._version,
            worker_id=worker_id,
            agents=pool.list_agents(),
            tenants=tenants,
            draining=lambda: self.draining,
            closing=self._closing,
            registry=registry,
        )
        pool.add_observer(self._metrics)
        self._prewarm = pool.server.setup_fnc
        pool.server.setup_fnc = self._set_up

    @property
    def version(self) -> str:
        """The pool's deployment version."""
        return self._version

    @property
    def draining(self) -> bool:
        """Whether new sessions are turned away."""
        return self._drain_wanted or self._pool.draining or self._pool.server.draining

    @property
    def active_sessions(self) -> int:
        """Sessions live, the ones launched a moment ago among them."""
        jobs = self._coroutine_pool()
        launched = len(jobs.processes) if jobs is not None else 0
        return max(launched, self._pool.runtime_snapshot().active_sessions)

    @property
    def drained(self) -> bool:
        """Whether the pool is closed and its last session has ended."""
        return self._pool.draining and self.active_sessions == 0

    def begin_drain(self) -> None:
        """Take no new session; the live ones run to their end. Safe to repeat."""
        with self._lock:
            self._drain_wanted = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._start_drain)

    def _set_up(self, process: JobProcess) -> None:
        """Runs once, on the pool's loop, before the first job."""
        if self._prewarm is not None:
            self._prewarm(process)
        jobs = self._coroutine_pool()
        if jobs is not None:
            jobs.on("process_closed", self._job_closed)
        with self._lock:
            self._loop = asyncio.get_running_loop()
            if self._drain_wanted:
                self._loop.call_soon(self._start_drain)

    def _start_drain(self) -> None:
        if self._drain is None:
            self._drain = asyncio.get_running_loop().create_task(self._close_door())

    async def _close_door(self) -> None:
        server = self._pool.server
        # No deadline of its own: a call that is live is never cut off by a drain.
        told = asyncio.create_task(server.drain(timeout=None))
        while not server.draining and not told.done():
            await asyncio.sleep(0.01)
        accepted: set[asyncio.Task[Any]] = set(getattr(server, "_job_lifecycle_tasks", ()))
        if accepted:
            # Bounded: cut off from LiveKit, its own tasks wait for a connection without end.
            await asyncio.wait(accepted, timeout=ACCEPTED_WAIT_MAX_SECONDS)
        self._pool.begin_drain()
        await told

    def _job_closed(self, executor: JobExecutor) -> None:
        job = executor.running_job
        if job is not None:
            self._metrics.job_closed(job.job.id, failed=executor.status is JobStatus.FAILED)

    def _closing(self) -> bool:
        jobs = self._coroutine_pool()
        return jobs is not None and not jobs.started

    def _coroutine_pool(self) -> CoroutinePool | None:
        return cast("CoroutinePool | None", getattr(self._pool.server, "coroutine_pool", None))
