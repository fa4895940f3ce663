"""Published numbers beside our own, on the scale of our records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import mean, stdev

from unipet.output.text_table import text_table
from unipet.report import numbers
from unipet.report.aggregate import grouped, score_of
from unipet.report.collect import Entry
from unipet.report.numbers import GAP
from unipet.report.published.differences import differences
from unipet.report.published.number import Published
from unipet.runs.record import Record

PUBLISHED = "Published numbers beside ours, on the scale of our records"
DIFFER = "Where the settings of published numbers differ from ours"
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
    differences: tuple[str, ...] = ()  # of the settings

    @property
    def at(self) -> tuple[str, str, str, tuple[str, str, str], str]:
        """The row of ours and the published number, as a key."""
        return self.label, self.model, self.budget, self.number.key, self.number.place

    @property
    def note(self) -> str:
        """Why no difference is told, and where the settings differ; "" where nothing is to be said."""
        return "; ".join(
            [*([self.why] if self.why else []), *self.differences, *(self.number.notes if self.label else ())]
        )

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
                if theirs.model and theirs.model != row.model:
                    why = f"{theirs.model} there, {row.model} here"
                spread = stdev(values) if len(values) > 1 else None
                unlike = differences(theirs, [entry for entry in runs if score_of(entry.record) is not None])
                off = None if why else mean(values) - number.value
                place = (row.label, row.model, row.budget, scale)
                here.append(Beside(number, *place, mean(values), spread, len(values), off, why, unlike))
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
    lines = [f"{PUBLISHED}:\n", text_table(BESIDE, [one.texts() for one in comparisons], 200)]
    notes = setting_notes(comparisons)
    return "\n".join([*lines, *([f"\n{DIFFER}:", *(f"- {note}" for note in notes)] if notes else [])])


def setting_notes(comparisons: Sequence[Beside]) -> list[str]:
    """What differs in the settings, one line for all numbers of a source with which it is the same."""
    alike: dict[tuple[str, tuple[str, ...]], dict[str, None]] = {}
    for each in comparisons:
        said = (*each.differences, *each.number.notes)
        if each.label and said:
            alike.setdefault((each.number.source, said), {})[f"{each.label} on {each.number.task}"] = None
    return [f"{source}, {', '.join(rows)}: {'; '.join(said)}" for (source, said), rows in alike.items()]
