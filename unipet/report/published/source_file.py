"""Published numbers as YAML: one file for each source, with its tables, scales, settings and rows.

    source: He et al. 2022                    # as tables name it
    scale: {accuracy: 0-100}                  # of every metric: 0-1, 0-100, or ours for one without such an end (NIST)
    settings_of: {sst2: {optim.lr: 1e-4}}     # of a task's rows in all tables, by our keys; null: the source does not tell
    tables:
      table2:
        about: Validation accuracy
        settings: {model.name: roberta_base}  # of all rows of the table
        notes: [what no key says]
        rows:
          - {method: NAME, task: sst2, metric: accuracy, value: 94.2, std: 0.2, runs: 5, percent: 0.5, settings: {seed: 1}}

What a row says of a setting comes before what its table says, and that before `settings_of`. A file without tables says in
`missing` why it has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unipet.calculus.options import option, parse_options
from unipet.calculus.yaml_reader import read_written
from unipet.errors import UnipetError, not_allowed, unknown
from unipet.report.published.number import SCALES, Published

OURS = "ours"  # the scale of our metric of that name, which has no end at 1 or 100
NULL = ("null", "~", "")  # a setting that the source does not tell


@dataclass(frozen=True)
class RowText:
    """A line of a table."""

    method: str
    task: str
    metric: str
    value: float
    std: float | None = option(None, low=0)
    runs: int | None = option(None, low=1)
    percent: float | None = option(None, low=0)  # trained parameters of the base model's
    trainable: int | None = option(None, low=0)  # trained parameters
    settings: dict[str, str] = option({})
    note: str = ""


@dataclass(frozen=True)
class TableText:
    """A table of a source."""

    rows: list[RowText]
    about: str = ""
    settings: dict[str, str] = option({})
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SourceText:
    """A file, its tables apart."""

    source: str
    about: str = ""
    missing: str = ""
    scale: dict[str, str] = option({})
    settings_of: dict[str, dict[str, str]] = option({})


def read_source(path: Path, name: str) -> dict[str, list[Published]]:
    """The numbers of every table of a file; `name` is that of the file in `--published`. Raises `UnipetError`, naming file and
    key, for one that is none, or that has no tables."""
    content = read_written(path)
    if not isinstance(content, Mapping):
        raise not_allowed(f"{path}", content, "a mapping with source and tables")
    head = parse_options(SourceText, content, f"{path}: ", "a source", ignore=("tables",))
    tables = content.get("tables")
    if not isinstance(tables, Mapping) or not tables:
        raise UnipetError(f"{path}: no tables. {head.missing or 'Write them under tables: NAME: rows.'}")
    return {str(key): _table(f"{path}: tables.{key}", f"{name}:{key}", head, value) for key, value in tables.items()}


def _table(key: str, place: str, head: SourceText, content: Any) -> list[Published]:
    table = parse_options(TableText, content, key, "a table")
    numbers: dict[tuple[str, ...], Published] = {}
    for at, row in enumerate(table.rows):
        settings = {**head.settings_of.get(row.task, {}), **table.settings, **row.settings}
        if row.metric not in head.scale:
            raise UnipetError(
                f"{key}.rows[{at}].metric: no scale is given of {row.metric!r}. Write scale: {{{row.metric}: 0-100}}."
            )
        if (scale := head.scale[row.metric]) not in (*SCALES, OURS):
            raise unknown(f"{key}: scale.{row.metric}", scale, (*SCALES, OURS))
        own = " ".join(f"{name}={value}" for name, value in row.settings.items() if value not in NULL)
        number = Published(
            *(row.method, row.task, row.metric, row.value, row.std),
            source=f"{head.source} {place.partition(':')[2]}" + (f" ({own})" if own else ""),
            top=None if scale == OURS else SCALES[scale],
            place=f"{place} {own}".strip(),
            settings={name: value for name, value in settings.items() if value not in NULL},
            notes=(*table.notes, *([row.note] if row.note else [])),
        )
        if (*number.key, number.place) in numbers:
            raise UnipetError(
                f"{key}.rows[{at}]: {', '.join(number.key)} stands there twice. Tell them apart by settings."
            )
        numbers[*number.key, number.place] = number
    if not numbers:
        raise UnipetError(f"{key}.rows: no rows.")
    return list(numbers.values())
