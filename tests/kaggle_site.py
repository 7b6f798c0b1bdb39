"""A Kaggle of the tests' own, on loopback, which the real client talks to; and what can go wrong with the real one."""

import base64
import csv
import io
import json
import os
import re
import threading
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "KGAT_canary_of_kaggle"
MODIFIED = "Thu, 26 Nov 2020 10:00:00 GMT"


class Site:
    """What the server knows of one competition, and what it did.

    `faults` are what befalls the next calls of a name, one a call, the last for ever if `for_ever`: a status ("403"), "lost"
    (done, and the connection closed without an answer), "cut" (half of an answer), "hang" (no answer until the server ends).
    """

    def __init__(self, slug: str, archive: bytes, score: Callable[[bytes], float]):
        self.slug, self.archive, self.score = slug, archive, score
        self.limit, self.used = 5, 0
        self.token, self.accepted = TOKEN, True
        self.scored_after = 1  # looks at the list, until a submission has its score
        self.status = "COMPLETE"
        self.board = [0.9, 0.99, 0.999]
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.for_ever = False
        self.uploads: dict[str, bytes] = {}
        self.submissions: list[dict] = []
        self.calls: Counter = Counter()
        self.after: dict[str, Callable[[], None]] = {}  # done when a call of that name comes
        self.bytes_sent = 0  # of the archive
        self.authorizations: set[str] = set()
        self.ended = threading.Event()

    def fault(self, name: str) -> str | None:
        waiting = self.faults[name]
        if not waiting:
            return None
        return waiting[0] if self.for_ever and len(waiting) == 1 else waiting.pop(0)

    def submit(self, token: str, description: str) -> dict:
        content = self.uploads[token]
        self.used += 1
        entry = {
            "ref": 1000 + len(self.submissions),
            "totalBytes": len(content),
            "date": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "description": description,
            "fileName": "submission.csv",
            "status": "PENDING",
            "content": content,
            "looks": 0,
        }
        self.submissions.append(entry)
        return entry

    def listed(self) -> list[dict]:
        """As Kaggle lists them, the newest first."""
        for entry in self.submissions:
            entry["looks"] += 1
            if entry["looks"] > self.scored_after and entry["status"] == "PENDING":
                entry["status"] = self.status
                if self.status == "COMPLETE":
                    entry["publicScore"] = f"{self.score(entry['content']):.5f}"
                else:
                    entry["errorDescription"] = "Evaluation Exception"
        hidden = ("content", "looks")
        return [{k: v for k, v in entry.items() if k not in hidden} for entry in reversed(self.submissions)]

    def leaderboard(self) -> bytes:
        out = io.StringIO()
        rows = csv.writer(out)
        rows.writerow(["Rank", "TeamId", "TeamName", "LastSubmissionDate", "Score", "SubmissionCount", "TeamMemberUserNames"])
        for rank, score in enumerate(sorted(self.board, reverse=True), start=1):
            rows.writerow([rank, rank, f"team {rank}", "2026-11-26 10:00:00", f"{score:.5f}", 1, ""])
        return zipped({f"{self.slug}-publicleaderboard.csv": out.getvalue()})


