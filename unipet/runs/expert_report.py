"""What a run with a mixture records of its experts (key `mixture` of the record)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unipet.config import RunConfig
from unipet.output.json_object import JsonObject, added_later
from unipet.output.stopwatch import phase

if TYPE_CHECKING:
    from unipet.tasks import Encoded, TaskData


@dataclass
class Evaluated(JsonObject):
    """The task's first metric, and the mean loss, on the evaluation split."""

    score: float | None = None
    loss: float | None = None


@dataclass
class ExpertReport(JsonObject):
    """How much training used each expert, how alike they became, and how they compare (training/expert_comparison.py)."""

    use_steps: list[int] = field(default_factory=list)  # the last step of each interval of training
    use: dict[str, list[list[float]]] = field(default_factory=dict)  # insertion -> interval -> the experts' shares
    collapsed: dict[str, list[str]] = field(
        default_factory=dict
    )  # insertion -> sites of a router that uses few experts
    similarity: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)  # insertion, slot, site -> cosine
    soup: list[int] = added_later(factory=list)  # the experts that reducer greedy_soup keeps, in the order it took them
    fisher_examples: int | None = added_later(None)  # from which reducer fisher estimated its weights
    not_compared: str | None = None  # why the experts were not compared
    examples: int | None = added_later(None)
    ways: dict[str, Evaluated] = added_later(factory=dict)  # as training/expert_comparison.py says
    experts: list[Evaluated] = added_later(factory=list)
    best: int | None = added_later(None)
    best_by: str | None = added_later(None)  # selection | evaluation: an oracle where that is what the run is scored on
    line: list[float] = added_later(factory=list)  # losses from the first expert to the second, in equal steps
    barrier: float | None = added_later(None)


def expert_report(
    used: dict[str, Any], config: RunConfig, model: Any, data: TaskData, encoded: Encoded, tokenizer: Any
) -> ExpertReport | None:
    """The report of a trained model, whose training `used` its experts so (ExpertUse.report); None without a mixture. Compares
    the experts where that does not take long."""
    from unipet.training.expert_comparison import compare, similarities, why_not_compared

    if not used:
        return None
    why_not = why_not_compared(config, len(getattr(data, config.trial.scored_on)))
    content = {**used, "similarity": similarities(model), "not_compared": why_not}
    if why_not is None:
        with phase("experts"):
            content |= compare(config, model, data, encoded, tokenizer)
    return ExpertReport.from_dict(content)
