"""The values of a run's configuration that are neither method, task nor model: checked before anything is written."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from unipet.config import RunConfig
from unipet.errors import UnipetError, unknown
from unipet.training.processes import check_one_process
from unipet.training.schedule import SCHEDULES

PRECISIONS = ("fp32", "bf16")
ON_EXCEED = ("fit", "skip", "error")  # what becomes of a run that its budget does not allow as it is

# key: (lowest, lowest allowed itself, highest, highest allowed itself)
_NUMBERS: dict[str, tuple[float, bool, float, bool]] = {
    "optim.lr": (0, False, math.inf, False),
    "optim.lr_ratio": (0, False, math.inf, False),
    "optim.epochs": (0, False, math.inf, False),
    "optim.weight_decay": (0, True, math.inf, False),
    "optim.warmup_ratio": (0, True, 1, True),
    "optim.clip": (0, True, math.inf, False),
    "optim.label_smoothing": (0, True, 1, False),
    "optim.beta1": (0, True, 1, False),
    "optim.beta2": (0, True, 1, False),
    "optim.epsilon": (0, False, math.inf, False),
    "budget.trainable_percent": (0, True, math.inf, False),
    "budget.peak_memory_gib": (0, False, math.inf, False),
    "budget.memory_margin": (0, True, 1, False),
    "budget.gpu_hours": (0, False, math.inf, False),
}
_LARGEST = 2**32 - 1  # what numpy takes as a seed
# key: (lowest, highest)
_COUNTS = {
    "optim.batch_size": (1, _LARGEST),
    "optim.eval_batch_size": (1, _LARGEST),
    "budget.trainable_params": (0, 2**63 - 1),
    "budget.max_steps": (1, _LARGEST),
    "budget.max_tokens": (1, 2**63 - 1),
    "budget.gpus": (1, _LARGEST),
    "seed": (0, _LARGEST),
}
# A limit that may be absent.
_OPTIONAL = tuple(
    f"budget.{name}"
    for name in ("trainable_params", "trainable_percent", "peak_memory_gib", "max_steps", "max_tokens", "gpu_hours")
)


def check_settings(config: RunConfig) -> None:
    """Raises `UnipetError` naming the full key for a wrong optimiser, budget, seed, precision or runs directory, and
    where a launcher started several processes."""
    check_one_process()
    for key, limits in _NUMBERS.items():
        value = _get(config, key)
        if value is not None or key not in _OPTIONAL:
            _check_number(key, value, limits)
    for key, (lowest, highest) in _COUNTS.items():
        value = _get(config, key)
        if value is None and key in _OPTIONAL:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise UnipetError(
                f"{key}: {value!r} given; allowed: a whole number from {lowest} to {highest}{_or_null(key)}."
            )
    if config.optim.schedule not in SCHEDULES:
        raise unknown("optim.schedule", config.optim.schedule, SCHEDULES)
    if config.precision not in PRECISIONS:
        raise unknown("precision", config.precision, PRECISIONS)
    if config.budget.on_exceed not in ON_EXCEED:
        raise unknown("budget.on_exceed", config.budget.on_exceed, ON_EXCEED)
    _check_runs_dir(config.runs_dir)


def _get(config: RunConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _check_number(key: str, value: Any, limits: tuple[float, bool, float, bool]) -> None:
    low, low_allowed, high, high_allowed = limits
    number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if (
        number
        and (low < value or (low_allowed and value == low))
        and (value < high or (high_allowed and value == high))
    ):
        return
    least = f"at least {low:g}" if low_allowed else f"greater than {low:g}"
    most = "" if math.isinf(high) else f" and {'at most' if high_allowed else 'less than'} {high:g}"
    raise UnipetError(f"{key}: {value!r} given; allowed: a finite number {least}{most}{_or_null(key)}.")


def _or_null(key: str) -> str:
    return " or null" if key in _OPTIONAL else ""


def _check_runs_dir(runs_dir: str) -> None:
    """The directory need not exist, but it must be possible to make it."""
    if not isinstance(runs_dir, str) or not runs_dir:
        raise UnipetError(f"runs_dir: {runs_dir!r} is not a directory name.")
    path = Path(runs_dir).absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir():
        raise UnipetError(
            f"runs_dir: cannot write to {runs_dir}: {path} is a file. Choose another directory: runs_dir=DIR."
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise UnipetError(f"runs_dir: no permission to write to {path}. Choose another directory: runs_dir=DIR.")
