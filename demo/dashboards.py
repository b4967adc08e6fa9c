"""Asks a Prometheus every question that the Grafana dashboards ask, as Grafana would.

A panel, an annotation or a variable without an answer is one that people would
find empty.

    python demo/dashboards.py http://127.0.0.1:9090 --from UNIX --to UNIX [FILE…]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).resolve().parent.parent / "dashboards"
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), *(?P<label>\w+)\)")
VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)\}|(?P<bare>\w+))")


class Asker:
    """One Prometheus, and the time that a dashboard shows."""

    def __init__(self, url: str, begin: float, end: float) -> None:
        self._url = url
        self._begin = begin
        self._end = end

    def built_in(self) -> dict[str, str]:
        """The variables that Grafana itself sets."""
        return {"__rate_interval": "15s", "__range": f"{int(self._end - self._begin)}s"}

    def points(self, expr: str, *, instant: bool) -> int:
        """How many points a query has; of an instant one, at any time shown."""
        asked = {"query": expr, "start": self._begin, "end": self._end, "step": 1}
        answer = self._get("query_range", asked)
        series = answer["result"]
        return sum(len(each["values"]) for each in series) if not instant else len(series)

    def label_values(self, selector: str, label: str) -> list[str]:
        """What `label_values(selector, label)` offers."""
        asked = {"match[]": selector, "start": self._begin, "end": self._end}
        answer: list[dict[str, str]] = self._get("series", asked)
        return sorted({series[label] for series in answer if label in series})

    def _get(self, what: str, asked: dict[str, Any]) -> Any:
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            reason = json.load(error).get("error", "")
            raise ValueError(f"{reason} in {asked}") from error


def fill(text: str, values: dict[str, str]) -> str:
    """A query as Grafana sends it. A variable that is not known is an error."""

    def value(found: re.Match[str]) -> str:
        name = found["braced"] or found["bare"]
        if name not in values:
            raise ValueError(f"no variable ${name} in {text}")
        return values[name]

    return VARIABLE.sub(value, text)


def variables(board: dict[str, Any], asker: Asker) -> Iterator[tuple[str, str]]:
    """Each variable's name, and the first value it offers; empty where it offers none."""
    for variable in board["templating"]["list"]:
        match variable["type"]:
            case "query":
                found = LABEL_VALUES.fullmatch(variable["query"]["query"])
                if found is None:
                    raise ValueError(f"{variable['name']}: not label_values(…)")
                values = asker.label_values(found["selector"], found["label"])
                chosen = ".*" if variable["includeAll"] else ""
                yield variable["name"], (chosen or values[0]) if values else ""
            case "textbox":
                yield variable["name"], variable["query"]
            case "datasource":
                yield variable["name"], "prometheus"
            case other:
                raise ValueError(f"{variable['name']}: a variable of type {other}")


def questions(board: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Each query's place, the query, and whether it is for one time only."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']} ({target['refId']})", target["expr"], target["instant"]
    for annotation in board["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"], False


def empty(board: dict[str, Any], asker: Asker) -> tuple[list[str], int]:
    """What would be empty, and how many questions were asked."""
    found, asked, values = [], 0, asker.built_in()
    for name, value in variables(board, asker):
        asked += 1
        values[name] = value
        if not value:
            found.append(f"{board['title']}: variable {name}")
    for place, expr, instant in questions(board):
        asked += 1
        if not asker.points(fill(expr, values), instant=instant):
            found.append(f"{board['title']}: {place}: {fill(expr, values)}")
    return found, asked


def check(url: str, begin: float, end: float, files: list[Path]) -> tuple[list[str], int]:
    """What would be empty in these dashboards, and how many questions were asked."""
    asker = Asker(url, begin, end)
    found, asked = [], 0
    for path in files:
        missing, count = empty(json.loads(path.read_text()), asker)
        found += missing
        asked += count
    return found, asked


def main() -> int:
    """Check, and say what is empty."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--from", dest="begin", type=float, required=True)
    parser.add_argument("--to", dest="end", type=float, required=True)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(DASHBOARDS.glob("*.json")))
    options = parser.parse_args()
    found, asked = check(options.url, options.begin, options.end, options.files)
    for each in found:
        print(f"empty: {each}", file=sys.stderr)
    print(f"{asked - len(found)} of {asked} answered")
    return 1 if found or not asked else 0


if __name__ == "__main__":
    sys.exit(main())
