"""`python -m rollbackd_openrtc.check`: proves from the exact records that a rollback was clean.

Run it while the good workers still serve. Exits with 1 unless
 - no call was dropped: cut off with its worker, cancelled, or left without an end by a dead one;
 - no call started on a bad worker after its drain had;
 - workers are alive, and all of them are of the good version.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Worker:
    """What one worker's record says. `open` are its calls without an end."""

    id: str
    version: str
    control: str | None = None
    drain_started: bool = False
    exited: bool = False
    alive: bool = False
    open: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Facts:
    """What all records say together."""

    outcomes_by_version: dict[str, dict[str, int]] = field(default_factory=dict)
    started_by_version: dict[str, int] = field(default_factory=dict)
    live_by_version: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    started_after_drain: list[str] = field(default_factory=list)
    alive_by_version: dict[str, list[str]] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    refused: int = 0
    unreadable: list[str] = field(default_factory=list)


def judge(
    lines: Iterable[tuple[str, dict[str, Any]]], *, bad: str, alive: Callable[[Worker], bool]
) -> Facts:
    """Fold the records' lines, each with its place, into facts."""
    facts = Facts()
    workers: dict[tuple[str, str], Worker] = {}
    outcomes: dict[str, Counter[str]] = {}
    started: Counter[str] = Counter()
    for place, line in lines:
        try:
            key = (line["worker"], line["version"])
            event = line["event"]
            worker = workers.setdefault(key, Worker(*key))
            match event:
                case "worker_started":
                    # The same id again is a new life; what the old one left open is lost.
                    _close(worker, facts)
                    worker = workers[key] = Worker(*key, control=line["control"])
                case "drain_started":
                    worker.drain_started = True
                case "worker_exited":
                    worker.exited = True
                case "call_refused":
                    facts.refused += 1
                case "call_started":
                    started[worker.version] += 1
                    worker.open.add(line["id"])
                    if worker.drain_started and worker.version == bad:
                        facts.started_after_drain.append(f"{line['id']} on {worker.id}")
                case "call_ended":
                    worker.open.discard(line["id"])
                    outcome = line["outcome"]
                    outcomes.setdefault(worker.version, Counter())[outcome] += 1
                    if outcome in ("dropped", "cancelled"):
                        facts.dropped.append(f"{line['id']} on {worker.id}: {outcome}")
                case _:
                    facts.unreadable.append(f"{place}: unknown event {event!r}")
        except (KeyError, TypeError) as error:
            facts.unreadable.append(f"{place}: {error!r} is missing")

    live: Counter[str] = Counter()
    for worker in workers.values():
        worker.alive = not worker.exited and worker.control is not None and alive(worker)
        if worker.alive:
            facts.alive_by_version.setdefault(worker.version, []).append(worker.id)
            live[worker.version] += len(worker.open)
        else:
            _close(worker, facts)
    facts.outcomes_by_version = {version: dict(counts) for version, counts in outcomes.items()}
    facts.started_by_version = dict(started)
    facts.live_by_version = dict(live)
    return facts


def _close(worker: Worker, facts: Facts) -> None:
    facts.dropped += [f"{call} on {worker.id}: no end" for call in sorted(worker.open)]
    if worker.control is not None and not worker.exited:
        facts.killed.append(f"{worker.id} ({worker.version})")


def problems(facts: Facts, *, bad: str, good: str) -> list[str]:
    """Say what was not clean; empty when all was."""
    found = [f"unreadable: {text}" for text in facts.unreadable]
    if facts.dropped:
        found.append(f"{len(facts.dropped)} calls dropped: {_some(facts.dropped)}")
    if facts.started_after_drain:
        found.append(
            f"{len(facts.started_after_drain)} calls started on {bad} after its drain:"
            f" {_some(facts.started_after_drain)}"
        )
    if not facts.alive_by_version:
        found.append("no worker is alive")
    for version, workers in sorted(facts.alive_by_version.items()):
        if version != good:
            found.append(f"alive on {version}, not {good}: {_some(workers)}")
    return found


def _some(texts: list[str]) -> str:
    shown = ", ".join(texts[:10])
    return shown if len(texts) <= 10 else f"{shown}, … ({len(texts)} in all)"


def read(directory: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield each record's lines. The last one may be cut short where its writer was killed."""
    for path in sorted(directory.glob("*.jsonl")):
        texts = path.read_text(encoding="utf-8").split("\n")
        for number, text in enumerate(texts, start=1):
            if not text:
                continue
            place = f"{path.name}:{number}"
            try:
                line = json.loads(text)
            except ValueError:
                if number == len(texts):
                    continue
                line = None
            yield place, line if isinstance(line, dict) else {}


def answers(worker: Worker) -> bool:
    """Ask the control endpoint: alive is who answers under the worker's id, or is too busy to."""
    try:
        with urllib.request.urlopen(f"{worker.control}/stats", timeout=3) as response:
            stats = json.load(response)
        return bool(stats["worker_id"] == worker.id and stats["version"] == worker.version)
    except TimeoutError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, TimeoutError)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rollbackd_openrtc.check")
    parser.add_argument("--records", type=Path, required=True, metavar="DIR", help="of *.jsonl")
    parser.add_argument("--bad", required=True, metavar="VERSION")
    parser.add_argument("--good", required=True, metavar="VERSION")
    parser.add_argument("--json", action="store_true", help="print the facts as one JSON object")
    options = parser.parse_args(arguments)
    facts = judge(read(options.records), bad=options.bad, alive=answers)
    found = problems(facts, bad=options.bad, good=options.good)
    if options.json:
        print(json.dumps({"clean": not found, "problems": found, **asdict(facts)}))
    else:
        for name, value in asdict(facts).items():
            print(f"{name}: {json.dumps(value)}")
        for text in found:
            print(f"PROBLEM {text}")
        print("clean" if not found else "not clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
