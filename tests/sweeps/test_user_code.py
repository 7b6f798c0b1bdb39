"""A space of the user's own that loops, exits, prints or dies: a message that names its line, and nothing is left running."""

import os
from contextlib import suppress

import optuna
import psutil
import pytest
from running import finish, runs, start, wait

from sweeps import arch_sweep
from sweeps.search import guard, user_code
from sweeps.search.draw import SEARCHERS
from sweeps.search.find_space import find_space
from sweeps.search.record import Record, read
from sweeps.search.scheduler import Asha
from sweeps.search.searcher import Search
from sweeps.search.user_code import UserFault

# What a function may do in place of returning a dict, and what is said of it. Line 3 is the first of its body.
LOOPS = {
    "loops": "    while True: pass",
    "waits": "    time.sleep(10_000)",
    "prints": "    while True: print('x' * 10_000)",
    "catches everything": "    while True:\n        try: trial.suggest_float('lr', 0, 1)\n        except BaseException: pass",
}
ENDS = {
    "exits": ("    sys.exit(3)", "SystemExit: 3, in line 3 of mine.py"),
    "exits with nothing": ("    exit()", "SystemExit: None, in line 3 of mine.py"),
    "interrupts": ("    raise KeyboardInterrupt", "KeyboardInterrupt: , in line 3 of mine.py"),
    "ends at once": ("    os._exit(0)", "ended its own process, with status 0"),
    "kills itself": ("    os.kill(os.getpid(), 9)", "ended its own process, by signal 9"),
    "aborts": ("    os.abort()", "ended its own process, by signal 6"),
    "closes all": ("    os.closerange(0, 4096); return {}", "ended its own process"),
    "raises": ("    sizes = {}\n    return {'convnet.width': sizes['large']}", "KeyError: 'large', in line 4 of mine.py"),
    "asks for nonsense": ("    trial.suggest_float('lr', 2, 1)", "in line 3 of mine.py"),
    "asks for what is not there": ("    trial.suggest_width()", "no attribute 'suggest_width', in line 3 of mine.py"),
    "returns nothing": ("    pass", "returned NoneType, not a dict"),
    "returns a function": ("    return {'lr': lambda: 0}", "pickle"),
}
HEAD = "import os, sys, time\ndef draw(trial):\n"


@pytest.fixture
def mine(tmp_path):
    return tmp_path / "mine.py"


@pytest.fixture
def at_once(monkeypatch):
    """Whoever loops is given three seconds."""
    monkeypatch.setattr(user_code, "LIMIT", 3.0)


@pytest.mark.parametrize("does", LOOPS)
def test_who_does_not_come_back(mine, at_once, does):
    mine.write_text(HEAD + LOOPS[does] + "\n")
    with pytest.raises(UserFault, match=rf"^the space {mine}:draw has not come back for 3 seconds: it is in line [3-5]$"):
        find_space(f"{mine}:draw")


@pytest.mark.parametrize("does", ENDS)
def test_who_ends_or_fails(mine, does):
    body, says = ENDS[does]
    mine.write_text(f"{HEAD}{body}\n")
    with pytest.raises(user_code.BadInput) as said:
        find_space(f"{mine}:draw")
    assert says in str(said.value)
    assert f"{mine}:draw" in str(said.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("while True: pass\n", "has not come back for 3 seconds: it is in line 1"),
        ("import os\nos._exit(0)\n", "ended its own process, with status 0"),
        ("\nexit()\n", "does not run: SystemExit: None, in line 2"),
        ("def draw(trial)\n", "does not run: SyntaxError"),
        ("def other(trial): return {}\n", "has no function draw"),
    ],
)
def test_a_file_that_does_not_run(mine, monkeypatch, text, says):
    if "while" in text:
        monkeypatch.setattr(user_code, "LIMIT", 3.0)
    mine.write_text(text)
    with pytest.raises(UserFault) as said:
        find_space(f"{mine}:draw")
    assert says in str(said.value)
    assert str(mine) in str(said.value)


