"""A worker as its operators write one, started by a test: LiveKit's own command line runs it."""

from __future__ import annotations

import sys

from livekit.agents import Agent
from openrtc import AgentPool
from openrtc.runtime.resources import PrewarmResources

from rollbackd_openrtc import Settings, run

sys.modules["livekit.plugins.turn_detector.multilingual"] = None  # type: ignore[assignment]


def main() -> None:
    """Serve under the rollbackd that the environment of the test names."""
    url, secret, public_key = sys.argv[1:4]
    sys.argv[1:] = ["start"]
    pool = AgentPool(
        agents={"booking": Agent}, deployment_version="v2", enable_introspection=False, port=0
    )
    pool.server._host = "127.0.0.1"
    pool.server.setup_fnc = PrewarmResources(vad=None, turn_detection_factory=None).store
    run(pool, Settings(url, "voice", "w1", secret, public_key, wait_seconds=1), linger_seconds=1)


if __name__ == "__main__":
    main()
