"""What the play runs on: Prometheus, Alertmanager, rollbackd, workers and traffic, all on loopback.

Invariant: whatever is started here, and whatever that starts in turn, is gone
when the stage is left, however it is left.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import string
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent
PR_SET_CHILD_SUBREAPER = 36


class Failed(Exception):
    """The play cannot go on; the text says why."""


class Stage:
    """One run's directory, ports and processes."""

    def __init__(self, binary: Path, *, observe_for: str, options: list[str]) -> None:
        self.binary = binary
        self.run = HERE.parent / ".demo" / time.strftime("run-%Y%m%d-%H%M%S")
        self.prometheus_port, self.alertmanager_port, self.rollbackd_port = free_ports(3)
        self._observe_for = observe_for
        self._options = options
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._left = threading.Event()
        self._cleanup = ExitStack()

    @property
    def url(self) -> str:
        """rollbackd's address."""
        return f"http://127.0.0.1:{self.rollbackd_port}"

    @property
    def prometheus_url(self) -> str:
        """Prometheus' address."""
        return f"http://127.0.0.1:{self.prometheus_port}"

    def __enter__(self) -> Self:
        # Workers are started by what rollbackd starts; their parent gone, they become ours.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for name in ("workers", "records", "log"):
            (self.run / name).mkdir(parents=True)
        self._write_files()
        self._cleanup.callback(end_descendants)
        targets = threading.Thread(target=self._tell_prometheus_who_is_there)
        self._cleanup.callback(targets.join)
        self._cleanup.callback(self._left.set)
        targets.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()
        if kind is None:
            shutil.rmtree(self.run / "prometheus", ignore_errors=True)

    def _write_files(self) -> None:
        self.call(self.binary, "keygen", "rollbackd.key")
        secret = self.run / "membership.secret"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(32) + "\n")
        facts = {
            "prometheus_port": self.prometheus_port,
            "alertmanager_port": self.alertmanager_port,
            "rollbackd_port": self.rollbackd_port,
            "observe_for": self._observe_for,
            "python": sys.executable,
            "start_worker": HERE / "start-worker",
            "run": self.run,
        }
        for template in (HERE / "config").glob("*.yml"):
            text = string.Template(template.read_text()).substitute(facts)
            (self.run / template.name).write_text(text)
        (self.run / "targets.json").write_text("[]")
        options = [
            *("--rollbackd-url", self.url, "--secret-file", str(secret)),
            *("--public-key-file", str(self.run / "rollbackd.key.pub")),
            # Two scrapes.
            *("--linger", "2"),
        ]
        workers = {"all": {"options": options}, "by_version": {"v2": self._options}}
        (self.run / "workers.json").write_text(json.dumps(workers))

    def _tell_prometheus_who_is_there(self) -> None:
        """What a platform's service discovery does."""
        known: list[dict[str, Any]] | None = None
        while not self._left.wait(0.2):
            groups = [
                {"targets": [worker["metrics"].split("/")[2]], "labels": {}}
                for worker in self.workers()
            ]
            if groups != known:
                new = self.run / "targets.new"
                new.write_text(json.dumps(groups))
                new.replace(self.run / "targets.json")
                known = groups

    def workers(self, version: str | None = None) -> list[dict[str, Any]]:
        """What the workers that are there say of themselves, or those of one version."""
        found = []
        for path in sorted((self.run / "workers").glob("*.json")):
            with suppress(OSError, ValueError):  # It left while we looked.
                worker = json.loads(path.read_text())
                if version in (None, worker["version"]):
                    found.append(worker)
        return found

    def start(self, name: str, *command: str | Path) -> None:
        """Start a process that lasts; its output goes to log/NAME.log, its errors, too."""
        with (self.run / "log" / f"{name}.log").open("w") as log:
            self._processes[name] = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.run,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                # Ctrl-C is for the play, which ends the others in order.
                start_new_session=True,
            )

    def start_services(self) -> None:
        """Start what watches and decides, and wait until it does."""
        prometheus = [
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=prometheus",
        ]
        # Prometheus takes note of new targets every 5 s unless told otherwise, by a hidden flag.
        sooner = "--scrape.discovery-reload-interval=1s"
        if subprocess.run(["prometheus", sooner, "--version"], capture_output=True).returncode == 0:
            prometheus.append(sooner)
        self.start(
            "prometheus", *prometheus, f"--web.listen-address=127.0.0.1:{self.prometheus_port}"
        )
        self.start(
            "alertmanager",
            *("prometheus-alertmanager", "--config.file=alertmanager.yml"),
            *("--storage.path=alertmanager", "--cluster.listen-address="),
            f"--web.listen-address=127.0.0.1:{self.alertmanager_port}",
        )
        for port in (self.prometheus_port, self.alertmanager_port):
            self.wait(
                f"http://127.0.0.1:{port}/-/ready",
                lambda port=port: self.answers(f"http://127.0.0.1:{port}/-/ready"),
            )
        self.call(self.binary, "check", "--config", "rollbackd.yml")
        self.start("rollbackd", self.binary, "run", "--config", "rollbackd.yml")
        self.wait("rollbackd to be ready", lambda: self.answers(f"{self.url}/-/ready"))

    def start_workers(self, version: str, count: int) -> None:
        """Start them the way rollbackd does, and wait until they take calls."""
        script = HERE / "start-worker"
        self.call(sys.executable, script, "--run", self.run, version, str(count))
        self.wait(f"{count} workers of {version}", lambda: len(self.workers(version)) >= count)

    def call(
        self, *command: str | Path, may_fail: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words, cwd=self.run, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0 and not may_fail:
            raise Failed(f"{' '.join(words)}: {(done.stdout + done.stderr).strip()}")
        return done

    def stop(self, name: str, *, seconds: float = 15) -> str:
        """Ask a process to end, wait, and return what it said."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{name} does not end") from error
        return (self.run / "log" / f"{name}.log").read_text()

    def wait(self, what: str, fact: Any, *, seconds: float = 60) -> None:
        """Wait until `fact()` holds while everything started is alive."""
        end = time.monotonic() + seconds
        while not fact():
            self.check()
            if time.monotonic() > end:
                raise Failed(f"waited {seconds:.0f} s in vain for {what}")
            time.sleep(0.1)

    def check(self) -> None:
        """Raise if a process that should last has not."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise Failed(f"{name} ended with {process.returncode}")

    def answers(self, url: str) -> bool:
        """Whether a GET gets a 2xx."""
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except OSError:
            return False

    def get(self, path: str) -> bytes | None:
        """What rollbackd says, or None where it says that there is nothing."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise Failed(f"GET {path}: HTTP {error.code}") from error
        except OSError as error:
            self.check()
            raise Failed(f"GET {path}: {error}") from error

    def log_tail(self, name: str, lines: int = 30) -> str:
        """The end of a log."""
        with suppress(OSError):
            text = (self.run / "log" / f"{name}.log").read_text(errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def descendants(parent: int) -> list[int]:
    """All that came of a process, the oldest first, zombies included."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name is in parentheses and may hold anything.
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [parent]
    for known in found:
        found += [child for child, its_parent in parents.items() if its_parent == known]
    return found[1:]


def end_descendants(patience_seconds: float = 3.0) -> None:
    """End everything that this process started or that came of it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + patience_seconds
        signalled: set[int] = set()
        while remaining := descendants(os.getpid()):
            for pid in set(remaining) - signalled:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                signalled.add(pid)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            if time.monotonic() > end:
                break
            time.sleep(0.05)
