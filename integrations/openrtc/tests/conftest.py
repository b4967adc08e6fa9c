"""A rollbackd that says what a test tells it to, and a signer of manifests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rollbackd_openrtc.manifest import canonical_bytes

SECRET = "a secret, and ünïcode"


class Signer:
    """Holds a key and signs manifests with it."""

    def __init__(self, *, leave_out: str | None = None) -> None:
        self._leave_out = leave_out
        self._key = Ed25519PrivateKey.generate()
        self.public_key = self._key.public_key().public_bytes_raw().hex()

    def manifest(self, **changes: Any) -> dict[str, Any]:
        """A signed answer that admits v1; `changes` are signed, too."""
        now = datetime.now(UTC)
        body: dict[str, Any] = {
            "fleet": "voice",
            "serial": 1,
            "admitted": ["v1"],
            "denied": [],
            "draining": [],
            "last_good": None,
            "issued_at": now.isoformat(),
            "expires_at": (now + timedelta(hours=1)).isoformat(),
        }
        body.update(changes)
        if self._leave_out is not None:
            del body[self._leave_out]
        signature = self._key.sign(canonical_bytes(body)).hex()
        return {"manifest": body, "key": self.public_key, "signature": signature}


class FakeRollbackd:
    """Answers heartbeats with `answer`; a held one when the manifest's serial has grown."""

    def __init__(self) -> None:
        self.beats: list[dict[str, Any]] = []
        self.queries: list[dict[str, str]] = []
        self.status = 200
        self.answer: dict[str, Any] | None = None
        self.url = ""

    async def heartbeat(self, request: web.Request) -> web.Response:
        self.beats.append(await request.json())
        self.queries.append(dict(request.query))
        if "wait" in request.query:
            wait = float(request.query["wait"].removesuffix("s"))
            end = asyncio.get_running_loop().time() + wait
            while self._serial() <= int(request.query["serial"]) and self.status == 200:
                if asyncio.get_running_loop().time() > end:
                    break
                await asyncio.sleep(0.01)
        if self.status != 200:
            problem = {"title": "membership refused", "detail": f"beat {len(self.beats)}"}
            return web.Response(status=self.status, text=json.dumps(problem))
        if self.answer is None:
            return web.Response(status=204)
        return web.json_response(self.answer)

    def _serial(self) -> int:
        return self.answer["manifest"]["serial"] if self.answer else 0


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest_asyncio.fixture
async def rollbackd() -> AsyncIterator[FakeRollbackd]:
    fake = FakeRollbackd()
    app = web.Application()
    app.add_routes([web.post("/api/v1/heartbeat", fake.heartbeat)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


async def until(fact: Callable[[], object], *, seconds: float = 15.0) -> None:
    """Wait until `fact` holds, or fail."""
    async with asyncio.timeout(seconds):
        while not fact():
            await asyncio.sleep(0.01)
