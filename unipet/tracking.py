"""Mirror a run's metrics elsewhere: the only importer of wandb, and only when it is asked for.

The run's own `result.json` is the record; a tracker is a copy of it. So a tracker that breaks (no network, a full
disk) warns once and is silent from then on, and the run goes on. Every run opens its own tracker and finishes it:
two runs of one process never share one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from unipet.config import TrackingConfig
from unipet.errors import UnipetError, unknown

TRACKERS = ("none", "wandb")
MODES = ("offline", "online")


class Tracker(Protocol):
    """What a run needs of a tracker."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Mirror metrics of one optimiser step."""

    def finish(self, summary: Mapping[str, Any], status: str) -> None:
        """Mirror the run's end: flat or nested summary values, and the record's status. Call exactly once."""


class NullTracker:
    """`tracking=none`."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, Any], status: str) -> None:
        """Nothing."""


class WandbTracker:
    """One wandb run. Any error inside wandb ends the mirroring, never the training."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def _guarded(self, what: str, call: Any) -> None:
        if self.run is None:
            return
        try:
            call(self.run)
        except Exception as error:  # whatever wandb raises, the run is worth more than its mirror
            _warn(what, error)
            self.run = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Mirror metrics of one optimiser step."""
        self._guarded("logging", lambda run: run.log(dict(values), step=step))

    def finish(self, summary: Mapping[str, Any], status: str) -> None:
        """Write the summary (nested keys joined by '/') and close this wandb run."""
        run = self.run
        self._guarded("the summary", lambda run: run.summary.update({**flatten(summary), "status": status}))
        self.run = run  # close it even if the summary could not be written, so that the next job gets a run of its own
        self._guarded("finishing", lambda run: run.finish(exit_code=0 if status == "ok" else 1))
        self.run = None


def _warn(what: str, error: Exception) -> None:
    print(f"warning: wandb failed at {what} ({error}). The run goes on without it.", file=sys.stderr)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"params": {"trainable": 1}} -> {"params/trainable": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}/"))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_tracking(config: TrackingConfig) -> None:
    """Raise `UnipetError` for settings that cannot work, before anything is trained."""
    if config.name not in TRACKERS:
        raise unknown("tracking.name", config.name, TRACKERS)
    if config.name == "none":
        return
    if config.mode not in MODES:
        raise unknown("tracking.mode", config.mode, MODES)
    if find_spec("wandb") is None:
        raise UnipetError(
            "tracking=wandb: the package wandb is not installed. Install it with `pip install wandb`, or set tracking=none."
        )


def open_tracker(
    config: TrackingConfig, run_id: str, name: str, tags: Sequence[str], resolved: Mapping[str, Any]
) -> Tracker:
    """A tracker for one run.

    `run_id` becomes the wandb run's id, `config.group` (the sweep) its group, `resolved` (the nested configuration of the
    run) its config; files go below `<runs_dir>/wandb`. Raises `UnipetError` for a tracker that cannot work.
    """
    check_tracking(config)
    if config.name == "none":
        return NullTracker()
    try:
        import wandb

        directory = Path(str(resolved.get("runs_dir", "runs")))
        (directory / "wandb").mkdir(parents=True, exist_ok=True)  # else wandb falls back to a temporary directory
        run = wandb.init(
            project=config.project,
            mode="online" if config.mode == "online" else "offline",
            id=run_id,
            name=name,
            group=config.group,
            tags=[tag[:64] for tag in tags],  # wandb refuses longer ones
            config=dict(resolved),
            dir=str(directory),
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off"),
        )
    except Exception as error:
        _warn("its start", error)
        return NullTracker()
    return WandbTracker(run)
