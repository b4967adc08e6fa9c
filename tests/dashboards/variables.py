"""What the dashboards do where there is nothing to show.

A variable for which Prometheus has no data must not make a query that Prometheus refuses: a panel
is empty then, and no error. And the check that the demo makes must notice each of them.

python tests/dashboards/variables.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demo"))

import dashboards  # noqa: E402


class Nothing(dashboards.Asker):
    """A Prometheus that has no data at all, and notes what it is asked."""

    def __init__(self) -> None:
        super().__init__("", 0, 900)
        self.asked: list[str] = []

    def points(self, expr: str, *, instant: bool) -> int:
        """None, of anything."""
        self.asked.append(expr)
        return 0

    def label_values(self, selector: str, label: str) -> list[str]:
        """None, either."""
        self.asked.append(f"count by ({label}) ({selector})")
        return []


def refused(queries: list[str]) -> str:
    """What promtool says against any of them."""
    rules = [{"record": f"query{number}", "expr": query} for number, query in enumerate(queries)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        # JSON is YAML.
        json.dump({"groups": [{"name": "queries", "rules": rules}]}, file)
        file.flush()
        checked = subprocess.run(
            ["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False
        )
    return checked.stderr if checked.returncode else ""


def main() -> int:
    """Check all dashboards."""
    problems, asked = [], 0
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        board, nothing = json.loads(path.read_text()), Nothing()
        told, count = dashboards.empty(board, nothing)
        asked += count
        for variable in board["templating"]["list"]:
            line = f"{board['title']}: variable {variable['name']}"
            if variable["type"] == "query" and line not in told:
                problems.append(f"nobody would notice: {line} has no data")
        silent = len(told) - sum("variable" in line for line in told)
        if silent != len(list(dashboards.questions(board))):
            problems.append(f"{path.name}: {silent} empty queries were noticed")
        said = refused(nothing.asked)
        if said:
            problems.append(f"{path.name}: {said}")
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{asked} queries of the dashboards are good without any data, and would be noticed")
    return 1 if problems or asked < 20 else 0


if __name__ == "__main__":
    sys.exit(main())
