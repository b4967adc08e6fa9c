"""Calls played through a real pool: their length, their fate, and the record of both."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

from livekit.agents import AgentSession, get_job_context
from livekit.agents.ipc.job_executor import JobExecutor
from livekit.protocol import models
from openrtc import AgentPool
from openrtc.observability.base_observer import SessionInfo, SessionOutcome, SessionStatus
from openrtc.runtime.coroutine_server import _CoroutineAgentServer

from rollbackd_openrtc.harness.record import Record
from rollbackd_openrtc.pool import PoolWorker

Fate = Literal["none", "setup", "mid"]
FATES: tuple[Fate, ...] = get_args(Fate)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: who it is for, how long it lasts in seconds, and where it fails, if it does."""

    id: str
    agent: str
    tenant: str
    length: float
    fail: Fate


@dataclass(slots=True)
class Faults:
    """The shares of calls that this worker fails, of one agent or tenant only where named."""

    fail_setup: float = 0.0
    fail_mid: float = 0.0
    agent: str | None = None
    tenant: str | None = None

    def draw(self, chance: random.Random, agent: str, tenant: str) -> Fate:
        """Decide a call's fate. One draw a call, so that a seed means the same calls."""
        drawn = chance.random()
        if (self.agent not in (None, agent)) or (self.tenant not in (None, tenant)):
            return "none"
        if drawn < self.fail_setup:
            return "setup"
        return "mid" if drawn < self.fail_setup + self.fail_mid else "none"


def draw_length(chance: random.Random, mean: float, shape: str) -> float:
    """Draw a call's length in seconds."""
    return chance.expovariate(1.0 / mean) if shape == "exponential" and mean > 0 else mean


class CallFailed(RuntimeError):
    """The fault a call was given."""


class CallRefused(RuntimeError):
    """The worker takes no new call."""


class Stage:
    """Plays calls on one pool. Observes the pool, to record how each call ended."""

    def __init__(self, pool: AgentPool, worker: PoolWorker, record: Record) -> None:
        self._pool = pool
        self._worker = worker
        self._record = record
        self._live: dict[str, tuple[Call, float]] = {}
        pool.add_observer(self)
        _let_calls_last()

    @property
    def live(self) -> int:
        """Calls started and not ended."""
        return len(self._live)

    def watch_jobs(self) -> None:
        """Record, too, the calls that end without a session. Once the pool runs."""
        jobs = self._server.coroutine_pool
        if jobs is not None:
            jobs.on("process_closed", self._job_closed)

    async def play(self, call: Call) -> None:
        """Send a call through the pool, or raise `CallRefused`; returns once it has begun."""
        if self._worker.draining:
            self._record.write("call_refused", id=call.id, reason="draining")
            raise CallRefused("draining")
        started_at = time.time()
        self._live[call.id] = (call, started_at)
        metadata = {
            "agent": call.agent,
            "tenant": call.tenant,
            "call": call.id,
            "length": call.length,
            "fail": call.fail,
        }
        room = models.Room(
            sid=f"RM_{call.id}", name=f"{call.agent}-{call.id}", metadata=json.dumps(metadata)
        )
        try:
            await self._server.simulate_job(room.name, fake_job=True, room_info=room)
        except RuntimeError as error:
            del self._live[call.id]
            self._record.write("call_refused", id=call.id, reason=str(error))
            raise CallRefused(str(error)) from error
        # The job is a task that has not run yet, so this line comes before the call's end.
        self._record.write("call_started", **_facts(call, started_at))

    async def hang_up(self, call_id: str) -> bool:
        """End a call as LiveKit does when its room goes; False if it is not live."""
        jobs = self._server.coroutine_pool
        for executor in list(jobs.processes) if jobs is not None else []:
            if _call_id(executor) == call_id:
                await executor.aclose()
                return True
        return False

    async def on_session_start(self, info: SessionInfo, session: Any) -> None:
        """Nothing to record: a call starts when it arrives."""

    async def on_session_end(self, info: SessionInfo, outcome: SessionOutcome) -> None:
        """Record how a session ended."""
        name = outcome.status.value
        if outcome.status is SessionStatus.CANCELLED and self._cut_down:
            name = "dropped"
        self._end(info.metadata.get("call", ""), name)

    def _job_closed(self, executor: JobExecutor) -> None:
        # Known still, so no session ended: it was never built.
        self._end(_call_id(executor), "dropped" if self._cut_down else "failed")

    def _end(self, call_id: str, outcome: str) -> None:
        found = self._live.pop(call_id, None)
        if found is not None:
            call, started_at = found
            self._record.write(
                "call_ended",
                **_facts(call, started_at),
                ended_at=time.time(),
                outcome=outcome,
            )

    @property
    def _cut_down(self) -> bool:
        jobs = self._server.coroutine_pool
        return jobs is None or not jobs.started

    @property
    def _server(self) -> _CoroutineAgentServer:
        server = self._pool.server
        if not isinstance(server, _CoroutineAgentServer):
            raise TypeError("the pool must run with isolation='coroutine'")
        return server


def _facts(call: Call, started_at: float) -> dict[str, Any]:
    return {
        "id": call.id,
        "agent": call.agent,
        "tenant": call.tenant,
        "started_at": started_at,
    }


def _call_id(executor: JobExecutor) -> str:
    job = executor.running_job
    if job is None or not job.job.room.metadata:
        return ""
    return str(json.loads(job.job.room.metadata).get("call", ""))


def _let_calls_last() -> None:
    """Give OpenRTC's sessions a length and a fate.

    A fake job ends when its entrypoint returns, and its last step is the
    greeting: OpenRTC has told the observers by then that the session is live.
    So the call lasts as long as its greeting.
    """

    async def start(self: AgentSession[Any], *args: Any, **kwargs: Any) -> None:
        if _script()["fail"] == "setup":
            raise CallFailed("setup")

    async def generate_reply(self: AgentSession[Any], *args: Any, **kwargs: Any) -> None:
        script = _script()
        if script["fail"] == "mid":
            await asyncio.sleep(script["length"] / 2)
            raise CallFailed("mid")
        await asyncio.sleep(script["length"])

    AgentSession.start = start  # type: ignore[assignment, method-assign]
    AgentSession.generate_reply = generate_reply  # type: ignore[assignment, method-assign]


def _script() -> dict[str, Any]:
    script: dict[str, Any] = json.loads(get_job_context().job.room.metadata)
    return script
