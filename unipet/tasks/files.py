"""Reading rows from local files: <data_dir>/<split>.jsonl, .csv, .tsv or .parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError, nearest
from unipet.tasks.columns import answer_columns, text_columns
from unipet.tasks.formats import READERS
from unipet.tasks.formats.json_lines import parse
from unipet.tasks.kinds import KINDS
from unipet.tasks.labels import numeral
from unipet.tasks.rows import RowReader, SplitRows


def read_files(task: TaskConfig, split: str, evaluation: bool, hidden: bool = False) -> SplitRows:
    """The rows of `split` under `task.data_dir`. Raises UnipetError naming file, line and field."""
    folder = Path(str(task.data_dir))
    if not folder.is_dir():
        raise UnipetError(_no_folder(folder))
    path = find(folder, split)
    source = READERS[path.suffix](path, ["id", *text_columns(task), *answer_columns(task, evaluation)])
    reader = RowReader(task, split, str(path), evaluation, hidden, source.features)
    for record, place in source.records:
        if not source.typed and isinstance(record, dict):
            record = typed(record, task, place)
        reader.add(record, place)
    return reader.finished()


def find(folder: Path, split: str) -> Path:
    """The file of `split`. Raises UnipetError if there is none, or more than one."""
    found = [path for suffix in READERS if (path := folder / f"{split}{suffix}").is_file()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UnipetError(f"task.data_dir: {folder} has several files for the split {split!r}: {names}. Keep one.")
    if not found:
        for suffix in READERS:
            if (folder / f"{split}{suffix}").is_dir():
                raise UnipetError(
                    f"task.data_dir: {folder / f'{split}{suffix}'} is a directory; a file of this name is needed. "
                    "Move the data into a file, or give another directory: task.data_dir=DIR."
                )
        names_there = sorted(
            str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in READERS and path.is_file()
        )
        raise UnipetError(
            f"task.data_dir: no file {split}.jsonl (nor {', '.join(list(READERS)[1:])}) in {folder}. Files there: "
            f"{', '.join(names_there[:12]) or '(none)'}.{nearest(f'{split}.jsonl', names_there)} "
            "Choose another split with task.train_split / task.evaluation_split."
        )
    return found[0]


def typed(record: dict[str, str], task: TaskConfig, place: str) -> dict[str, Any]:
    """Convert a row of a text format by the kind of task: a numeric answer to a number; references, tags and words that
    are written as JSON to lists. Raises UnipetError for an invalid list."""
    made: dict[str, Any] = dict(record)
    answer = KINDS[task.kind].answer
    if answer == "number" and task.label in record:
        value = record[task.label]
        made[task.label] = value if numeral(value) is None else float(value)
    lists = {"text": [task.references], "tags": [task.label, *task.text], "label_set": [task.label]}.get(answer, [])
    for name in lists:
        if name in record and record[name].lstrip().startswith("["):
            made[name] = parse(
                record[name].encode(), f"{place}, field {name!r} (read as a list, because it begins with '[')"
            )
    return made


def _no_folder(folder: Path) -> str:
    if folder.exists():
        return f"task.data_dir: {folder} is a file. Give the directory that contains <split>.jsonl."
    parent = folder.parent
    beside = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
    hint = nearest(folder.name, beside) if beside else f" Nor does {parent} hold directories."
    return f"task.data_dir: no directory {folder}.{hint} It must contain <split>.jsonl, for example train.jsonl."
