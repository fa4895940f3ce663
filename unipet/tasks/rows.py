"""From columns to rows: `{"id", "text", "label"}` and what other kinds have instead, the same checks for every source."""

from __future__ import annotations

from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError, nearest
from unipet.tasks import answers
from unipet.tasks.answers import LabelReader, short
from unipet.tasks.columns import columns, render, text_columns
from unipet.tasks.kinds import KINDS

#: {"id": str, "text": [str, ...]} and, by kind: "label" (int, float, or [int] of words), "choices" [str],
#: "target" str (generation, training), "references" [str] (generation, evaluation).
Row = dict[str, Any]


class RowReader:
    """Turns one split's records into rows, and remembers what a single record cannot show: ids and label style.

    `evaluation` tells generation tasks to look for references. `hidden` reads no answers: a test set without them.
    """

    def __init__(self, task: TaskConfig, split: str, evaluation: bool = False, hidden: bool = False) -> None:
        self.task = task
        self.split = split
        self.rows: list[Row] = []
        self.evaluation, self.hidden = evaluation, hidden
        self._ids: dict[str, str] = {}
        self._listed = False
        self._labels = LabelReader(task.labels)
        self._columns = text_columns(task)

    def add(self, record: object, where: str) -> None:
        """Check `record` and keep it; `where` ("file, line 3") begins the UnipetError for anything wrong with it."""
        if not isinstance(record, dict):
            raise UnipetError(f"{where}: a JSON object is needed, {type(record).__name__} found.")
        answer = KINDS[self.task.kind].answer
        if answer == "tags":
            row: Row = {"text": self._words(record, where)}
        else:
            row = self._texts(record, where)
        if not self.hidden:
            row |= self._answer(record, row, answer, where)
        self.rows.append({"id": self._id(record, where), **row})

    def finished(self, empty: str) -> list[Row]:
        """All rows; raises UnipetError(empty) when there are none."""
        if not self.rows:
            raise UnipetError(empty)
        one_each = self.evaluation and not self._listed  # lists of references are grouped already
        return grouped(self.rows) if self.task.group_references and one_each else self.rows

    def _texts(self, record: dict[str, Any], where: str) -> Row:
        values = {name: self._text(record, name, where) for name in self._columns}
        if self.task.kind == "masked_prompt":  # the tokenizer knows the mask token, so encoding fills the template
            return {"text": [values[name] for name in self._columns]}
        row: Row = {"text": [render(entry, values) for entry in self.task.text]}
        if self.task.choices:
            row["choices"] = [render(entry, values) for entry in self.task.choices]
        return row

    def _answer(self, record: dict[str, Any], row: Row, answer: str, where: str) -> Row:
        if answer == "text":
            if self.evaluation:
                self._listed |= self.task.references in record
                return {"references": answers.references(record, self.task, where)}
            value = self._cell(record, self.task.target, "task.target", where)
            return {"target": answers.text(value, f"{where}, field {self.task.target!r}")}
        value = self._cell(record, self.task.label, "task.label", where)
        where = f"{where}, field {self.task.label!r}"
        if answer == "number":
            return {"label": answers.number(value, where)}
        if answer == "tags":
            return {"label": answers.tags(value, len(row["text"]), self._labels, where)}
        return {"label": self._labels.index(value, where)}

    def _cell(self, record: dict[str, Any], column: str, key: str, where: str) -> Any:
        if column not in record:
            found = ", ".join(map(str, record)) or "(none)"
            raise UnipetError(
                f"{where}: no column {column!r} ({key}). Columns found: {found}.{nearest(column, map(str, record))} "
                f"Rename the column, or set {key}."
            )
        return record[column]

    def _text(self, record: dict[str, Any], column: str, where: str) -> str:
        return answers.text(self._cell(record, column, "task.text", where), f"{where}, field {column!r}")

    def _words(self, record: dict[str, Any], where: str) -> list[str]:
        column = columns(self.task.text[0])[0]
        value = self._cell(record, column, "task.text", where)
        if not isinstance(value, (list, tuple)) or not value:
            raise UnipetError(f"{where}, field {column!r}: {short(value)} given; a list of words is needed.")
        return [answers.text(word, f"{where}, field {column!r}, word {i + 1}") for i, word in enumerate(value)]

    def _id(self, record: dict[str, Any], where: str) -> str:
        given = record.get("id")
        if given is None:
            return f"{self.split}-{len(self.rows)}"
        if isinstance(given, bool) or not isinstance(given, (int, str)):
            raise UnipetError(f"{where}, field 'id': {short(given)} given; a string or a whole number is needed.")
        name = str(given)
        if name in self._ids:
            raise UnipetError(
                f"{where}, field 'id': {name!r} again (first in {self._ids[name]}); ids must be distinct."
            )
        self._ids[name] = where
        return name


def grouped(rows: list[Row]) -> list[Row]:
    """One row per source text, in order of first appearance, with the references of all rows that share it."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first = found.setdefault(tuple(row["text"]), {**row, "references": []})
        first["references"] += [text for text in row["references"] if text not in first["references"]]
    return list(found.values())
