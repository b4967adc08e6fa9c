from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rollbackd_openrtc.check import judge, main, problems, read

Line = dict[str, Any]


def line(event: str, worker: str, version: str, **fields: Any) -> Line:
    return {"event": event, "at": 0.0, "worker": worker, "version": version, **fields}


def started(worker: str, version: str) -> Line:
    return line("worker_started", worker, version, control=f"http://{worker}", pid=1)


def call(event: str, worker: str, version: str, call_id: str, **fields: Any) -> Line:
    return line(event, worker, version, id=call_id, **fields)


def ended(worker: str, version: str, call_id: str, outcome: str = "success") -> Line:
    return call("call_ended", worker, version, call_id, outcome=outcome)


GOOD = [started("g", "v1"), call("call_started", "g", "v1", "1"), ended("g", "v1", "1")]
BAD = [
    started("b", "v2"),
    call("call_started", "b", "v2", "2"),
    line("drain_started", "b", "v2"),
    ended("b", "v2", "2", "failed"),
]
LEFT = [line("worker_exited", "b", "v2", code=75)]


@pytest.mark.parametrize(
    ("name", "lines", "alive", "says"),
    [
        ("clean", [*GOOD, *BAD, *LEFT], {"g"}, None),
        ("a live call on a good worker", [*GOOD, call("call_started", "g", "v1", "9")],
         {"g"}, None),
        ("refused while draining", [*GOOD, *BAD, call("call_refused", "b", "v2", "3"), *LEFT],
         {"g"}, None),
        ("cut off", [*GOOD, *BAD[:3], ended("b", "v2", "2", "dropped"), *LEFT],
         {"g"}, "1 calls dropped"),
        ("cancelled", [*GOOD, ended("g", "v1", "3", "cancelled")], {"g"}, "1 calls dropped"),
        ("killed with a call", [*GOOD, *BAD[:2]], {"g"}, "2 on b: no end"),
        ("exited with a call", [*GOOD, *BAD[:3], *LEFT], {"g"}, "2 on b: no end"),
        ("killed with a call and started again", [*GOOD, *BAD[:2], *BAD[:1], *LEFT],
         {"g"}, "2 on b: no end"),
        ("a call after the drain", [*GOOD, *BAD, call("call_started", "b", "v2", "3"),
                                    ended("b", "v2", "3"), *LEFT],
         {"g"}, "1 calls started on v2 after its drain"),
        ("the bad one lives", [*GOOD, *BAD], {"g", "b"}, "alive on v2, not v1: b"),
        ("nobody lives", [*GOOD, *BAD, *LEFT], set(), "no worker is alive"),
        ("no records", [], set(), "no worker is alive"),
        ("a strange line", [*GOOD, line("what", "g", "v1")], {"g"}, "unknown event"),
        ("a line without its fields", [*GOOD, {"event": "call_started"}], {"g"}, "unreadable"),
    ],
)  # fmt: skip
def a_rollback_is_clean_or_the_record_says_why_not(
    name: str, lines: list[Line], alive: set[str], says: str | None
) -> None:
    facts = judge(
        ((f"r:{number}", entry) for number, entry in enumerate(lines, 1)),
        bad="v2",
        alive=lambda worker: worker.id in alive,
    )
    found = problems(facts, bad="v2", good="v1")
    if says is None:
        assert found == [], name
    else:
        assert len(found) == 1, (name, found)
        assert says in found[0], name


def a_line_cut_short_by_a_kill_is_passed_over_and_one_in_the_middle_is_not(tmp_path: Path) -> None:
    whole = json.dumps(started("w", "v1"))
    (tmp_path / "w.jsonl").write_text(f'{whole}\n{{"eve')
    assert len(list(read(tmp_path))) == 1
    (tmp_path / "w.jsonl").write_text(f'{{"eve\n{whole}\n')
    assert [place for place, entry in read(tmp_path) if not entry] == ["w.jsonl:1"]


def the_command_says_what_it_found_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nobody listens there, so the worker is dead and its call dropped.
    lines = [
        line("worker_started", "w", "v2", control="http://127.0.0.1:1", pid=1),
        call("call_started", "w", "v2", "1"),
    ]
    (tmp_path / "w.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    assert main(["--records", str(tmp_path), "--bad", "v2", "--good", "v1", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["clean"] is False
    assert found["dropped"] == ["1 on w: no end"]
    assert found["killed"] == ["w (v2)"]
