"""What the commands that take a finished run have in common."""

from __future__ import annotations

from pathlib import Path

from unipet.errors import UnipetError
from unipet.runs.record import Record
from unipet.runs.record_files import ADAPTER, CONFIG, RESULT, read_record


def check_run(directory: Path) -> Record:
    """The record of the run in `directory`. Raises `UnipetError` when it is no run, or not a finished one."""
    for name in (RESULT, CONFIG):
        if not (directory / name).is_file():
            raise UnipetError(
                f"{directory}: no {name} there, so it is not a run's directory. "
                "Give one, such as runs/METHOD-sst2-s0-1a2b3c4d; `unipet runs` lists what there is."
            )
    record = read_record(directory / RESULT)
    if record.status != "ok" or not (directory / ADAPTER).is_dir():
        raise UnipetError(f"{directory}: this run has no saved adapter (status: {record.status}). Train it again.")
    return record
