"""What the doctor makes of what it finds, and what it finds on hosts with ten faults planted."""

import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
from hosts import missing
from sites import three_hosts

from sweeps import doctor
from sweeps.doctor import Machine, absent, judge
from sweeps.search.examine import PACKAGES, examine

GIB = 2**30
GOOD = {
    "time": 100.0,
    "python": "3.11.7",
    "packages": dict.fromkeys(PACKAGES, "1.0"),
    "code": {"root": "/home/me/sweeps", "digest": "abc"},
    "gpus_of_torch": 1,
    "gpus_of_driver": 1,
    "room": {"/tmp/ray": 50 * GIB, "/home/me": 50 * GIB},
    "shared": 16 * GIB,
    "memory": 32 * GIB,
    "files": 65536,
    "dashboard_open": False,
    "firewall": None,
}
HERE = {**GOOD, "gpus_of_torch": 0, "gpus_of_driver": 0}
MACHINE = Machine("10.0.0.2", {"CPU": 8.0, "GPU": 1.0}, GOOD, sent=99.5, told=100.5)


def findings(machine: Machine = MACHINE, **changed) -> list[str]:
    if changed:
        machine = replace(machine, facts={**GOOD, **changed})
    return [f"{finding.where}: {finding.wrong}; {finding.mend}" for finding in judge([machine], HERE)]


def test_nothing_is_wrong_with_a_good_one():
    assert findings() == []


