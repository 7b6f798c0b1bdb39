"""Is this cluster fit for a sweep? Looks at every machine, and says in plain words what is wrong and how to mend it.

python sweeps/doctor.py                              the cluster that this machine belongs to
python sweeps/doctor.py --address 10.0.0.1:6379      another
python sweeps/doctor.py --join 10.0.0.1:6379         before `ray start`: would this machine be let in?
"""

import ipaddress
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
import yaml
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.table import Table

from sweeps.search import examine
from sweeps.search.connect import BOOTSTRAP, admitted, connect, draining
from trainable.errors import Parser, run

ANSWER = 60.0  # seconds that a machine has to answer
ROOM = 10 * 2**30  # bytes that should be free where Ray and the project write
SHARED = 0.2  # of a machine's memory that /dev/shm should have: through it Ray's processes share the data
FILES = 4096  # that a process should be allowed to hold open; Ray holds one a connection
SKEW = 2.0  # seconds that a clock may be wrong by
OPEN = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"


@dataclass(frozen=True)
class Finding:
    where: str  # a machine's address, or the cluster
    wrong: str
    mend: str


@dataclass(frozen=True)
class Machine:
    """A node of the cluster: what Ray offers of it, and what was found there, or why nothing was."""

    address: str
    offers: Mapping[str, float]
    facts: Mapping | str
    sent: float  # by the driver's clock, when it was asked
    told: float  # and when it had answered


def main() -> int:
    p = Parser(prog="doctor.py", description="Is this cluster fit for a sweep? Exit status 1 where something is to be mended.")
    p.add_argument("--address", default=os.environ.get("RAY_ADDRESS") or "auto", help="HOST:PORT of the head")
    p.add_argument("--join", metavar="HOST:PORT", help="only: would this machine be let into that cluster?")
    args = p.parse_args()
    if args.join:
        admitted(args.join)
        print(f"The Ray cluster at {args.join} lets this machine in.")
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=120)
    connect(args.address)
    try:
        head = ray.get_runtime_context().gcs_address
        session = ray._private.worker._global_node.get_session_dir_path()
        machines = look([node for node in ray.nodes() if node["Alive"]], session)
        findings = [*let_in(head), *absent(machines, BOOTSTRAP), *leaving(), *judge(machines, examine.examine(session))]
    finally:
        ray.shutdown()
    console.print(table(machines))
    for finding in findings:
        console.print(f"{finding.where}: {finding.wrong}.\n    {finding.mend}.", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(findings)} to mend." if findings else "Fit for a sweep.")
    return 1 if findings else 0


