"""OpenRTC workers under rollbackd.

`run` serves a pool under rollbackd; `PoolWorker` and `Heartbeat` are its two
halves for those who have an event loop of their own.
"""

from rollbackd_openrtc.heartbeat import Heartbeat, Settings, VersionDenied
from rollbackd_openrtc.manifest import Manifest, ManifestReader, ManifestRefused
from rollbackd_openrtc.metrics import PoolMetrics
from rollbackd_openrtc.pool import PoolWorker
from rollbackd_openrtc.worker import EXIT_DENIED, EXIT_DRAINED, run

__all__ = [
    "EXIT_DENIED",
    "EXIT_DRAINED",
    "Heartbeat",
    "Manifest",
    "ManifestReader",
    "ManifestRefused",
    "PoolMetrics",
    "PoolWorker",
    "Settings",
    "VersionDenied",
    "run",
]
