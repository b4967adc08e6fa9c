"""The play: a version is deployed to a fleet of real OpenRTC workers, and rollbackd watches.

Bad (the default): new calls go to v2, v1 drains as in any blue-green cutover,
and v2 fails calls. rollbackd starts v1 again, drains v2, and drops none.
Good (HEALTHY=1): v2 is promoted. Exits with 0 only if all of that was so.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import dashboards
from narrator import Narrator, Voice
from stage import Failed, Stage

CALLS_A_SECOND = 6
CALL_SECONDS = 6
FAILING = ["--fail-setup", "0.15", "--fail-mid", "0.05"]
BASELINE_SECONDS = 15.0


class Play:
    """One performance."""

    def __init__(self, stage: Stage, voice: Voice, *, healthy: bool) -> None:
        self._stage = stage
        self._say = voice.say
        self._voice = voice
        self._narrator = Narrator(stage, voice)
        self._healthy = healthy
        self._began = time.time()

    def perform(self) -> bool:
        """Play it; return whether all went well."""
        stage, look = self._stage, self._narrator
        stage.start_services()
        self._say("watching", f"Prometheus, Alertmanager and rollbackd are up ({stage.url})")
        self._serve_on_v1()
        self._cut_over_to_v2()
        if self._healthy:
            look.until(
                "v2 to be promoted",
                lambda: look.record("deployment.completed", "v2"),
                seconds=120,
            )
        else:
            look.until("a rollback", lambda: look.record("rollback.chosen"), seconds=60)
            look.until("its end", lambda: look.record("rollback.clean"), seconds=120)
        counts = self._end_traffic()
        return self._sum_up(counts)

    def _serve_on_v1(self) -> None:
        stage, look = self._stage, self._narrator
        stage.start_workers("v1", 2)
        stage.start(
            "dispatch",
            *(sys.executable, "-m", "rollbackd_openrtc.dispatch", "--prefer", "newest"),
            *("--workers-dir", "workers", "--rate", str(CALLS_A_SECOND)),
            *("--length", str(CALL_SECONDS)),
        )
        self._say("serving", f"two v1 workers take {CALLS_A_SECOND} calls a second")
        look.until(
            "v1 to be the last good", lambda: look.fleet().get("last_good") == "v1", seconds=60
        )
        self._say("", "some seconds of calls, for v1 to be known by")
        begin = time.monotonic()
        look.until("v1's calls", lambda: time.monotonic() > begin + BASELINE_SECONDS, seconds=60)

    def _cut_over_to_v2(self) -> None:
        stage = self._stage
        fate = "works" if self._healthy else "fails one call in five, as nobody knows yet"
        self._say("deploying", f"v2, which {fate}", "bold")
        stage.start_workers("v2", 2)
        self._say("cut over", "two v2 workers are ready: every new call goes to them", "bold")
        time.sleep(1)
        for worker in stage.workers("v1"):
            os.kill(worker["pid"], signal.SIGTERM)
        self._say("", "the v1 workers are told to drain: they finish their calls and leave")

    def _end_traffic(self) -> dict[str, Any]:
        counts: dict[str, Any] = json.loads(self._stage.stop("dispatch").splitlines()[-1])
        self._say("hanging up", "no more calls come in; the last ones end")
        end = time.monotonic() + 90
        while any(self._facts()["live_by_version"].values()):
            self._stage.check()
            if time.monotonic() > end:
                raise Failed("the last calls do not end")
            time.sleep(0.5)
        return counts

    @property
    def _good(self) -> str:
        return "v2" if self._healthy else "v1"

    @property
    def _bad(self) -> str:
        return "v1" if self._healthy else "v2"

    def _facts(self) -> dict[str, Any]:
        """What the workers' own exact records prove; nothing here is rollbackd's word."""
        done = self._stage.call(
            *(sys.executable, "-m", "rollbackd_openrtc.check", "--records", "records", "--json"),
            *("--bad", self._bad, "--good", self._good),
            may_fail=True,
        )
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def _sum_up(self, counts: dict[str, Any]) -> bool:
        stage, good, bad = self._stage, self._good, self._bad
        # The workers still serve: who is alive is asked of them.
        facts = self._facts()
        empty, asked = self._look_at_dashboards()
        stage.stop("rollbackd")
        audit = stage.call(
            *(stage.binary, "audit", "verify", "--ledger", "rollbackd.db"),
            *("--key", "rollbackd.key.pub"),
            may_fail=True,
        )
        outcomes = facts["outcomes_by_version"]
        failed = sum(by_outcome.get("failed", 0) for by_outcome in outcomes.values())
        alive = {version: len(workers) for version, workers in facts["alive_by_version"].items()}
        drained_late = facts["started_after_drain"]
        points: list[tuple[bool, str]] = [
            (not facts["dropped"], f"calls dropped: {len(facts['dropped'])}"),
            (not drained_late, f"calls started on {bad} after its drain: {len(drained_late)}"),
            (counts["unserved"] == 0, f"callers turned away: {counts['unserved']}"),
            (list(alive) == [good], f"workers alive: {by_version(alive)}"),
            (not facts["problems"], "the workers' own records: " + clean(facts["problems"])),
            (
                audit.returncode == 0,
                f"the ledger: {(audit.stdout + audit.stderr).partition(', from')[0]}",
            ),
        ]
        if not self._healthy:
            points.append(
                (not empty, f"dashboard queries with data: {asked - len(empty)} of {asked}")
            )
        if self._healthy:
            points.insert(0, (failed == 0, f"calls failed: {failed}"))
        self._voice.heading("In the end")
        for holds, text in points:
            mark = self._voice.paint("✓", "green") if holds else self._voice.paint("✗", "red")
            print(f"  {mark} {text}")
        if not self._healthy:
            for each in empty:
                print(f"      empty: {each}")
        print()
        print(f"    {sum(facts['started_by_version'].values())} calls in all, {failed} failed")
        if not self._healthy:
            self._tell_delay()
        return all(holds for holds, _ in points)

    def _look_at_dashboards(self) -> tuple[list[str], int]:
        """Which panels would be empty, and how many were asked for."""
        files = sorted(dashboards.DASHBOARDS.glob("*.json"))
        return dashboards.check(self._stage.prometheus_url, self._began, time.time(), files)

    def _tell_delay(self) -> None:
        chosen = self._narrator.record("rollback.chosen")
        clean = self._narrator.record("rollback.clean")
        first = first_failure(self._stage.run / "records", "v2")
        if chosen and clean and first:
            decided, cleaned = unix_time(chosen), unix_time(clean)
            print(f"    from the first failed call to the decision: {decided - first:.1f} s")
            print(f"    from there until v2 was gone and seen to be: {cleaned - decided:.1f} s")


def first_failure(records: Path, version: str) -> float | None:
    """When the first call of a version failed."""
    lines = [
        json.loads(text)
        for path in records.glob(f"{version}-*.jsonl")
        for text in path.read_text().splitlines()
    ]
    return min(
        (line["ended_at"] for line in lines if line.get("outcome") == "failed"), default=None
    )


def unix_time(record: dict[str, Any]) -> float:
    """When a record was written."""
    return datetime.fromisoformat(record["timestamp"]).timestamp()


def by_version(counts: dict[str, int]) -> str:
    """Counts as `v1 2, v2 1`."""
    return ", ".join(f"{version} {count}" for version, count in sorted(counts.items())) or "none"


def clean(problems: list[str]) -> str:
    """Problems, or that there are none."""
    return "; ".join(problems) or "clean"


def interrupted(*_: object) -> None:
    """Leave as on Ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Play once; return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    healthy = os.environ.get("HEALTHY", "") not in ("", "0")
    voice = Voice()
    voice.heading(
        "rollbackd: " + ("a good version" if healthy else "a bad version, and the way back")
    )
    stage = Stage(
        Path(os.environ["ROLLBACKD_BIN"]).resolve(),
        observe_for="1m" if healthy else "5m",
        options=[] if healthy else FAILING,
    )
    failure: str | None = None
    good = False
    try:
        with stage:
            good = Play(stage, voice, healthy=healthy).perform()
    except Failed as error:
        failure = str(error)
    except KeyboardInterrupt:
        print("\ninterrupted; all is stopped", file=sys.stderr)
        return 130
    if failure is not None:
        print(f"\n{voice.paint('FAILED', 'red')}: {failure}\n\nrollbackd's last words:")
        print(stage.log_tail("rollbackd"))
    where = os.path.relpath(stage.run)
    print(f"\n    everything is kept in {where}: config, ledger, logs, the workers' records\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