def zipped(members: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_POST(self):
        name = self.path.rsplit("/", 1)[-1]
        asked = json.loads(self._body() or b"{}")
        site = self.site
        site.calls[name] += 1
        site.after.pop(name, lambda: None)()
        if name == "IntrospectToken":
            return self._json({"active": asked.get("token") == site.token, "username": "ada"})
        site.authorizations.add(self.headers.get("Authorization", ""))
        if self.headers.get("Authorization") not in (f"Bearer {site.token}", basic("ada", site.token)):
            return self._error(401, "Unauthenticated")
        fault = site.fault(name)
        if fault == "hang":
            return site.ended.wait()
        if fault and fault.isdigit():
            return self._error(int(fault), "no")
        if asked.get("competitionName", site.slug) != site.slug:
            return self._error(404, "Not found")
        if not site.accepted:
            return self._error(403, "You must accept this competition's rules")
        answer = getattr(self, f"_{name}", None)
        if fault == "lost":
            self.wfile = io.BytesIO()  # what is answered goes nowhere
            answer(asked)
            self.close_connection = True
            return self.connection.close()
        return answer(asked) if answer else self._error(404, name)

    def do_GET(self):
        self._file(self.site.archive, self.path, self.site.fault("file"))

    def do_PUT(self):
        content, token = self._body(), self.path.rsplit("/", 1)[-1]
        self.site.calls["upload"] += 1
        fault = self.site.fault("upload")
        if fault == "lost":
            self.close_connection = True
            return self.connection.close()
        if fault and fault.isdigit():
            return self._error(int(fault), "no")
        self.site.uploads[token] = content
        return self._send(200, b"", "text/plain")

    def _DownloadDataFiles(self, asked):
        where = f"http://{self.headers['Host']}/files/{self.site.slug}.zip"
        self._send(302, b"", "text/plain", {"Location": where})

    def _DownloadLeaderboard(self, asked):
        self._file(self.site.leaderboard(), f"/{self.site.slug}.zip", None)

    def _ListSubmissions(self, asked):
        self._json({"submissions": self.site.listed()})

    def _GetSubmission(self, asked):
        self._json(next(one for one in self.site.listed() if one["ref"] == asked["ref"]))

    def _GetSubmissionLimits(self, asked):
        left = max(0, self.site.limit - self.site.used)
        self._json({"numToday": self.site.used, "numTotal": len(self.site.submissions), "numAllowedNow": left})

    def _StartSubmissionUpload(self, asked):
        token = f"blob-{self.site.calls['StartSubmissionUpload']}"
        self._json({"token": token, "createUrl": f"http://{self.headers['Host']}/upload/{token}"})

    def _CreateSubmission(self, asked):
        if self.site.used >= self.site.limit:
            return self._error(400, "Submission limit reached")
        entry = self.site.submit(asked["blobFileTokens"], asked.get("submissionDescription", ""))
        return self._json({"message": "Successfully submitted to it", "ref": entry["ref"]})

    def _file(self, content: bytes, path: str, fault: str | None):
        self.site.calls["file"] += 1
        if fault and fault.isdigit():
            return self._error(int(fault), "no")
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        rest = content[start:]
        headers = {"Accept-Ranges": "bytes", "Last-Modified": MODIFIED, "ETag": '"1"'}
        if found:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if fault not in ("cut", "hang"):
            return self._send(206 if found else 200, rest, "application/zip", headers)
        self._send(206 if found else 200, rest[: len(rest) // 2], "application/zip", headers, length=len(rest))
        if fault == "hang":
            self.site.ended.wait()
        self.close_connection = True
        return self.connection.close()

    def _json(self, value: dict):
        self._send(200, json.dumps(value).encode(), "application/json")

    def _error(self, status: int, message: str):
        more = {"Retry-After": "1"} if status == 429 else {}
        self._send(status, json.dumps({"code": status, "message": message}).encode(), "text/plain", more)

    def _send(self, status: int, body: bytes, kind: str, more: dict | None = None, length: int | None = None):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": length or len(body), **(more or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.site.bytes_sent += len(body) * (kind == "application/zip")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def log_message(self, *_):
        pass


def basic(name: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{key}".encode()).decode()


@contextmanager
def serving(site: Site, home):
    """The variables with which Kaggle's client, in the home folder `home`, reaches the site.

    The client's own host for tests has one port; as its proxy the site can have any.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("", (Handler,), {"site": site}))
    server.daemon_threads = True
    server.handle_error = lambda request, client: None  # a client that has gone
    threading.Thread(target=server.serve_forever, daemon=True).start()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("KAGGLE") and "proxy" not in name.lower()}
    home.mkdir(parents=True, exist_ok=True)
    try:
        yield plain | {
            "HOME": str(home),
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "HTTP_PROXY": f"http://127.0.0.1:{server.server_port}",
        }
    finally:
        site.ended.set()
        server.shutdown()
