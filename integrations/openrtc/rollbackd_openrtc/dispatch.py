"""`python -m rollbackd_openrtc.dispatch`: sends calls to harness workers, as LiveKit would.

A call goes to a ready worker chosen at random; one that refuses it is not asked
again, the next one is. A call that no worker takes is unserved. Runs for
`--for` seconds, or until SIGTERM; then prints its counts as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from rollbackd_openrtc.harness.options import add_call_options, not_negative

OFFERS_LIVE_MAX = 1_000
"""Calls being offered at one time; the ones beyond are unserved."""


def ready_workers(directory: Path, prefer: str) -> list[dict[str, Any]]:
    """Read the workers that say they are ready; with `newest`, of the version started last."""
    ready = []
    for path in sorted(directory.glob("*.json")):
        try:
            worker = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # It left while we looked.
        if worker.get("state") == "ready":
            ready.append(worker)
    if prefer == "newest" and ready:
        # A version is as old as its first worker: one more worker of the old is not the newest.
        born: dict[str, float] = {}
        for worker in ready:
            version, at = worker["version"], worker["started_at"]
            born[version] = min(at, born.get(version, at))
        newest = max(born, key=lambda version: born[version])
        ready = [worker for worker in ready if worker["version"] == newest]
    return ready


class Dispatcher:
    """Offers calls to the workers in a directory and counts what became of the offers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._chance = random.Random(options.seed)
        self._offers: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter(offered=0, accepted=0, retried=0, unserved=0)
        self.accepted_by_version: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        """Offer calls until `stop`, then wait for the last offers."""
        options = self._options
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            while not stop.is_set():
                pause = self._chance.expovariate(options.rate) if options.rate > 0 else 1.0
                try:
                    await asyncio.wait_for(stop.wait(), pause)
                    break
                except TimeoutError:
                    pass
                if options.rate > 0:
                    self._start_offer(http)
            await asyncio.gather(*self._offers)

    def _start_offer(self, http: aiohttp.ClientSession) -> None:
        options, chance = self._options, self._chance
        self.counts["offered"] += 1
        call = {
            "id": f"{options.call_prefix}{self.counts['offered']}",
            "agent": chance.choice(options.agents),
            "tenant": chance.choice(options.tenants),
            "length": (
                chance.expovariate(1.0 / options.length)
                if options.length_shape == "exponential" and options.length > 0
                else options.length
            ),
        }
        if len(self._offers) >= OFFERS_LIVE_MAX:
            self.counts["unserved"] += 1
            return
        task = asyncio.create_task(self.offer(http, call))
        self._offers.add(task)
        task.add_done_callback(self._offers.discard)

    async def offer(self, http: aiohttp.ClientSession, call: dict[str, Any]) -> None:
        """Offer one call to one worker after another until one takes it."""
        asked: set[str] = set()
        while True:
            workers = [
                worker
                for worker in ready_workers(self._options.workers_dir, self._options.prefer)
                if worker["control"] not in asked
            ]
            if not workers:
                # With `newest`, an older version may still take what the newest refuses.
                workers = [
                    worker
                    for worker in ready_workers(self._options.workers_dir, "any")
                    if worker["control"] not in asked
                ]
            if not workers:
                self.counts["unserved"] += 1
                return
            worker = self._chance.choice(workers)
            asked.add(worker["control"])
            if await self._accepted(http, worker, call):
                self.counts["accepted"] += 1
                self.accepted_by_version[worker["version"]] += 1
                return
            self.counts["retried"] += 1

    async def _accepted(
        self, http: aiohttp.ClientSession, worker: dict[str, Any], call: dict[str, Any]
    ) -> bool:
        try:
            async with http.post(f"{worker['control']}/call", json=call) as response:
                return response.status == 202
        except (aiohttp.ClientError, TimeoutError):
            return False  # Killed without a word; its file still says ready.


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or exit with what is wrong with it."""
    parser = argparse.ArgumentParser(prog="python -m rollbackd_openrtc.dispatch")
    parser.add_argument("--workers-dir", type=Path, required=True)
    parser.add_argument(
        "--prefer", choices=("any", "newest"), default="any", help="newest: a full cutover"
    )
    parser.add_argument(
        "--for", dest="seconds", type=not_negative, default=0.0, help="0: until SIGTERM"
    )
    parser.add_argument("--call-prefix", default="call-", help="what call ids begin with")
    add_call_options(parser, rate=1.0)
    return parser.parse_args(arguments)


async def _main(options: argparse.Namespace) -> Dispatcher:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.seconds:
        loop.call_later(options.seconds, stop.set)
    dispatcher = Dispatcher(options)
    await dispatcher.run(stop)
    return dispatcher


def main() -> int:
    """Dispatch calls; print the counts."""
    dispatcher = asyncio.run(_main(parse()))
    counts = {**dispatcher.counts, "accepted_by_version": dispatcher.accepted_by_version}
    print(json.dumps(counts), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
