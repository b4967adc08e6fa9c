"""Tells what rollbackd does while it does it: evidence, decision, steps and calls, from its API."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from datetime import datetime
from typing import Any

from stage import Stage

BAR_CELLS = 24
LIVE_EVERY_SECONDS = 2.0
HEALTHY_EVERY_SECONDS = 6.0
SUSPECT_LOG10 = 1.0

COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

STEPS = {
    "rollback.gated": ("gated", "no worker of {bad} may start any more; the running ones serve on"),
    "rollback.starting": ("starting", "{good} cannot carry the calls yet: asking for workers"),
    "rollback.capable": ("capable", "{good} is seen alive and takes calls"),
    "deployment.drain_started": ("draining", "{bad} takes no new call; its live ones go on"),
    "deployment.rolled_back": ("recorded", "the ledger holds the rollback from {bad} to {good}"),
    "rollback.confirming": ("confirming", "waiting for the last call on {bad} to end"),
    "rollback.clean": ("clean", "{bad} is gone, and so are its calls"),
    "rollback.stuck": ("stuck", "waiting, and people are told"),
}


class Voice:
    """Writes lines with the time since the curtain rose; colour only where someone looks."""

    def __init__(self) -> None:
        self._began = time.time()
        self._coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def paint(self, text: str, colour: str) -> str:
        """Colour a text, or leave it."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self._coloured else text

    def say(
        self, word: str, text: str, colour: str | None = None, *, at: float | None = None
    ) -> None:
        """Write one line; `at` is a Unix time."""
        seconds = (time.time() if at is None else at) - self._began
        head = f"{word:<11}"
        head = self.paint(head, colour) if colour else head
        clock = self.paint(f"{seconds:6.1f} s", "dim")
        print(f"{clock}  {head} {text}", flush=True)

    def heading(self, text: str) -> None:
        """Write a line that stands by itself."""
        print(f"\n{self.paint(text, 'bold')}\n", flush=True)


