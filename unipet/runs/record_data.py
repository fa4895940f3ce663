"""What a record says of a run's data: the examples, the split that chose the checkpoint, the sets that it was evaluated on."""

from __future__ import annotations

from dataclasses import dataclass, field

from unipet.output.json_object import JsonObject, added_later


@dataclass
class Selection(JsonObject):
    """The split that chose the checkpoint, and by what: `step` has the highest of `scores`, which of a metric of which less
    is better are negated."""

    by: str | None = None
    examples: int | None = None
    metric: str | None = added_later(None)
    step: int | None = added_later(None)
    scores: dict[str, float] = added_later(factory=dict)  # step -> score


@dataclass
class Scoring(JsonObject):
    """How the score is to be read."""

    higher_is_better: bool = True
    scales: dict[str, str] = field(default_factory=dict)  # metric -> its scale in words, "0 to 1"
    notes: dict[str, str] = field(default_factory=dict)  # metric -> how it was computed


@dataclass
class EvaluationSet(JsonObject):
    """One of several sets that a run was evaluated on; the run's own score is that of the reported one."""

    split: str | None = None
    examples: int | None = None
    score: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    reported: bool = False
    predictions: str | None = None  # file in the run's directory


@dataclass
class Data(JsonObject):
    """The examples of a run: where they are from, how many there are, what was done to them."""

    source: str | None = None
    fingerprint: str | None = None
    train: int | None = None
    evaluation: int | None = None
    train_available: int | None = added_later(None)
    evaluation_available: int | None = added_later(None)
    dropped: dict[str, dict[str, int]] | None = added_later(None)
    splits: dict[str, str] | None = added_later(None)
    synthetic: bool | None = added_later(None)
    regression: bool | None = added_later(None)
    pool: str | None = added_later(None)  # few-shot: fingerprint of what all splits have in common
    shots: int | None = added_later(None)  # few-shot: training examples of each label
    split_seed: int | None = added_later(None)  # few-shot: which split
    train_labels: dict[str, int] | None = added_later(None)
    class_weights: dict[str, float] | None = added_later(None)  # None: every answer counts alike in the loss
    selection: Selection = added_later(factory=Selection)
    truncated: dict[str, float] | None = added_later(None)  # share of examples that a length limit cut
    warnings: list[str] | None = added_later(None)
    scoring: Scoring = added_later(factory=Scoring)
