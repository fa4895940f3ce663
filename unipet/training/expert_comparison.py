"""How the experts of trained mixtures compare: merged, apart, averaged in outputs or logits, and drawn at random.

The question of AdaMix's §4.3 and its Figure 5 (Wang et al. 2022), asked of every run: each way of evaluating the same trained
tensors, on the same examples.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from unipet.adaptation.adapted import adaptation
from unipet.adaptation.reducing import experts_of, mixtures, reduced_by, weighing
from unipet.calculus.mixture import ROUTERS
from unipet.calculus.objectives import task_loss
from unipet.config import RunConfig
from unipet.tasks import (
    Encoded,
    EncodedRows,
    Row,
    TaskData,
    collate,
    kind_of,
    readout,
    score_predictions,
)
from unipet.training.evaluation import higher_is_better, mean_target_loss, predict, score_split, selection_score

#: Evaluation examples up to which every run compares its experts; larger sets are compared on request.
AUTOMATIC = 2000
#: Where on the line between two experts the loss is taken, besides its ends.
LINE = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Evaluation:
    """The score (the task's first metric) and the mean loss of one way of evaluating."""

    score: float
    loss: float


def why_not_compared(config: RunConfig, examples: int) -> str | None:
    """The reason why a run's experts are not compared unasked, or None."""
    if config.trial.role == "trial":
        return "a trial is there for its score; the final runs of a search compare their experts"
    if kind_of(config.task.kind).generates:
        return "generating texts once for every expert takes long"
    if examples > AUTOMATIC:
        return f"{examples:,} evaluation examples are many to evaluate once for every expert (up to {AUTOMATIC:,} are)"
    return None


def compare(config: RunConfig, model: nn.Module, data: TaskData, encoded: Encoded, tokenizer: Any) -> dict[str, Any]:
    """Evaluate a model with trained mixtures in every way, on the split that the run is scored on. Plain data, as the record has
    them.

    `ways`: `merged` (the method's own reducer, or the mean of weights where that makes no single function; not where experts are
    different functions), `mean_of_outputs`,
    `ensemble_logits` (the mean of the logits of one pass for each expert), `random` (a route drawn for each batch),
    `best_expert`, and `routed` where a router looks at the input. `experts`: each alone. The best one is chosen on the selection
    split if the task has one (`best_by`). Chosen on the scored split itself, as without any other, it is the largest of M noisy
    scores, which no one could have picked before seeing them: an upper bound, called `oracle_expert`. `line`: losses
    between the first two experts, if they are copies of one function, and `barrier`, how far the highest lies above the straight
    line (Frankle et al. 2020).
    """
    rows, split = (getattr(each, config.trial.scored_on) for each in (data, encoded))
    routing, count = adaptation(model).routing, experts_of(model)
    before = routing.state()
    routing.resume(0, (config.seed, 0))
    ways: dict[str, Evaluation | None] = {}
    try:

        def under(way: AbstractContextManager[None]) -> tuple[Evaluation, np.ndarray | None]:
            with way:
                return _evaluated(config, model, rows, split, tokenizer)

        baked = all(mixture.bakes for _, mixture in mixtures(model))
        differ = any(item.bank.differ for item, _ in mixtures(model))
        if baked or not differ:
            ways["merged"] = under(nullcontext() if baked else reduced_by(model, "mean_of_weights"))[0]
        ways["mean_of_outputs"] = under(reduced_by(model, "mean_of_outputs"))[0]
        alone = [under(weighing(model, _only(expert, count))) for expert in range(count)]
        logits = [each for _, each in alone if each is not None]
        ways["ensemble_logits"] = _of_logits(config, np.mean(logits, axis=0), split) if logits else None
        ways["random"] = under(reduced_by(model, "random"))[0]
        experts = [each for each, _ in alone]
        best, best_by = _best(config, model, data, encoded, tokenizer, experts)
        oracle = best_by == config.trial.scored_on
        ways["oracle_expert" if oracle else "best_expert"] = experts[best]
        if all(ROUTERS[mixture.router].of_input for _, mixture in mixtures(model)):
            ways["routed"] = under(reduced_by(model, "routed"))[0]
        line = () if differ else LINE  # between different functions there is none
        between = [under(weighing(model, [1 - at, at, *[0.0] * (count - 2)]))[0].loss for at in line]
    finally:
        routing.resume(*before)
    ends = experts[0].loss, experts[1].loss
    above = [loss - ((1 - at) * ends[0] + at * ends[1]) for at, loss in zip(line, between, strict=True)]
    return {
        "examples": len(rows),
        "ways": {name: asdict(each) for name, each in ways.items() if each is not None},
        "experts": [asdict(each) for each in experts],
        "best": best,
        "best_by": best_by,
        "line": [] if differ else [ends[0], *between, ends[1]],
        "barrier": None if differ else max(0.0, *above),
    }


def similarities(model: nn.Module) -> dict[str, dict[str, dict[str, float]]]:
    """Insertion -> slot -> site -> the mean cosine of the angles between the experts' copies, over all pairs of one shape."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for item, mixture in mixtures(model):
        copies = [dict(params) for params in item.bank.copies()]
        for slot in item.bank.mixed_slots():
            keys = [key for key, of in item.bank.slot_of.items() if of == slot]
            own = [[params[key].detach() for key in keys if key in params] for params in copies]
            shapes = [[tensor.shape for tensor in tensors] for tensors in own]
            flat = [torch.cat([t.flatten() for t in tensors]) if tensors else torch.empty(0) for tensors in own]
            pairs = [
                (i, j) for i, j in itertools.combinations(range(mixture.experts), 2) if shapes[i] == shapes[j] != []
            ]
            cosines = [float(F.cosine_similarity(flat[i], flat[j], dim=0)) for i, j in pairs]
            if cosines:
                found.setdefault(item.name, {}).setdefault(slot, {})[item.site.name] = sum(cosines) / len(cosines)
    return found


def _only(expert: int, count: int) -> list[float]:
    return [float(each == expert) for each in range(count)]


def _evaluated(
    config: RunConfig, model: nn.Module, rows: Sequence[Row], split: EncodedRows, tokenizer: Any
) -> tuple[Evaluation, np.ndarray | None]:
    """One evaluation; with logits where an example has one row of them."""
    task, kind = config.task, kind_of(config.task.kind)
    one = replace(config, task=replace(task, metrics=task.metrics[:1]))
    if kind.generates:
        loss = mean_target_loss(config, model, split, tokenizer)
        return Evaluation(score_split(one, model, rows, split, tokenizer)[0].score, loss), None
    batch, read = collate(tokenizer), readout(task, tokenizer)
    logits, labels = predict(model, split, batch, config.optim.eval_batch_size, config.precision, read)
    if kind.answer == "tags":
        score = score_split(one, model, rows, split, tokenizer)[0].score
        return Evaluation(score, _loss(config, logits, labels)), None
    return _scored(one, logits, labels), logits


def _of_logits(config: RunConfig, logits: np.ndarray, split: EncodedRows) -> Evaluation:
    assert split.labels is not None
    one = replace(config, task=replace(config.task, metrics=config.task.metrics[:1]))
    return _scored(one, logits, split.labels)


def _scored(config: RunConfig, logits: np.ndarray, labels: np.ndarray) -> Evaluation:
    return Evaluation(float(score_predictions(config.task, logits, labels).score), _loss(config, logits, labels))


def _loss(config: RunConfig, logits: np.ndarray, labels: np.ndarray) -> float:
    return float(task_loss(torch.from_numpy(logits), torch.from_numpy(labels), config.task.kind == "regression"))


def _best(
    config: RunConfig, model: nn.Module, data: TaskData, encoded: Encoded, tokenizer: Any, experts: list[Evaluation]
) -> tuple[int, str]:
    """The best expert, and the split that says so; the first one of several that are equal."""
    if not encoded.selection:
        sign = 1.0 if higher_is_better(config.task.metrics[0]) else -1.0
        return max(range(len(experts)), key=lambda expert: sign * experts[expert].score), "evaluation"
    score = selection_score(config, model, data, encoded, tokenizer)
    scores = []
    for expert in range(len(experts)):
        with weighing(model, _only(expert, len(experts))):
            scores.append(score())
    return max(range(len(scores)), key=scores.__getitem__), "selection"