def test_what_it_may_do(mine, capfd):
    """All of a trial's methods, printing, closing its standard output."""
    body = "    if not sys.stdout.closed: print('hello'); sys.stdout.close(); os.close(1)\n"
    body += "    lr = trial.suggest_float('lr', 1e-3, 1e-2, log=True)\n    width = trial.suggest_int('w', 8, 16, step=8)\n"
    body += "    assert trial.params == {'lr': lr, 'w': width}\n    trial.set_user_attr('mine', trial.number)\n"
    mine.write_text(f"{HEAD}{body}    return {{'lr': lr, 'convnet.width': width}}\n")
    space, study = find_space(f"{mine}:draw"), optuna.create_study()
    for number in range(3):
        trial = study.ask()
        drawn = space.draw(trial)
        assert drawn == {"lr": trial.params["lr"], "convnet.width": trial.params["w"]}
        assert trial.user_attrs == {"mine": number}
    assert "hello" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("shape = trial.suggest_categorical('shape', [(16, 1), (32, 2)])", "a choice of shape is (16, 1)"),
        ("trial.suggest_categorical('rate', [float('inf'), 1e9])", "a choice of rate is inf"),
        ("trial.suggest_categorical('rate', [1, float('nan')])", "a choice of rate is nan"),
        ("trial.suggest_categorical('width', [8, 2**63])", f"a choice of width is {2**63}"),
        ("import numpy as np; trial.suggest_categorical('width', [np.int64(8)])", "a choice of width is"),
        ("return {'convnet.width': [8]}", "convnet.width is [8]"),
        ("return {'plain.depth': float('inf'), 'arch': 'plain'}", "plain.depth is inf"),
        ("import numpy as np; return {'convnet.width': np.int64(8)}", "convnet.width is"),
    ],
)
def test_what_a_record_cannot_hold_is_refused_before_the_search(mine, body, says):
    mine.write_text(f"{HEAD}    {body}\n    return {{}}\n")
    with pytest.raises(user_code.BadInput) as said:
        find_space(f"{mine}:draw")
    assert says in str(said.value)
    assert f"it should be a text, a finite number, true, false or null ({mine}:draw)" in str(said.value)


def test_what_a_space_starts_is_marked(mine, tmp_path):
    """It outlives a killed driver for as long as the guard needs to find it."""
    body = f"    import subprocess; p = subprocess.Popen(['sleep', '1000']); open('{tmp_path / 'id'}', 'w').write(str(p.pid))"
    mine.write_text(f"{HEAD}{body}\n    return {{}}\n")
    space = find_space(f"{mine}:draw")
    child = psutil.Process(int((tmp_path / "id").read_text()))
    assert child.environ()[guard.MARK] == guard.Guard(tmp_path).mark
    space.draw.close()
    wait(lambda: not runs(child.pid))


def alive(group: int) -> list[int]:
    """The processes of a group that have not ended; who has may wait for its parent to look."""
    found = []
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_nothing_is_left_running(mine, at_once):
    child = "    if not os.fork(): time.sleep(10_000)\n"
    mine.write_text(f"{HEAD}{child}    return {{}}\n")
    space = find_space(f"{mine}:draw")
    group = space.draw._process
    assert len(alive(group)) > 1
    space.draw.close()
    wait(lambda: not alive(group))


@pytest.mark.parametrize(
    ("body", "says"),
    [("while True: pass", "it is in line 5"), ("os._exit(0)", "ended its own process"), ("sys.exit()", "in line 5 of mine.py")],
)
def test_a_later_draw(mine, tmp_path, monkeypatch, body, says):
    """The search has had results by then: what it has stays."""
    mine.write_text(
        f"{HEAD}    trial.suggest_float('lr', 1e-3, 1e-2)\n    if trial.number == 4:\n        {body}\n    return {{}}\n"
    )
    space = find_space(f"{mine}:draw")
    record = Record(tmp_path / "record.db")
    search = Search(space, record, sampler=SEARCHERS["random"], scheduler=Asha(), rungs=[1.0])
    for _ in range(4):
        assert search.ask() is not None
    monkeypatch.setattr(user_code, "LIMIT", 3.0)
    with pytest.raises(UserFault) as said:
        search.ask()
    assert says in str(said.value)
    assert len(read(tmp_path / "record.db")[0]) == 4


def test_from_the_command(mine, refuses, tmp_path, at_once):
    mine.write_text(HEAD + LOOPS["loops"] + "\n")
    said = refuses(arch_sweep.main, "--space", f"{mine}:draw", "--dataset", "digits-sample", "--results", tmp_path / "r")
    assert f"arch_sweep.py: the space {mine}:draw has not come back for 3 seconds: it is in line 3" in said
    assert not (tmp_path / "r").exists()


@pytest.mark.full
@pytest.mark.long
def test_a_sweep_whose_space_ends_its_process(tmp_path):
    """What there was by then is combined, and the fault said at the end."""
    draw = "    if trial.number == 2: os._exit(0)\n    return {'convnet.width': 8, 'engine': 'fp32-nhwc'}\n"
    (tmp_path / "mine.py").write_text(HEAD + draw)
    sweep = start(tmp_path, "--space", "mine.py:draw", "--trials", "6", "--max-epochs", "0.2")
    said = finish(sweep)
    assert sweep.returncode == 2, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"arch_sweep.py: the space {tmp_path / 'mine.py'}:draw ended its own process")
    folder = tmp_path / "results" / "s"
    assert len(read(folder / "record.db")[0]) == 2
    assert (folder / "ensemble.json").exists()
    assert (folder / "submission.csv").exists()
