"""Checks that what docker-compose.yml and its configs speak of is there.

Files, ports, paths in containers, metrics.

python tests/compose.py [ROOT]

No container is run. What cannot be looked up is a problem, too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from prometheus_client import CollectorRegistry

from rollbackd_openrtc.metrics import PoolMetrics

# What the images listen on by themselves.
OWN_PORTS = {"prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
ADDRESS = re.compile(r"(?:https?://)?([a-z0-9.-]+):(\d{2,5})\b")
METRIC = re.compile(r"\b(?:openrtc|rollbackd)_[a-z0-9_]+\b")
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


class Checker:
    """One checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.compose = self.read("docker-compose.yml")
        self.services: dict[str, dict[str, Any]] = self.compose["services"]
        self.dockerfile = (root / "Dockerfile").read_text()

    def read(self, name: str) -> Any:
        """A YAML file."""
        return yaml.safe_load((self.root / name).read_text())

    def mounts(self) -> Iterator[tuple[str, str, str]]:
        """Service, what is mounted, and where."""
        for name, service in self.services.items():
            for volume in service.get("volumes", []):
                source, target = volume.split(":")[:2]
                yield name, source, target

    def files(self) -> Iterator[str]:
        """Sources of mounts, volumes, builds and copies that are not there."""
        for name, source, _ in self.mounts():
            if source.startswith("."):
                if not (self.root / source).exists():
                    yield f"{name}: {source} is not there"
            elif source not in self.compose["volumes"]:
                yield f"{name}: no volume {source}"
        stages = re.findall(r"^FROM \S+ AS (\S+)", self.dockerfile, re.MULTILINE)
        for name, service in self.services.items():
            target = service.get("build", {}).get("target")
            if target is not None and target not in stages:
                yield f"{name}: the Dockerfile has no stage {target}"
        for line in re.findall(r"^COPY (?!--from)(.+)$", self.dockerfile, re.MULTILINE):
            for source in line.split()[:-1]:
                if not (self.root / source).exists():
                    yield f"Dockerfile: {source} is not there"
                ignored = (self.root / ".dockerignore").read_text().splitlines()
                if not any(source.startswith(kept[1:]) for kept in ignored if kept[:1] == "!"):
                    yield f".dockerignore: keeps {source} out"
        shipped = {Path(name).name for name in re.findall(r"compose/\S+", self.dockerfile)}
        for name, service in self.services.items():
            for word in [*service.get("command", []), *service.get("entrypoint", [])]:
                if word.startswith("/opt/compose/") and Path(word).name not in shipped:
                    yield f"{name}: {word} is in no image"

    def inside(self, service: str, path: str) -> Path | None:
        """The file here that a path in a container is."""
        for name, source, target in self.mounts():
            if name == service and source.startswith(".") and path.startswith(target):
                return self.root / source / path[len(target) :].lstrip("/")
        return None

    def paths(self) -> Iterator[str]:
        """Files that configs refer to and that no mount brings."""
        prometheus = self.read("compose/prometheus.yml")
        wanted = [("prometheus", f"/etc/prometheus/{each}") for each in prometheus["rule_files"]]
        provider = self.read("compose/grafana/dashboards/rollbackd.yml")["providers"][0]
        dashboards = provider["options"]["path"]
        home = self.services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        wanted += [("grafana", dashboards), ("grafana", home)]
        rollbackd = self.read("compose/rollbackd.yml")
        wanted += [("rollbackd", f"/etc/rollbackd/{each}") for each in rollbackd["rule_files"]]
        for container, path in wanted:
            found = self.inside(container, path)
            if found is None or not found.exists():
                yield f"{container}: {path} is not mounted"
        found = self.inside("grafana", dashboards)
        if found is None or not list(found.glob("*.json")):
            yield f"grafana: no dashboard in {dashboards}"
        for name, service in self.services.items():
            command = " ".join(service.get("command", []))
            for config in re.findall(r"--config\.file=(\S+)", command):
                if self.inside(name, config) is None:
                    yield f"{name}: {config} is not mounted"

    def listening(self) -> set[tuple[str, int]]:
        """Who listens where, by every name that reaches them."""
        ports = set(OWN_PORTS.items())
        rollbackd = urlsplit("//" + self.read("compose/rollbackd.yml")["listen"]).port
        ports.add(("rollbackd", rollbackd or 0))
        for name, port in list(ports):
            shares = self.services[name].get("network_mode", "").removeprefix("service:")
            home = shares or name
            ports.add((home, port))
            if shares:
                ports.discard((name, port))
        return ports

    def ports(self) -> Iterator[str]:
        """Addresses at which nobody listens, in any file."""
        listening = self.listening()
        by_loopback = {port for _, port in listening}
        texts = {path: path.read_text() for path in (self.root / "compose").rglob("*.yml")}
        texts[self.root / "docker-compose.yml"] = (self.root / "docker-compose.yml").read_text()
        texts[self.root / "compose/prepare"] = (self.root / "compose/prepare").read_text()
        for path, text in texts.items():
            for host, port in ADDRESS.findall(text):
                here = host in ("127.0.0.1", "0.0.0.0")
                known = int(port) in by_loopback if here else (host, int(port)) in listening
                if not known and host not in ("prom", "grafana", "python", "rust"):
                    yield f"{path.relative_to(self.root)}: nobody listens at {host}:{port}"
        for name, service in self.services.items():
            for mapping in service.get("ports", []):
                inner = int(mapping.split(":")[-1])
                if (name, inner) not in listening:
                    yield f"{name}: publishes {inner}, where nobody listens"
                if not mapping.startswith("127.0.0.1:"):
                    yield f"{name}: {mapping} is open to other machines"

    def metrics(self) -> Iterator[str]:
        """Metrics that nobody exports."""
        registry = CollectorRegistry()
        PoolMetrics(
            version="v",
            worker_id="w",
            agents=["a"],
            tenants=["t"],
            draining=lambda: False,
            closing=lambda: False,
            registry=registry,
        )
        exported = {
            sample.name.removesuffix("_created")
            for family in registry.collect()
            for sample in family.samples
        }
        exported |= {f"rollbackd_{name}" for name in self.own_metrics()}
        places = [
            *(self.root / "compose").rglob("*.yml"),
            *(self.root / "rules").rglob("*.yml"),
            *(self.root / "dashboards").glob("*.json"),
        ]
        # Not metrics: our own modules and paths.
        others = {"rollbackd_openrtc"}
        for path in places:
            lines = path.read_text().splitlines()
            text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
            for name in sorted(set(METRIC.findall(text)) - others):
                if name not in exported and SUFFIX.sub("", name) not in exported:
                    yield f"{path.relative_to(self.root)}: nobody exports {name}"
        if len(exported) < 15:
            yield f"only {len(exported)} exported metrics found"

    def documented(self) -> Iterator[str]:
        """Metrics of rollbackd's own that docs/metrics.md leaves out, or has too many."""
        page = (self.root / "docs/metrics.md").read_text()
        listed = set(re.findall(r"^\| `rollbackd_(\w+)` \|", page, re.MULTILINE))
        for name in sorted(listed ^ set(self.own_metrics())):
            yield f"docs/metrics.md and src/metrics differ in rollbackd_{name}"
        process = (self.root / "src/metrics/process.rs").read_text()
        own = set(re.findall(r'::new\("(process_\w+)"|gauge\("(process_\w+)"', process))
        names = {name for pair in own for name in pair if name}
        for name in sorted(names ^ set(re.findall(r"^\| `(process_\w+)` \|", page, re.MULTILINE))):
            yield f"docs/metrics.md and src/metrics/process.rs differ in {name}"

    def own_metrics(self) -> list[str]:
        """Names of rollbackd's own metrics, without their prefix."""
        families = (self.root / "src/metrics/families.rs").read_text()
        own = re.findall(r'(?:gauges|counters|histograms?)\(\s*r,\s*"(\w+)"', families)
        return own + re.findall(r'::new\(\s*"(\w+)"', families)

    def habits(self) -> Iterator[str]:
        """Images without a version, services without a health check, secrets in a file."""
        images = [service["image"] for service in self.services.values()]
        images += re.findall(r"^FROM (?!scratch)(\S+)", self.dockerfile, re.MULTILINE)
        for image in images:
            version = image.partition(":")[2]
            if not re.match(r"v?\d+\.\d+\.\d+", version):
                yield f"{image}: not pinned to a version"
        for name, service in self.services.items():
            passing = name in ("prepare", "faults")
            if not passing and "healthcheck" not in service:
                yield f"{name}: no health check"
        for path in [self.root / "docker-compose.yml", *(self.root / "compose").rglob("*")]:
            if path.is_file():
                for line in path.read_text().splitlines():
                    if re.search(
                        r"(?i)(password|secret|token)\w*\s*[:=]\s*['\"]?[A-Za-z0-9+]{12,}", line
                    ):
                        yield f"{path.relative_to(self.root)}: a secret? {line.strip()}"

    def problems(self) -> list[str]:
        """All of them."""
        checks = (self.files, self.paths, self.ports, self.metrics, self.documented, self.habits)
        return [problem for check in checks for problem in check()]


def main() -> int:
    """Check one checkout."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    problems = Checker(root).problems()
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("files, ports, paths and metrics of docker-compose.yml are all there")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
