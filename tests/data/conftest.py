"""A web server of this machine that breaks off, lies, and is not there; and a set in shards."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from t2i_zoo.data import SyntheticFlowers, download
from t2i_zoo.data.shard_writer import write_shards
from t2i_zoo.data.store import StoreSpec
from t2i_zoo.text import build_text_encoder

OXFORD = Path(__file__).resolve().parents[3] / "shared/data/oxford102"


@pytest.fixture(scope="session")
def oxford102() -> Path:
    """The real Oxford-102 flowers, if they are in ``shared/`` beside the repository."""
    if not OXFORD.is_dir():
        pytest.skip(f"needs the real Oxford-102 flowers in {OXFORD}, which are not part of the repository")
    return OXFORD


class Server(ThreadingHTTPServer):
    """Serves ``files``; breaks off after ``breaks[path]`` bytes as often as that list is long."""

    daemon_threads = True

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.breaks: dict[str, list[int]] = {}
        self.status: dict[str, list[int]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.ranges = self.tags = True
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/").split("?")[0]
        asked = self.headers.get("Range")
        self.server.asked.append((name, asked))
        if self.server.status.get(name):
            self.send_error(self.server.status[name].pop(0))
            return
        if name not in self.server.files:
            self.send_error(404)
            return
        body = self.server.files[name]
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        start = 0
        if asked and self.server.ranges and self.headers.get("If-Range") == tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if self.server.tags:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body)
        if self.server.breaks.get(name):
            end = start + self.server.breaks[name].pop(0)
        self.wfile.write(body[start:end])

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """64 flowers in shards of ten, with features of sentences and words by the hashing encoder at 16 numbers."""
    folder = tmp_path_factory.mktemp("shards") / "flowers"
    spec = StoreSpec(SyntheticFlowers(images=64, size=24), 19)
    write_shards(spec, folder, build_text_encoder({"kind": "hashing", "dim": 16}), words=True, per_shard=10)
    return folder
