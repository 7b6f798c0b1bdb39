"""Kaggle's own client, called as a command: importing it would talk to the network."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from sweeps import tied
from trainable import reading
from trainable.errors import BadInput

PAUSES = (5.0, 15.0, 45.0)  # seconds before what only asks is asked again
SILENCE = 120.0  # seconds without an answer, or without a byte of a file, then it counts as cut off
LISTED = 100  # submissions, the newest first
SETTINGS = "https://www.kaggle.com/settings/api"
# In what the client says of a connection that broke or never was.
CUT = r"ConnectionError|ProxyError|Max retries|establish|Name or service|timed out|Connection (broken|aborted|error)|Disconnected"


class Away(Exception):
    """Kaggle cannot be reached, or asks for a pause: later it may work. The message is one line."""


class Kaggle:
    """One competition. Every method raises BadInput for what the user has to mend, in one line, and Away."""

    def __init__(self, slug: str):
        self.slug = slug

    def limit_reached(self) -> bool:
        """Whether no more may be sent today."""
        told = _json(self._patiently("submission-limits", self.slug, "--json", "-q")) or {}  # zeros are left out
        # Who has never sent anything may have no team yet, and then all of them are 0.
        return not told.get("numAllowedNow") and bool(told.get("numToday") or told.get("numTotal"))

    def submissions(self) -> list[dict]:
        """The newest: ref, date, description, status (PENDING, COMPLETE or ERROR) and publicScore ("" while there is none)."""
        told = _json(self._patiently("submissions", self.slug, "--format", "json", "--page-size", str(LISTED), "-q")) or []
        return [{**one, "ref": str(one["ref"]), "status": one["status"].rpartition(".")[2].upper()} for one in told]

    def submit(self, path: Path, message: str) -> str:
        """Send a file, once; its ref. After Away it may have arrived all the same."""
        said = self._run("submit", self.slug, "-f", str(path), "-m", message, "-q", seconds=5 * SILENCE)
        ref = re.search(r"Submission ref: (\d+)", said)
        if not ref:
            raise Away(f"Kaggle's client sent {path.name} and did not say under which number")
        return ref[1]

    def why(self, ref: str) -> str:
        """What Kaggle says of a submission that it could not score."""
        said = self._patiently("submission", ref)
        found = re.search(r"^Error:\s*(.+)$", said, re.MULTILINE)
        return found[1].strip() if found else "no reason given"

    def place(self, score: float, more_is_better: bool) -> tuple[int, int]:
        """The place of a score on the leaderboard, from 1, and how many teams there are."""
        with tempfile.TemporaryDirectory() as folder:
            self._patiently("leaderboard", self.slug, "--download", "-p", folder, "-q")
            with reading.archive(Path(folder) / f"{self.slug}.zip") as archive:
                text = archive.read(archive.namelist()[0]).decode("utf-8-sig")
        scores = [float(row["Score"]) for row in csv.DictReader(io.StringIO(text))]
        return 1 + sum(other > score if more_is_better else other < score for other in scores), len(scores)

    def download(self, folder: Path) -> Path:
        """All files in one archive in `folder`, with the client's progress bar; what lies there in part is gone on with."""
        for pause in (*PAUSES, None):
            try:
                self._run("download", self.slug, "-p", str(folder), seconds=None, watched=folder)
                return folder / f"{self.slug}.zip"
            except Away as wrong:
                if pause is None:
                    raise
                print(f"{wrong}; again in {pause:.0f} seconds.", file=sys.stderr)
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _patiently(self, *arguments: str) -> str:
        """What only asks may be asked again."""
        for pause in PAUSES:
            try:
                return self._run(*arguments, seconds=SILENCE)
            except Away:
                time.sleep(pause)
        return self._run(*arguments, seconds=SILENCE)

    def _run(self, *arguments: str, seconds: float | None, watched: Path | None = None) -> str:
        """What the client writes. `watched`, a folder, is what grows as long as something comes; then its bar is shown."""
        client = [sys.executable, tied.__file__, str(os.getpid()), "kaggle"]
        command = [*client, "-W", "competitions", *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, **pipes) as process:
            try:
                out, said = _watch(process, watched) if watched else process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise Away(f"Kaggle did not answer for {seconds or SILENCE:.0f} seconds") from None
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise self._explained(f"{said.decode(errors='replace')}\n{out.decode(errors='replace')}")
        return out.decode(errors="replace")

    def _explained(self, said: str) -> Exception:
        """What the client said, as one line that says what mends it."""
        status = re.search(r"\b(\d{3}) (?:Client|Server) Error", said)
        code = int(status[1]) if status else 0
        if "No module named kaggle" in said:
            return BadInput("Kaggle's client is not installed; pip install -r requirements.txt")
        if code == 401 or "Authentication required" in said:
            place = credentials()
            if place is None:
                return BadInput(f"no Kaggle credentials: make a token at {SETTINGS} and write it into ~/.kaggle/access_token")
            return BadInput(f"Kaggle does not accept the credentials in {place}; make a new token at {SETTINGS}")
        if code == 403:
            where = f"https://www.kaggle.com/competitions/{self.slug}/rules"
            return BadInput(f"Kaggle does not let you into {self.slug}: accept its rules at {where}")
        if code == 404:
            return BadInput(f"Kaggle has no competition {self.slug!r}, or it is closed; see kaggle.com/competitions")
        if code == 429:
            return Away("Kaggle asks for a pause (429)")
        if code >= 500:
            return Away(f"Kaggle has a problem of its own ({code})")
        if "Could not submit" in said:
            return Away("the upload to Kaggle failed")
        if not code and re.search(CUT, said):
            return Away("Kaggle cannot be reached")
        line = next((line for line in said.splitlines() if line.strip()), "no reason given")
        return BadInput(f"Kaggle refuses it: {re.sub(r'https?://[^ ]+', '', line).strip()[:200]}")


