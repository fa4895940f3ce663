"""Rows from local files: <data_dir>/<split>.jsonl, .csv, .tsv or .parquet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError, nearest
from unipet.tasks.kinds import KINDS
from unipet.tasks.rows import Row, RowReader

Records = Iterator[tuple[object, str]]  # a record, and where it stands: "file, line 3"


def read_files(task: TaskConfig, split: str, evaluation: bool, hidden: bool = False) -> list[Row]:
    """The rows of `split` under `task.data_dir`. Raises UnipetError naming file, line and field."""
    folder = Path(str(task.data_dir))
    if not folder.is_dir():
        raise UnipetError(_no_folder(folder))
    path = find(folder, split)
    reader = RowReader(task, split, evaluation, hidden)
    for record, where in READERS[path.suffix](path, task):
        reader.add(record, where)
    return reader.finished(f"{path}: no rows; the split {split!r} is empty.")


def find(folder: Path, split: str) -> Path:
    """The file of `split`. Raises UnipetError when there is none, or more than one."""
    found = [path for suffix in READERS if (path := folder / f"{split}{suffix}").is_file()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UnipetError(f"task.data_dir: {folder} has {names}: which one is the split {split!r}? Keep one.")
    if not found:
        names_there = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix in READERS)
        raise UnipetError(
            f"task.data_dir: no file {split}.jsonl (nor {', '.join(list(READERS)[1:])}) in {folder}. Files there: "
            f"{', '.join(names_there[:12]) or '(none)'}.{nearest(f'{split}.jsonl', names_there)} "
            "Choose another split with task.train_split / task.evaluation_split."
        )
    return found[0]


def _jsonl(path: Path, task: TaskConfig) -> Records:
    for number, line in enumerate(_bytes(path).split(b"\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield _parse(line, where), where


def _parse(line: bytes, where: str) -> object:
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=lambda pairs: _distinct(pairs, where))
    except UnipetError:
        raise
    except UnicodeDecodeError as error:
        place = f"{where}{_last_field(line[: error.start])}"
        raise UnipetError(
            f"{place}: not UTF-8 (byte {error.start + 1}: {error.reason}). Save the file as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        place = f"{where}{_last_field(error.doc[: error.pos].encode())}"
        raise UnipetError(f"{place}: malformed or truncated JSON, column {error.colno}: {error.msg}.") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting without end
        raise UnipetError(f"{where}: malformed JSON: {error}.") from error


def _distinct(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """An object's fields; Python's own reader would keep the last of two with one name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnipetError(f"{where}, field {twice!r}: given twice; which one is meant? Keep one.")
    return found


def _last_field(line: bytes) -> str:
    """The last field that begins in a broken line, for its error; nothing where none does."""
    names = re.findall(rb'"((?:[^"\\\\]|\\\\.)*)"\s*:', line)
    return f", field {names[-1].decode('utf-8', 'replace')!r}" if names else ""


def _table(path: Path, task: TaskConfig, delimiter: str) -> Records:
    """Comma or tab separated values with a header; line numbers are the file's, also where a value holds line breaks."""
    content = _bytes(path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        place = f"{path}, line {number}{_broken_column(content, error.start, delimiter)}"
        raise UnipetError(f"{place}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=delimiter == ",")
    header: list[str] | None = None
    line = 1
    try:
        for values in reader:
            where, line = f"{path}, line {line}", reader.line_num + 1
            if not values:
                continue
            if header is None:
                header = values
                if len(set(header)) < len(header):
                    twice = next(name for name in header if header.count(name) > 1)
                    raise UnipetError(
                        f"{where}: the header names column {twice!r} twice; which one is meant? Keep one."
                    )
                continue
            if len(values) != len(header):
                raise UnipetError(f"{where}: {len(values)} values, but the header has {len(header)} columns.")
            yield _typed(dict(zip(header, values, strict=True)), task, where), where
    except csv.Error as error:
        raise UnipetError(f"{path}, line {line}: malformed table: {error}.") from error


def _broken_column(content: bytes, start: int, delimiter: str) -> str:
    """The column that the byte at `start` stands in, for an error; nothing where that cannot be said."""
    text = content[:start].decode("utf-8") + "\ufffd"
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error:
        return ""
    at = len(rows[-1]) - 1
    return f", field {rows[0][at]!r}" if len(rows) > 1 and at < len(rows[0]) else ""


def _typed(record: dict[str, str], task: TaskConfig, where: str) -> dict[str, Any]:
    """A table holds text only: the answer's column becomes a number or a list where the kind asks for one."""
    made: dict[str, Any] = dict(record)
    answer = KINDS[task.kind].answer
    if answer in ("index", "number") and task.label in record:
        made[task.label] = _value(record[task.label], answer, task)
    lists = {"text": [task.references], "tags": [task.label, *task.text]}.get(answer, [])
    for name in lists:
        if name in record and record[name].lstrip().startswith("["):
            made[name] = _parse(record[name].encode(), f"{where}, field {name!r}")
    return made


def _value(text: str, answer: str, task: TaskConfig) -> object:
    try:
        if answer == "number":
            return float(text)
        return text if text in task.labels else int(text)
    except ValueError:
        return text  # the row's own check says what is wrong with it


def _parquet(path: Path, task: TaskConfig) -> Records:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UnipetError(f"{path}: not a readable parquet file: {str(error).splitlines()[0]}") from error
    for number, record in enumerate(table.to_pylist()):
        yield record, f"{path}, row {number}"


READERS: dict[str, Callable[[Path, TaskConfig], Records]] = {
    ".jsonl": _jsonl,
    ".csv": lambda path, task: _table(path, task, ","),
    ".tsv": lambda path, task: _table(path, task, "\t"),
    ".parquet": _parquet,
}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise UnipetError(f"task.data_dir: cannot read {path}: {error.strerror}.") from error


def _no_folder(folder: Path) -> str:
    if folder.exists():
        return f"task.data_dir: {folder} is a file; the directory that holds <split>.jsonl is needed."
    parent = folder.parent
    beside = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
    hint = nearest(folder.name, beside) if beside else f" Nor does {parent} hold directories."
    return f"task.data_dir: no directory {folder}.{hint} It must hold <split>.jsonl, for example train.jsonl."
