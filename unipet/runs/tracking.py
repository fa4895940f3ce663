"""Mirror a run's metrics elsewhere: the only importer of wandb and trackio, and only when one is asked for.

The run's own `result.json` is the record; a tracker is a copy of it. So a tracker that breaks (no network, a full
disk) warns once and is silent from then on, and the run goes on. Every run opens its own tracker and finishes it:
two runs of one process never share one. A run that is started again continues the same tracked run. What a tracked run
says of itself is made in `tracked_summary.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from unipet.calculus.options import check_options
from unipet.config import TrackingConfig
from unipet.errors import UnipetError, unknown
from unipet.runs.record import Record
from unipet.runs.tracked_summary import Mirrored, flat_summary, mirrored

JOB_TYPE = "train"
NAME = 128  # characters of a run's name that wandb's server takes
INIT_S, FINISH_S = 60.0, 300.0  # how long an online run waits for the network before it goes on without
RESULTS = ("ok", "skipped", "exceeded")  # statuses that are results, not failures


class Tracker(Protocol):
    """What a run needs of a tracker."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Mirror metrics of one optimiser step."""

    def finish(self, record: Record) -> bool:
        """Mirror the run's end: the summary of its record, and its status. Call exactly once.
        Returns whether the whole run is mirrored now, where it was asked to be."""


class NullTracker:
    """`tracking=none`."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def finish(self, record: Record) -> bool:
        """Nothing."""
        return False


class LiveTracker:
    """A run of wandb or trackio. Any error inside it ends the mirroring, never the training."""

    name = ""

    def __init__(
        self, run: Any, as_asked: bool = True, has: Callable[[Mapping[str, Any], int], bool] = lambda values, step: False
    ) -> None:
        """`has` says whether the tracked run has a line already: a run that goes on tells all of them once more."""
        self.run, self._has = run, has
        self._as_asked = as_asked  # False: kept offline, since the network was not reached

    def _guarded(self, action: str, call: Callable[[Any], Any]) -> None:
        if self.run is None:
            return
        try:
            call(self.run)
        except Exception as error:  # whatever it raises, the run is worth more than its mirror
            _warn(self.name, action, error)
            self.run = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Mirror metrics of one optimiser step."""
        if not self._has(values, step):
            self._guarded("logging", lambda run: run.log(dict(values), step=step))

    def finish(self, record: Record) -> bool:
        """Write the summary (`SUMMARY`, `metrics/...`, `status`) and close this run."""
        run = self.run
        self._guarded("the summary", lambda run: self._summarise(run, {**flat_summary(record), "status": record.status}))
        whole = self.run is not None
        self.run = run  # close it even if the summary could not be written, so that the next job gets a run of its own
        self._guarded("finishing", lambda run: self._close(run, record.status))
        whole, self.run = whole and self.run is not None, None
        return whole and self._as_asked

    def _summarise(self, run: Any, summary: dict[str, Any]) -> None:
        raise NotImplementedError

    def _close(self, run: Any, status: str) -> None:
        raise NotImplementedError


class WandbTracker(LiveTracker):
    """One wandb run."""

    name = "wandb"

    def _summarise(self, run: Any, summary: dict[str, Any]) -> None:
        run.summary.update(summary)

    def _close(self, run: Any, status: str) -> None:
        run.finish(exit_code=0 if status in RESULTS else 1)
        if status in RESULTS and run.offline:  # the parts that interrupted processes left: all of them is in this one
            own = Path(run.settings.sync_dir)
            for part in own.parent.glob(f"offline-run-*-{run.id}"):
                if part.name != own.name:
                    shutil.rmtree(part, ignore_errors=True)


