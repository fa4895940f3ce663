"""A second process that takes part in many runs, one after the other: starting one for each would take longer than they do."""

from __future__ import annotations

import pickle
import select
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from unipet.runs import other_devices
from unipet.runs.device_process import _report, _speaker, take_part
from unipet.runs.device_share import READY, Share

DONE = {"done": True}  # said after each run that went well
LEAVE_S = 20.0


def serve() -> None:
    """Take part in one run for each share that comes, until none comes any more."""
    say = _speaker()
    while True:
        try:
            share: Share = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            take_part(share, lambda: say(READY))
            say(DONE)
        except Exception as error:
            traceback.print_exc()
            say(_report(error))


class Kept:
    """The process, and a stand-in for `OtherDevice` that uses it."""

    def __init__(self, log: Path) -> None:
        code = "from tests.support.devices import serve; serve()"
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file
            )
        self.shares: list[Share] = []

    def device(self, rank: int, count: int, log: Path) -> KeptDevice:
        assert (rank, count) == (1, 2)
        return KeptDevice(self)

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:  # a run that failed has left it in the middle of a message
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class KeptDevice(other_devices.OtherDevice):
    def __init__(self, kept: Kept) -> None:
        self.rank, self._kept = 1, kept
        assert kept.process.stdin is not None and kept.process.stdout is not None
        self._input, self._output = kept.process.stdin, kept.process.stdout

    def send(self, share: Share) -> None:
        self._kept.shares.append(share)
        pickle.dump(share, self._input)
        self._input.flush()

    def error(self) -> Exception | None:
        said: Any = self._next_line()
        raise AssertionError(said)

    def dismiss(self) -> None:
        pass

    def end(self) -> None:
        """Wait until it has left the run: the folder through which they met is removed next, and its store must not miss it."""
        if select.select([self._output], [], [], LEAVE_S)[0]:
            assert self._next_line() == DONE
