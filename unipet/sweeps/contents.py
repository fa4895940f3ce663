"""What the runs of a sweep were made of: whether data, base model or functions changed while it was on its way.

`python -m unipet.sweeps.contents DIR` looks at its results in a process of its own, because that imports modules of the user.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.runs.record import Identity
from unipet.runs.record_files import RESULT, canonical_json, read_record
from unipet.runs.sweep_files import RESULTS, index_events, read_jobs
from unipet.sweeps.directory import Sweep, read_sweep
from unipet.sweeps.job_files import job_config, read_job

if TYPE_CHECKING:
    from unipet.report.collect import Entry

#: Parts of an identity -> what they are called, and the groups of the configuration that say which they are.
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "data": ("the data", ("task",)),
    "base_model": ("the base model", ("model",)),
    "sites": ("the site table", ("model",)),
    "functions": ("registered functions", ("method", "imports")),
    "teachers": ("a teacher", ("method", "model", "task")),
    "numerics": ("the numerics of unipet", ()),
}
LOOK_S = 600.0  # that the look at the results may take


def changed_since(sweep: Sweep) -> dict[int, list[str]]:
    """The jobs with a result whose contents are others now, and which parts: names of `PARTS`. None where it cannot be told."""
    line = [sys.executable, "-m", "unipet.sweeps.contents", str(sweep.directory.absolute())]
    try:
        told = subprocess.run(line, cwd=sweep.folder, capture_output=True, encoding="utf-8", timeout=LOOK_S)
        found: dict[str, list[str]] = json.loads(told.stdout.splitlines()[-1]) if told.returncode == 0 else {}
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return {}  # what is wrong, the jobs that are missing will say
    return {int(job): parts for job, parts in found.items()}


def main(directory: Path) -> None:
    """Print the answer of `changed_since` as the last line."""
    from unipet.runs.prepare import prepare
    from unipet.runs.tracked_summary import own_files

    sweep = read_sweep(directory)
    now: dict[str, Identity | None] = {}
    changed: dict[int, list[str]] = {}
    with own_files(sweep.config_dir):
        for state in read_jobs(directory):
            identity = _recorded(directory, state.run_dir) if state.status in RESULTS else None
            if identity is None:
                continue
            config = job_config(read_job(directory, state.job))
            key = canonical_json([asdict(config.task), asdict(config.model), config.method, config.imports])
            if key not in now:
                try:
                    now[key] = prepare(config).content
                except UnipetError:
                    now[key] = None
            if (own := now[key]) is not None and (parts := differing(identity, own)):
                changed[state.job] = parts
    print(json.dumps(changed))


def _recorded(sweep: Path, run_dir: str | None) -> Identity | None:
    if run_dir is None:
        return None
    try:
        identity = read_record(sweep / run_dir / RESULT).identity
    except UnipetError:
        return None
    return None if identity.data is None else identity  # of a version that did not write it


def differing(before: Identity, after: Identity) -> list[str]:
    """The names of the parts in which two identities differ."""
    return [part for part in PARTS if _part(before, part) != _part(after, part)]


def _part(identity: Identity, part: str) -> Any:
    return getattr(identity, part)


def in_words(parts: Sequence[str]) -> str:
    """`the data and the base model`."""
    return " and ".join(PARTS[part][0] for part in PARTS if part in parts)


def done_anew(sweep: Path) -> list[str]:
    """What to say of jobs that have become other runs than they were earlier in this sweep."""
    runs: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for event in index_events(sweep):
        if event.status in RESULTS and event.run_id and event.run_dir:
            runs[event.job].append((event.run_id, event.run_dir))
    why: dict[str, list[int]] = defaultdict(list)
    for job, each in runs.items():
        others = [run for run in each if run[0] != each[-1][0]]
        before, after = (_recorded(sweep, run[1]) for run in (others[-1], each[-1])) if others else (None, None)
        if before is not None and after is not None and (parts := differing(before, after)):
            why[in_words(parts)].append(job + 1)
    return [
        f"{_jobs(jobs)} changed into other runs, because {what} changed since; the earlier runs are kept beside them"
        for what, jobs in why.items()
    ]


def mixed(entries: Sequence[Entry]) -> list[str]:
    """The parts in which runs of equal settings differ: they changed while the sweep was on its way."""
    contents: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in entries:
        if entry.record.status in RESULTS and entry.record.identity.data is not None:
            for part, (_, groups) in PARTS.items():
                settings = canonical_json([entry.setting(group) for group in groups])
                contents[part, settings].add(canonical_json(_part(entry.record.identity, part)))
    return [part for part in PARTS if any(len(each) > 1 for (name, _), each in contents.items() if name == part)]


def _jobs(numbers: Sequence[int]) -> str:
    return f"job {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} jobs"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
