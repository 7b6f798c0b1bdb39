"""Three hosts, the real `ray up` with the real clusters/local.yaml, sweeps submitted from outside, and what befalls machines."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hosts import missing
from running import check_folder, count, wait
from sites import three_hosts

from sweeps.search.record import read, rows

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
    pytest.mark.hosts,
]
RUNGS = 3
# AWS's metadata service on a machine: a token for who asks for one, and a notice once there is one.
METADATA = """
import http.server, pathlib
class Service(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body)
    def do_PUT(self):
        self.answer(b"secret" if self.path == "/latest/api/token" else b"")
    def do_GET(self):
        known = self.headers["X-aws-ec2-metadata-token"] == "secret" and self.path == "/latest/meta-data/spot/instance-action"
        notice = pathlib.Path("/tmp/notice")
        self.answer(notice.read_bytes() if known and notice.exists() else b"")
http.server.HTTPServer(("169.254.169.254", 80), Service).serve_forever()
"""


@pytest.fixture(scope="module")
def site():
    """A cluster that is up."""
    with three_hosts() as site:
        site.up()
        yield site


@pytest.fixture(autouse=True)
def all_there(site):
    site.mend()


def ended(folder: Path) -> bool:
    return (folder / "ensemble.json").exists()


def reported(folder: Path, rungs: int) -> bool:
    return count(folder / "record.db", "rungs") >= rungs


def at_work(site, folder: Path, *hosts: int) -> bool:
    """Whether each of these has two trials that have come to a rung, and are in the middle of their training."""
    if not count(folder / "record.db", "rungs"):
        return False
    of_host = {
        i: {row["number"] for row in read(folder / "record.db")[1] if row["metrics"]["node_ip"] == site.hosts.address(i)}
        for i in hosts
    }
    return all(len(trials) >= 2 for trials in of_host.values())


def sound(folder: Path):
    """In the middle of a sweep: no trial has failed, and none has a rung twice or out of turn."""
    about, told = read(folder / "record.db")
    assert {t["state"] for t in about} <= {"running", "complete"}
    for trial in about:
        rungs = [row["rung"] for row in told if row["number"] == trial["number"]]
        assert rungs == list(range(len(rungs)))


def exact(folder: Path, trials: int) -> list[str]:
    """Every trial is complete, with each rung once; why trials were started again."""
    about, told = read(folder / "record.db")
    assert [(t["number"], t["state"]) for t in about] == [(n, "complete") for n in range(trials)]
    assert sorted((r["number"], r["rung"]) for r in told) == [(n, rung) for n in range(trials) for rung in range(RUNGS)]
    return [row["reason"] for row in rows(folder / "record.db", "restarts")]


def open_ports(host: str) -> list[int]:
    """Of all, those that answer within a second."""

    def answers(port: int) -> bool:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(200) as pool:
        return [port for port, open_ in enumerate(pool.map(answers, range(1, 65536)), 1) if open_]


def test_a_sweep_submitted_from_outside(site):
    folder = site.submit("first", "--trials", "12", "--max-epochs", "8")
    wait(lambda: ended(folder) and (folder / "report.html").exists())
    fetched = site.fetch("first")
    check_folder(fetched)
    assert exact(fetched, 12) == []
    where = {row["metrics"]["node_ip"] for row in read(fetched / "record.db")[1]}
    assert where == {site.hosts.address(i) for i in site.hosts.numbers}, "every machine trains"
    for i in (2, 3):
        there = site.on(i, "ls ~/sweeps ~/sweeps/data").stdout.split()
        assert "trainable" in there
        assert "results" not in there, "no shared folder: a worker has neither results nor other data"


def test_nothing_but_ssh_answers_from_outside(site):
    for i in site.hosts.numbers:
        assert open_ports(site.hosts.address(i)) == [22]
    among = f"python -c \"import socket; socket.create_connection(('{site.hosts.address(1)}', 6379), 5)\""
    assert site.on(2, among).returncode == 0


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        ("RAY_AUTH_MODE=disabled", "it asks for a token, and RAY_AUTH_MODE=token is not set here"),
        ("RAY_AUTH_TOKEN_PATH=/nowhere", "RAY_AUTH_MODE=token is set, and no token is in /nowhere"),
        ("RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef", "its token is not the one in RAY_AUTH_TOKEN"),
    ],
)
def test_who_has_no_token_or_a_wrong_one(site, variables, wrong):
    head = f"{site.hosts.address(1)}:6379"
    for command in (f"sweeps/arch_sweep.py --address {head} --quick", f"sweeps/doctor.py --join {head}"):
        done = site.on(2, f"cd ~/sweeps && {variables} python {command}")
        assert done.returncode == 2
        (said,) = done.stderr.strip().splitlines()
        assert wrong in said
        assert "copy ~/.ray/auth_token from its head and set RAY_AUTH_MODE=token" in said


def test_a_worker_with_a_wrong_token(site):
    """It stays away; both sides say why, and with the right one it comes."""
    token = site.hosts.home(3) / ".ray" / "auth_token"
    right = token.read_text()
    site.hosts.power_off(3)
    wait(lambda: site.alive() == 2)
    token.write_text("0123456789abcdef0123456789abcdef")
    site.hosts.power_on(3)
    said = "cat /tmp/ray/session_latest/logs/monitor.out"
    wait(lambda: "its token is not the one in /root/.ray/auth_token" in site.on(1, said).stdout)
    found = site.on(1, "python ~/sweeps/sweeps/doctor.py")
    assert found.returncode == 1
    assert f"{site.hosts.address(3)}: it is named in the cluster's file and has not joined" in found.stdout
    token.write_text(right)
    site.up()
    found = site.on(1, "python ~/sweeps/sweeps/doctor.py")
    assert (found.returncode, found.stdout.splitlines()[-1]) == (0, "Fit for a sweep.")


def test_two_sweeps_share_a_cluster(site):
    """The second gets its half while the first runs; neither loses anything."""
    first = site.submit("large", "--trials", "18", "--max-epochs", "8")  # long, or its trials make room by ending
    wait(lambda: reported(first, 6))
    second = site.submit("small", "--trials", "4", "--max-epochs", "1")
    wait(lambda: ended(second))
    assert not ended(first)
    assert exact(second, 4) == []
    wait(lambda: ended(first))
    given = exact(first, 18)
    assert given
    assert all(reason.startswith("its place was given to another sweep") for reason in given)


def test_a_spot_notice(site):
    """Its machine is emptied before it goes; the others go on with what it had."""
    folder = site.submit("spot", "--trials", "9", "--max-epochs", "8")
    wait(lambda: at_work(site, folder, 2))
    (site.hosts.home(2) / "metadata.py").write_text(METADATA)
    for service in ("~/metadata.py", "~/sweeps/sweeps/spot.py"):
        site.on(2, "ip addr replace 169.254.169.254/32 dev lo")
        site.on(2, f"setsid nohup python {service} > /tmp/spot.log 2>&1 < /dev/null &")
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1200))  # no haste
    site.on(2, f"""echo '{{"action": "terminate", "time": "{end}"}}' > /tmp/notice""")
    wait(lambda: len(rows(folder / "record.db", "restarts")) == 2)  # it has two places
    site.hosts.power_off(2)
    wait(lambda: ended(folder))
    moved = exact(folder, 9)
    assert len(moved) == 2
    assert all(reason.startswith("its machine was taken away at ") for reason in moved)


def test_machines_fail(site):
    """A power cut and back; a minute off the network; all workers gone, then one that comes: one sweep goes through all of it."""
    folder = site.submit("faults", "--trials", "14", "--max-epochs", "8")
    wait(lambda: at_work(site, folder, 2))
    site.hosts.power_off(2)
    wait(lambda: site.alive() == 2)
    site.hosts.power_on(2)
    sound(folder)
    wait(lambda: at_work(site, folder, 3))
    site.hosts.cut(3)
    time.sleep(60)
    site.hosts.heal(3)
    site.all_there()
    sound(folder)
    for i in (2, 3):
        site.hosts.power_off(i)
    wait(lambda: site.alive() == 1)
    sound(folder)
    site.hosts.power_on(3)
    wait(lambda: site.alive() == 2)
    wait(lambda: ended(folder))
    assert len(exact(folder, 14)) >= 4


def test_the_head_is_lost(site):
    """The record was fetched, and the sweep goes on on another head."""
    folder = site.submit("lost", "--trials", "9", "--max-epochs", "8")
    wait(lambda: reported(folder, 6))
    site.fetch("lost")
    site.hosts.power_off(1)
    site.move(2, 3)
    site.up()
    site.run("ray rsync-up clusters/local.yaml results/ ~/sweeps/results/")
    folder = site.submit("lost")
    wait(lambda: ended(folder))
    exact(folder, 9)


def test_down(site):
    site.run("ray down -y clusters/local.yaml")
    for i in site.members:  # a worker ends by itself, when it has not heard of its head for a while
        wait(lambda i=i: site.on(i, "pgrep -f raylet/raylet").returncode == 1)
