"""What a run cannot do whose base model is cut into parts (`model.shard=fsdp`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.tasks.kinds import KINDS

if TYPE_CHECKING:
    from unipet.adaptation.adapted import Adaptation
    from unipet.calculus.method import Method


def check_sharding(config: RunConfig, method: Method, inserted: Adaptation) -> None:
    """Raises `UnipetError` for a run that needs the whole base model in one process, or in which one process would pass
    through the layers more often than the others."""
    if config.model.shard == "none":
        return
    why, instead = _why_not(config, method, inserted)
    if why:
        raise UnipetError(f"model.shard: {config.model.shard} given, and {why}. {instead} Or set model.shard=none.")


def _why_not(config: RunConfig, method: Method, inserted: Adaptation) -> tuple[str, str]:
    """(why a base model of parts cannot be, what to set instead); two empty texts where it can."""
    from unipet.calculus.objectives import Distillation

    if config.budget.gpus == 1:
        return "budget.gpus=1 is one process, which keeps all parts", "Set budget.gpus=2 or more."
    if trained := sorted({part for part in inserted.unfrozen.values() if part != "head"}):
        return (
            f"method.unfreeze: {trained} trains parameters of the base model, which must be whole",
            "Leave them frozen.",
        )
    if config.model.quantization is not None:
        return (
            "model.quantization stores weights that cannot be cut",
            "Set model.quantization=null and model.dtype=bf16.",
        )
    if config.compile:
        return "compile=true makes one graph of all layers", "Set compile=false."
    if config.cache_frozen == "true":
        return "cache_frozen=true skips layers in one process that the others compute", "Set cache_frozen=auto."
    if config.budget.peak_memory_gib is not None:
        return "budget.peak_memory_gib would be held against the memory of a whole base model", "Set it to null."
    if KINDS[config.task.kind].generates:
        return f"task.kind={config.task.kind} generates text token by token in one process", "Choose another task."
    if distilled := sorted(method.objective.of(Distillation)):
        return f"method.objective.{distilled[0]} asks a teacher that shares the base model", "Take it out."
    if any(spec.mixture is not None and spec.mixture.reducer == "fisher" for spec in method.insertions):
        return "the reducer fisher needs gradients of one process after training", "Choose another reducer."
    return "", ""
