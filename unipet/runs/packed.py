"""Which runs may be in one pack (`launcher=packed`), and how much memory a pack has."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from unipet.config import RunConfig
from unipet.runs.prepare import Prepared
from unipet.runs.record_files import canonical_json
from unipet.runs.shared import Shared

if TYPE_CHECKING:
    from unipet.training.pack import Pack

SPARE = 0.1  # of the memory that is free when a pack begins: predictions are not exact


def same_batches(config: RunConfig) -> str:
    """What the runs of one pack have in common: base model, data, and the order of the batches."""
    return canonical_json(
        [asdict(config.model), asdict(config.task), config.seed, config.optim.batch_size, config.precision]
    )


def why_alone(config: RunConfig) -> str | None:
    """Why a run cannot be in a pack, as far as its configuration says; or None."""
    budget = config.budget
    if budget.gpus > 1:
        return f"it trains on several devices (budget.gpus={budget.gpus})"
    if budget.peak_memory_gib is not None:
        return "its memory has a limit (budget.peak_memory_gib), and a pack's is common"
    if budget.gpu_hours is not None:
        return "its time has a limit (budget.gpu_hours), and a pack's is common"
    if config.precision == "fp16":
        return "it scales its loss (precision=fp16), each run by itself"
    if config.compile:
        return "its model is compiled (compile), which a common pass would not be"
    if config.tracking.name != "none":
        return f"tracking={config.tracking.name} follows one run of a process at a time"
    return None


class Admission:
    """Lets runs into one pack: the first says what the others must have in common with it."""

    def __init__(self) -> None:
        self._first: Prepared | None = None

    def __call__(self, prepared: Prepared) -> str | None:
        """Why this run cannot be among those that were let in before it, or None."""
        from unipet.adaptation.serving import why_alone as why_no_common_pass
        from unipet.runs.base_model import skeleton

        config, draft = prepared.config, prepared.fit.draft
        if (why := why_alone(config)) is not None:
            return why
        first = self._first or prepared
        if same_batches(config) != same_batches(first.config):
            return "its base model, task, seed or batch size is not that of the others"
        if (prepared.content.base_model, prepared.content.data) != (first.content.base_model, first.content.data):
            return "its base model or data has changed since the pack began"
        model = skeleton(config.model, config.task.kind, config.task.labels)
        if (why := why_no_common_pass(model, draft.inserted, [draft.inserted])) is not None:
            return why
        self._first = first
        return None


def pack_of(shared: Shared, seed: int, measures: bool = True) -> Pack:
    """A pack of runs with this seed, whose base model `shared` keeps."""
    from unipet.training.pack import Pack

    return Pack(
        Admission(), lambda: None if shared.base is None else shared.base.again(), _room_gib(), seed, measures=measures
    )


def _room_gib() -> float:
    """The memory that a pack may take: free on the device, or in this machine."""
    import torch

    from unipet.output.machine_memory import available_gib

    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return (1 - SPARE) * free / 2**30
    return (1 - SPARE) * available_gib()
