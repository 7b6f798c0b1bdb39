"""A function of the user's own in a process of its own: whatever it does there, the sweep lives on and can say what it was.

The process is forked before Ray starts. It has no terminal, and ends with its parent. An Optuna trial stays with the parent:
what the function calls of it is asked for through a pipe.
"""

import faulthandler
import importlib.util
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import traceback
import weakref
from contextlib import suppress
from pathlib import Path

from sweeps import tied
from sweeps.search.guard import MARK, mark_of_driver
from trainable.errors import BadInput, short

LIMIT = 60.0  # seconds for a call, and for the file to be run
DUMP = 10.0  # seconds for a process that hangs to say where


class UserFault(BadInput):
    """Code of the user's own does not work. The message names its file, its function and the line."""


class UserCode:
    """The function in a file of the user's, to be called with an Optuna trial.

    Raises:
        UserFault: the file does not run to its end, or has no such function.
    """

    def __init__(self, path: Path, function: str):
        self.path, self.function, self.fault = path, function, None
        self.where = f"{path}:{function}"
        self._dump = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lasts as long as the process
        self._pipe, theirs = multiprocessing.Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        driver, mark = os.getpid(), mark_of_driver()
        self._process = os.fork()
        if not self._process:
            os.environ[MARK] = mark  # what it starts is ended with Ray
            _serve(theirs, self._pipe, path, function, self._dump, driver)
        theirs.close()
        # Also when nobody holds it any more, and when the driver ends; once, for its id may be another's later.
        self._end = weakref.finalize(self, _kill, self._process)
        self._answer(None)

    def __call__(self, trial):
        """Return what the function returns for this trial.

        Raises:
            UserFault: it raised something, ended its process, or has not come back after LIMIT seconds.
        """
        if self.fault:
            raise self.fault
        self._send(("call", None))
        return self._answer(trial)

    def close(self):
        """End the process, and whatever it has started."""
        self._end()

    def _send(self, message: tuple):
        try:
            self._pipe.send(message)
        except OSError:
            raise self._broken(self._ended()) from None

    def _answer(self, trial):
        """Serve what is asked of the trial until the function has come back."""
        until = time.monotonic() + LIMIT
        while True:
            try:
                if not self._pipe.poll(max(0.0, until - time.monotonic())):
                    raise self._broken(f"has not come back for {LIMIT:g} seconds{self._line()}")
                kind, told = self._pipe.recv()
            except (EOFError, OSError):
                raise self._broken(self._ended()) from None
            if kind == "ask":
                self._send(_asked(trial, *told))
            elif kind == "done":
                return told
            elif kind == "broken":
                raise self._broken(told)
            else:
                raise UserFault(f"the space does not work: {told} ({self.where})")

    def _broken(self, what: str) -> UserFault:
        """The fault after which it cannot be called any more."""
        self.close()
        self.fault = UserFault(f"the space {self.where} {what}")
        return self.fault

    def _ended(self) -> str:
        """Describe how the process ended."""
        until = time.monotonic() + DUMP
        while time.monotonic() < until:
            try:
                pid, status = os.waitpid(self._process, os.WNOHANG)
            except ChildProcessError:
                break
            if pid:
                code = os.waitstatus_to_exitcode(status)
                how = f"by signal {-code}" if code < 0 else f"with status {code}"
                return f"ended its own process, {how}; it should return a dict"
            time.sleep(0.01)
        return "closed the pipe to the sweep; it should touch no file that it has not opened"

    def _line(self) -> str:
        """In which line of the file it is."""
        try:
            os.kill(self._process, signal.SIGUSR1)
        except ProcessLookupError:
            return ""
        until, found = time.monotonic() + DUMP, []
        shown = str(self.path).encode("ascii", "backslashreplace").decode()
        while not found and time.monotonic() < until:
            time.sleep(0.02)
            self._dump.seek(0)
            found = re.findall(rf'File "{re.escape(shown)}", line (\d+)', self._dump.read())
        return f": it is in line {found[0]}" if found else ""


def _kill(group: int):
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(group, 0)


def _asked(trial, name: str, arguments: tuple | None, named: dict) -> tuple:
    """Return what a trial has under a name, or returns for these arguments; a method without arguments is only named."""
    try:
        value = getattr(trial, name)
        if arguments is not None:
            return "value", value(*arguments, **named)
        return ("method", None) if callable(value) else ("value", value)
    except Exception as wrong:
        return "raise", wrong


class _Trial:
    """The trial as the function sees it."""

    def __init__(self, pipe):
        self._pipe = pipe

    def __getattr__(self, name: str):
        kind, value = self._ask(name, None, {})
        if kind == "method":
            return lambda *arguments, **named: self._ask(name, arguments, named)[1]
        return value

    def _ask(self, *what) -> tuple:
        self._pipe.send(("ask", what))
        kind, value = self._pipe.recv()
        if kind == "raise":
            raise value
        return kind, value


def _serve(pipe, parents, path: Path, function: str, dump, driver: int):
    """In the child: run the file, then call the function as often as it is asked for. Does not return."""
    try:
        os.setsid()
        tied.tie(driver)
        parents.close()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nowhere, standard)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(nowhere, mode, closefd=False) for mode in "rww")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.register(signal.SIGUSR1, file=dump, all_threads=False)
        _call(pipe, path, function)
    finally:
        os._exit(0)


def _call(pipe, path: Path, function: str):
    spec = importlib.util.spec_from_file_location("user_space", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as wrong:
        pipe.send(("broken", f"does not run: {_words(wrong, path)}"))
        return
    if not callable(getattr(module, function, None)):
        pipe.send(("broken", f"is not there: {path} has no function {function}"))
        return
    pipe.send(("done", None))
    while pipe.recv()[0] == "call":
        try:
            pipe.send(("done", getattr(module, function)(_Trial(pipe))))
        except BaseException as wrong:
            pipe.send(("raised", _words(wrong, path)))


def _words(wrong: BaseException, path: Path) -> str:
    """The error, and the line of the user's file that it comes from."""
    lines = [frame.lineno for frame in traceback.extract_tb(wrong.__traceback__) if frame.filename == str(path)]
    if isinstance(wrong, SyntaxError) and not lines:
        lines = [wrong.lineno]
    where = f", in line {lines[-1]} of {path.name}" if lines else ""
    return f"{type(wrong).__name__}: {short(wrong, 200)}{where}"
