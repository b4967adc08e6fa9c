"""Sessions of an OpenRTC pool as Prometheus series under a version label.

Invariant: every failed session was also started, so `failed / started` is a
share. What never went live (a failed setup, a job that never became a session)
counts as started and failed at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from openrtc.observability.base_observer import SessionInfo, SessionOutcome, SessionStatus
from openrtc.utils.validation import DEFAULT_TENANT
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, disable_created_metrics

TENANTS_MAX = 500
"""Distinct tenants one worker labels; the ones after that share `OTHER_TENANT`."""

OTHER_TENANT = "_other"
UNKNOWN = "_unknown"
"""Agent and tenant of a job that failed before OpenRTC resolved them."""

_SESSION_LABELS = ("deployment_version", "agent", "tenant")
_WORKER_LABELS = ("deployment_version", "worker_id")


class PoolMetrics:
    """A `SessionObserver` that counts.

    `draining` says whether the worker takes new sessions no more. `closing` says
    whether the worker is being cut down; a session cancelled then is a drop, and
    a drop is a failure. A session cancelled while the worker lives on was ended
    by its caller, and is not.
    """

    def __init__(
        self,
        *,
        version: str,
        worker_id: str,
        agents: Iterable[str],
        tenants: Iterable[str] = (),
        draining: Callable[[], bool],
        closing: Callable[[], bool],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        # `_created` series would turn up as sessions of their own in `{__name__=~"openrtc_.*"}`.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._version = version
        self._closing = closing
        self._live: dict[str, tuple[str, str, str]] = {}
        self._ended: set[str] = set()
        self._started = Counter(
            "openrtc_sessions_started_total",
            "Sessions started, the ones that failed before they were live among them.",
            _SESSION_LABELS,
            registry=registry,
        )
        self._failed = Counter(
            "openrtc_sessions_failed_total",
            "Sessions that failed, or were cut off by the end of their worker.",
            _SESSION_LABELS,
            registry=registry,
        )
        self._active = Gauge(
            "openrtc_active_sessions", "Sessions live now.", _SESSION_LABELS, registry=registry
        )
        info = Gauge("openrtc_worker_info", "1 while alive.", _WORKER_LABELS, registry=registry)
        info.labels(version, worker_id).set(1)
        Gauge(
            "openrtc_worker_draining",
            "1 once the worker takes no new session.",
            _WORKER_LABELS,
            registry=registry,
        ).labels(version, worker_id).set_function(lambda: float(draining()))

        self._agents = tuple(agents)
        self._tenants: set[str] = set()
        for tenant in tuple(tenants) or (DEFAULT_TENANT,):
            self._admit_tenant(tenant)
        self._create(UNKNOWN, UNKNOWN)

    async def on_session_start(self, info: SessionInfo, session: Any) -> None:
        """Count a session that went live."""
        labels = self._labels(info.agent_name, info.tenant)
        self._live[info.job_id] = labels
        self._started.labels(*labels).inc()
        self._active.labels(*labels).inc()

    async def on_session_end(self, info: SessionInfo, outcome: SessionOutcome) -> None:
        """Count how a session ended, and its start too if it never went live."""
        labels = self._live.pop(info.job_id, None)
        self._ended.add(info.job_id)
        if labels is not None:
            self._active.labels(*labels).dec()
        dropped = outcome.status is SessionStatus.CANCELLED and self._closing()
        failed = outcome.status is SessionStatus.FAILED or dropped
        if labels is None:
            labels = self._labels(info.agent_name, info.tenant)
            if failed or outcome.status is SessionStatus.SUCCESS:
                self._started.labels(*labels).inc()
        if failed:
            self._failed.labels(*labels).inc()

    def job_closed(self, job_id: str, *, failed: bool) -> None:
        """Count a job that failed without ever becoming a session.

        OpenRTC tells observers nothing of a job whose routing or session could
        not be built; a version that breaks there would look idle, not broken.
        Comes after `on_session_end` where there was one.
        """
        if job_id in self._ended:
            self._ended.remove(job_id)
        elif failed:
            self._started.labels(self._version, UNKNOWN, UNKNOWN).inc()
            self._failed.labels(self._version, UNKNOWN, UNKNOWN).inc()

    def _labels(self, agent: str, tenant: str) -> tuple[str, str, str]:
        return (self._version, agent, self._admit_tenant(tenant))

    def _admit_tenant(self, tenant: str) -> str:
        if tenant in self._tenants:
            return tenant
        if len(self._tenants) >= TENANTS_MAX:
            tenant = OTHER_TENANT
        self._tenants.add(tenant)
        # For every agent at once: the next agent's first failure starts from 0, too.
        for agent in self._agents:
            self._create(agent, tenant)
        return tenant

    def _create(self, agent: str, tenant: str) -> None:
        for metric in (self._started, self._failed, self._active):
            metric.labels(self._version, agent, tenant)
