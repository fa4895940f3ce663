"""The forecast of one job: its fitted sizes, memory and time, or the reason why it will not run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class JobForecast:
    """`status` is "run", "finished" (not run again), "skipped" (by its budget), "exceeded" (memory ran out while measuring)
    or "fails"; `reason` explains it.

    `seconds` maps each stage to its share of `total_s`. Hours are device-hours, `gpus` x wall seconds / 3600;
    `train_hours` are those that `budget.gpu_hours` counts. With `at_most`, training may end earlier (`task.patience`).
    `flops` are the operations of training. Unknown values are null.
    """

    job: int
    overrides: list[str]
    status: str = "run"
    reason: str | None = None
    run_id: str | None = None
    method: str | None = None
    task: str | None = None
    model: str | None = None
    budget: str | None = None
    seed: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    requested: dict[str, int] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    micro_batch: int | None = None
    accumulation: int | None = None
    checkpointing: bool | None = None
    precision: str | None = None  # what precision=auto chooses here
    predicted_gib: float | None = None
    steps: int | None = None
    stopped_by: str | None = None
    at_most: bool = False
    flops: float | None = None
    step_ms: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    train_s: float = 0.0
    total_s: float = 0.0
    train_hours: float = 0.0
    hours: float = 0.0
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)
