"""Published numbers in a user's CSV, with a row per method, task and metric.

Columns `method`, `task`, `metric` and `published`; `std`, `runs`, `params_percent` and `source` where the paper tells them;
`scale` (0-1 or 0-100) where the numbers do not tell it by themselves.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from unipet.errors import UnipetError, unknown
from unipet.report.published.number import SCALES, Published

NEEDED = ("method", "task", "metric", "published")
KNOWN = (*NEEDED, "std", "runs", "params_percent", "source", "scale")


def read_csv(path: Path) -> list[Published]:
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
