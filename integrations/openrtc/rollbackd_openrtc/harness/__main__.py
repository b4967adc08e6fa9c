"""`python -m rollbackd_openrtc.harness`: one worker, from its start to its last call.

SIGTERM drains it (exit code 0), and so does a manifest that drains its version
(75); one that denies it keeps it from starting (78). On stdout: one JSON object
once it takes calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from livekit.agents import Agent
from openrtc import AgentPool
from openrtc.core.audit import DEPLOYMENT_DRAIN_STARTED, AuditEvent
from openrtc.runtime.coroutine_server import _CoroutineAgentServer
from openrtc.runtime.resources import PrewarmResources
from prometheus_client import CollectorRegistry, start_http_server

from rollbackd_openrtc.harness.calls import Stage
from rollbackd_openrtc.harness.control import Control
from rollbackd_openrtc.harness.options import Options, parse
from rollbackd_openrtc.harness.record import Record
from rollbackd_openrtc.heartbeat import Heartbeat, Settings, VersionDenied
from rollbackd_openrtc.pool import PoolWorker
from rollbackd_openrtc.worker import EXIT_DENIED, EXIT_DRAINED

EXIT_CUT_DOWN = 1

# The pool's server imports it only to register a model that is fetched from a hub. Calls here
# have no turns to detect.
sys.modules["livekit.plugins.turn_detector.multilingual"] = None  # type: ignore[assignment]


class Caller(Agent):
    """An agent of no particular talent."""

    def __init__(self) -> None:
        super().__init__(instructions="")


class Notice:
    """The worker's file in the workers' directory, where dispatchers look."""

    def __init__(self, directory: Path | None, facts: dict[str, Any]) -> None:
        self._path = directory / f"{facts['worker_id']}.json" if directory is not None else None
        self._facts = facts

    def write(self, state: str) -> None:
        """Say `ready` or `draining`; a reader sees the old file or the new one, whole."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps({**self._facts, "state": state}) + "\n")
            new.replace(self._path)

    def remove(self) -> None:
        """Take the file away."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Drains:
    """Hears of the drain through OpenRTC's own audit log."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.notice: Notice | None = None

    def __call__(self, event: AuditEvent) -> None:
        if event.event_type == DEPLOYMENT_DRAIN_STARTED:
            self._record.write("drain_started")
            if self.notice is not None:
                self.notice.write("draining")


def _build_pool(options: Options, drains: _Drains) -> AgentPool:
    pool = AgentPool(
        agents={name: type(name.title(), (Caller,), {}) for name in options.agents},
        deployment_version=options.version,
        audit_sink=drains,
        enable_introspection=False,
        max_concurrent_sessions=10_000,
        consecutive_failure_limit=options.failure_limit,
        memory_warn_mb=0.0,
        port=0,
        default_greeting="-",
    )
    server = pool.server
    server._host = "127.0.0.1"
    # Instead of the prewarm that loads a voice activity model: there is no voice.
    server.setup_fnc = PrewarmResources(vad=None, turn_detection_factory=None).store
    return pool


def _heartbeat(options: Options, worker: PoolWorker) -> Heartbeat | None:
    if not (options.rollbackd_url and options.secret_file and options.public_key_file):
        return None
    settings = Settings(
        url=options.rollbackd_url,
        fleet=options.fleet,
        worker_id=options.worker_id,
        secret=options.secret_file.read_text().strip(),
        public_key=options.public_key_file.read_text(),
    )
    return Heartbeat(settings, worker)


async def _run(options: Options, record: Record) -> tuple[int, str]:
    drains = _Drains(record)
    pool = _build_pool(options, drains)
    registry = CollectorRegistry()
    worker = PoolWorker(
        pool, worker_id=options.worker_id, tenants=options.tenants, registry=registry
    )
    stage = Stage(pool, worker, record)
    control = Control(options, pool, worker, stage)
    heartbeat = _heartbeat(options, worker)
    if heartbeat is not None:
        try:
            await heartbeat.admit()
        except VersionDenied as error:
            print(error, file=sys.stderr)
            return EXIT_DENIED, "denied"

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.begin_drain)
    server = asyncio.create_task(pool.server.run(unregistered=True))
    await _until_started(pool, server)
    stage.watch_jobs()

    metrics, _ = start_http_server(options.metrics_port, "127.0.0.1", registry)
    runner, url = await control.listen(options.control_port)
    facts = {
        "worker_id": options.worker_id,
        "version": options.version,
        "control": url,
        "metrics": f"http://127.0.0.1:{metrics.server_port}/metrics",
        "pid": os.getpid(),
        "started_at": time.time(),
    }
    drains.notice = Notice(options.workers_dir, facts)
    record.write("worker_started", pid=os.getpid(), control=url, metrics=facts["metrics"])
    drains.notice.write("draining" if pool.draining else "ready")
    print(json.dumps(facts), flush=True)

    void = asyncio.create_task(_hear_worker_out(pool))
    beat = asyncio.create_task(heartbeat.run()) if heartbeat is not None else None
    traffic = asyncio.create_task(control.make_traffic())
    try:
        code, reason = await _until_over(worker, heartbeat, server, beat)
        if code != EXIT_CUT_DOWN:
            await asyncio.sleep(options.linger)
        return code, reason
    finally:
        drains.notice.remove()
        for task in (traffic, beat, void):
            if task is not None:
                task.cancel()
        await runner.cleanup()
        with contextlib.suppress(Exception):
            await pool.server.aclose()
        server.cancel()
        metrics.shutdown()


async def _hear_worker_out(pool: AgentPool) -> None:
    """Take what the worker tells LiveKit; after 128 things unheard it would wait for ever."""
    async for _ in pool.server._msg_chan:
        pass


async def _until_started(pool: AgentPool, server: asyncio.Task[None]) -> None:
    agents = pool.server
    if not isinstance(agents, _CoroutineAgentServer):
        raise TypeError("the pool must run with isolation='coroutine'")
    while agents.coroutine_pool is None or not agents.coroutine_pool.started:
        if server.done():
            server.result()
            raise RuntimeError("the worker ended before it started")
        await asyncio.sleep(0.02)


async def _until_over(
    worker: PoolWorker,
    heartbeat: Heartbeat | None,
    server: asyncio.Task[None],
    beat: asyncio.Task[None] | None,
) -> tuple[int, str]:
    while True:
        if beat is not None and beat.done():
            beat.result()
            return EXIT_DRAINED, "told_to_drain"
        if server.done():
            return EXIT_CUT_DOWN, "cut_down"
        if worker.drained and (heartbeat is None or not heartbeat.told_to_drain):
            return 0, "drained"
        await asyncio.sleep(0.05)


def main() -> int:
    """Run one worker; return its exit code."""
    options = parse()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    # Every call that is meant to fail would fill the log with its trace.
    logging.getLogger("openrtc").setLevel(logging.CRITICAL)
    with Record(options.record, worker_id=options.worker_id, version=options.version) as record:
        code, reason = asyncio.run(_run(options, record))
        record.write("worker_exited", code=code, reason=reason)
    return code


if __name__ == "__main__":
    sys.exit(main())
