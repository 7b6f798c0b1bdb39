"""The cluster that a sweep works on: whether it lets us in, and which machines it has."""

import logging
import os
import socket
from contextlib import contextmanager
from pathlib import Path

import ray
import yaml
from ray._common.usage.usage_lib import get_cluster_metadata
from ray._private.services import canonicalize_bootstrap_address
from ray._private.state import state  # no public way says which nodes are drained; Ray's own Train asks here too
from ray._private.utils import compute_version_info
from ray._raylet import GcsClient

from trainable.errors import BadInput, number, short

SWEEPS = "sweeps"  # Ray's namespace of their keepers
MEND = "copy ~/.ray/auth_token from its head and set RAY_AUTH_MODE=token"
OTHER = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")  # variables that Ray takes a token from first
# Ray gives a node 30 seconds to start, not settable, and raises a plain Exception: on a machine at
# eight times its capacity that is not enough, and a second try finds its files in memory.
SLOW = "timed out during startup"
BUSY = "Ray did not start on this machine, three times; end other work on it and try again"
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml").expanduser()  # where `ray up` leaves its configuration on the head


def connect(address: str, **local):
    """Attach this process to the Ray cluster at host:port or `auto`, or start one here (`local`, with what ray.init takes).

    Raises:
        BadInput: no cluster answers there, or it does not let us in; within seconds.
    """
    if address != "local":
        admitted(address)
    for last in (False, False, True):
        try:
            ray.init(address=address, **local, logging_level=logging.ERROR, log_to_driver=False)
            break
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as wrong:
            where = "this machine" if address == "local" else address
            raise BadInput(f"no Ray cluster to work on at {where}: {str(wrong).splitlines()[0]}") from wrong
        except Exception as wrong:
            if SLOW not in str(wrong):
                raise
            if last:
                raise BadInput(f"{BUSY}: {str(wrong).splitlines()[0]}") from wrong
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong is in the record, and said in one line


def admitted(address: str):
    """Raises BadInput, within seconds, unless a Ray cluster answers at host:port (or `auto`: the one that this machine belongs
    to) and lets us in. Ray itself would wait for minutes where nothing answers."""
    found = canonicalize_bootstrap_address("auto") if address == "auto" else address
    if found is None:
        raise BadInput("this machine belongs to no Ray cluster; give HOST:PORT of its head, or no --address")
    host, _, port = found.rpartition(":")
    try:
        where = number(port, int)
        if where is None or not 0 < where < 1 << 16:
            raise ValueError(f"{port!r} is no port")
        socket.create_connection((host, where), timeout=10).close()
    except (OSError, ValueError, OverflowError) as wrong:
        why = wrong if isinstance(wrong, OSError) else "that is no HOST:PORT"
        more = "; a firewall lets in the cluster's own machines alone" if isinstance(wrong, TimeoutError) else ""
        asked = short(repr(found))
        raise BadInput(f"no Ray cluster answers at {asked} ({why}{more}); give HOST:PORT of its head, or auto") from wrong
    path = _token_file()
    if os.environ.get("RAY_AUTH_MODE") == "token" and path and not os.path.exists(path):  # Ray would abort this process
        raise BadInput(f"RAY_AUTH_MODE=token is set, and no token is in {path}; {_mend()}")
    try:
        with _silence():
            about = get_cluster_metadata(GcsClient(address=found))
    except ray.exceptions.AuthenticationError as wrong:
        raise BadInput(f"the Ray cluster at {found} does not let this machine in: {_token()}; {_mend()}") from wrong
    except (ray.exceptions.RayError, RuntimeError, AttributeError) as wrong:
        raise BadInput(f"what answers at {found} is no Ray cluster: {str(wrong).splitlines()[0]}") from wrong
    theirs, ours = (about["ray_version"], about["python_version"]), compute_version_info()
    if theirs != tuple(ours[:2]):
        there, here = (f"Ray {ray_version} and Python {python}" for ray_version, python in (theirs, ours[:2]))
        raise BadInput(f"the cluster at {found} has {there}, this machine {here}; install the same on both")


def _token_file() -> str | None:
    """Where this process has its token from, if from a file."""
    if "RAY_AUTH_TOKEN" in os.environ:
        return None
    return os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")


def _mend() -> str:
    """What would be right."""
    return MEND + "".join(f", and unset {name}" for name in OTHER if name in os.environ)


def _token() -> str:
    """What is wrong with the token of this process."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return "it asks for a token, and RAY_AUTH_MODE=token is not set here"
    return f"its token is not the one in {_token_file() or 'RAY_AUTH_TOKEN'}"


@contextmanager
def _silence():
    """Nothing comes to standard error, not even from Ray's own code in C++, which says in its words what we say in ours."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def machines() -> list[dict]:
    """The resources of every machine of the cluster that is alive and stays."""
    leaving = draining()
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]


def largest_machine() -> dict[str, float]:
    """The resources of a bundle that nothing else of ours fits beside."""
    largest = max(machines(), key=lambda node: (node.get("GPU", 0), node.get("memory", 0), node.get("CPU", 0)))
    return {"CPU": int(largest.get("CPU", 1)), "GPU": int(largest.get("GPU", 0))}


def sweeps_at_work() -> int:
    """How many search or train finalists on this cluster now: each has keepers there, named after its driver's job. The keeper
    of one that has searched may outlive the search."""
    keepers = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True) if actor["namespace"] == SWEEPS]
    return len({name.partition("-")[0] for name in keepers})


def draining() -> frozenset[str]:
    """The ids of the nodes that are to be taken away: a spot machine's notice, or `ray drain-node`."""
    return frozenset(state.get_draining_nodes())


def autoscaled(config: Path) -> list[dict]:
    """The resources of the machines that `ray up` may start, from the configuration that it leaves on the head; none where
    there is no such file, as on any machine but a head."""
    try:
        about = yaml.safe_load(config.read_text())
        kinds = [(kind.get("resources", {}), kind.get("max_workers", 0)) for kind in about["available_node_types"].values()]
        most = int(about.get("max_workers", sum(count for _, count in kinds)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []
    return [resources for resources, count in kinds for _ in range(int(count))][:most]
