"""What a run that is started again goes on from: the resume points of the process before, where they are this run's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.runs.record import Record
from unipet.runs.record_files import RESULT, read_record, write_record
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
    directory: Path, record: Record, fit: MemoryFit, device: str
) -> tuple[ResumePoints, ResumePoint | None]:
    """The run's resume points, and the one that it goes on from, which its record then counts; without one the run begins at
    its beginning, and what was there is removed."""
    from unipet.training.resume_point import ResumePoints, discard

    points = ResumePoints(directory, _setting(record, fit, device))
    begin = points.newest()
    if begin is None:
        discard(directory)
        record.resumed = []
    else:
        record.resumed.append(begin.step)
        write_record(directory / RESULT, record)
    return points, begin


def _setting(record: Record, fit: MemoryFit, device: str) -> dict[str, Any]:
    """What must not change within one run: another version would finish what this one began, and nobody could repeat it."""
    versions = {name: version for name, version in record.versions.to_dict().items() if name != "machine"}
    fitted = {"micro_batch": fit.micro_batch, "checkpointing": fit.checkpointing}
    where = {"run_id": record.run_id, "device": device.partition(":")[0], "unipet's source": source_checksum()}
    return {**where, **versions, **fitted}
