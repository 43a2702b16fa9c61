"""A server on loopback that speaks as much of the hub's API as pushing and downloading a model needs.

Written from the documentation of the hub and of Git LFS: repositories, branches, preupload, LFS batches, commits, trees
and ``resolve`` with its headers ``X-Repo-Commit`` and ``X-Linked-Etag``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"
_REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"


class RefusalError(Exception):
    """An answer that is an error: status and ``X-Error-Code``."""


class Hub(ThreadingHTTPServer):
    """The server; ``url`` is what ``HF_ENDPOINT`` would be.

    Attributes:
        commits: files of each commit.
        branches: commit of each branch, by repository.
        private: private repositories.
        cut: bytes after which the next download breaks off once; 0 for none.
        ranges: the ``Range`` of each download of weights.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.private: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.cut = 0
        self.ranges: list[str | None] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def commit(self, repository: str, branch: str, files: dict[str, bytes]) -> str:
        """Lay files over those of a branch, which is made where it is missing."""
        before = self.commits.get(self.branches.setdefault(repository, {}).get(branch, ""), {})
        content = {**before, **files}
        parts = [f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in sorted(content.items())]
        key = hashlib.sha1(" ".join([repository, *parts]).encode()).hexdigest()
        self.commits[key] = content
        self.branches[repository][branch] = key
        return key

    def files(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]]:
        """Commit and files of a revision."""
        key = self.branches[repository].get(revision, revision)
        if key not in self.commits:
            raise RefusalError(404, "RevisionNotFound")
        return key, self.commits[key]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub
    routes = {
        "POST /api/repos/create": "create",
        "POST /api/validate-yaml": "validate",
        rf"POST /api/models/{_REPOSITORY}/branch/(?P<branch>.+)": "branch",
        rf"POST /api/models/{_REPOSITORY}/preupload/(?P<branch>.+)": "preupload",
        rf"POST /api/models/{_REPOSITORY}/commit/(?P<branch>.+)": "commit",
        rf"POST /{_REPOSITORY}\.git/info/lfs/objects/batch": "batch",
        r"PUT /lfs/(?P<oid>\w+)": "put",
        rf"GET /api/models/{_REPOSITORY}/tree/(?P<revision>.+)": "tree",
        rf"GET /api/models/{_REPOSITORY}/revision/(?P<revision>.+)": "info",
        rf"(GET|HEAD) /{_REPOSITORY}/resolve/(?P<revision>.+)/(?P<file>[^/]+)": "resolve",
    }

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def handle_one(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        request = f"{self.command} {unquote(urlsplit(self.path).path)}"
        try:
            for pattern, name in self.routes.items():
                if match := re.fullmatch(pattern, request):
                    self.allow(match.groupdict().get("repository"), writes=self.command in ("POST", "PUT"))
                    getattr(self, name)(**match.groupdict())
                    return
            raise RefusalError(404, "RepoNotFound")
        except RefusalError as refusal:
            status, code = refusal.args
            said = {"X-Error-Message": "Invalid credentials in Authorization header"} if code == "" else {}
            self.answer(b"", status, {"X-Error-Code": code, **said})

    do_GET = do_POST = do_PUT = do_HEAD = handle_one  # noqa: N815

    def allow(self, repository: str | None, writes: bool) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.path.startswith("/lfs/"):  # addresses that are themselves the permission
            return
        if token not in ("", TOKEN):
            raise RefusalError(401, "")
        if repository in self.server.private and token != TOKEN:
            raise RefusalError(401, "RepoNotFound")
        if writes and token != TOKEN:
            raise RefusalError(401, "RepoNotFound" if repository else "")
        if repository is not None and repository not in self.server.branches:
            raise RefusalError(404, "RepoNotFound")

    def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None, length: int = -1) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(length if length >= 0 else len(body)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any) -> None:
        self.answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.branches:
            raise RefusalError(409, "RepoExists")
        self.server.commit(name, "main", {})
        if asked.get("visibility") == "private" or asked.get("private"):
            self.server.private.add(name)
        self.json({"url": f"{self.server.url}/{name}"})

    def validate(self) -> None:
        assert json.loads(self.body)["content"].startswith("---\n")
        self.json({"errors": [], "warnings": []})

    def branch(self, repository: str, branch: str) -> None:
        if branch in self.server.branches[repository]:
            raise RefusalError(409, "BranchExists")
        self.server.branches[repository][branch] = self.server.branches[repository]["main"]
        self.json({})

    def preupload(self, repository: str, branch: str) -> None:
        self.server.files(repository, branch)
        files = [file["path"] for file in json.loads(self.body)["files"]]
        mode = {name: "lfs" if name.endswith((".safetensors", ".png")) else "regular" for name in files}
        self.json({"files": [{"path": name, "uploadMode": mode[name], "shouldIgnore": False} for name in files]})

    def batch(self, repository: str) -> None:
        objects = json.loads(self.body)["objects"]
        for each in objects:
            each["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}}
        self.answer(json.dumps({"transfer": "basic", "objects": objects}).encode())

    def put(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.large[oid] = self.body
        self.answer(b"")

    def commit(self, repository: str, branch: str) -> None:
        files = {}
        for line in map(json.loads, self.body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        key = self.server.commit(repository, branch, files)
        address = f"{self.server.url}/{repository}/commit/{key}"
        self.json({"success": True, "commitOid": key, "commitUrl": address})

    def tree(self, repository: str, revision: str) -> None:
        _, files = self.server.files(repository, revision)
        self.json([{"type": "file", "path": n, "size": len(x), "oid": "0" * 40} for n, x in files.items()])

    def info(self, repository: str, revision: str) -> None:
        key, _ = self.server.files(repository, revision)
        self.json({"id": repository, "sha": key, "siblings": [], "tags": []})

    def resolve(self, repository: str, revision: str, file: str) -> None:
        key, files = self.server.files(repository, revision)
        if file not in files:
            raise RefusalError(404, "EntryNotFound")
        data = files[file]
        etag = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": key, "X-Linked-Etag": f'"{etag}"', "ETag": f'"{etag}"'}
        headers["X-Linked-Size"] = str(len(data))
        if self.command == "HEAD":
            self.answer(data, headers=headers)
            return
        span = self.headers.get("Range")
        if file.endswith(".safetensors"):
            self.server.ranges.append(span)
        data = self.server.large.get(etag, data)  # which a test may replace
        start = int(re.fullmatch(r"bytes=(\d+)-.*", span)[1]) if span else 0  # type: ignore[index]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        rest = data[start:]
        if self.server.cut and file.endswith(".safetensors"):
            cut, self.server.cut = self.server.cut, 0
            self.answer(rest[:cut], headers=headers, length=len(rest))
            self.close_connection = True
            return
        self.answer(rest, 206 if start else 200, headers)
