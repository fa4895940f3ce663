"""Deleting runs: only what is a run, lies below the directory that was named, and is nobody's work at this moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from unipet.errors import UnipetError
from unipet.runs.record_files import RESULT, record_files
from unipet.runs.run_directory import Busy, locked


def why_kept(directory: Path, root: Path, chosen: Sequence[Path]) -> str | None:
    """What speaks against deleting the run in `directory`; None where nothing does. `chosen` are all that are to go."""
    real, inside = Path(os.path.realpath(directory)), Path(os.path.realpath(root))
    if inside not in real.parents:
        return f"it is not below {root}"
    if real != inside / os.path.relpath(directory, root):
        return "a symbolic link leads there"
    if not (directory / RESULT).is_file():
        return f"it has no {RESULT}"
    others = [path.parent for path in record_files(directory) if path.parent not in chosen]
    return f"another run lies in it: {others[0]}" if others else None


def delete_run(directory: Path, root: Path, chosen: Sequence[Path]) -> str | None:
    """Delete the run in `directory`, or say why it is kept. The record goes first: what is left over is no run."""
    if (why := why_kept(directory, root, chosen)) is not None:
        return why
    try:
        with locked(directory):
            (directory / RESULT).unlink(missing_ok=True)
            shutil.rmtree(directory)  # links inside are removed, not followed
    except Busy:
        return "another process is doing this run"
    except OSError as error:
        return f"{error.strerror or error}"
    return None


def size_of(directory: Path) -> int:
    """Bytes of the files in a directory."""
    total = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total


def find_run(root: Path, name: str) -> Path:
    """The directory of a run that a user names: its path, or its name below `root`. Raises `UnipetError`."""
    for directory in (root / name, Path(os.path.expanduser(name))):
        if (directory / RESULT).is_file():
            return directory
    raise UnipetError(
        f"{name}: no run there, and none of this name in {root}. `unipet runs runs_dir={root}` lists what there is."
    )
