"""Records -> rows: one per method (and task, base model, budget, and whatever else was varied), over seeds.

Pure functions. A run without a score (failed, exceeded, skipped, interrupted) is counted and named, never averaged in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from unipet.report.collect import Entry
from unipet.report.flagged import Flagged, flagged
from unipet.report.identity import FITTED, as_key, identities, one_per_seed
from unipet.runs.budget_label import budget_label
from unipet.runs.design import NONE, design, fitted_sizes, trained
from unipet.runs.endings import continuing
from unipet.runs.labels import AS_GIVEN, SEPARATOR, labelled, variants

#: Where an identity's key begins so, methods may differ in it by task, base model and budget: they are tuned.
TUNED = ("task.", "model.", "budget.", "optim.", FITTED)


@dataclass(frozen=True)
class Row:
    """One line of a comparison. `score` is None when no run of the row has one; `std` needs two runs."""

    method: str
    variant: str  # what tells it from other rows of the same method: "ffn site=attn · attention size=16"
    task: str
    synthetic: bool
    model: str
    budget: str
    metric: str
    trainable: int | None
    percent: float | None
    score: float | None
    std: float | None
    scored: int  # seeds with a score
    runs: int  # seeds there are
    train_s: float | None
    scores: tuple[float, ...] = field(default=(), compare=False)
    higher_is_better: bool = True  # of the metric
    scale: str = ""  # of the metric, in words: "0 to 1"
    flags: tuple[Flagged, ...] = ()  # what makes scores of it worth less than they look
    repeated: int = 0  # runs of a seed that another run of it stands for
    size: str = ""  # as trained, "30 + 512"; "" where no insertion has one
    fitted: bool = False  # whether a budget solved it
    beside: str = ""  # the budget's limits that are not of parameters: "max_steps=300"

    @property
    def sign(self) -> float:
        """What turns a score into one of which more is better."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def label(self) -> str:
        """The method, with its variant where there are several."""
        return labelled(self.method, self.variant)

    @property
    def task_label(self) -> str:
        """The task, marked where it is synthetic."""
        return f"{self.task} (synthetic)" if self.synthetic else self.task


@dataclass(frozen=True)
class Unscored:
    """A run without a score: what it was, its status, and why."""

    what: str
    status: str
    error: str


def named(value: object) -> str:
    """The name of a part of a record, be it a name or a mapping with one."""
    if isinstance(value, Mapping):
        return str(value.get("name", "?"))
    return "?" if value is None else str(value)


