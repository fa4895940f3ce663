"""Files of examples in every format, written by hand: what a reader must find in them is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unipet.config import TaskConfig

FORMATS = ("jsonl", "csv", "tsv", "parquet")
Records = Sequence[dict[str, Any]]


def write_file(folder: Path, split: str, suffix: str, rows: Records, end: str = "\n", mark: bool = False) -> Path:
    """`<folder>/<split>.<suffix>`; a text format with this line end and, with `mark`, a byte order mark."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}.{suffix}"
    if suffix == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        return path
    lines = {"jsonl": json_lines, "csv": comma, "tsv": tab}[suffix](rows)
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + "".join(line + end for line in lines).encode())
    return path


def json_lines(rows: Records) -> list[str]:
    return [json.dumps(row, ensure_ascii=False) for row in rows]


def comma(rows: Records) -> list[str]:
    """Every value in quotes, a quote doubled (RFC 4180)."""
    table = [list(rows[0]), *(row.values() for row in rows)]
    return [",".join('"' + cell(value).replace('"', '""') + '"' for value in values) for values in table]


def tab(rows: Records) -> list[str]:
    table = [list(rows[0]), *(row.values() for row in rows)]
    return ["\t".join(cell(value) for value in values) for values in table]


def cell(value: object) -> str:
    """A value in a format that knows text alone."""
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


def task_for(folder: Path, **changes: Any) -> TaskConfig:
    """Two labels, one text; both splits from `folder`."""
    base = {"name": "mine", "text": ["sentence"], "labels": ["no", "yes"], "metrics": ["accuracy"]}
    return TaskConfig(**{**base, "data_dir": str(folder), "selection": "none", **changes})


def write_both(folder: Path, suffix: str, rows: Records, **how: Any) -> Path:
    """The same rows as training and as evaluation split."""
    for split in ("train", "validation"):
        write_file(folder, split, suffix, rows, **how)
    return folder


def parquet_of(
    folder: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, split: str | None = None
) -> Path:
    """Parquet files of typed arrow columns, with what `datasets` writes of features into the schema's metadata."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir(parents=True, exist_ok=True)
    for name in (split,) if split else ("train", "validation"):
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet")
    return folder