class TrackioTracker(LiveTracker):
    """One trackio run. trackio has no summary, so the last line of metrics stands for it. Its own messages go to standard error."""

    name = "trackio"

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Mirror metrics of one optimiser step."""
        known = {key: value for key, value in values.items() if value is not None}
        with contextlib.redirect_stdout(sys.stderr):
            super().log(known, step)

    def _summarise(self, run: Any, summary: dict[str, Any]) -> None:
        if summary["status"] != "interrupted":  # its last line is still to come
            run.log({key: value for key, value in summary.items() if value is not None})

    def _close(self, run: Any, status: str) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            run.finish()


def _warn(name: str, action: str, error: Exception) -> None:
    print(f"warning: {name} failed at {action} ({error}). The run goes on without it.", file=sys.stderr)


def check_tracking(config: TrackingConfig) -> None:
    """Raise `UnipetError` for settings that cannot work, before anything is trained."""
    if config.name not in TRACKERS:
        raise unknown("tracking.name", config.name, TRACKERS)
    if config.name == "none":
        return
    check_options(TrackingConfig, config, "tracking")
    if find_spec(config.name) is None:
        raise UnipetError(
            f"tracking={config.name}: the package {config.name} is not installed. Install it with "
            f"`pip install {config.name}`, or set tracking=none."
        )


def open_tracker(config: TrackingConfig, record: Record, resolved: Mapping[str, Any]) -> Tracker:
    """A tracker for one run.

    The record's `run_id` becomes the tracked run's id, `config.group` (the sweep) its group; its name, tags and
    configuration are what `mirrored` makes of the record and `resolved` (the nested configuration of the run). Files go
    below `<runs_dir>/<tracker>`. Raises `UnipetError` for a tracker that cannot work.
    """
    check_tracking(config)
    if config.name == "none":
        return NullTracker()
    try:
        directory = Path(str(resolved.get("runs_dir", "runs"))) / config.name
        directory.mkdir(parents=True, exist_ok=True)  # else wandb falls back to a temporary directory
        return TRACKERS[config.name](config, mirrored(record, resolved), directory.resolve())
    except Exception as error:
        _warn(config.name, "its start", error)
        return NullTracker()


def _wandb(config: TrackingConfig, mirror: Mirrored, directory: Path) -> WandbTracker:
    """Offline unless asked; without a network or a login an online run becomes an offline one, to be synced later."""
    import wandb

    waits = {"init_timeout": INIT_S, "finish_timeout": FINISH_S}
    known = getattr(wandb.Settings, "model_fields", {})
    options: dict[str, Any] = {
        "project": config.project,
        "id": mirror.run_id,
        "resume": "allow",  # the same id is the same run: a job that was killed continues it
        "name": fitting(mirror.name),
        "group": config.group,
        "job_type": JOB_TYPE,
        "tags": [tag[:64] for tag in mirror.tags],  # wandb refuses longer ones
        "config": mirror.config,
        "dir": str(directory.parent),  # its service may run in another directory
        "reinit": "finish_previous",
        "settings": wandb.Settings(
            silent=True, console="off", **{key: value for key, value in waits.items() if key in known}
        ),
    }
    if config.mode == "online":
        try:
            run = wandb.init(mode="online", **options)
            return WandbTracker(run, has=lambda values, step: step < run.starting_step)
        except Exception as error:
            print(
                f"warning: wandb is not reached ({_first_line(error)}). This run is tracked offline; `wandb sync` in "
                f"{options['dir']} uploads it later.",
                file=sys.stderr,
            )
            wandb.teardown()  # the failed run's id counts as in use until then
    return WandbTracker(wandb.init(mode="offline", **options), as_asked=config.mode == "offline")


def fitting(name: str, most: int = NAME) -> str:
    """A name that the server takes; a longer one loses its middle, never its end, which no other run has."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - most // 2 - 1) :]}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _trackio(config: TrackingConfig, mirror: Mirrored, directory: Path) -> TrackioTracker:
    """Always local. trackio knows runs by name alone, so the whole id is part of it."""
    os.environ.setdefault("TRACKIO_DIR", str(directory))  # read when it is imported
    import trackio

    with contextlib.redirect_stdout(sys.stderr):
        run = trackio.init(
            project=config.project,
            name=f"{mirror.name.removesuffix(mirror.run_id[:8])}{mirror.run_id}",
            group=config.group,
            config={**mirror.config, "job_type": JOB_TYPE},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
    return TrackioTracker(run, has=_lines_of(config.project, run))


def _lines_of(project: str, run: Any) -> Callable[[Mapping[str, Any], int], bool]:
    """Whether a run of trackio has a line of these keys at this step. Where its storage does not tell, it has none."""
    lines: set[tuple[int, frozenset[str]]] = set()
    with contextlib.suppress(Exception):  # no public interface tells it
        from trackio.sqlite_storage import SQLiteStorage

        rows = SQLiteStorage.get_logs(project, run.name, run_id=run.id)
        lines = {(row.pop("step"), frozenset(row.keys() - {"timestamp"})) for row in rows}
    return lambda values, step: (step, frozenset(values)) in lines


TRACKERS: dict[str, Callable[..., Tracker]] = {
    "none": lambda *_: NullTracker(),
    "wandb": _wandb,
    "trackio": _trackio,
}
