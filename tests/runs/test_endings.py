"""What a run that failed leaves for the next attempt."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipet.errors import UnipetError
from unipet.output.stopwatch import Stopwatch
from unipet.runs.endings import failed
from unipet.runs.record import Record
from unipet.training.resume_point import FOLDER


def full_disk() -> Exception:
    """As saving an adapter says it: an error of ours, made of the system's."""
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise UnipetError(f"Cannot save the adapter: {error}.") from None
    except UnipetError as error:
        return error


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (full_disk(), True),
        (OSError(28, "full"), True),
        (UnipetError("the loss became nan"), False),
        (RuntimeError("boom"), False),
    ],
    ids=["made of a full disk", "a full disk", "a mistake", "an exception"],
)
def test_what_the_machine_did_leaves_the_resume_points(tmp_path: Path, error: Exception, stays: bool) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "0000000002.json").write_text("{}")
    record = Record(status="running")
    failed(record, error, Stopwatch(), tmp_path)
    assert record.status == "failed" and (tmp_path / FOLDER).exists() == stays