def is_synthetic(record: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """True for a generated task: the record says so; for a run without a record its configuration does."""
    source = (record.get("data") or {}).get("source")
    if source is not None:
        return str(source).startswith("synthetic")
    task = config.get("task")
    return isinstance(task, Mapping) and bool(task.get("generator")) and not task.get("data_dir")


def score_of(record: Mapping[str, Any]) -> float | None:
    """The score of a finished run; None for any other."""
    score = record.get("score")
    return float(score) if record.get("status") == "ok" and isinstance(score, int | float) else None


def scale_of(record: Mapping[str, Any]) -> str:
    """The scale of the score's metric in words, "0 to 1"; "" where the record does not tell."""
    scoring = (record.get("data") or {}).get("scoring") or {}
    return str((scoring.get("scales") or {}).get(record.get("metric")) or "")


def budget_of(entry: Entry) -> str:
    """The budget with its limits, so that one name never stands for two budgets."""
    given = entry.config.get("budget")
    return budget_label(given) if isinstance(given, Mapping) else named(entry.record.get("budget"))


def aggregate(entries: Iterable[Entry], across_budgets: bool = False) -> list[Row]:
    """One row per distinct configuration apart from the seed, best score first within each task; unscored rows last.

    Budgets stay apart, in the order in which they come, unless `across_budgets` asks for one ranking of all.
    """
    return [row for row, _ in grouped(entries, across_budgets)]


def grouped(entries: Iterable[Entry], across_budgets: bool = False) -> list[tuple[Row, list[Entry]]]:
    """The rows of `aggregate`, each with its runs."""
    entries = list(entries)
    groups: dict[tuple[str, ...], list[Entry]] = {}
    contents: dict[tuple[str, ...], dict[str, Any]] = {}
    for entry, content in zip(entries, identities(entries), strict=True):
        record = entry.record
        names = (*(named(record.get(key)) for key in ("method", "task", "model")), budget_of(entry))
        key = (*names, as_key(content))
        groups.setdefault(key, []).append(entry)
        contents[key] = content
    variant = _variants(contents, groups)
    pairs = []
    for key, group in groups.items():
        runs = one_per_seed(group, [score_of(entry.record) is not None for entry in group])
        pairs.append((make_row(key, variant[key], runs, len(group) - len(runs)), runs))
    budgets = [] if across_budgets else list(dict.fromkeys(row.budget for row, _ in pairs))
    place = {budget: number for number, budget in enumerate(budgets)}
    return sorted(pairs, key=lambda pair: (place.get(pair[0].budget, 0), *_order(pair[0])))


def _variants(
    contents: Mapping[tuple[str, ...], Mapping[str, Any]], groups: Mapping[tuple[str, ...], Sequence[Entry]]
) -> dict[tuple[str, ...], str]:
    """What tells every row from the others of its method: one text per method everywhere, as far as methods are not tuned."""
    parts: dict[tuple[str, ...], list[str]] = {key: [] for key in contents}
    for tuned in (False, True):
        alike: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for key in contents:
            alike.setdefault(key[:4] if tuned else key[:1], []).append(key)
        for keys in alike.values():
            some = [
                {name: value for name, value in contents[key].items() if name.startswith(TUNED) == tuned}
                for key in keys
            ]
            asked = {size for key in keys for entry in groups[key] for size in fitted_sizes(entry.record)}
            for key, text in zip(keys, variants(some, asked), strict=True):
                parts[key].append(text)
    said = {key: [text for text in texts if text not in ("", AS_GIVEN)] for key, texts in parts.items()}
    return {key: SEPARATOR.join(said[key]) or (AS_GIVEN if AS_GIVEN in parts[key] else "") for key in contents}


def _order(row: Row) -> tuple[Any, ...]:
    return row.task, row.score is None, -row.sign * (row.score or 0.0), row.label


def make_row(key: tuple[str, ...], variant: str, group: Sequence[Entry], repeated: int = 0) -> Row:
    """The runs of one configuration, one per seed, as one row: mean and sample standard deviation over those with a score."""
    scored = [entry.record for entry in group if score_of(entry.record) is not None]
    scores = tuple(score for record in scored if (score := score_of(record)) is not None)
    times = [
        float(record["time"]["train_s"]) for record in scored if (record.get("time") or {}).get("train_s") is not None
    ]
    best = scored[0] if scored else group[0].record
    sizes, size = fitted_sizes(best), design(trained(best, group[0].config))["size"]
    params, scoring = best.get("params") or {}, (best.get("data") or {}).get("scoring") or {}
    return Row(
        method=key[0],
        variant=variant,
        task=key[1],
        synthetic=is_synthetic(best, group[0].config),
        model=key[2],
        budget=key[3],
        metric=str(best.get("metric") or ""),
        trainable=params.get("trainable"),
        percent=params.get("percent"),
        score=mean(scores) if scores else None,
        std=stdev(scores) if len(scores) > 1 else None,
        scored=len(scores),
        runs=len(group),
        train_s=mean(times) if times else None,
        scores=scores,
        higher_is_better=scoring.get("higher_is_better") is not False,
        scale=scale_of(best),
        flags=flagged([entry for entry in group if score_of(entry.record) is not None]),
        repeated=repeated,
        size=str(size) if size != NONE else " + ".join(map(str, sizes.values())),
        fitted=bool(sizes),
        beside=", ".join(f"{k}={v}" for k, v in (best.get("limits") or {}).items() if not k.startswith("trainable_")),
    )


def reason_of(record: Mapping[str, Any]) -> str:
    """Why a run has no score, the first paragraph of what its record tells on one line; empty when it tells nothing."""
    error = record.get("error")
    if isinstance(error, Mapping):
        kind, message = str(error.get("type") or ""), str(error.get("message") or "")
        error = message if kind in ("", "UnipetError") else f"{kind}: {message}"
    return " ".join(str(error or record.get("reason") or record.get("stopped_by") or "").split("\n\n")[0].split())


def unscored(entries: Iterable[Entry]) -> list[Unscored]:
    """Every run without a score, named by its overrides, or by its method, task and seed."""
    missing = []
    for entry in entries:
        record = entry.record
        if score_of(record) is not None:
            continue
        what = " ".join(entry.overrides) or " ".join(
            f"{key}={named(record.get(key))}"
            for key in ("method", "task", "model", "seed")
            if record.get(key) is not None
        )
        status = str(record.get("status") or "no record")
        reason = reason_of(record) or (
            "not finished: it still runs, or was killed" if status == "running" else "no reason recorded"
        )
        if status in ("interrupted", "running") and entry.directory is not None:
            reason += f"; to go on: {continuing(entry.directory)}"
        missing.append(Unscored(what, "failed" if status == "ok" else status, reason))
    return missing
