"""Published numbers beside our own: a CSV with a row per method, task and metric.

Columns `method`, `task`, `metric` and `published`; `std`, `runs`, `params_percent` and `source` where the paper tells them.
Scores are in the unit of our records (accuracy 0 to 1, BLEU and ROUGE 0 to 100).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from unipet.errors import UnipetError
from unipet.report.aggregate import named, score_of
from unipet.report.collect import Entry
from unipet.report.table import GAP
from unipet.text_table import text_table

NEEDED = ("method", "task", "metric", "published")
KNOWN = (*NEEDED, "std", "runs", "params_percent", "source")


@dataclass(frozen=True)
class Published:
    """One number of a paper."""

    method: str
    task: str
    metric: str
    value: float
    std: float | None
    source: str

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
    found: dict[tuple[str, str, str], Published] = {}
    for line, row in enumerate(rows, start=2):
        try:
            std = float(row["std"]) if row.get("std") else None
            one = Published(
                *(row["method"], row["task"], row["metric"]), float(row["published"]), std, row.get("source") or ""
            )
        except (TypeError, ValueError):
            raise UnipetError(
                f"--published: {path}, line {line}: published={row['published']!r} std={row.get('std')!r}; both are numbers "
                "(std may be empty)."
            ) from None
        if one.key in found:
            raise UnipetError(f"--published: {path}, line {line}: {', '.join(one.key)} stands there twice.")
        found[one.key] = one
    if not found:
        raise UnipetError(f"--published: {path} holds no rows.")
    return list(found.values())


def beside(
    published: Iterable[Published], entries: Sequence[Entry]
) -> list[tuple[Published, list[tuple[str, list[float]]]]]:
    """Each published number with ours: per base model and budget, the metric of every finished run of that method and
    task. What was run and not published is not here: the comparison itself shows it."""
    ours: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for entry in entries:
        record = entry.record
        if score_of(record) is None:
            continue
        where = f"{named(record.get('model'))}, budget {named(record.get('budget'))}"
        for metric, value in (record.get("metrics") or {}).items():
            if isinstance(value, int | float):
                key = (named(record.get("method")), named(record.get("task")), str(metric))
                ours.setdefault(key, {}).setdefault(where, []).append(float(value))
    return [(one, list(ours.get(one.key, {}).items())) for one in published]


def published_text(published: Iterable[Published], entries: Sequence[Entry]) -> str:
    """The side by side as text. A number of ours that there is not is a gap, never a zero."""
    rows, sources = [], []
    for one, found in beside(published, entries):
        sources.append(one.source)
        for where, values in found or [(GAP, [])]:
            spread = stdev(values) if len(values) > 1 else None
            ours = _score(mean(values), spread) if values else GAP
            off = f"{mean(values) - one.value:+.4g}" if values else GAP
            rows.append(
                [one.method, one.task, one.metric, _score(one.value, one.std), ours, off, str(len(values)), where]
            )
    header = ["method", "task", "metric", "published", "ours", "ours - published", "runs", "our base model"]
    told = ", ".join(dict.fromkeys(source for source in sources if source))
    return "Published numbers beside ours" + (f" ({told})" if told else "") + ":\n\n" + text_table(header, rows, 160)


def _score(value: float, std: float | None) -> str:
    return f"{value:.4g}" + (f" ± {std:.2g}" if std is not None else "")
