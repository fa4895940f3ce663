"""The other devices of a run (`budget.gpus`): a process for each, started, watched and ended by the run's own process.

The run's own process is number 0: it prepares, trains along, evaluates and writes everything. The others only compute.
`device_process.py` is what they do. A process says one line of JSON when it is ready, and one when an error ended it.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.output.exit_codes import how_it_ended
from unipet.output.stopwatch import phase
from unipet.runs.device_share import LOST_OTHERS, READY, Share, no_such_class

if TYPE_CHECKING:
    from unipet.training.ranks import Ranks

_FAREWELL_S = 5.0  # for processes whose work is done, or in vain
_REASON_S = 60.0  # for a process to say why it ended: a busy machine takes its time


class DeviceFailed(RuntimeError):
    """An error ended the process of another device."""


class DeviceLost(ConnectionError):
    """The process of another device was killed, which is no fault of the run: it can go on from its last resume point."""


@contextmanager
def other_devices(share: Share, rest: ExitStack) -> Iterator[Ranks]:
    """Inside, the processes of the other devices take their parts of the training that this process does. Where each has a part
    of the base model, they stay until `rest` ends: evaluation needs them, too. Raises as `_at_work`."""
    if share.config.model.shard != "none":
        yield rest.enter_context(_at_work(share))
    else:
        with _at_work(share) as ranks:
            yield ranks


@contextmanager
def _at_work(share: Share) -> Iterator[Ranks]:
    """The processes of the other devices, from their start to their end.

    Raises what ended one of them: `UnipetError` (`Diverged` among them), `torch.OutOfMemoryError`,
    `DeviceFailed` or `DeviceLost`.
    """
    from unipet.training.ranks import ALONE, Disconnected, joined

    count = share.config.budget.gpus
    if count == 1 or (share.begin is not None and share.begin.outcome is not None):  # training may be over already
        yield ALONE
        return
    with tempfile.TemporaryDirectory(prefix="unipet-") as folder:
        share = replace(share, threads=_threads(count), meeting=Path(folder) / "meeting")
        others: list[OtherDevice] = []
        try:
            with phase("base_model"):  # which every process loads
                for rank in range(1, count):
                    others.append(OtherDevice(rank, count, Path(folder) / f"{rank}.log"))
                for other in others:
                    other.send(replace(share, rank=other.rank))
                for other in others:
                    if not other.becomes_ready():
                        raise _reason([other])
            with _threads_of(share.threads), joined(0, count, share.meeting) as ranks:
                yield ranks
        except Disconnected as error:
            raise _reason(others) from error
        finally:
            for other in others:
                other.dismiss()
            for other in others:
                other.end()


class OtherDevice:
    """The process of device number `rank`, from 1."""

    def __init__(self, rank: int, count: int, log: Path) -> None:
        self.rank, self._count, self._log = rank, count, log
        self._said: dict[str, Any] | None = None  # until it has said something
        with open(log, "wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "unipet.runs.device_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**os.environ, **_environment(rank)},
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout

    def send(self, share: Share) -> None:
        """Give it its task. A process that has already ended is noticed when it does not become ready."""
        try:
            said = pickle.dumps(share.config.imports) + pickle.dumps(
                share
            )  # first modules that define classes of the rest
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise no_such_class(error) from error
        with suppress(BrokenPipeError):
            self._input.write(said)
            self._input.flush()

    def becomes_ready(self) -> bool:
        """Wait until it has loaded everything; False where it ended instead."""
        self._said = self._next_line()
        return self._said == READY

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def error(self) -> Exception | None:
        """What ended it; None while it runs, and where only the end of another process did."""
        said = self._said if self._said != READY else None
        code = self._process.poll()
        if said is None and code is not None:
            said = self._next_line()
        name = f"device {self.rank + 1} of {self._count}"
        if said is not None:
            return _raised(name, said)
        if code is None or code == LOST_OTHERS:
            return None
        failed = (DeviceLost if code < 0 else DeviceFailed)(f"{name}: {how_it_ended(code)}")
        failed.add_note(self._log.read_text(encoding="utf-8", errors="replace")[-4000:])
        return failed

    def _next_line(self) -> dict[str, Any] | None:
        line = self._output.readline()
        said: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return said

    def dismiss(self) -> None:
        """Ask it to end: it does when nobody can speak to it any more, which is also how it notices that this process died."""
        with suppress(BrokenPipeError):
            self._input.close()

    def end(self) -> None:
        """Wait for its end, and bring it about if need be."""
        try:
            self._process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()


def _reason(others: list[OtherDevice]) -> Exception:
    """Why one of the processes ended. The others notice it as this one does, and have no reason of their own."""
    deadline = time.monotonic() + _REASON_S
    ended = False
    while not ended and time.monotonic() < deadline:
        ended = all(other.ended for other in others)  # then the next look is the last
        for other in others:
            if (error := other.error()) is not None:
                return error
        time.sleep(0.05)
    return DeviceLost("the connection between the processes of this run was lost, and none of them says why")


def _raised(name: str, said: dict[str, Any]) -> Exception:
    """The error that a process reported, as if it had happened here."""
    import torch

    from unipet.training.objective_trainer import Diverged

    kinds = {"UnipetError": UnipetError, "Diverged": Diverged}
    if said["kind"] in kinds:
        return kinds[said["kind"]](said["message"])
    if said["kind"] == "OutOfMemoryError":
        return torch.OutOfMemoryError(f"{said['message']} ({name})")
    failed = DeviceFailed(f"{name}: {said['kind']}: {said['message']}")
    failed.add_note(said["traceback"])
    return failed


def _environment(rank: int) -> dict[str, str]:
    """What the process of a device finds in its environment: the same modules, and its GPU as the only one."""
    import torch

    changed = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    if torch.cuda.is_available():
        named = [name for name in os.getenv("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        changed["CUDA_VISIBLE_DEVICES"] = named[rank].strip() if named else str(rank)
    return changed


def _threads(count: int) -> int:
    """Each process' part of the threads that this one computes with."""
    import torch

    return max(1, torch.get_num_threads() // count)


@contextmanager
def _threads_of(count: int) -> Iterator[None]:
    """Inside, this process computes with `count` threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
