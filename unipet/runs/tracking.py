"""Mirroring a run to wandb or trackio. Only this file imports them, and only on request.

The run's own `result.json` is the record; the tracker has a copy. If a tracker fails (no network, a full disk), it warns
once, and the run goes on without it. Every run opens its own tracker and closes it: two runs of one process never share
one. A run that is started again continues the same tracked run. `tracked_summary.py` makes what the tracker shows.
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
NAME = 128  # the most characters that wandb's server accepts as a run's name
INIT_S, FINISH_S = 60.0, 300.0  # how long an online run waits for the network before it continues offline
RESULTS = ("ok", "skipped", "exceeded")  # statuses that are results, not failures


class Tracker(Protocol):
    """The interface of a tracker."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Mirror metrics of one optimiser step."""

    def finish(self, record: Record) -> bool:
        """Mirror the end of the run: the summary of its record, and its status. Call exactly once. Returns whether the
        tracker now has the whole run, in the requested mode (online or offline)."""


class NullTracker:
    """`tracking=none`."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def finish(self, record: Record) -> bool:
        """Nothing."""
        return False


class LiveTracker:
    """A run of wandb or trackio. An error in it ends the mirroring, never the training."""

    name = ""

    def __init__(self, run: Any, as_asked: bool = True, has: Callable[..., bool] = lambda values, step: False) -> None:
        """`has(values, step)` says whether the tracked run already has a line: a resumed run logs all of its lines again."""
        self.run, self._has = run, has
        self._as_asked = as_asked  # False: tracked offline, because the network was not reached

    def _guarded(self, action: str, call: Callable[[Any], Any]) -> None:
        if self.run is None:
            return
        try:
            call(self.run)
        except Exception as error:  # no error of a tracker may end the run
            _warn(self.name, action, error)
            self.run = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Mirror metrics of one optimiser step."""
        if not self._has(values, step):
            self._guarded("logging", lambda run: run.log(dict(values), step=step))

    def finish(self, record: Record) -> bool:
        """Write the summary (`SUMMARY`, `metrics/...`, `status`) and close this run."""
        run = self.run
        status = {"status": record.status}
        self._guarded("the summary", lambda run: self._summarise(run, {**flat_summary(record), **status}))
        whole = self.run is not None
        self.run = run  # close it even if the summary could not be written, so that the next job opens its own run
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
    """One trackio run. trackio has no summary: the last line of metrics holds its values. trackio's own messages go to
    standard error."""

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
    """Raise `UnipetError` for an unknown tracker, an invalid setting, or a package that is not installed."""
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
    """Open a tracker for one run.

    The record's `run_id` becomes the tracked run's id, and `config.group` (the sweep) its group. `mirrored` makes its name,
    tags and configuration from the record and `resolved` (the run's nested configuration). Files are written below
    `<runs_dir>/<tracker>`. Raises `UnipetError` as `check_tracking`.
    """
    check_tracking(config)
    if config.name == "none":
        return NullTracker()
    try:
        directory = Path(str(resolved.get("runs_dir", "runs"))) / config.name
        directory.mkdir(parents=True, exist_ok=True)  # without it, wandb writes to a temporary directory
        return TRACKERS[config.name](config, mirrored(record, resolved), directory.resolve())
    except Exception as error:
        _warn(config.name, "its start", error)
        return NullTracker()


def _wandb(config: TrackingConfig, mirror: Mirrored, directory: Path) -> WandbTracker:
    """Open a wandb run, offline by default. Without a network or a login, an online run becomes an offline one."""
    import wandb

    waits = {"init_timeout": INIT_S, "finish_timeout": FINISH_S}
    known = getattr(wandb.Settings, "model_fields", {})
    options: dict[str, Any] = {
        "project": config.project,
        "id": mirror.run_id,
        "resume": "allow",  # a job that is started again continues the run with this id
        "name": shortened(mirror.name),
        "group": config.group,
        "job_type": JOB_TYPE,
        "tags": [tag[:64] for tag in mirror.tags],  # wandb rejects longer tags
        "config": mirror.config,
        "dir": str(directory.parent),  # absolute, because wandb's service may run in another directory
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
            wandb.teardown()  # otherwise the failed run's id counts as in use
    return WandbTracker(wandb.init(mode="offline", **options), as_asked=config.mode == "offline")


def shortened(name: str, limit: int = NAME) -> str:
    """The name in at most `limit` characters. The middle is left out, because the end makes the name unique."""
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[len(name) - (limit - limit // 2 - 1) :]}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _trackio(config: TrackingConfig, mirror: Mirrored, directory: Path) -> TrackioTracker:
    """Open a trackio run, which is always local. trackio identifies runs by name, so the whole id is part of the name."""
    os.environ.setdefault("TRACKIO_DIR", str(directory))  # trackio reads it at import
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
