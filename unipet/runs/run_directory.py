"""A run's directory: its name, whether a finished run is complete in it, and the lock that lets one process write."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.output import libraries
from unipet.output.files import as_file_name, remove_leftovers
from unipet.runs.checksums import checksum
from unipet.runs.record import Record
from unipet.runs.record_files import (
    ADAPTER,
    ATTEMPT,
    CONFIG,
    ERROR,
    METRICS,
    PREDICTIONS,
    PREDICTIONS_OF,
    RESULT,
    read_record,
)
from unipet.runs.versions import now

LOCK = ".lock"


class Busy(UnipetError):
    """Another process is doing the same run."""


def run_directory(config: RunConfig, method: str, run_id: str) -> Path:
    """`<runs_dir>/<method>-<task>-s<seed>-<first 8 digits of run_id>`, or with the whole `run_id` if another run has it."""
    name = f"{method}-{config.task.name}-s{config.seed}"
    short, long = (Path(config.runs_dir) / as_file_name(f"{name}-{run_id[:digits]}") for digits in (8, 16))
    there = record_in(short)
    return short if there is None or there.run_id == run_id else long


def record_in(directory: Path) -> Record | None:
    """The record of the run in `directory`; None where there is none, or where it cannot be read (a disk may have damaged it):
    that run is not finished, and is done again."""
    try:
        return read_record(directory / RESULT)
    except UnipetError:
        return None


def checksums(directory: Path) -> dict[str, str]:
    """Path in the directory -> checksum, of every file of a finished run except its record."""
    adapter = sorted(path for path in (directory / ADAPTER).iterdir() if path.is_file())
    others = sorted(directory.glob(PREDICTIONS_OF.format("*")))
    files = [*adapter, *(directory / name for name in (METRICS, PREDICTIONS, CONFIG)), *others]
    return {path.relative_to(directory).as_posix(): checksum(path) for path in files}


def is_whole(directory: Path, record: Record) -> bool:
    """Whether `record` is that of a finished run, and every file of the run is unchanged in `directory`."""
    if record.status != "ok" or not record.files:
        return False
    return all(_is(directory / name, sha256) for name, sha256 in record.files.items())


def clear(directory: Path) -> None:
    """Create the run's directory, and delete the files that an earlier, unfinished attempt left in it."""
    directory.mkdir(parents=True, exist_ok=True)
    remove_leftovers(directory)
    for name in (RESULT, METRICS, PREDICTIONS, ERROR, libraries.FILE):
        (directory / name).unlink(missing_ok=True)
    for path in directory.glob(PREDICTIONS_OF.format("*")):
        path.unlink()
    shutil.rmtree(directory / ADAPTER, ignore_errors=True)


def settle(directory: Path) -> None:
    """Replace the earlier result by a complete repetition, file by file and the record last.

    If this is interrupted, calling it again completes it. An incomplete repetition stays where it is.
    """
    attempt = directory / ATTEMPT
    record = record_in(attempt)
    if record is None:
        return
    files = record.files
    if record.status != "ok" or not files:
        return
    if not all(_is(attempt / name, sha256) or _is(directory / name, sha256) for name, sha256 in files.items()):
        return
    for name, sha256 in files.items():
        if _is(attempt / name, sha256):
            (directory / name).parent.mkdir(exist_ok=True)
            os.replace(attempt / name, directory / name)
    os.replace(attempt / RESULT, directory / RESULT)
    shutil.rmtree(attempt)


def _is(path: Path, sha256: str) -> bool:
    try:
        return checksum(path) == sha256
    except OSError:
        return False


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock the run in `directory` for this process. The end of the process also releases the lock.

    Raises `Busy` if another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Busy(
                f"{directory}: another process is working on this run ({file.read().strip() or 'unknown'}). Wait until it "
                "ends: a finished run is not repeated."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {now()}\n")
        file.flush()
        yield
        file.truncate(0)