def credentials() -> str | None:
    """Where the client finds credentials, in its own order, for people; None: nowhere."""
    if os.environ.get("KAGGLE_API_TOKEN"):
        return "KAGGLE_API_TOKEN"
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        return "KAGGLE_USERNAME and KAGGLE_KEY"
    return next((str(path) for path in _files() if path.is_file()), None)


def readable_by_others() -> str | None:
    """In one line, which file of credentials others on this machine can read, and what mends it."""
    for path in _files():
        if path.is_file() and path.stat().st_mode & 0o077:
            return f"{path} can be read by others on this machine: chmod 600 {path}"
    return None


def _files() -> list[Path]:
    home = Path("~/.kaggle").expanduser()
    own = Path(os.environ.get("KAGGLE_CONFIG_DIR") or home)
    given = os.environ.get("KAGGLE_API_TOKEN", "")
    named = [Path(given)] if given and "/" in given else []
    return [*named, home / "access_token", home / "access_token.txt", own / "kaggle.json", home / "credentials.json"]


def _json(said: str):
    """What the client tells as JSON, after warnings of its own; None where it tells nothing."""
    found = re.search(r"^[\[{]", said, re.MULTILINE)
    return json.loads(said[found.start() :]) if found else None


def _watch(process: subprocess.Popen, folder: Path) -> tuple[bytes, bytes]:
    """Show what it says of its progress, until it ends; TimeoutExpired if nothing comes into the folder for too long."""
    out, said = [], []

    def pass_on():
        while piece := os.read(process.stderr.fileno(), 1 << 16):
            said.append(piece)
            if b"%|" in piece:  # its bar; what else it says comes in one line of ours
                sys.stderr.write(piece.decode(errors="replace").rstrip("\n"))
                sys.stderr.flush()

    threads = [threading.Thread(target=pass_on), threading.Thread(target=lambda: out.append(process.stdout.read()))]
    for thread in threads:
        thread.start()
    size, since = -1, time.monotonic()
    try:
        while process.poll() is None:
            now = sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
            if now != size:
                size, since = now, time.monotonic()
            if time.monotonic() - since > SILENCE:
                raise subprocess.TimeoutExpired(process.args, SILENCE)
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            process.kill()
        for thread in threads:
            thread.join()
        if any(b"%|" in piece for piece in said):
            print(file=sys.stderr)
    return b"".join(out), b"".join(said)
