"""Rows from JSON lines: <data_dir>/<split>.jsonl, one object a line."""

from __future__ import annotations

import json
from pathlib import Path

from unipet.config import TaskConfig
from unipet.errors import UnipetError, nearest
from unipet.tasks.rows import Row, RowReader


def read_jsonl(task: TaskConfig, split: str) -> list[Row]:
    """The rows of `split` under `task.data_dir`. Raises UnipetError naming file, line and field."""
    folder = Path(str(task.data_dir)).expanduser()
    if not folder.is_dir():
        raise UnipetError(_no_folder(folder))
    path = folder / f"{split}.jsonl"
    if not path.is_file():
        found = sorted(p.name for p in folder.glob("*.jsonl"))
        raise UnipetError(
            f"task.data_dir: no file {path.name} in {folder}. JSON lines there: {', '.join(found) or '(none)'}."
            f"{nearest(path.name, found)} Choose another split with task.train_split / task.evaluation_split."
        )
    reader = RowReader(task, split)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnipetError(f"task.data_dir: cannot read {path}: {error.strerror}.") from error
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            reader.add(_parse(line, where), where)
    if not reader.rows:
        raise UnipetError(f"{path}: no rows; the split {split!r} is empty.")
    return reader.rows


def _parse(line: bytes, where: str) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UnipetError(
            f"{where}: not UTF-8 (byte {error.start + 1}: {error.reason}). Save the file as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise UnipetError(f"{where}: malformed or truncated JSON, column {error.colno}: {error.msg}.") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting without end
        raise UnipetError(f"{where}: malformed JSON: {error}.") from error


def _no_folder(folder: Path) -> str:
    if folder.exists():
        return f"task.data_dir: {folder} is a file; the directory that holds <split>.jsonl is needed."
    parent = folder.parent
    beside = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
    hint = nearest(folder.name, beside) if beside else f" Nor does {parent} hold directories."
    return f"task.data_dir: no directory {folder}.{hint} It must hold <split>.jsonl, for example train.jsonl."
