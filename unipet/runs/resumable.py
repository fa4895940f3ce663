"""What a run that is started again goes on from: the resume points of the process before, where they are this run's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.output.files import remove_leftovers
from unipet.runs.prepare import Prepared, finished_record
from unipet.runs.record import Record, TrialOf
from unipet.runs.record_files import RESULT, read_record, write_record
from unipet.runs.uploading import upload
from unipet.runs.versions import source_checksum

if TYPE_CHECKING:
    from unipet.training.budget.memory_fit import MemoryFit
    from unipet.training.resume_point import ResumePoint, ResumePoints


def resumed_before(directory: Path, run_id: str) -> list[int]:
    """The steps after which earlier processes have gone on with the run in `directory`."""
    try:
        record = read_record(directory / RESULT)
    except UnipetError:
        return []
    return record.resumed if record.run_id == run_id else []


def resume_points(
    directory: Path, record: Record, fit: MemoryFit, device: str, earlier: Prepared | None = None
) -> tuple[ResumePoints, ResumePoint | None]:
    """The run's resume points, and the one that it goes on from, which its record then counts; without one of its own that
    of `earlier`, the same run that ended at an earlier rung; without any the run begins at its beginning, and what was there
    is removed."""
    from unipet.training.resume_point import ResumePoints, discard

    setting = _setting(record, fit, device)
    points = ResumePoints(directory, setting)
    begin = points.newest()
    if begin is None and earlier is not None:
        begin = ResumePoints(earlier.directory, setting | {"run_id": earlier.run_id}).newest()
    if begin is None:
        discard(directory)
        record.resumed = []
    else:
        record.resumed.append(begin.step)
        write_record(directory / RESULT, record)
    return points, begin


def done_with(prepared: Prepared, directory: Path) -> None:
    """Remove the resume points that a finished run leaves. Those of a rung stay for the rung that comes after it, which
    then removes them."""
    from unipet.training.resume_point import discard

    if prepared.config.trial.until == 1.0:
        discard(directory)
    if (earlier := prepared.earlier_rung()) is not None:
        discard(earlier.directory)


def _setting(record: Record, fit: MemoryFit, device: str) -> dict[str, Any]:
    """What must not change within one run: another version would finish what this one began, and nobody could repeat it."""
    versions = {name: version for name, version in record.versions.to_dict().items() if name != "machine"}
    fitted = {"micro_batch": fit.micro_batch, "checkpointing": fit.checkpointing}
    where = {"run_id": record.run_id, "device": device.partition(":")[0], "unipet's source": source_checksum()}
    return {**where, **versions, **fitted}


def finished_before(prepared: Prepared) -> Record | None:
    """The record of the same run, where an earlier process has finished it and it shall not be repeated. It is uploaded, if it
    was not yet."""
    found = None if prepared.config.rerun else finished_record(prepared)
    if found is not None:
        done_with(prepared, prepared.directory)  # a process that was killed at its very end may have left some points
        remove_leftovers(prepared.directory)
        if (asked := TrialOf.from_dict(asdict(prepared.config.trial))).role and found.trial != asked:
            found.trial = asked  # the same run, which a search asks for now
            write_record(prepared.directory / RESULT, found)
        print(f"finished before, not run again (rerun=true repeats it): {prepared.directory}")
        upload(prepared.config.tracking, found, prepared.resolved, prepared.directory)
    return found