@pytest.mark.parametrize(
    ("changed", "wrong", "mend"),
    [
        ({"packages": {**GOOD["packages"], "torch": "2.0"}}, "torch is 2.0, here it is 1.0", "requirements.txt"),
        ({"packages": {**GOOD["packages"], "optuna": "absent"}}, "optuna is absent", "requirements.txt"),
        (
            {"code": "ModuleNotFoundError: No module named 'trainable'"},
            "the project cannot be imported (Module",
            "`ray up` again",
        ),
        ({"code": {"root": "/x", "digest": "abd"}}, "/x holds other code than this machine", "`ray up` again"),
        ({"gpus_of_torch": "ImportError: libcudnn"}, "torch cannot be imported (ImportError", "requirements.txt"),
        ({"gpus_of_torch": 0}, "Ray gives out 1 GPU, torch sees 0", "build with CUDA, or start Ray with --num-gpus=0"),
        ({"gpus_of_torch": 0, "gpus_of_driver": 0}, "Ray gives out 1 GPU, torch sees 0", "install its driver"),
        ({"gpus_of_torch": 4, "gpus_of_driver": 4}, "it has 4 GPUs, of which Ray gives out 1", "without --num-gpus"),
        ({"room": {"/tmp/ray": GIB}}, "1.0 GiB are free in /tmp/ray", "10 GiB at least"),
        ({"shared": GIB // 16}, "/dev/shm has 0.1 GiB", "--shm-size"),
        ({"files": 1024}, "a process may hold 1024 files open", "ulimit -n 65536"),
        ({"time": 160.0}, "its clock is 60 seconds fast", "timedatectl"),
        ({"time": 40.0}, "its clock is 60 seconds slow", "timedatectl"),
        ({"dashboard_open": True}, "dashboard, which takes commands, listens to every network", "--dashboard-host=127.0.0.1"),
    ],
)
def test_what_is_wrong(changed, wrong, mend):
    (said,) = findings(**changed)
    assert said.startswith("10.0.0.2: ")
    assert wrong in said
    assert mend in said


def test_a_driver_whose_own_code_cannot_be_imported():
    here = {**HERE, "code": "ImportError: no"}
    (said,) = judge([MACHINE, MACHINE], here)
    assert (said.where, said.wrong) == ("here", "the project cannot be imported (ImportError: no)")


def test_a_cluster_that_does_not_say_whom_it_lets_in(monkeypatch):
    monkeypatch.setattr(doctor, "ANSWER", 0.1)
    monkeypatch.setattr(doctor, "OPEN", "import signal; signal.pause()")
    (said,) = doctor.let_in("127.0.0.1:1")
    assert "whether it lets everyone in" in said.wrong


def test_a_machine_that_does_not_answer():
    (said,) = findings(replace(MACHINE, facts="it has not answered for 60 seconds"))
    assert said.startswith("10.0.0.2: it has not answered for 60 seconds; ")


def test_a_firewall_is_missed_where_no_cloud_has_one(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "BOOTSTRAP", tmp_path / "bootstrap.yaml")
    assert findings(firewall=False) == [], "a private address: a cloud's group is around it"
    doctor.BOOTSTRAP.write_text("provider: {type: local}")
    assert "no firewall keeps others from Ray's ports" in findings(firewall=False)[0]
    assert findings(firewall=True) == []
    doctor.BOOTSTRAP.unlink()
    public = replace(MACHINE, address="8.8.8.8", facts={**GOOD, "firewall": False})
    assert "no firewall" in findings(public)[0]


def test_who_has_not_joined(tmp_path):
    bootstrap = tmp_path / "bootstrap.yaml"
    assert list(absent([MACHINE], bootstrap)) == []
    bootstrap.write_text("provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2, 10.0.0.3]}")
    (finding,) = absent([MACHINE], bootstrap)
    assert finding.where == "10.0.0.3"
    assert "has not joined" in finding.wrong
    bootstrap.write_text("provider: {type: aws}")
    assert list(absent([MACHINE], bootstrap)) == []


def test_this_machine_can_be_examined(tmp_path):
    facts = examine(str(tmp_path))
    assert set(facts) == set(GOOD)
    assert facts["code"]["digest"]
    assert isinstance(facts["gpus_of_torch"], int)
    assert str(tmp_path) in facts["room"]
    assert facts["memory"] > GIB


# On every host, before Ray starts there. The head: no token, its dashboard open to all, no firewall, and a machine that is named
# and not there. The second: another optuna, a clock that is fast, few files, and a GPU that is none. The third: a small disk;
# then other code, and a small /dev/shm.
PLANTED = {
    1: "echo 'provider: {type: local, head_ip: 10.78.0.1, worker_ips: [10.78.0.2, 10.78.0.3, 10.78.0.9]}'"
    " > ~/ray_bootstrap_config.yaml; ray start --head --port=6379 --dashboard-host=0.0.0.0 --node-ip-address=10.78.0.1",
    2: "mkdir -p ~/planted/optuna-0.1.dist-info; printf 'Metadata-Version: 2.1\\nName: optuna\\nVersion: 0.1\\n'"
    " > ~/planted/optuna-0.1.dist-info/METADATA;"
    " printf 'import time\\nright = time.time\\ntime.time = lambda: right() + 600\\n' > ~/planted/sitecustomize.py;"
    " export PYTHONPATH=~/planted:~/sweeps; ulimit -n 2048;"
    " ray start --address=10.78.0.1:6379 --num-gpus=1 --node-ip-address=10.78.0.2",
    3: "mkdir -p /tmp/ray; mount -t tmpfs -o size=5g tmpfs /tmp/ray;"
    " ray start --address=10.78.0.1:6379 --node-ip-address=10.78.0.3;"
    " echo '# changed' >> ~/sweeps/sweeps/choose/combine.py; mount -o remount,size=256m /dev/shm",
}
FOUND = {
    "cluster: it asks nobody for a token": "ray get-auth-token --generate",
    "10.78.0.1: Ray's dashboard, which takes commands, listens to every network": "--dashboard-host=127.0.0.1",
    **{f"10.78.0.{i}: no firewall keeps others from Ray's ports": "own.py close" for i in (1, 2, 3)},
    "10.78.0.9: it is named in the cluster's file and has not joined": "see that it is on and SSH reaches it",
    "10.78.0.2: optuna is 0.1, here it is": "pip install -r requirements.txt",
    "10.78.0.2: its clock is 5": "timedatectl set-ntp true",
    "10.78.0.2: a process may hold 2048 files open": "ulimit -n 65536",
    "10.78.0.2: Ray gives out 1 GPU, torch sees 0": "start Ray with --num-gpus=0",
    "10.78.0.3: ": "make room: 10 GiB at least",
    "10.78.0.3: /root/sweeps holds other code than this machine": "`ray up` again",
    "10.78.0.3: /dev/shm has 0.2 GiB": "remount",
}


@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
@pytest.mark.hosts
def test_planted_faults_are_found():
    with three_hosts() as site:
        for i, command in PLANTED.items():
            home = site.hosts.home(i)
            for room in ("sweeps", "trainable"):
                shutil.copytree(site.project / room, home / "sweeps" / room)
            (home / ".profile").write_text("export PATH=~/sweeps/.venv/bin:$PATH PYTHONPATH=~/sweeps")
            done = site.on(i, command)
            assert done.returncode == 0, done.stdout + done.stderr
        found = site.on(1, "python ~/sweeps/sweeps/doctor.py")
    assert found.returncode == 1, found.stderr
    said = found.stdout.splitlines()
    for wrong, mend in FOUND.items():
        assert any(a.startswith(wrong) and mend in b for a, b in pairwise(said)), (wrong, found.stdout)
    assert said[-1] == f"{len(FOUND)} to mend."
