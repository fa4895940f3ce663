"""The forecast of one job: what the budget makes of it, what it needs, how long it takes, or why it will not run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class JobForecast:
    """`status`: "run", "finished" (before, so it is not run again), "skipped" by its budget, or "fails"; `reason` says why.

    `seconds` has the parts of `total_s`. Hours are device-hours: `gpus` x wall seconds / 3600, `train_hours` as
    `budget.gpu_hours` counts them. `flops` are training's. What is not known is null.
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
    predicted_gib: float | None = None
    steps: int | None = None
    stopped_by: str | None = None
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
