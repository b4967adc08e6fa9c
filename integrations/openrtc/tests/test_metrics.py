from __future__ import annotations

import time

import pytest
from openrtc.observability.base_observer import SessionInfo, SessionOutcome, SessionStatus
from prometheus_client import CollectorRegistry, generate_latest

from rollbackd_openrtc import metrics as metrics_module
from rollbackd_openrtc.metrics import PoolMetrics


class Bench:
    """Metrics of a pool that is as closing and draining as the test says."""

    def __init__(self, tenants: tuple[str, ...] = ("a", "b")) -> None:
        self.closing = False
        self.draining = False
        self.registry = CollectorRegistry()
        self.metrics = PoolMetrics(
            version="v2",
            worker_id="w1",
            agents=("booking", "support"),
            tenants=tenants,
            draining=lambda: self.draining,
            closing=lambda: self.closing,
            registry=self.registry,
        )

    def value(self, name: str, agent: str = "booking", tenant: str = "a") -> float | None:
        labels = {"deployment_version": "v2", "agent": agent, "tenant": tenant}
        return self.registry.get_sample_value(name, labels)

    def counts(self, agent: str = "booking", tenant: str = "a") -> tuple[float | None, ...]:
        """Started, failed, live."""
        names = (
            "openrtc_sessions_started_total",
            "openrtc_sessions_failed_total",
            "openrtc_active_sessions",
        )
        return tuple(self.value(name, agent, tenant) for name in names)


def info(job: str = "job-1", tenant: str = "a") -> SessionInfo:
    return SessionInfo("booking", "room", job, {}, time.time(), tenant, "v2")


def outcome(status: SessionStatus) -> SessionOutcome:
    return SessionOutcome(status, None, time.time(), 1.0)


def every_agent_and_tenant_starts_at_zero() -> None:
    bench = Bench()
    for agent in ("booking", "support"):
        for tenant in ("a", "b"):
            assert bench.counts(agent, tenant) == (0, 0, 0), (agent, tenant)
    # Without known tenants, OpenRTC's default one.
    assert Bench(tenants=()).counts("support", "default") == (0, 0, 0)


async def a_new_tenant_starts_at_zero_for_every_agent() -> None:
    bench = Bench()
    await bench.metrics.on_session_start(info(tenant="c"), None)
    assert bench.counts("support", "c") == (0, 0, 0)
    assert bench.counts("booking", "c") == (1, 0, 1)


@pytest.mark.parametrize(
    ("name", "status", "live", "closing", "want"),
    [
        ("success", SessionStatus.SUCCESS, True, False, (1, 0, 0)),
        ("failed while live", SessionStatus.FAILED, True, False, (1, 1, 0)),
        ("failed before it was live", SessionStatus.FAILED, False, False, (1, 1, 0)),
        ("cancelled by its caller", SessionStatus.CANCELLED, True, False, (1, 0, 0)),
        ("cut down with its worker", SessionStatus.CANCELLED, True, True, (1, 1, 0)),
        ("cut down before it was live", SessionStatus.CANCELLED, False, True, (1, 1, 0)),
        ("cancelled before it was live", SessionStatus.CANCELLED, False, False, (0, 0, 0)),
        ("success while the worker closes", SessionStatus.SUCCESS, True, True, (1, 0, 0)),
    ],
)
async def an_end_is_counted_once(
    name: str, status: SessionStatus, live: bool, closing: bool, want: tuple[float, ...]
) -> None:
    bench = Bench()
    if live:
        await bench.metrics.on_session_start(info(), None)
        assert bench.counts() == (1, 0, 1), name
    bench.closing = closing
    await bench.metrics.on_session_end(info(), outcome(status))
    # The job's own end comes after its session's, and counts nothing more.
    bench.metrics.job_closed("job-1", failed=status is not SessionStatus.SUCCESS)
    assert bench.counts() == want, name
    assert bench.counts("_unknown", "_unknown") == (0, 0, 0), name


async def a_job_that_never_became_a_session_is_started_and_failed() -> None:
    bench = Bench()
    bench.metrics.job_closed("job-1", failed=True)
    bench.metrics.job_closed("job-2", failed=False)
    assert bench.counts("_unknown", "_unknown") == (1, 1, 0)


def the_worker_says_who_it_is_and_whether_it_drains() -> None:
    bench = Bench()
    labels = {"deployment_version": "v2", "worker_id": "w1"}
    assert bench.registry.get_sample_value("openrtc_worker_info", labels) == 1
    assert bench.registry.get_sample_value("openrtc_worker_draining", labels) == 0
    bench.draining = True
    assert bench.registry.get_sample_value("openrtc_worker_draining", labels) == 1


def no_created_series_is_exported() -> None:
    assert b"_created" not in generate_latest(Bench().registry)


async def an_endless_number_of_tenants_shares_one_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "TENANTS_MAX", 3)
    bench = Bench()
    for number in range(10):
        await bench.metrics.on_session_start(info(f"job-{number}", f"t{number}"), None)
    assert bench.counts(tenant="t0") == (1, 0, 1)
    assert bench.counts(tenant="_other") == (9, 0, 9)
    assert bench.counts(tenant="t5") == (None, None, None)
