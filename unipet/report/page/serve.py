"""A live page on this machine alone. It is made anew when records change; the page asks for the newest version."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from unipet.errors import UnipetError
from unipet.output.files import utf8
from unipet.report.collect import collect, sweeps_below, trials
from unipet.report.page.document import bundle, message, page
from unipet.report.tuning import curves
from unipet.runs.record_files import METRICS, RESULT
from unipet.runs.sweep_files import INDEX, JOBS, PENDING, RUNNING, is_sweep, read_jobs

HOST, PORT = "127.0.0.1", 8765
REST = 4.0  # times as long as the last look took: a training run beside it needs the processor more


def version(directory: Path) -> str:
    """A name for the present state of all records below the directory, or of a sweep's runs, wherever they are. It changes when
    one of them does, when a job begins or ends, and when a run goes on."""
    state = hashlib.sha256()
    for path in sorted(_watched(directory)):
        try:
            now = os.stat(path)
        except OSError:  # replaced at this moment, or not there yet
            continue
        state.update(utf8(f"{path}:{now.st_mtime_ns}:{now.st_size}\n"))
    return state.hexdigest()[:16]


def _watched(directory: Path) -> set[str]:
    """The files that a page is made of."""
    files: set[str] = set()
    for folder, _, names in os.walk(directory):
        outcomes = os.path.basename(folder) == JOBS
        wanted = (name for name in names if name in (RESULT, METRICS, INDEX) or (outcomes and name.endswith(".json")))
        files.update(f"{folder}/{name}" for name in wanted)
    if is_sweep(directory):  # its runs lie beside it
        runs = (os.path.normpath(directory / state.run_dir) for state in read_jobs(directory) if state.run_dir)
        files.update(f"{run}/{name}" for run in runs for name in (RESULT, METRICS))
    return files


def progress(directory: Path) -> list[str]:
    """How far each sweep is that has jobs left, in a sentence."""
    said = []
    for sweep in sweeps_below(directory):
        states = Counter(state.status for state in read_jobs(sweep))
        running, pending = states[RUNNING], states[PENDING]
        if running or pending:
            total = states.total()
            ended = total - running - pending
            said.append(
                f"Sweep {sweep.resolve().name}: {ended} of {total} jobs have ended, {running} running, {pending} not begun."
            )
    return said


class Live:
    """The page of a directory: `html` and `stamp` of its newest version. Safe to ask from several threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._html, self._stamp, self._next = "", "", 0.0

    def current(self) -> tuple[str, str]:
        """(html, stamp), made anew when records changed and the last look is long enough ago."""
        with self._lock:
            started = time.monotonic()
            if started >= self._next:
                if (stamp := version(self.directory)) != self._stamp:
                    try:
                        entries, tuning = collect(self.directory), curves(trials(self.directory))
                        self._html = page(entries, stamp=stamp, progress=progress(self.directory), tuning=tuning)
                    except (
                        UnipetError
                    ) as error:  # no record yet, or one that cannot be read: the next look may do better
                        self._html = message(" ".join([*progress(self.directory), str(error)]), stamp)
                    self._stamp = stamp
                self._next = time.monotonic() + REST * (time.monotonic() - started)
            return self._html, self._stamp


def server(directory: Path, port: int = PORT) -> ThreadingHTTPServer:
    """A server on the loopback address, not started yet; port 0 takes a free one.

    Raises `UnipetError` for a directory that does not exist, a port that is taken, or a missing package.
    """
    if not directory.is_dir():
        raise UnipetError(f"{directory}: no such directory. Give the directory of your runs, for example `runs`.")
    bundle()  # a missing package is one error now, not one for each request
    live = Live(directory)

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0  # seconds that a connection may say nothing

        def do_GET(self) -> None:
            """The page at /, its version at /stamp."""
            known = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}  # type: ignore[attr-defined]
            if self.headers.get("Host") not in known:  # a stranger's page that calls this machine by another name
                return self.send_error(HTTPStatus.FORBIDDEN)
            if self.path == "/":
                return self._answer("text/html", live.current()[0])
            if self.path == "/stamp":
                return self._answer("text/plain", live.current()[1])
            return self.send_error(HTTPStatus.NOT_FOUND)

        def _answer(self, kind: str, text: str) -> None:
            body = utf8(text)
            self.send_response(HTTPStatus.OK)
            for name, value in (
                ("Content-Type", f"{kind}; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                ("Content-Security-Policy", "frame-ancestors 'none'"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silent: the page asks every two seconds."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise UnipetError(
            f"--port {port}: {getattr(error, 'strerror', None) or error}. Choose another, or 0 for a free one."
        ) from None


def serve(directory: Path, port: int = PORT) -> int:
    """Serve until interrupted; exit code 0."""
    with server(directory, port) as running:
        print(f"live report of {directory}: http://{HOST}:{running.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
