"""Runs as a pandas DataFrame, for a notebook."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from unipet.errors import UnipetError
from unipet.report.collect import collect
from unipet.runs.run_columns import rows_of

if TYPE_CHECKING:
    import pandas


def results(directory: str | os.PathLike[str]) -> pandas.DataFrame:
    """Every run below a directory, or every job of a sweep's directory, as a row.

    Columns: method, task, model, budget, seed, status, score, metric; `params.*`, `time.*`, `memory.*`; every key of the
    configurations that is not the same in all runs, such as `optim.lr`; reason, started, finished, run_id, directory.
    Raises `UnipetError` when pandas is missing, the directory does not exist, or no run is in it.
    """
    check_pandas()
    import pandas

    return pandas.DataFrame(rows_of(collect(Path(os.path.expanduser(directory)))))


def check_pandas() -> None:
    """Raise `UnipetError` when pandas is missing."""
    try:
        import pandas  # noqa: F401
    except ImportError:
        raise UnipetError("A table of runs in Python needs pandas: pip install 'unipet[notebook]'.") from None
