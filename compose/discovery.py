"""Writes the workers that are there into targets.json, for Prometheus' file discovery.

python discovery.py DIR
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit


def targets(workers: Path) -> list[dict[str, list[str]]]:
    """Where each worker's metrics are."""
    found = []
    for path in sorted(workers.glob("*.json")):
        with suppress(OSError, ValueError):  # It left while we looked.
            found.append({"targets": [urlsplit(json.loads(path.read_text())["metrics"]).netloc]})
    return found


def main() -> None:
    """Write the file again whenever it changes, for ever."""
    directory = Path(sys.argv[1])
    known: list[dict[str, list[str]]] | None = None
    while True:
        now = targets(directory / "workers")
        if now != known:
            new = directory / "targets.new"
            new.write_text(json.dumps(now))
            new.replace(directory / "targets.json")
            known = now
        time.sleep(0.5)


if __name__ == "__main__":
    main()
