"""The files of a run: their names, the one reader and the one writer of its record, its configuration, strict JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from unipet.calculus.yaml_reader import read_written
from unipet.compose import parse_run_config
from unipet.compose.schema import config_values
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.output.files import utf8, write_bytes_atomic
from unipet.output.json_object import WrongType
from unipet.output.json_reader import MIB, own_file, read_bounded
from unipet.runs.record import Record

RESULT = "result.json"
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.jsonl"
PREDICTIONS_OF = "predictions.{}.jsonl"  # of a set that was evaluated beside the reported one
ADAPTER = "adapter/"  # a directory
ERROR = "error.txt"
MOST = 32 * MIB  # of a record
ATTEMPT = "attempt"  # a directory: where a finished run is repeated, until the repetition is whole


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_text_atomic(path: Path, text: str) -> None:
    """Write all of `text` as UTF-8 or leave `path` as it was."""
    write_bytes_atomic(path, utf8(text))


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as strict, indented JSON, atomically. Raises ValueError for NaN and infinities: JSON has none."""
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_jsonl_atomic(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one strict JSON object per line, atomically."""
    write_text_atomic(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_record(path: Path) -> Record:
    """One `result.json`. Raises `UnipetError`, naming the file, when it cannot be read or is not a record."""
    try:
        content = json.loads(read_bounded(path, MOST).decode("utf-8"), parse_constant=_no_number)
    except (UnipetError, ValueError, RecursionError) as error:
        raise UnipetError(
            f"{path}: not a readable record ({error}). Delete it or run its configuration again."
        ) from None
    if not isinstance(content, dict) or not {"status", "run_id"} <= content.keys():
        raise UnipetError(f"{path}: not the record of a run (no status or run_id). Delete it or move it elsewhere.")
    try:
        return Record.from_dict(content)
    except WrongType as error:
        raise mistyped(path, error) from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def mistyped(path: Path, error: WrongType) -> UnipetError:
    """An error for a value of another type than its key has: the file, the key, what is there, what should be."""
    key = ".".join(error.path)
    return UnipetError(
        f"{path}: {f'{key} is ' if key else 'holds '}{json.dumps(error.value)[:80]}, where {error.wanted} belongs. "
        "Mend the file, or run its configuration again."
    )


def write_record(path: Path, record: Record) -> None:
    """Write `record` as `result.json`, atomically."""
    write_json_atomic(path, record.to_dict())


def record_files(root: Path) -> list[Path]:
    """Every `result.json` below `root`, in order of path; not those of repetitions, beside the result that counts."""
    found = sorted(Path(folder) / RESULT for folder, _, files in os.walk(root) if RESULT in files)
    return [path for path in found if path.parent.name != ATTEMPT or not (path.parent.parent / RESULT).is_file()]


def run_config(directory: Path, record: Record) -> RunConfig:
    """The configuration of the run in `directory`, with its relative paths made to begin where they began: whoever reads
    it may be elsewhere. What it writes goes beside the run. Raises `UnipetError` as `read_config`."""
    config = read_config(directory / CONFIG)
    folder = directory / (record.folder or "")
    config.task.data_dir = _found(folder, config.task.data_dir)
    config.model.sites = _found(folder, config.model.sites)
    if config.model.package is None:
        config.model.path = str(_found(folder, config.model.path))
    config.runs_dir = str(directory.parent)
    return config


def _found(folder: Path, path: str | None) -> str | None:
    """`path` as it was meant from `folder`, where it is there; else as it stands, which may be a name on the hub."""
    if path is None or not (folder / path).exists():
        return path
    return os.path.abspath(folder / path)


def read_config(path: Path) -> RunConfig:
    """A run's `config.yaml` as dataclasses again. What an earlier version did not know has its default, which is what that
    version did. Raises `UnipetError`, naming the file, when it is not one."""
    own_file(path)
    content = config_values(read_written(path))
    missing = {"method", "task", "model", "optim", "seed"}.difference(content if isinstance(content, Mapping) else ())
    if missing:
        raise UnipetError(f"{path}: not the configuration of a run (it lacks {', '.join(sorted(missing))}).")
    try:
        return parse_run_config.run_config(content)
    except UnipetError as error:
        raise UnipetError(f"{path}: not the configuration of a run: {error}") from None
