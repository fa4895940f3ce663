"""Records -> rows: one per method (and task, base model, budget, and whatever else was varied), over seeds.

Pure functions. A run without a score (failed, exceeded, skipped, interrupted) is counted and named. No mean includes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev
from typing import Any

from unipet.report.certified import Certified, certified
from unipet.report.collect import UNREADABLE, Entry
from unipet.report.flagged import Flagged, flagged
from unipet.report.identity import FITTED, as_key, identities, one_per_seed
from unipet.runs.budget_label import budget_label
from unipet.runs.design import NONE, design, trained
from unipet.runs.endings import continuing
from unipet.runs.labels import AS_GIVEN, SEPARATOR, labelled, variants
from unipet.runs.record import Record

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
    certified: Certified = Certified()  # of its scored runs
    repeated: int = 0  # runs of a seed that another run of it stands for
    size: str = ""  # as trained, "30 + 512"; "" where no insertion has one
    fitted: bool = False  # whether a budget solved it
    packed: bool = False  # whether runs of it trained in packs, whose time is common
    beside: str = ""  # the budget's limits that are not of parameters: "max_steps=300"
    others: tuple[tuple[str, float], ...] = ()  # (further metric that all its runs recorded, mean)
    content: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)  # what its runs share, flat

    @property
    def sign(self) -> float:
        """A score times this is better where it is higher."""
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
    """A run without a score: which it was, its status, and why."""

    run: str
    status: str
    error: str


def named(value: str | None) -> str:
    """What a report calls a part of a run; `?` where its record does not tell."""
    return "?" if value is None else value


def is_synthetic(entry: Entry) -> bool:
    """True for a generated task: the record says so; for a run without a record its configuration does."""
    source = entry.record.data.source
    if source is not None:
        return source.startswith("synthetic")
    return bool(entry.setting("task.generator")) and not entry.setting("task.data_dir")


def score_of(record: Record) -> float | None:
    """The score of a finished run; None for any other."""
    return float(record.score) if record.status == "ok" and record.score is not None else None


def scale_of(record: Record) -> str:
    """The scale of the score's metric in words, "0 to 1"; "" where the record does not tell."""
    return record.data.scoring.scales.get(record.metric or "", "")


def budget_of(entry: Entry) -> str:
    """The budget with its limits, so that one name never stands for two budgets."""
    budget = entry.setting("budget")
    return budget_label(budget) if isinstance(budget, Mapping) else named(entry.record.budget)


def aggregate(entries: Iterable[Entry], across_budgets: bool = False) -> list[Row]:
    """One row per distinct configuration apart from the seed, best score first within each task; unscored rows last.

    Budgets stay apart, in the order in which they come, unless `across_budgets` asks for one ranking of all.
    """
    return [row for row, _ in grouped(entries, across_budgets)]


def grouped(entries: Iterable[Entry], across_budgets: bool = False) -> list[tuple[Row, list[Entry]]]:
    """The rows of `aggregate`, each with its runs."""
    entries = [entry for entry in entries if entry.record.status != UNREADABLE]
    groups: dict[tuple[str, ...], list[Entry]] = {}
    contents: dict[tuple[str, ...], dict[str, Any]] = {}
    texts: dict[int, str] = {}  # runs of one configuration share the identity
    for entry, content in zip(entries, identities(entries), strict=True):
        record = entry.record
        names = (named(record.method), named(record.task), named(record.model), budget_of(entry))
        key: tuple[str, ...] = (*names, texts.get(id(content)) or texts.setdefault(id(content), as_key(content)))
        groups.setdefault(key, []).append(entry)
        contents[key] = content
    variant = _variants(contents, groups)
    pairs = []
    for key, group in groups.items():
        runs = one_per_seed(group, [score_of(entry.record) is not None for entry in group])
        row = make_row(key, variant[key], runs, len(group) - len(runs))
        pairs.append((replace(row, content=contents[key]), runs))
    budgets = [] if across_budgets else list(dict.fromkeys(row.budget for row, _ in pairs))
    place = {budget: number for number, budget in enumerate(budgets)}
    return sorted(pairs, key=lambda pair: (place.get(pair[0].budget, 0), *_order(pair[0])))


def _variants(
    contents: Mapping[tuple[str, ...], Mapping[str, Any]], groups: Mapping[tuple[str, ...], Sequence[Entry]]
) -> dict[tuple[str, ...], str]:
    """Row key -> what tells the row from the others of its method.

    A method has the same text on every task, base model and budget, except for what is tuned for each of them.
    """
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
            asked = [{size for entry in groups[key] for size in entry.record.fitted.sizes} for key in keys]
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
    times = [own for record in scored if (own := record.own_train_s) is not None]
    best = scored[0] if scored else group[0].record
    sizes, size = best.fitted.sizes, design(trained(best, group[0].config))["size"]
    return Row(
        method=key[0],
        variant=variant,
        task=key[1],
        synthetic=is_synthetic(replace(group[0], record=best)),
        model=key[2],
        budget=key[3],
        metric=best.metric or "",
        trainable=best.params.trainable,
        percent=best.params.percent,
        score=mean(scores) if scores else None,
        std=stdev(scores) if len(scores) > 1 else None,
        scored=len(scores),
        runs=len(group),
        train_s=mean(times) if times else None,
        packed=any(record.packed for record in scored),
        scores=scores,
        higher_is_better=best.data.scoring.higher_is_better,
        scale=scale_of(best),
        others=_others(scored),
        flags=flagged([entry for entry in group if score_of(entry.record) is not None]),
        certified=certified([entry for entry in group if score_of(entry.record) is not None]),
        repeated=repeated,
        size=str(size) if size != NONE else " + ".join(map(str, sizes.values())),
        fitted=bool(sizes),
        beside=", ".join(f"{k}={v}" for k, v in best.limits.items() if not k.startswith("trainable_")),
    )


def _others(scored: Sequence[Record]) -> tuple[tuple[str, float], ...]:
    names = [name for name in scored[0].metrics if name != scored[0].metric] if scored else []
    everywhere = [name for name in names if all(name in record.metrics for record in scored)]
    return tuple((name, mean(record.metrics[name] for record in scored)) for name in everywhere)


def reason_of(record: Record) -> str:
    """Why a run has no score: the first paragraph of the reason in its record, on one line; "" where there is none."""
    said = record.reason or record.stopped_by or ""
    if error := record.error:
        said = (error.message if error.type in ("", "UnipetError") else f"{error.type}: {error.message}") or said
    return " ".join(said.split("\n\n")[0].split())


def unscored(entries: Iterable[Entry]) -> list[Unscored]:
    """Every run without a score, named by its overrides, or by its method, task and seed."""
    missing = []
    for entry in entries:
        record = entry.record
        if score_of(record) is not None:
            continue
        names = {"method": record.method, "task": record.task, "model": record.model, "seed": record.seed}
        run = " ".join(entry.overrides) or " ".join(f"{key}={name}" for key, name in names.items() if name is not None)
        run = run or str(entry.directory)
        reason = reason_of(record) or (
            "not finished: it still runs, or was killed" if record.status == "running" else "no reason recorded"
        )
        if record.status in ("interrupted", "running") and entry.directory is not None:
            reason += f"; to go on: {continuing(entry.directory)}"
        missing.append(Unscored(run, "failed" if record.status == "ok" else record.status, reason))
    return missing
