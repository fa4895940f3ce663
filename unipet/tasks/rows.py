"""From columns to rows: `{"id", "text", "label"}`, the same checks for every source."""

from __future__ import annotations

import math
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError, nearest

Row = dict[str, Any]  # {"id": str, "text": [str] or [str, str], "label": int | float}


class RowReader:
    """Turns one split's records into rows, and remembers what a single record cannot show: ids and label style."""

    def __init__(self, task: TaskConfig, split: str) -> None:
        self.task = task
        self.split = split
        self.rows: list[Row] = []
        self._ids: dict[str, str] = {}
        self._style: tuple[type, str] | None = None

    def add(self, record: object, where: str) -> None:
        """Check `record` and keep it; `where` ("file, line 3") begins the UnipetError for anything wrong with it."""
        if not isinstance(record, dict):
            raise UnipetError(f"{where}: a JSON object is needed, {type(record).__name__} found.")
        text = [self._text(record, column, where) for column in self.task.text]
        label = self._label(self._cell(record, self.task.label, "task.label", where), where)
        self.rows.append({"id": self._id(record, where), "text": text, "label": label})

    def _cell(self, record: dict[str, Any], column: str, key: str, where: str) -> Any:
        if column not in record:
            found = ", ".join(map(str, record)) or "(none)"
            raise UnipetError(
                f"{where}: no column {column!r} ({key}). Columns found: {found}.{nearest(column, map(str, record))} "
                f"Rename the column, or set {key}."
            )
        return record[column]

    def _text(self, record: dict[str, Any], column: str, where: str) -> str:
        value = self._cell(record, column, "task.text", where)
        if not isinstance(value, str):
            raise UnipetError(f"{where}, field {column!r}: {_short(value)} given; a string is needed.")
        if not value.strip():
            raise UnipetError(f"{where}, field {column!r}: empty text. Remove the row, or fill it.")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UnipetError(f"{where}, field {column!r}: half a character (a lone surrogate) in the text.") from error
        return value

    def _label(self, value: object, where: str) -> int | float:
        where = f"{where}, field {self.task.label!r}"
        if self.task.kind == "regression":
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
                raise UnipetError(f"{where}: {_short(value)} given; a finite number is needed.")
            return float(value)
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise UnipetError(f"{where}: {_short(value)} given; a label name or its index is needed {self._allowed()}.")
        if self._style is None:
            self._style = (type(value), where)
        elif not isinstance(value, self._style[0]):
            raise UnipetError(
                f"{where}: {_short(value)} given, but {self._style[1]} has a label of type {self._style[0].__name__}; "
                "use names or indices, not both."
            )
        if isinstance(value, str):
            if value not in self.task.labels:
                raise UnipetError(
                    f"{where}: unknown label {value!r} {self._allowed()}.{nearest(value, self.task.labels)}"
                )
            return list(self.task.labels).index(value)
        if value == -1:
            raise UnipetError(
                f"{where}: -1, which stands for a hidden answer (a test split?). Choose a labelled split."
            )
        if not 0 <= value < len(self.task.labels):
            raise UnipetError(f"{where}: {value} is outside the range of task.labels {self._allowed()}.")
        return value

    def _allowed(self) -> str:
        return "(allowed: " + ", ".join(f"{i} = {name}" for i, name in enumerate(self.task.labels)) + ")"

    def _id(self, record: dict[str, Any], where: str) -> str:
        given = record.get("id")
        if given is None:
            return f"{self.split}-{len(self.rows)}"
        if isinstance(given, bool) or not isinstance(given, (int, str)):
            raise UnipetError(f"{where}, field 'id': {_short(given)} given; a string or a whole number is needed.")
        name = str(given)
        if name in self._ids:
            raise UnipetError(
                f"{where}, field 'id': {name!r} again (first in {self._ids[name]}); ids must be distinct."
            )
        self._ids[name] = where
        return name


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        return False


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
