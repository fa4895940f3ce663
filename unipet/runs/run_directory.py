"""A run's directory: which it is, whether a finished run is whole in it, and whose turn it is to write there."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unipet.runs.checksums import checksum
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs.record import Record
from unipet.runs.record_files import ADAPTER, ATTEMPT, CONFIG, ERROR, METRICS, PREDICTIONS, RESULT, read_record
from unipet.runs.versions import now
from unipet.output import libraries
from unipet.output.files import as_file_name

LOCK = ".lock"


class Busy(UnipetError):
    """Another process is doing the same run."""


def run_directory(config: RunConfig, method: str, run_id: str) -> Path:
    """`<runs_dir>/<method>-<task>-s<seed>-<first 8 of run_id>`, with the whole `run_id` where another run is there."""
    name = f"{method}-{config.task.name}-s{config.seed}"
    short, long = (Path(config.runs_dir) / as_file_name(f"{name}-{run_id[:digits]}") for digits in (8, 16))
    taken = (short / RESULT).is_file() and read_record(short / RESULT).run_id != run_id
    return long if taken else short


def checksums(directory: Path) -> dict[str, str]:
    """The checksum of every file that a finished run consists of, its record aside, by its place in the directory."""
    adapter = sorted(path for path in (directory / ADAPTER).iterdir() if path.is_file())
    files = [*adapter, *(directory / name for name in (METRICS, PREDICTIONS, CONFIG))]
    return {path.relative_to(directory).as_posix(): checksum(path) for path in files}


def is_whole(directory: Path, record: Record) -> bool:
    """Whether `record` is a finished run's and every file that belongs to it is in `directory` as it was written."""
    if record.status != "ok" or not record.files:
        return False
    return all(_is(directory / name, sha256) for name, sha256 in record.files.items())


def clear(directory: Path) -> None:
    """Create the run's directory, and delete the files that an earlier, unfinished attempt left in it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, METRICS, PREDICTIONS, ERROR, libraries.FILE):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / ADAPTER, ignore_errors=True)


def settle(directory: Path) -> None:
    """Put a whole repetition in the place of the earlier result, file by file and the record last.

    Where this was interrupted, calling it again completes it. A repetition that is not whole stays where it is.
    """
    attempt = directory / ATTEMPT
    if not (attempt / RESULT).is_file():
        return
    record = read_record(attempt / RESULT)
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
    """The run in `directory` is this process's alone for the time inside; the end of the process gives it free, too.

    Raises `Busy` while another process is at it.
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
                f"{directory}: another process is doing this run ({file.read().strip() or 'unknown'}). Wait for it to end; "
                "the run is then finished and will not be repeated."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {now()}\n")
        file.flush()
        yield
        file.truncate(0)
