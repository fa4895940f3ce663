"""Parquet: typed columns. Decimals stay exact, and dictionary columns give their values. Features that `datasets` wrote to
the schema's metadata, such as the names of a ClassLabel, are read as well."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.tasks.formats.source import Source, repeated
from unipet.tasks.gaps import short


def read_parquet(path: Path, wanted: Collection[str]) -> Source:
    """The rows of a file with the values of the `wanted` columns; other columns have the value None. Raises UnipetError
    naming the file and, if they are known, the row (counted from 0) and the field."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        schema = file.schema_arrow
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from error
    twice = repeated(schema.names)
    if twice is not None:
        raise UnipetError(f"{path}: there are two columns named {short(twice)}. Remove one of them.")
    return Source(_records(path, file, wanted), typed=True, features=_features(path, schema.metadata))


def _records(path: Path, file: Any, wanted: Collection[str]) -> Iterator[tuple[object, str]]:
    import pyarrow

    names = list(file.schema_arrow.names)
    read = [name for name in names if name in wanted]
    number = 0
    batches = iter(file.iter_batches(columns=read))
    while True:
        try:
            batch = next(batches, None)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise _unreadable(path, error) from error
        if batch is None:
            return
        columns = {name: _values(batch.column(name), name, path, number) for name in read}
        for i in range(batch.num_rows):
            record = dict.fromkeys(names) | {name: values[i] for name, values in columns.items()}
            yield record, f"{path}, row {number}"
            number += 1


def _values(column: Any, name: str, path: Path, first: int) -> list[Any]:
    try:
        found: list[Any] = column.to_pylist()
        return found
    except Exception:  # conversions raise many types: bytes that are not UTF-8, a date out of range
        for i in range(len(column)):
            try:
                column[i].as_py()
            except Exception as error:
                kind = "not UTF-8" if isinstance(error, UnicodeDecodeError) else f"not a readable {column.type}"
                raise UnipetError(
                    f"{path}, row {first + i}, field {short(name)}: {kind} ({_reason(error)})."
                ) from error
        raise


def _features(path: Path, metadata: Mapping[bytes, bytes] | None) -> Mapping[str, object]:
    """Column -> feature, which `datasets` writes under the key `huggingface`; {} if it is missing."""
    given = (metadata or {}).get(b"huggingface")
    if given is None:
        return {}
    try:
        found = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise UnipetError(f"{path}: the metadata `huggingface` of its schema is malformed JSON: {error}.") from error
    for key in ("info", "features"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _unreadable(path: Path, error: Exception) -> UnipetError:
    return UnipetError(f"{path}: not a readable parquet file: {_reason(error)}")


def _reason(error: Exception) -> str:
    """The first line of a library's error, shortened."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
