"""Uploading runs that were tracked by wandb without a network: each once, whole, when it has a result.

A job that was killed and went on leaves a part for each process, and the last one tells all steps from the first on. So the
last part is the run. Earlier ones would double its steps, and a run that may still go on waits. wandb itself notes what it has
uploaded, in a file beside the part.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from unipet.errors import UnipetError
from unipet.report.collect import Entry
from unipet.runs.sweep_files import RESULTS

COMMAND = (sys.executable, "-m", "wandb", "sync")
AT_ONCE = 100  # parts for one call of wandb
SAID = 5  # lines of what wandb says when it fails


@dataclass
class Waiting:
    """What a directory has of runs tracked offline."""

    parts: list[Path] = field(default_factory=list)  # to upload: the directory of each run's last part
    uploaded: int = 0  # runs that were before
    unfinished: int = 0  # runs without a result: they may go on


def waiting(entries: Sequence[Entry], directory: Path) -> Waiting:
    """The offline parts of these runs, beside them (`<runs_dir>/wandb`) or in `directory`."""
    folders = {entry.directory.parent / "wandb" for entry in entries if entry.directory is not None}
    parts: dict[str, list[Path]] = {}
    for folder in {Path(os.path.realpath(folder)) for folder in (*folders, directory / "wandb")}:
        for part in folder.glob("offline-run-*-*"):
            parts.setdefault(part.name.rpartition("-")[2], []).append(part)
    found = Waiting()
    done = {entry.record.run_id: entry.record.status in RESULTS for entry in entries if entry.record.run_id}
    for run_id, own in parts.items():
        last = max(own, key=lambda part: part.name)  # the name begins with the time
        if run_id not in done:
            continue
        if not done[run_id]:
            found.unfinished += 1
        elif any(last.glob("*.wandb.synced")):
            found.uploaded += 1
        else:
            found.parts.append(last)
    found.parts.sort()
    return found


def sync(parts: Sequence[Path], project: str | None, entity: str) -> list[Path]:
    """Have wandb upload these parts. Those that it did not take are returned, and what it said is shown.

    Raises `UnipetError` where wandb is missing.
    """
    if find_spec("wandb") is None:
        raise UnipetError("--sync: the package wandb is not installed. Install it with `pip install wandb`.")
    options = [*(["--project", project] if project else []), *(["--entity", entity] if entity else [])]
    for start in range(0, len(parts), AT_ONCE):
        some = parts[start : start + AT_ONCE]
        done = subprocess.run(
            [*COMMAND, *options, *map(str, some)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode != 0:
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            print("\n".join(said[-SAID:]), file=sys.stderr)
    return [part for part in parts if not any(part.glob("*.wandb.synced"))]