class Narrator:
    """Looks at rollbackd again and again, and says what is new."""

    def __init__(self, stage: Stage, voice: Voice) -> None:
        self._stage = stage
        self._voice = voice
        self._seq = 0
        self._evidence: tuple[Any, ...] | None = None
        self._evidence_said_at = 0.0
        self._live: dict[str, int] = {}
        self._live_said_at = 0.0
        self._live_most = 1
        self._holding: str | None = None
        self.records: list[dict[str, Any]] = []

    def record(self, event: str, version: str | None = None) -> dict[str, Any] | None:
        """The first such record in the ledger so far."""
        for record in self.records:
            if record["event"] == event and version in (None, record["version"]):
                return record
        return None

    def fleet(self) -> dict[str, Any]:
        """The fleet as rollbackd sees it; empty before it has."""
        body = self._stage.get("/api/v1/fleets/voice")
        return json.loads(body) if body else {}

    def look(self) -> None:
        """Look once."""
        self._stage.check()
        fleet = self.fleet()
        self._tell_evidence(fleet)
        body = self._stage.get(f"/api/v1/ledger?after={self._seq}") or b""
        for line in body.decode().splitlines():
            record = json.loads(line)
            self._seq = record["seq"]
            self.records.append(record)
            self._tell_record(record)
        self._tell_live(fleet)
        holding = fleet.get("holding")
        if holding and holding != self._holding:
            self._voice.say("holding", holding, "yellow")
        self._holding = holding

    def until(self, what: str, fact: Any, *, seconds: float) -> None:
        """Look until `fact()` holds."""

        def looked() -> bool:
            self.look()
            return bool(fact())

        self._stage.wait(what, looked, seconds=seconds)

    def _tell_evidence(self, fleet: dict[str, Any]) -> None:
        for rollout in fleet.get("rollouts", []):
            for verdict in rollout["verdicts"]:
                log10 = strongest(verdict)
                facts = (rollout["candidate"], verdict["started"], verdict["failed"], log10)
                if log10 is None or not verdict["started"] or facts == self._evidence:
                    continue
                quiet = HEALTHY_EVERY_SECONDS if log10 < 0.0 else 0.0
                now = time.monotonic()
                if now < self._evidence_said_at + quiet:
                    continue
                self._evidence, self._evidence_said_at = facts, now
                calls = f"{facts[0]}: {verdict['failed']} of {verdict['started']} failed"
                self._say_evidence(log10, verdict, calls)

    def _say_evidence(self, log10: float, verdict: dict[str, Any], calls: str, **how: Any) -> None:
        threshold = verdict["threshold_log10"]
        colour = "red" if log10 >= threshold else "yellow" if log10 >= SUSPECT_LOG10 else "green"
        bar = self._bar(log10 / threshold, colour)
        text = f"{bar} {odds(log10):>9}, convicts at {odds(threshold)}   {calls}"
        self._voice.say("evidence", text, colour, **how)

    def _tell_record(self, record: dict[str, Any]) -> None:
        event, version = record["event"], record["version"]
        bad, good = record.get("from_version"), version
        at = datetime.fromisoformat(record["timestamp"]).timestamp()
        say = self._voice.say
        if event == "rollout.baseline_adopted":
            say("last good", f"{version} carries the fleet; it is what others are judged by", at=at)
        elif event == "deployment.started":
            say("observing", f"{version} is under observation, judged against {bad}", at=at)
        elif event == "deployment.completed":
            say("promoted", f"{version} is the last good version now", "green", at=at)
        elif event == "rollout.decided":
            for rule in record["rules"]:
                if (log10 := strongest(rule)) is not None:
                    self._say_evidence(log10, rule, "", at=at)
        elif event == "rollback.chosen":
            say("DECISION", f"roll back from {bad} to {good}", "red", at=at)
            for line in textwrap.wrap(record.get("reason", ""), width=90):
                say("", line, at=at)
        elif event in STEPS:
            word, text = STEPS[event]
            if event == "deployment.drain_started":
                good = ""
            text = text.format(bad=bad, good=good)
            say(word, text, "green" if word == "clean" else "cyan", at=at)
        elif event == "worker.rejected":
            say("rejected", f"{version}: {record.get('reason', '')}", "yellow", at=at)

    def _tell_live(self, fleet: dict[str, Any]) -> None:
        """Calls by version, once two versions have some or a rollback is under way."""
        live = {each["version"]: round(each["live"]) for each in fleet.get("versions", [])}
        now = time.monotonic()
        several = len(live) > 1 or fleet.get("rollback")
        if not several or live == self._live or now < self._live_said_at + LIVE_EVERY_SECONDS:
            return
        self._live, self._live_said_at = live, now
        self._live_most = max(self._live_most, *live.values())
        parts = [
            f"{version} {self._bar(count / self._live_most, 'cyan', BAR_CELLS // 2)} {count:>3}"
            for version, count in sorted(live.items())
        ]
        self._voice.say("live calls", "   ".join(parts))

    def _bar(self, share: float, colour: str, cells: int = BAR_CELLS) -> str:
        full = round(max(0.0, min(1.0, share)) * cells)
        return self._voice.paint("█" * full, colour) + self._voice.paint(
            "░" * (cells - full), "dim"
        )


def strongest(verdict: dict[str, Any]) -> float | None:
    """log10 of the evidence of whichever test says more, of those that the rule has."""
    found = [verdict.get("baseline_log10"), verdict.get("ceiling_log10")]
    return max([value for value in found if value is not None], default=None)


def odds(log10: float) -> str:
    """Evidence as odds: `2,000 : 1`."""
    if log10 >= 6:
        return f"10^{log10:.0f} : 1"
    return f"{10**log10:,.0f} : 1" if log10 >= 1 else f"{10**log10:.1f} : 1"
