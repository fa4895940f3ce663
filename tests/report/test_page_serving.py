"""`unipet report --serve` beside hostile neighbours: who reaches it, what it answers, what it never does."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.pages import method
from tests.support.pages import write_run as write_page_run
from tests.support.reports import write_run
from unipet.report.page.serve import server

SECRET = "CANARY-71d0"
SCRIPT = "<script>window.hacked=1</script>"


@dataclass(frozen=True)
class Live:
    """A running server, the directory that it shows, and what lies beside that."""

    running: ThreadingHTTPServer
    runs: Path
    outside: Path

    @property
    def port(self) -> int:
        return int(self.running.server_port)

    def say(self, *lines: str, host: str | None = "") -> tuple[int, str]:
        """The status and the whole answer to a request of these lines; `host` is the header, None for none."""
        own = f"127.0.0.1:{self.port}" if host == "" else host
        head = [lines[0], *([] if own is None else [f"Host: {own}"]), *lines[1:], "Connection: close", "", ""]
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall("\r\n".join(head).encode("latin-1"))
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode("utf-8", "replace")
        return int(answer.split(" ", 2)[1]), answer


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("live")
    outside = root / "outside"
    outside.mkdir()
    runs = root / "runs"
    write_run(runs, "good")
    labelled = write_page_run(runs, method("hostile"), 0, 0.5)
    for name in ("result.json", "config.yaml"):
        (labelled / name).write_text((labelled / name).read_text().replace("hostile", SCRIPT))
    secret = json.loads((runs / "good-t-0-none" / "result.json").read_text()) | {"method": SECRET, "run_id": SECRET}
    (outside / "result.json").write_text(json.dumps(secret))
    (outside / "metrics.jsonl").write_text(f'{{"step": 1, "loss": 0.7171717}}\n{{"{SECRET}": 1}}\n')
    (outside / "config.yaml").write_text(f"method: {{name: {SECRET}}}\n")
    for name in ("result.json", "metrics.jsonl", "config.yaml"):
        place = write_run(runs, f"linked_{name.split('.')[0]}")
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(outside / name)
    (runs / "linked_folder").symlink_to(outside)
    with server(runs, 0) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield Live(running, runs, outside)
        running.shutdown()
        thread.join()


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_is_there_for_this_machine_alone(live: Live) -> None:
    assert live.running.server_address[0] == "127.0.0.1"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", live.port), timeout=5).close()
    assert live.say("GET / HTTP/1.1")[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *(None, "evil.example", "evil.example:{port}", "127.0.0.1", "localhost", "127.0.0.1:80", "[::1]:{port}"),
        *("0.0.0.0:{port}", "0:{port}", "LOCALHOST.:{port}"),
        *("127.0.0.1:{port}.evil.example", "evil.example/127.0.0.1:{port}", "localhost:{port}@evil.example", "127.1:{port}"),
        "evil.example\r\nHost: 127.0.0.1:{port}",
    ],
)  # fmt: skip
def test_another_name_for_this_machine_is_refused(live: Live, host: str | None) -> None:
    """A stranger's page whose name was made to lead here asks for that name."""
    for path in ("/", "/stamp"):
        status, answer = live.say(f"GET {path} HTTP/1.1", host=None if host is None else host.format(port=live.port))
        assert status == 403 and "good" not in answer


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "MKCOL"])
def test_nothing_writes(live: Live, verb: str) -> None:
    before = state(live.runs)
    for path in ("/", "/stamp", "/good-t-0-none/result.json"):
        status, _ = live.say(f"{verb} {path} HTTP/1.1", "Content-Length: 0")
        assert status == 501
    assert state(live.runs) == before


@pytest.mark.parametrize(
    "path",
    [
        *("/good-t-0-none/result.json", "/../outside/result.json", "/%2e%2e/outside/result.json", "//etc/passwd"),
        *("/..%2foutside/result.json", "/./result.json"),
        *("/etc/passwd", "/?x", "/index.html", "file:///etc/passwd", "http://evil.example/", "/linked_folder/result.json", "*"),
        *("/%00", "/stamp/../..", "\\..\\outside", "/" + "a" * 5000),
    ],
)  # fmt: skip
def test_it_serves_the_page_and_nothing_else(live: Live, path: str) -> None:
    status, answer = live.say(f"GET {path} HTTP/1.1")
    assert status == 404 and SECRET not in answer and "root:" not in answer


def test_links_out_of_the_directory_are_not_followed(live: Live) -> None:
    _, answer = live.say("GET / HTTP/1.1")
    assert SECRET not in answer and "0.7171717" not in answer
    assert answer.count("a link that leads out of its folder") >= 2  # the record's and the configuration's, by name


def test_labels_are_text(live: Live) -> None:
    _, answer = live.say("GET / HTTP/1.1")
    assert "window.hacked" in answer and SCRIPT not in answer
    for header in ("X-Content-Type-Options: nosniff", "frame-ancestors 'none'", "Cache-Control: no-store"):
        assert header in answer.split("\r\n\r\n")[0]
    assert "access-control" not in answer.split("\r\n\r\n")[0].lower()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: ", b"\xff\xfe\x00\r\n\r\n", b"GET\r\n\r\n"])
def test_a_connection_that_says_nothing_is_closed(live: Live, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < live.running.RequestHandlerClass.timeout <= 10  # type: ignore[attr-defined]
    monkeypatch.setattr(live.running.RequestHandlerClass, "timeout", 0.2)
    with socket.create_connection(("127.0.0.1", live.port), timeout=30) as connection:
        connection.sendall(said)
        began = time.monotonic()
        while connection.recv(65536):
            pass
        assert time.monotonic() - began < 20
    assert live.say("GET /stamp HTTP/1.1")[0] == 200, "and it still answers others"
