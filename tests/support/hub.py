"""A stand-in for the hub's HTTP interface: model repositories in memory, as much as uploading and downloading asks for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_stand_in"
COMMIT = "1" * 40


@dataclass
class Repository:
    """One model repository."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    said: dict[str, int] = field(default_factory=dict)  # sizes that it claims
    message: str = ""


@dataclass
class Hub:
    """The repositories, who may write where, and what was asked."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    owners: tuple[str, ...] = ("me",)
    asked: list[str] = field(default_factory=list)


class _Answer(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._file(send=False)

    def do_GET(self) -> None:
        if match := re.match(r"/api/models/([^/]+/[^/?]+)(?:/revision/([^/?]+))?", self.path):
            repository = self._visible(match[1])
            if repository is None:
                return
            if match[2] not in (None, "main", COMMIT):
                return self._json(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            files = [
                {"rfilename": name, "size": repository.said.get(name, len(content)), "blobId": _sha(content)}
                for name, content in repository.files.items()
            ]
            return self._json(
                200,
                {"id": match[1], "modelId": match[1], "sha": COMMIT, "private": repository.private, "siblings": files},
            )
        return self._file(send=True)

    def do_POST(self) -> None:
        self.hub.asked.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/validate-yaml":
            return self._json(200, {"warnings": [], "errors": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if asked["organization"] not in self.hub.owners:
                return self._json(403, {"error": "You don't have the rights to create a model under this namespace"})
            if name in self.hub.repositories:
                return self._json(
                    409, {"error": "You already created this model repo", "url": f"{self.hub.address}/{name}"}
                )
            private = asked.get("private") is True or asked.get("visibility") == "private"
            self.hub.repositories[name] = Repository(private)
            return self._json(200, {"url": f"{self.hub.address}/{name}", "name": name})
        if match := re.match(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            files = json.loads(body)["files"]
            return self._json(
                200, {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}
            )
        if match := re.match(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            repository = self.hub.repositories[match[1]]
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "header":
                    repository.message = entry["value"]["summary"]
                elif entry["key"] == "file":
                    repository.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"{self.hub.address}/{match[1]}/commit/{COMMIT}"
            return self._json(200, {"commitUrl": url, "commitOid": COMMIT, "success": True})
        return self._json(404, {"error": self.path})

    def _visible(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        hidden = (
            repository is not None and repository.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        )
        if repository is None or hidden:
            self._json(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _file(self, send: bool) -> None:
        self.hub.asked.append(self.path)
        match = re.match(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        repository = None if match is None else self._visible(match[1])
        if match is None or repository is None:
            return
        content = repository.files.get(match[3])
        if content is None:
            return self._json(404, {"error": "no file"}, {"X-Error-Code": "EntryNotFound"})
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{_sha(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if send:
            self.wfile.write(content)

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _sha(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on this machine, for as long as the block lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (_Answer,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
