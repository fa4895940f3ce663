"""Published numbers beside our own: a CSV with a row per method, task and metric.

Columns `method`, `task`, `metric` and `published`; `std`, `runs`, `params_percent` and `source` where the paper tells them;
`scale` (0-1 or 0-100) where the numbers do not tell it by themselves. They are shown on the scale of our records.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import mean, stdev

from unipet.errors import UnipetError, unknown
from unipet.output.text_table import text_table
from unipet.report import numbers
from unipet.report.aggregate import grouped, score_of
from unipet.report.collect import Entry
from unipet.report.numbers import GAP
from unipet.runs.record import Record

NEEDED = ("method", "task", "metric", "published")
KNOWN = (*NEEDED, "std", "runs", "params_percent", "source", "scale")
SCALES = {"0-1": 1.0, "0-100": 100.0}
PUBLISHED = "Published numbers beside ours, on the scale of our records"
BESIDE = (
    *(
        "method",
        "task",
        "metric",
        "source",
        "published",
        "ours",
        "ours - published",
        "seeds",
        "our base model",
        "scale",
    ),
)


@dataclass(frozen=True)
class Published:
    """One number of a paper."""

    method: str
    task: str
    metric: str
    value: float
    std: float | None
    source: str
    top: float | None = None  # of the scale that the file names

    @property
    def key(self) -> tuple[str, str, str]:
        return self.method, self.task, self.metric


def read_published(path: Path) -> list[Published]:
    """Raises `UnipetError`, naming the file and the line, for a file that is not such a table."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnipetError(f"--published: {path} cannot be read as CSV ({error}).") from None
    if missing := [column for column in NEEDED if column not in columns]:
        raise UnipetError(f"--published: {path} lacks the column {missing[0]!r}. Its columns: {', '.join(KNOWN)}.")
    by_key: dict[tuple[str, str, str], Published] = {}
    for line, row in enumerate(rows, start=2):
        try:
            std = float(row["std"]) if row.get("std") else None
            number = Published(
                *(row["method"], row["task"], row["metric"]), float(row["published"]), std, row.get("source") or ""
            )
        except (TypeError, ValueError):
            raise UnipetError(
                f"--published: {path}, line {line}: published={row['published']!r} std={row.get('std')!r}; both are numbers "
                "(std may be empty)."
            ) from None
        if scale := (row.get("scale") or "").strip():
            if scale not in SCALES:
                raise unknown(f"--published: {path}, line {line}: scale", scale, SCALES)
            number = replace(number, top=SCALES[scale])
        if number.key in by_key:
            raise UnipetError(f"--published: {path}, line {line}: {', '.join(number.key)} stands there twice.")
        by_key[number.key] = number
    if not by_key:
        raise UnipetError(f"--published: {path} holds no rows.")
    return list(by_key.values())


@dataclass(frozen=True)
class Beside:
    """A published number beside one row of ours, on the scale of our records where that is clear.

    `label` is "" where we have no such run. `difference` is ours - published; None with `why` where it cannot be told.
    """

    number: Published
    label: str = ""
    model: str = ""
    budget: str = ""
    scale: str = ""
    mean: float | None = None
    std: float | None = None
    seeds: int = 0
    difference: float | None = None
    why: str = ""

    @property
    def at(self) -> tuple[str, str, str, tuple[str, str, str]]:
        """The row of ours and the published number, as a key."""
        return self.label, self.model, self.budget, self.number.key

    def texts(self) -> list[str]:
        """A line of the table with the header `BESIDE`."""
        number, scale = self.number, self.scale
        place = f"{self.model}, budget {self.budget}" if self.label else GAP
        off = numbers.score(self.difference, scale, "+") if self.difference is not None else (self.why or GAP)
        ours = numbers.spread(self.mean, self.std, scale)
        names = [self.label or number.method, number.task, number.metric, number.source or GAP]
        return [
            *names,
            numbers.spread(number.value, number.std, scale),
            ours,
            off,
            str(self.seeds),
            place,
            scale or GAP,
        ]


def beside(published: Sequence[Published], entries: Iterable[Entry]) -> list[Beside]:
    """Each published number with ours: per variant, base model and budget of that method and task, the metric of its
    scored runs. Rows of ours without a published number are not here; the comparison shows them."""
    ours = grouped(entries)
    compared: list[Beside] = []
    for theirs in published:
        rows = [(row, runs) for row, runs in ours if (row.method, row.task) == (theirs.method, theirs.task)]
        here = []
        for row, runs in rows:
            records = [entry.record for entry in runs if score_of(entry.record) is not None]
            values = [float(record.metrics[theirs.metric]) for record in records if theirs.metric in record.metrics]
            if values:
                scale = scale_of(theirs.metric, records)
                number, why = reconciled(theirs, published, scale)
                spread = stdev(values) if len(values) > 1 else None
                off = None if why else mean(values) - number.value
                place = (row.label, row.model, row.budget, scale)
                here.append(Beside(number, *place, mean(values), spread, len(values), off, why))
        if not here:
            scale = scale_of(theirs.metric)
            number, why = reconciled(theirs, published, scale)
            here = [Beside(number, scale=scale, why=why)]
        compared += here
    return compared


def scale_of(metric: str, records: Iterable[Record] = ()) -> str:
    """The scale of a metric in words, as a record declares it, else as this version knows it; "" where nobody does."""
    for record in records:
        if metric in record.data.scoring.scales:
            return record.data.scoring.scales[metric]
    from unipet.tasks.scoring import METRICS

    return METRICS[metric].scale if metric in METRICS else ""


def reconciled(number: Published, published: Iterable[Published], scale: str) -> tuple[Published, str]:
    """The number on our `scale`, and why it cannot be compared ("" where it can).

    What the file's column `scale` says counts; without it, a metric that ends at 1 is published per cent where its numbers
    are above 1. A number that may be either is left as it is.
    """
    top = numbers.top(scale)
    same = [abs(other.value) for other in published if other.metric == number.metric and not other.top]
    if top is None:
        if number.top or not scale:
            return number, f"the scale of {number.metric} is {scale or 'not known'}"
        return number, ""
    given, why = number.top, ""
    if given is None:
        large = [value > 1 for value in same]
        if top == 1.0 and any(large) and not all(large):
            why = "per cent or not? The file has both: add a column scale"
        elif top == 100.0 and not any(large) and same != [0.0] * len(same):
            why = "a share or per cent? Add a column scale"
        given = 100.0 if any(large) else top
    if abs(number.value) > given:
        why = f"outside the scale of {number.metric}, {scale}"
    if why or given == top:
        return number, why
    ratio = Fraction(int(top), int(given))  # 93.1 becomes 0.931 and no 0.9309999999999999
    std = None if number.std is None else float(Fraction(repr(number.std)) * ratio)
    return replace(number, value=float(Fraction(repr(number.value)) * ratio), std=std), ""


def published_text(comparisons: Sequence[Beside]) -> str:
    """Both numbers side by side, as text. A number that we do not have is a gap, never a zero."""
    return f"{PUBLISHED}:\n\n" + text_table(BESIDE, [one.texts() for one in comparisons], 200)
