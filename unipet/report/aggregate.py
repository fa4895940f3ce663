"""Records -> rows: one per method (and task, base model, budget, and whatever else was varied), over seeds.

Pure functions. A run without a score (failed, exceeded, skipped, interrupted) is counted and named, never averaged in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from unipet.budget_label import budget_label
from unipet.report.collect import Entry

# Not part of what is compared: the seed is averaged over; the rest is where a run happened, not what it was.
IGNORED = ("seed", "runs_dir", "rerun", "tracking")
# These have columns of their own.
NAMED = ("method.name", "task.name", "model.name", "budget.name")
MISSING = "(default)"


@dataclass(frozen=True)
class Row:
    """One line of a comparison. `score` is None when no run of the row has one; `std` needs two runs."""

    method: str
    variant: str  # what distinguishes it from other rows of the same method, task, model and budget: "key=value, ..."
    task: str
    synthetic: bool
    model: str
    budget: str
    metric: str
    trainable: int | None
    percent: float | None
    score: float | None
    std: float | None
    scored: int  # runs with a score
    runs: int  # runs there are
    train_s: float | None
    scores: tuple[float, ...] = field(default=(), compare=False)
    higher_is_better: bool = True  # of the metric
    scale: str = ""  # of the metric, in words: "0 to 1"
    beside: str = ""  # the budget's limits that are not of parameters: "max_steps=300"

    @property
    def sign(self) -> float:
        """What turns a score into one of which more is better."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def label(self) -> str:
        """The method, with its variant where there are several."""
        return f"{self.method} ({self.variant})" if self.variant else self.method

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


def leaves(value: object, prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted keys: {"a": {"b": 1}} -> {"a.b": 1}. Lists are values."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(leaves(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def identity(entry: Entry) -> dict[str, Any]:
    """What a run is, apart from its seed."""
    return leaves({key: value for key, value in entry.config.items() if key not in IGNORED})


def variants(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """For rows that share a method name: what each one has that differs, `insertions.ffn.scaling=4.0, ...`.

    A tiny difference is shown with the shortest end of its key that is still unambiguous among the differing keys.
    """
    everywhere = [key for key in identities[0] if all(key in one for one in identities)]
    labels = _labels(identities, everywhere)
    if len(set(labels)) == len(labels):
        return labels  # what only some of them have (options of one function, say) would say nothing more
    return _labels(identities, list(dict.fromkeys(key for one in identities for key in one)))


def _labels(identities: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    varying = [
        key
        for key in keys
        if key not in NAMED and len({json.dumps(one.get(key, MISSING), default=str) for one in identities}) > 1
    ]
    short = {key: shortest(key, varying) for key in varying}
    return [
        ", ".join(f"{short[key]}={plain(one[key])}" for key in varying if key in one) or ("as given" if varying else "")
        for one in identities
    ]


def shortest(key: str, others: Iterable[str]) -> str:
    """The shortest dotted end of `key` that no other key ends with. `name` or `value` alone says too little."""
    parts = key.split(".")
    for length in range(2 if parts[-1] in ("name", "value") else 1, len(parts) + 1):
        end = ".".join(parts[-length:])
        if not any(other != key and ("." + other).endswith("." + end) for other in others):
            return end
    return key


def plain(value: object) -> str:
    """A value as one would type it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


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
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        record = entry.record
        names = (*(named(record.get(key)) for key in ("method", "task", "model")), budget_of(entry))
        groups.setdefault((*names, json.dumps(identity(entry), sort_keys=True, default=str)), []).append(entry)

    same_names: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key in groups:
        same_names.setdefault(key[:4], []).append(key)
    variant = {
        key: text
        for keys in same_names.values()
        for key, text in zip(keys, variants([identity(groups[key][0]) for key in keys]), strict=True)
    }
    pairs = [(make_row(key, variant[key], group), group) for key, group in groups.items()]
    budgets = [] if across_budgets else list(dict.fromkeys(row.budget for row, _ in pairs))
    place = {budget: number for number, budget in enumerate(budgets)}
    return sorted(pairs, key=lambda pair: (place.get(pair[0].budget, 0), *_order(pair[0])))


def _order(row: Row) -> tuple[Any, ...]:
    return row.task, row.score is None, -row.sign * (row.score or 0.0), row.label


def make_row(key: tuple[str, ...], variant: str, group: Sequence[Entry]) -> Row:
    """The runs of one configuration as one row: mean and sample standard deviation over those with a score."""
    scored = [entry.record for entry in group if score_of(entry.record) is not None]
    scores = tuple(score for record in scored if (score := score_of(record)) is not None)
    times = [
        float(record["time"]["train_s"]) for record in scored if (record.get("time") or {}).get("train_s") is not None
    ]
    best = scored[0] if scored else group[0].record
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
        scale=str((scoring.get("scales") or {}).get(best.get("metric")) or ""),
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
        missing.append(Unscored(what, "failed" if status == "ok" else status, reason))
    return missing