def look(nodes: Sequence[dict], session: str) -> list[Machine]:
    """Examine every node at once."""
    cloudpickle.register_pickle_by_value(examine)  # a machine may lack the project
    task, asked = ray.remote(num_cpus=0, max_retries=0)(examine.examine), {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[task.options(scheduling_strategy=there).remote(session)] = (node, time.time())
    out, until = [], time.monotonic() + ANSWER
    while asked:
        ready, _ = ray.wait(list(asked), timeout=max(0.0, until - time.monotonic()))
        for answer in ready or list(asked):
            node, sent = asked.pop(answer)
            facts: Mapping | str = f"it has not answered for {ANSWER:.0f} seconds"
            if ready:
                try:
                    facts = ray.get(answer)
                except ray.exceptions.RayError as wrong:
                    facts = f"it could not be examined: {str(wrong).strip().splitlines()[-1]}"
            out.append(Machine(node["NodeManagerAddress"], node["Resources"], facts, sent, time.time()))
    return sorted(out, key=lambda machine: [int(part) if part.isdigit() else part for part in machine.address.split(".")])


def let_in(head: str) -> Iterator[Finding]:
    """Whether the cluster takes whoever comes."""
    alone = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
    asked = [sys.executable, "-c", OPEN, head]
    try:
        env = {**alone, "RAY_AUTH_MODE": "disabled"}
        told = subprocess.run(asked, env=env, capture_output=True, timeout=ANSWER)
    except subprocess.TimeoutExpired:
        busy = f"it has not said within {ANSWER:.0f} seconds whether it lets everyone in"
        yield Finding("cluster", busy, "run this again when less is going on there")
        return
    if told.returncode == 0:
        mend = "ray get-auth-token --generate, copy ~/.ray/auth_token to every machine, start Ray with RAY_AUTH_MODE=token"
        yield Finding("cluster", "it asks nobody for a token: whoever reaches it may run commands on every machine", mend)


def absent(machines: Sequence[Machine], bootstrap: Path) -> Iterator[Finding]:
    """Machines of one's own that the cluster's file names, and that are not there."""
    try:
        provider = yaml.safe_load(bootstrap.read_text())["provider"]
        named = provider["worker_ips"] if provider["type"] == "local" else []
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return
    for address in set(named) - {machine.address for machine in machines}:
        mend = (
            "a machine takes a minute to join after `ray up`; if it does not, "
            "see that it is on and SSH reaches it from the head; /tmp/ray/session_latest/logs/monitor.out says there how "
            "starting went; then `ray up` again, and --resume what was running"
        )
        yield Finding(
            address,
            "it is named in the cluster's file and has not joined (still starting, off, cut off, or without the token)",
            mend,
        )


def leaving() -> Iterator[Finding]:
    nodes = draining()
    for node in ray.nodes():
        if node["Alive"] and node["NodeID"] in nodes:
            yield Finding(
                node["NodeManagerAddress"], "it is being drained: no trial comes to it", "wait for another, or restart Ray"
            )


def judge(machines: Sequence[Machine], here: Mapping) -> Iterator[Finding]:
    """What is wrong with each; `here` is how the driver's own machine is, which the others should be like."""
    if isinstance(here["code"], str):
        wrong = f"the project cannot be imported ({here['code']})"
        yield Finding("here", wrong, "python -c 'import trainable.ray_trial' says more")
    for machine in machines:
        where, facts = machine.address, machine.facts
        if isinstance(facts, str):
            yield Finding(where, facts, "log in and look at /tmp/ray/session_latest/logs; `ray up` starts Ray again")
            continue
        for name, version in facts["packages"].items():
            if version != here["packages"][name]:
                yield Finding(
                    where, f"{name} is {version}, here it is {here['packages'][name]}", "pip install -r requirements.txt"
                )
        if isinstance(facts["code"], str):
            yield Finding(where, f"the project cannot be imported ({facts['code']})", "`ray up` again, which copies it there")
        elif isinstance(here["code"], dict) and facts["code"]["digest"] != here["code"]["digest"]:
            mend = "`ray up` again, which copies it there and restarts Ray"
            yield Finding(where, f"{facts['code']['root']} holds other code than this machine", mend)
        yield from _gpus(machine)
        for folder, free in facts["room"].items():
            if free < ROOM:
                yield Finding(
                    where, f"{free / 2**30:.1f} GiB are free in {folder}", f"make room: {ROOM / 2**30:.0f} GiB at least"
                )
        if facts["shared"] < SHARED * facts["memory"]:
            mend = f"mount -o remount,size={2 * SHARED:.0%} /dev/shm; in a container: --shm-size"
            yield Finding(where, f"/dev/shm has {facts['shared'] / 2**30:.1f} GiB, too little to share the data", mend)
        if facts["files"] < FILES:
            mend = "ulimit -n 65536 before `ray start`"
            yield Finding(where, f"a process may hold {facts['files']} files open, too few for many trials", mend)
        late = min(0.0, facts["time"] - machine.sent) + max(0.0, facts["time"] - machine.told)
        if abs(late) > SKEW:
            mend = "let it follow a time server: timedatectl set-ntp true"
            yield Finding(where, f"its clock is {abs(late):.0f} seconds {'fast' if late > 0 else 'slow'}", mend)
        if facts["dashboard_open"] is True:
            mend = "start the head with --dashboard-host=127.0.0.1, and look at it through `ray dashboard`"
            yield Finding(where, "Ray's dashboard, which takes commands, listens to every network", mend)
        if facts["firewall"] is False and _is_own(machine):
            mend = "python clusters/own.py close clusters/local.yaml"
            yield Finding(where, "no firewall keeps others from Ray's ports", mend)


def _gpus(machine: Machine) -> Iterator[Finding]:
    where, offered = machine.address, machine.offers.get("GPU", 0)
    torch, driver = machine.facts["gpus_of_torch"], machine.facts["gpus_of_driver"]
    if isinstance(torch, str):
        yield Finding(where, f"torch cannot be imported ({torch})", "pip install -r requirements.txt")
    elif offered > torch:
        mend = "install its driver and torch's build with CUDA" if not driver else "install torch's build with CUDA"
        yield Finding(
            where, f"Ray gives out {_gpu_words(offered)}, torch sees {torch}", f"{mend}, or start Ray with --num-gpus={torch}"
        )
    elif max(torch, driver) > offered:
        mend = "start Ray there without --num-gpus" + ("" if torch else ", with torch's build with CUDA")
        yield Finding(where, f"it has {_gpu_words(max(torch, driver))}, of which Ray gives out {offered:g}", mend)


def _gpu_words(count: float) -> str:
    return f"{count:g} GPU{'' if count == 1 else 's'}"


def _is_own(machine: Machine) -> bool:
    """Whether no cloud's security group can be expected around it."""
    return (BOOTSTRAP.exists() and "type: local" in BOOTSTRAP.read_text()) or not ipaddress.ip_address(machine.address).is_private


def table(machines: Sequence[Machine]) -> Table:
    out = Table()
    for name in ("machine", "CPUs", "GPUs", "memory", "free disk", "Python", "torch"):
        out.add_column(name, justify="left" if name == "machine" else "right")
    for machine in machines:
        offers = [f"{machine.offers.get(name, 0):g}" for name in ("CPU", "GPU")]
        if isinstance(machine.facts, str):
            out.add_row(machine.address, *offers, "?", "?", "?", "?")
            continue
        sizes = [f"{size / 2**30:.0f} GiB" for size in (machine.facts["memory"], min(machine.facts["room"].values(), default=0))]
        out.add_row(machine.address, *offers, *sizes, machine.facts["python"], machine.facts["packages"]["torch"])
    return out


if __name__ == "__main__":
    run(main)
