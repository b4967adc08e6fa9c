"""The harness' HTTP side: calls and faults come in, facts go out.

POST /call {id?, agent, tenant?, length?, fail?}   202, or 503 while draining
POST /hangup {id}                                  200, or 404
POST /faults {fail_setup?, fail_mid?, agent?, tenant?}
GET  /stats
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from dataclasses import asdict
from typing import Any, cast

from aiohttp import web
from openrtc import AgentPool

from rollbackd_openrtc.harness.calls import (
    FATES,
    Call,
    CallRefused,
    Fate,
    Faults,
    Stage,
    draw_length,
)
from rollbackd_openrtc.harness.options import Options
from rollbackd_openrtc.pool import PoolWorker

LENGTH_MAX_SECONDS = 24 * 3600.0


class Control:
    """One worker's control endpoint, and its own traffic if it has a rate."""

    def __init__(self, options: Options, pool: AgentPool, worker: PoolWorker, stage: Stage) -> None:
        self._options = options
        self._pool = pool
        self._worker = worker
        self._stage = stage
        self._chance = random.Random(f"{options.seed}/{options.worker_id}")
        self._faults = Faults(
            options.fail_setup, options.fail_mid, options.fail_agent, options.fail_tenant
        )

    async def listen(self, port: int) -> tuple[web.AppRunner, str]:
        """Serve on the loopback address; return the runner and the URL."""
        app = web.Application()
        app.add_routes(
            [
                web.post("/call", self._call),
                web.post("/hangup", self._hang_up),
                web.post("/faults", self._set_faults),
                web.get("/stats", self._stats),
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def make_traffic(self) -> None:
        """Play calls at the worker's own rate until it drains."""
        while self._options.rate > 0 and not self._worker.draining:
            await asyncio.sleep(self._chance.expovariate(self._options.rate))
            call = self._complete(
                {
                    "agent": self._chance.choice(self._options.agents),
                    "tenant": self._chance.choice(self._options.tenants),
                }
            )
            try:
                await self._stage.play(call)
            except CallRefused:
                return

    def _complete(self, asked: dict[str, Any]) -> Call:
        """Make a call of what was asked for; raise `ValueError` for what makes none."""
        agent = str(asked.get("agent") or self._options.agents[0])
        tenant = str(asked.get("tenant") or self._options.tenants[0])
        length = asked.get("length")
        if length is None:
            length = draw_length(self._chance, self._options.length, self._options.length_shape)
        fail = asked.get("fail")
        drawn = self._faults.draw(self._chance, agent, tenant)
        if fail is not None and fail not in FATES:
            raise ValueError(f"fail must be one of {', '.join(FATES)}")
        return Call(
            id=str(asked.get("id") or uuid.uuid4().hex),
            agent=agent,
            tenant=tenant,
            length=_bounded("length", length, LENGTH_MAX_SECONDS),
            fail=cast("Fate", fail) if fail not in (None, "none") else drawn,
        )

    async def _call(self, request: web.Request) -> web.Response:
        try:
            call = self._complete(await _object(request))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        try:
            await self._stage.play(call)
        except CallRefused as error:
            return web.json_response({"id": call.id, "refused": str(error)}, status=503)
        return web.json_response({"id": call.id}, status=202)

    async def _hang_up(self, request: web.Request) -> web.Response:
        try:
            asked = await _object(request)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        ended = await self._stage.hang_up(str(asked.get("id")))
        return web.json_response({"ended": ended}, status=200 if ended else 404)

    async def _set_faults(self, request: web.Request) -> web.Response:
        try:
            asked = await _object(request)
            faults = Faults(
                _bounded("fail_setup", asked.get("fail_setup", self._faults.fail_setup), 1.0),
                _bounded("fail_mid", asked.get("fail_mid", self._faults.fail_mid), 1.0),
                asked.get("agent", self._faults.agent),
                asked.get("tenant", self._faults.tenant),
            )
            if faults.fail_setup + faults.fail_mid > 1.0:
                raise ValueError("fail_setup and fail_mid are together more than 1")
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        self._faults = faults
        return web.json_response(asdict(faults))

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "worker_id": self._options.worker_id,
                "version": self._worker.version,
                "draining": self._worker.draining,
                "live": self._stage.live,
                "faults": asdict(self._faults),
                "openrtc": self._pool.runtime_snapshot().to_dict(),
            }
        )


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    return body


def _bounded(name: str, value: object, maximum: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= maximum:
        raise ValueError(f"{name} must be a number between 0 and {maximum:g}")
    return float(value)
