"""Tells rollbackd that a worker lives, and drains the worker once its version has to.

    worker ── POST /api/v1/heartbeat, token ──► rollbackd
           ◄── signed manifest ────────────────

Invariant: nothing but a checked manifest that drains this worker's version ends
its service; one that only denies it does not. rollbackd gone, refusing, or
talking nonsense is logged and outlived.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import aiohttp
from openrtc.core.membership import sign_membership

from rollbackd_openrtc.manifest import Manifest, ManifestReader, ManifestRefused

logger = logging.getLogger("rollbackd_openrtc")

ANSWER_BYTES_MAX = 1 << 20


class Worker(Protocol):
    """What a heartbeat says of a worker, and the one thing it does to it."""

    @property
    def version(self) -> str: ...
    @property
    def draining(self) -> bool: ...
    @property
    def drained(self) -> bool: ...
    @property
    def active_sessions(self) -> int: ...
    def begin_drain(self) -> None: ...


class VersionDenied(RuntimeError):
    """This worker's version is denied before it served; it has to stay away."""


class HeartbeatRefused(RuntimeError):
    """rollbackd answered with a status that is neither 200 nor 204."""

    def __init__(self, status: int, title: str) -> None:
        super().__init__(f"HTTP {status}: {title}" if title else f"HTTP {status}")
        self.cause = f"{status} {title}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where rollbackd is and how this worker proves itself.

    `public_key` is the hex Ed25519 key that manifests must be signed with; while
    it is rotated, the next one follows on a line of its own. A request is held
    for up to `wait_seconds`; a draining worker reports every `interval_seconds`
    instead.
    """

    url: str
    fleet: str
    worker_id: str
    secret: str = field(repr=False)
    public_key: str
    wait_seconds: int = 30
    interval_seconds: float = 2.0
    spacing_min_seconds: float = 1.0
    retry_max_seconds: float = 30.0
    timeout_seconds: float = 10.0


class Heartbeat:
    """One worker's conversation with rollbackd."""

    def __init__(
        self, settings: Settings, worker: Worker, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._clock = clock
        self._reader = ManifestReader(fleet=settings.fleet, public_key=settings.public_key)
        self._complaints: set[str] = set()
        self._answered = False
        self._told_to_drain = False
        self._draining_told = False

    @property
    def told_to_drain(self) -> bool:
        """Whether this worker drains because a manifest said so."""
        return self._told_to_drain

    async def admit(self) -> None:
        """Beat once before the worker serves; raise `VersionDenied` if it must not."""
        async with aiohttp.ClientSession() as http:
            manifest = await self._try_beat(http, hold=False)
        if manifest is not None and manifest.denies(self._worker.version):
            raise VersionDenied(
                f"version {self._worker.version!r} is denied in fleet {manifest.fleet!r}"
                f" (manifest {manifest.serial}, last good: {manifest.last_good or 'none'});"
                " not starting"
            )

    async def run(self) -> None:
        """Beat until the worker's version has to drain and its last session has ended."""
        retry_seconds = self._settings.spacing_min_seconds
        async with aiohttp.ClientSession() as http:
            while not (self._told_to_drain and self._worker.drained):
                serial = self._reader.serial
                manifest = await self._try_beat(http, hold=not self._worker.draining)
                if manifest is not None and manifest.drains(self._worker.version):
                    self._drain(manifest)
                if self._complaints:
                    retry_seconds = min(2 * retry_seconds, self._settings.retry_max_seconds)
                    await self._pause(retry_seconds)
                elif self._worker.draining:
                    retry_seconds = self._settings.spacing_min_seconds
                    if self._draining_told:
                        await self._pause(self._settings.interval_seconds)
                else:
                    retry_seconds = self._settings.spacing_min_seconds
                    # One that does not hold requests must not be asked in a circle.
                    if self._reader.serial == serial:
                        await self._pause(retry_seconds)
            await self._try_beat(http, hold=False)

    def _drain(self, manifest: Manifest) -> None:
        if not self._told_to_drain:
            logger.warning(
                "manifest %d of fleet %s drains version %s: %d sessions to go",
                manifest.serial,
                manifest.fleet,
                self._worker.version,
                self._worker.active_sessions,
            )
        self._told_to_drain = True
        self._worker.begin_drain()

    async def _pause(self, seconds: float) -> None:
        """Wait a jittered while, but not past the moment the worker is free to go."""
        end = time.monotonic() + seconds * random.uniform(0.5, 1.0)
        while time.monotonic() < end and not (self._told_to_drain and self._worker.drained):
            await asyncio.sleep(min(0.2, max(0.0, end - time.monotonic())))

    async def _try_beat(self, http: aiohttp.ClientSession, *, hold: bool) -> Manifest | None:
        try:
            manifest = await self._beat(http, hold=hold)
        except HeartbeatRefused as error:
            self._complain(error.cause, f"rollbackd refused the heartbeat: {error}")
        except ManifestRefused as error:
            self._complain(str(error), f"manifest refused: {error}")
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            text = str(error) or "no answer in time"
            self._complain(type(error).__name__, f"rollbackd cannot be reached, serving on: {text}")
        else:
            if self._complaints:
                logger.info("rollbackd answers again")
            self._complaints.clear()
            return manifest
        return None

    def _complain(self, cause: str, text: str) -> None:
        if cause not in self._complaints:
            logger.error("%s", text)
        self._complaints.add(cause)

    async def _beat(self, http: aiohttp.ClientSession, *, hold: bool) -> Manifest | None:
        body = self._body()
        params = {}
        timeout_seconds = self._settings.timeout_seconds
        # Before the first answer there may be a manifest already: ask without waiting.
        if hold and self._answered:
            serial = self._reader.serial or 0
            params = {"wait": f"{self._settings.wait_seconds}s", "serial": str(serial)}
            timeout_seconds += self._settings.wait_seconds
        request = asyncio.ensure_future(self._post(http, body, params, timeout_seconds))
        try:
            # A held request must not delay the word that a drain has begun.
            while not request.done() and self._worker.draining == body["draining"]:
                await asyncio.wait({request}, timeout=0.2)
            if not request.done():
                return None
            answer = request.result()
        finally:
            request.cancel()
        self._answered = True
        self._draining_told = body["draining"]
        if answer is None:
            return None
        return self._reader.read(answer, now=datetime.fromtimestamp(self._clock(), UTC))

    def _body(self) -> dict[str, Any]:
        timestamp = float(self._clock())
        worker, settings = self._worker, self._settings
        return {
            "fleet": settings.fleet,
            "worker_id": settings.worker_id,
            "version": worker.version,
            "draining": worker.draining,
            "active_sessions": worker.active_sessions,
            "timestamp": timestamp,
            "token": sign_membership(
                version=worker.version,
                worker_id=settings.worker_id,
                timestamp=timestamp,
                secret=settings.secret,
            ),
        }

    async def _post(
        self,
        http: aiohttp.ClientSession,
        body: dict[str, Any],
        params: dict[str, str],
        timeout_seconds: float,
    ) -> object:
        async with http.post(
            f"{self._settings.url.rstrip('/')}/api/v1/heartbeat",
            json=body,
            params=params,
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        ) as response:
            raw = await _read_at_most(response, ANSWER_BYTES_MAX)
            if response.status == 204:
                return None
            if response.status != 200:
                raise HeartbeatRefused(response.status, _title(raw))
            answer: object = json.loads(raw)
            return answer


async def _read_at_most(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        raw += chunk
        if len(raw) > bytes_max:
            raise ValueError(f"an answer of more than {bytes_max} bytes")
    return bytes(raw)


def _title(raw: bytes) -> str:
    """The problem document's title, or its type: what names a cause, and not one instance of it."""
    try:
        problem = json.loads(raw)
    except ValueError:
        return ""
    if not isinstance(problem, dict):
        return ""
    return str(problem.get("title") or problem.get("type") or "")[:200]
