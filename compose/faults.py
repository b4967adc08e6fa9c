"""The switch that makes a version's workers fail calls, or stop failing them."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from pathlib import Path

FAULTS = {
    "bad": {"fail_setup": 0.15, "fail_mid": 0.05},
    "good": {"fail_setup": 0.0, "fail_mid": 0.0},
}


def main() -> int:
    """Turn the switch at every worker of the version that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers-dir", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("state", choices=sorted(FAULTS))
    options = parser.parse_args()
    workers = [json.loads(path.read_text()) for path in options.workers_dir.glob("*.json")]
    workers = [worker for worker in workers if worker["version"] == options.version]
    for worker in workers:
        request = urllib.request.Request(
            worker["control"].rstrip("/") + "/faults",
            data=json.dumps(FAULTS[options.state]).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            print(worker["worker_id"], answer.read().decode())
    if not workers:
        print(f"no worker of {options.version} is there", file=sys.stderr)
    return 0 if workers else 1


if __name__ == "__main__":
    sys.exit(main())
