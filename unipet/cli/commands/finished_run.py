"""Checking the directory of a finished run, for the commands that read one."""

from __future__ import annotations

from pathlib import Path

from unipet.errors import UnipetError
from unipet.runs.record import Record
from unipet.runs.record_files import ADAPTER, CONFIG, RESULT, read_record


def check_run(directory: Path) -> Record:
    """The record of the run in `directory`. Raises `UnipetError` if it is not that of a finished run."""
    for name in (RESULT, CONFIG):
        if not (directory / name).is_file():
            raise UnipetError(
                f"{directory}: it has no {name}, so it is not a run's directory. "
                "Give one, such as runs/METHOD-sst2-s0-1a2b3c4d; `unipet runs` lists the runs."
            )
    record = read_record(directory / RESULT)
    if record.status != "ok" or not (directory / ADAPTER).is_dir():
        raise UnipetError(f"{directory}: this run has no saved adapter (status: {record.status}). Train it again.")
    return record
