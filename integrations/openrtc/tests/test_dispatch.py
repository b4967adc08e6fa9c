from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from rollbackd_openrtc.dispatch import Dispatcher, parse, ready_workers

CALL = {"id": "c1", "agent": "booking", "tenant": "a", "length": 1.0}


def announce(directory: Path, worker_id: str, version: str, at: float, **changes: Any) -> None:
    facts = {
        "worker_id": worker_id,
        "version": version,
        "started_at": at,
        "state": "ready",
        "control": f"http://127.0.0.1:1/{worker_id}",
    }
    (directory / f"{worker_id}.json").write_text(json.dumps({**facts, **changes}))


def ids(directory: Path, prefer: str) -> list[str]:
    return [worker["worker_id"] for worker in ready_workers(directory, prefer)]


def only_ready_workers_are_called(tmp_path: Path) -> None:
    announce(tmp_path, "w1", "v1", 1.0)
    announce(tmp_path, "w2", "v1", 1.0, state="draining")
    (tmp_path / "w3.json").write_text("{")
    assert ids(tmp_path, "any") == ["w1"]


def the_newest_version_is_the_one_whose_first_worker_came_last(tmp_path: Path) -> None:
    announce(tmp_path, "w1", "v1", 1.0)
    announce(tmp_path, "w2", "v2", 2.0)
    announce(tmp_path, "w3", "v1", 3.0)
    assert ids(tmp_path, "newest") == ["w2"]
    assert ids(tmp_path, "any") == ["w1", "w2", "w3"]


@pytest.mark.parametrize("prefer", ["any", "newest"])
async def a_refused_call_goes_to_another_worker(tmp_path: Path, prefer: str) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"refused": "draining"}, status=503)

    async def accept(_: web.Request) -> web.Response:
        return web.json_response({"id": "c1"}, status=202)

    app = web.Application()
    app.add_routes([web.post("/draining/call", refuse), web.post("/good/call", accept)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    # One refuses, one is gone without a word, and the third takes it.
    announce(tmp_path, "w1", "v2", 2.0, control=f"{url}/draining")
    announce(tmp_path, "w2", "v2", 2.0)
    announce(tmp_path, "w3", "v1", 1.0, control=f"{url}/good")
    dispatcher = Dispatcher(parse(["--workers-dir", str(tmp_path), "--prefer", prefer]))
    async with aiohttp.ClientSession() as http:
        for _ in range(8):
            await dispatcher.offer(http, CALL)
        assert dispatcher.accepted_by_version == {"v1": 8}
        assert dispatcher.counts["retried"] > 0
        (tmp_path / "w3.json").unlink()
        await dispatcher.offer(http, CALL)
    assert dispatcher.counts["unserved"] == 1
    await runner.cleanup()
