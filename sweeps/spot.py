"""Wait until this spot machine of AWS is to be taken away, then have Ray drain it: its trials go on elsewhere at once.

python sweeps/spot.py        # cluster.yaml starts it on every worker

AWS gives two minutes' notice, which Ray itself does not look for (docs.aws.amazon.com/AWSEC2/latest/UserGuide,
"Spot Instance interruption notices").
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import ray

METADATA = "http://169.254.169.254/latest"
EVERY = 5.0  # seconds, as AWS recommends
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main():
    while not (end := notice()):
        time.sleep(EVERY)
    left = max(0, int((end - datetime.now(UTC)).total_seconds()))
    print(f"This machine is to be taken away in {left} seconds: draining it.", flush=True)
    ray.init(address="auto", log_to_driver=False)
    drain(ray.get_runtime_context().get_node_id(), left)


def notice() -> datetime | None:
    """When the machine will be taken away; None where nothing is known of it, or nobody answers."""
    try:
        token = _ask("api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        told = json.loads(_ask("meta-data/spot/instance-action", "GET", {"X-aws-ec2-metadata-token": token}))
        return datetime.fromisoformat(told["time"])
    except (OSError, ValueError, KeyError):  # 404: no notice
        return None


def _ask(what: str, method: str, headers: dict[str, str]) -> str:
    with NO_PROXY.open(urllib.request.Request(f"{METADATA}/{what}", headers=headers, method=method), timeout=2) as answer:
        return answer.read().decode()


def drain(node: str, seconds: int):
    """Nothing new comes to this node of Ray's, and who is there knows that it ends in so many seconds."""
    command = [Path(sys.executable).with_name("ray"), "drain-node", "--node-id", node, "--reason-message", "spot notice"]
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", str(seconds)]
    subprocess.run([*command, *reason], check=True)


if __name__ == "__main__":
    main()
