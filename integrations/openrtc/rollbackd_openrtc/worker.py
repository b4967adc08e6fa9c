"""Runs an OpenRTC pool under rollbackd: `run(pool, settings)` in place of `pool.run()`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from typing import NoReturn

from openrtc import AgentPool

from rollbackd_openrtc.heartbeat import Heartbeat, Settings, VersionDenied
from rollbackd_openrtc.pool import PoolWorker

logger = logging.getLogger("rollbackd_openrtc")

EXIT_DRAINED = 75
"""The version was told to drain, and the worker left after its last session."""

LINGER_SECONDS = 20.0
"""A scrape interval of 15 s and some: what the last calls did is scraped before the worker goes."""

EXIT_DENIED = 78
"""The version was denied before the worker served; it did not start."""


def run(
    pool: AgentPool,
    settings: Settings,
    *,
    tenants: Iterable[str] = (),
    linger_seconds: float = LINGER_SECONDS,
) -> NoReturn:
    """Serve until told to stop, or until this version has drained on a manifest's word.

    Exits with 0 after an ordinary end, `EXIT_DRAINED` or `EXIT_DENIED`. Metrics
    go to `prometheus_client`'s default registry; serving them is the caller's.
    After its last call it stays for `linger_seconds`, so that Prometheus sees how
    that call ended: a worker that vanishes with calls on it counts as a failure.
    """
    worker = PoolWorker(pool, worker_id=settings.worker_id, tenants=tenants)
    heartbeat = Heartbeat(settings, worker)
    try:
        asyncio.run(heartbeat.admit())
    except VersionDenied as error:
        logger.error("%s", error)
        print(error, file=sys.stderr)
        sys.exit(EXIT_DENIED)

    left = threading.Event()

    def beat() -> None:
        asyncio.run(heartbeat.run())
        left.set()
        # Empty and closed: the signal the platform would send has nothing left to wait for.
        os.kill(os.getpid(), signal.SIGTERM)

    # Not on the pool's loop: that one is LiveKit's, and does not exist yet.
    threading.Thread(target=beat, name="rollbackd-heartbeat", daemon=True).start()
    try:
        pool.run()
    finally:
        time.sleep(linger_seconds)
        if left.is_set():
            sys.exit(EXIT_DRAINED)
    sys.exit(0)
