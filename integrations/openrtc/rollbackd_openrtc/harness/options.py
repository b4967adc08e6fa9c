"""The harness' command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """One harness worker. `rate` is calls a second, `length` their mean seconds."""

    version: str
    worker_id: str
    fleet: str
    metrics_port: int
    control_port: int
    workers_dir: Path | None
    record: Path | None
    rollbackd_url: str | None
    secret_file: Path | None
    public_key_file: Path | None
    agents: tuple[str, ...]
    tenants: tuple[str, ...]
    rate: float
    length: float
    length_shape: str
    fail_setup: float
    fail_mid: float
    fail_agent: str | None
    fail_tenant: str | None
    failure_limit: int
    linger: float
    seed: int


def names(text: str) -> tuple[str, ...]:
    """Split `a,b` into its names; one at least."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise argparse.ArgumentTypeError("expected names separated by commas")
    return found


def share(text: str) -> float:
    """Read a share between 0 and 1."""
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError("expected a share between 0 and 1")
    return value


def not_negative(text: str) -> float:
    """Read a number of at least 0."""
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("expected a number of at least 0")
    return value


def add_call_options(parser: argparse.ArgumentParser, *, rate: float) -> None:
    """Add what the harness and the dispatcher say of calls in the same words."""
    add = parser.add_argument
    add("--rate", type=not_negative, default=rate, metavar="CALLS", help="calls a second")
    add("--length", type=not_negative, default=5.0, metavar="SECONDS", help="mean call length")
    add("--length-shape", choices=("exponential", "fixed"), default="exponential")
    add("--agents", type=names, default=("booking", "support"), metavar="A,B")
    add("--tenants", type=names, default=("default",), metavar="A,B")
    add("--seed", type=int, default=0)


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line, or exit with what is wrong with it."""
    parser = argparse.ArgumentParser(prog="python -m rollbackd_openrtc.harness")
    add = parser.add_argument
    add("--version-label", dest="version", required=True, help="the worker's deployment_version")
    add("--worker-id", required=True)
    add("--fleet", default="voice")
    add("--metrics-port", type=int, default=0, help="0 chooses one")
    add("--control-port", type=int, default=0, help="0 chooses one")
    add("--workers-dir", type=Path, help="where the ready worker writes WORKER_ID.json")
    add("--record", type=Path, help="where the exact record goes, a JSON object a line")
    add("--rollbackd-url", help="send heartbeats there; needs the two files")
    add("--secret-file", type=Path, help="the membership secret")
    add("--public-key-file", type=Path, help="the manifests' key, in hex")
    add_call_options(parser, rate=0.0)
    add("--fail-setup", type=share, default=0.0, metavar="SHARE", help="fail before they are live")
    add("--fail-mid", type=share, default=0.0, metavar="SHARE", help="fail while they are live")
    add("--fail-agent", help="only calls of this agent fail")
    add("--fail-tenant", help="only calls of this tenant fail")
    add(
        "--failure-limit",
        type=int,
        default=1_000_000,
        help="OpenRTC's consecutive_failure_limit: so many failures cut the worker down",
    )
    add(
        "--linger",
        type=not_negative,
        default=0.0,
        metavar="SECONDS",
        help="stay so long after the last call, for a last scrape",
    )
    found = parser.parse_args(arguments)
    if found.rollbackd_url and not (found.secret_file and found.public_key_file):
        parser.error("--rollbackd-url needs --secret-file and --public-key-file")
    if found.fail_setup + found.fail_mid > 1.0:
        parser.error("--fail-setup and --fail-mid are together more than 1")
    return Options(**vars(found))
