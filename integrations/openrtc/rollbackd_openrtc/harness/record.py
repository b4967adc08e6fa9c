"""The exact record of a harness worker: a JSON object a line, written as it happens.

    worker_started · call_started · call_ended · call_refused · drain_started · worker_exited

Invariant: each line reaches the kernel before the thing goes on, so a SIGKILL
loses none.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Record:
    """Appends lines that all carry the worker's id and version."""

    def __init__(self, path: Path | None, *, worker_id: str, version: str) -> None:
        self._common = {"worker": worker_id, "version": version}
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, event: str, **fields: Any) -> None:
        """Append one line. Times are Unix seconds."""
        if self._file is not None:
            line = {"event": event, "at": time.time(), **self._common, **fields}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
