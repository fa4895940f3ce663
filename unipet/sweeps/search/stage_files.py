"""The files that a search adds to a sweep's directory.

    search.json              the search: its options, its space, and the studies
    trials/<study>-<n>.yaml  trial n of a study: its resolved configuration, as in the file of a job
    stages/<k>.json          what was decided when the stage before was over, and the jobs that came of it

A stage that is there is never decided again: what comes next follows from these files and the outcomes of jobs alone, so
whichever process finds a stage over writes the same next one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.output.json_object import JsonObject, WrongType, added_later
from unipet.runs.record_files import write_json_atomic
from unipet.sweeps.search.candidates import Discarded

SEARCH, TRIALS, STAGES = "search.json", "trials", "stages"
FINAL, TRIAL = "final", "trial"  # roles of runs


@dataclass
class Added(JsonObject):
    """A job of a stage: one run of a trial."""

    job: int = 0
    study: int = 0
    trial: int = 0
    seed: int = 0
    role: str = TRIAL
    until: float = 1.0
    after: float = 0.0


@dataclass
class Verdict(JsonObject):
    """What was decided of a trial: it is chosen, or goes on no further, and why."""

    study: int = 0
    trial: int = 0
    kind: str = ""  # chosen | stopped | no score
    text: str = ""
    until: float = 1.0  # the rung at which it was decided
    score: float | None = None  # the mean over its seeds there, on the selection split
    confidence: float | None = None  # racing: with which it is worse than the trial that `text` names


@dataclass
class Stage(JsonObject):
    """One step of the search."""

    number: int = 0
    role: str = TRIAL  # of its jobs
    jobs: int = 0  # of the sweep, this stage's included
    added: list[Added] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    discarded: dict[str, Discarded] = added_later(factory=dict)  # study -> proposals that did not become trials


def stage_path(sweep: Path, number: int) -> Path:
    """The file of a stage."""
    return sweep / STAGES / f"{number}.json"


def trial_path(sweep: Path, study: int, trial: int) -> Path:
    """The file of a trial."""
    return sweep / TRIALS / f"{study}-{trial}.yaml"


def read_stages(sweep: Path) -> list[Stage]:
    """Every stage so far, in order. Raises `UnipetError` for a file that is none."""
    stages: list[Stage] = []
    while (path := stage_path(sweep, len(stages))).is_file():
        stages.append(_read(path))
    return stages


def last_stage(sweep: Path) -> Stage | None:
    """The latest stage; None for a sweep without a search."""
    number = 0
    while stage_path(sweep, number).is_file():
        number += 1
    return _read(stage_path(sweep, number - 1)) if number else None


def _read(path: Path) -> Stage:
    try:
        return Stage.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, WrongType) as error:
        raise UnipetError(f"{path}: not a stage of a search ({error}). Give the sweep's command again.") from None


def write_stage(sweep: Path, stage: Stage) -> None:
    """Write it, whole."""
    write_json_atomic(stage_path(sweep, stage.number), stage.to_dict())


def json_bytes(content: dict[str, Any]) -> bytes:
    """A small JSON file that people may read."""
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
