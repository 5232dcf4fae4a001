"""A Hugging Face Hub on loopback: the endpoints that huggingface_hub uses, and faults on demand."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.server import running

TOKEN = "hf_madeForTheTestsAndNothingElse"


@dataclass
class Repository:
    """Commits, newest last, and what the branches point at.

    Attributes:
        commits: (hash, files by path) in order.
        heads: commit by branch; pull requests are branches named refs/pr/N.
        private: as the client asked for.
    """

    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self.heads.get(revision, revision)
        return next((one for one in self.commits if one[0] == commit), None)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        made = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits.append((made, files))
        self.heads[branch] = made
        return made


@dataclass
class Fault:
    """What to do with the next requests whose method and path match.

    Attributes:
        where: regular expression, searched in "METHOD /path".
        times: how often.
        status: answer this instead.
        headers: with these.
        cut: send that many bytes of the body, then close.
        after: do what was asked for, and only then fail.
        body: of the answer.
    """

    where: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    after: bool = False
    body: bytes = b"{}"


@dataclass
class Hub:
    """What it holds and how it behaves; may be changed between requests.

    Attributes:
        repos: by name; Spaces as spaces/org/name.
        faults: tried in order.
        requests: "METHOD /path?query" of every request so far.
        bodies: JSON bodies of POST requests by path, the last one of each.
        may_write: False: answers 403 to every change.
        warnings: remarks of /api/validate-yaml.
    """

    repos: dict[str, Repository] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    bodies: dict[str, dict] = field(default_factory=dict)
    may_write: bool = True
    warnings: list[str] = field(default_factory=list)
    url: str = ""

    def asked(self, where: str) -> list[str]:
        return [one for one in self.requests if re.search(where, one)]


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Refused(Exception):
    """An answer that is an error: status, code in X-Error-Code, message."""


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"  # connections stay open, as the client expects

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(f"{self.command} {self.path}")
        line = f"{self.command} {unquote(self.path)}"
        fault = next((f for f in self.hub.faults if f.times and re.search(f.where, line)), None)
        if fault is not None:
            fault.times -= 1
        if fault is not None and fault.status is not None and not fault.after:
            return self.reply(fault.status, fault.body, fault.headers)
        try:
            status, body, headers = self.handle_request()
        except Refused as refused:
            status, code, message = refused.args
            return self.reply(
                status, json.dumps({"error": message}).encode(),
                {"X-Error-Code": code, "X-Error-Message": message},
            )  # fmt: skip
        if fault is not None and fault.after:
            return self.reply(fault.status or 500, fault.body, fault.headers)
        self.reply(status, body, headers, None if fault is None else fault.cut)

    def reply(self, status, body, headers, cut=None) -> None:
        self.send_response(status)
        length = headers.pop("Content-Length", str(len(body)))
        for name, value in {"Content-Length": length, **headers}.items():
            self.send_header(name, value)
        if cut is not None:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def handle_request(self):
        url = urlsplit(self.path)
        path, query = url.path, parse_qs(url.query)
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.command == "POST":
            if not allowed:
                raise Refused(401, "", "Invalid credentials in Authorization header")
            if not self.hub.may_write:
                raise Refused(403, "", "You don't have the rights to do this")
        if path == "/api/repos/create":
            return self.create()
        if path == "/api/validate-yaml":
            remarks = [{"message": text} for text in self.hub.warnings]
            return self.json({"errors": [], "warnings": remarks})
        found = re.fullmatch(r"/api/(?:models|(spaces))/([^/]+/[^/]+)(?:/(.*))?", path)
        found = found or re.fullmatch(r"/(?:(spaces)/)?([^/]+/[^/]+)/(resolve/.*)", path)
        if found is None:
            raise Refused(404, "", f"no such endpoint: {path}")
        kind, name, rest = found.groups()
        name, rest = f"{kind}/{name}" if kind else name, rest or "revision/main"
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not allowed):
            raise Refused(404 if allowed else 401, "RepoNotFound", "Repository not found")
        verb, _, rest = rest.partition("/")
        return getattr(self, verb)(name, repo, rest, query)

    def json(self, document, status=200, headers=None):
        return (
            status,
            json.dumps(document).encode(),
            {"Content-Type": "application/json"} | (headers or {}),
        )

    def create(self):
        asked = json.loads(self.content)
        self.hub.bodies["create"] = asked
        kind = "spaces/" if asked.get("type") == "space" else ""
        name = f"{kind}{asked['organization']}/{asked['name']}"
        status = 409 if name in self.hub.repos else 200
        if status == 200:
            private = asked.get("private") or asked.get("visibility") == "private"
            repo = self.hub.repos[name] = Repository(private=bool(private))
            repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.json({"url": f"{self.hub.url}/{name}"}, status)

    def at(self, repo: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        found = repo.files(unquote(revision))
        if found is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {unquote(revision)}")
        return found

    def revision(self, name, repo, rest, query):
        commit, files = self.at(repo, rest)
        document = {
            "id": name, "sha": commit, "private": repo.private, "tags": [], "downloads": 0,
            "siblings": [{"rfilename": path} for path in sorted(files)],
        }  # fmt: skip
        return self.json(document)

    def tree(self, name, repo, rest, query):
        _, files = self.at(repo, rest.partition("/")[0])
        return self.json(
            [
                {"type": "file", "path": path, "size": len(body), "oid": git_hash(body)}
                for path, body in sorted(files.items())
            ]
        )

    def branch(self, name, repo, rest, query):
        branch = unquote(rest)
        if branch in repo.heads:
            raise Refused(409, "", "Reference already exists")
        repo.heads[branch] = repo.heads["main"]
        return self.json({})

    def discussions(self, name, repo, rest, query):
        numbers = [int(head.rpartition("/")[2]) for head in repo.heads if "refs/pr/" in head]
        one = {
            "author": {"name": "you"}, "createdAt": "2026-01-01T00:00:00.000Z", "status": "open",
            "repo": {"name": name, "type": "model"}, "isPullRequest": True,
        }  # fmt: skip
        found = [one | {"num": number, "title": "an entry"} for number in numbers]
        return self.json({"discussions": found, "count": len(found), "start": 0})

    def preupload(self, name, repo, rest, query):
        _, files = self.at(repo, rest)
        answers = []
        for asked in json.loads(self.content)["files"]:
            held = files.get(asked["path"])
            answer = {"path": asked["path"], "uploadMode": "regular", "shouldIgnore": False}
            answers.append(answer | {"oid": None if held is None else git_hash(held)})
        return self.json({"files": answers})

    def commit(self, name, repo, rest, query):
        _, files = self.at(repo, rest)
        files, branch = dict(files), unquote(rest)
        for line in self.content.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        number = 1 + sum("refs/pr/" in head for head in repo.heads)
        if query.get("create_pr"):
            branch = f"refs/pr/{number}"
        made = repo.commit(branch, files)
        return self.json(
            {
                "commitUrl": f"{self.hub.url}/{name}/commit/{made}",
                "commitOid": made,
                "pullRequestUrl": f"{self.hub.url}/{name}/discussions/{number}",
            }
        )

    def resolve(self, name, repo, rest, query):
        revision, _, path = rest.partition("/")
        commit, files = self.at(repo, revision)
        if path not in files:
            raise Refused(404, "EntryNotFound", "Entry not found")
        body, status = files[path], 200
        headers = {"ETag": f'"{git_hash(body)}"', "X-Repo-Commit": commit}
        asked = self.headers.get("Range")
        if asked:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        return status, body, headers


# Bound when this is imported, so that HF_ENDPOINT can name it before huggingface_hub is.
HTTP = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
ENDPOINT = f"http://127.0.0.1:{HTTP.server_address[1]}"


@contextmanager
def hub_on_loopback() -> Iterator[Hub]:
    """Serve a new, empty Hub at ENDPOINT."""
    hub = Handler.hub = Hub(url=ENDPOINT)
    with running(HTTP):
        yield hub
