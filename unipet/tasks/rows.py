"""From columns to rows, `{"id", "text", "label"}` or the keys of another kind, with the same checks for every source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError, nearest
from unipet.tasks import answers
from unipet.tasks.columns import columns, render, text_columns
from unipet.tasks.declared import alignment, declared_names, scale
from unipet.tasks.gaps import Gap, short
from unipet.tasks.kinds import KINDS
from unipet.tasks.label_sets import label_columns, label_set
from unipet.tasks.labels import LabelReader

#: {"id": str, "text": [str, ...]} and, by kind: "label" (int, float, [int] of words, or a set of labels as an increasing
#: [int]), "choices" [str], "target" str (generation, training), "references" [str] (generation, evaluation).
Row = dict[str, Any]


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split, and facts about the whole split."""

    rows: list[Row]
    place: str  # "DIR/train.csv", or "owner/name, split 'train'"
    dropped: dict[str, int]  # kind of gap in `task.drop` -> number of rows left out
    declared: list[str]  # the label names that the column declares, in the order of its indices; [] without names
    reordered: bool  # whether their order differs from that of task.labels
    plain_index: str | None  # the place of the first label that is an index without declared names


class RowReader:
    """Turns the records of one split into rows, and checks across records: distinct ids, names or indices, gaps.

    `place` names the split's file or address. With `evaluation`, generation tasks read references. With `hidden`, no
    answers are read. `features` are the features of columns that the source declares. Raises UnipetError if the declared
    label names differ from task.labels.
    """

    def __init__(
        self,
        task: TaskConfig,
        split: str,
        place: str,
        evaluation: bool = False,
        hidden: bool = False,
        features: Mapping[str, object] | None = None,
    ) -> None:
        self.task = task
        self.split = split
        self.place = place
        self.rows: list[Row] = []
        self.evaluation, self.hidden = evaluation, hidden
        self._dropped = {} if hidden else dict.fromkeys(task.drop, 0)
        self._seen = 0
        self._columns_seen: dict[str, None] = {}
        self._ids: dict[str, str] = {}
        self._listed = False
        answer, column = KINDS[task.kind].answer, f"{place}, column {task.label!r},"
        names = declared_names((features or {}).get(task.label)) if answer != "text" else None
        self._declared = names or []
        self._scale = scale(names, column) if names and answer == "number" else None
        order = alignment(names, task.labels, column) if names and answer != "number" else None
        self._labels = LabelReader(task.labels, task.label_is, order)
        self._columns = text_columns(task)

    def add(self, record: object, place: str) -> None:
        """Check `record` and add its row, or count it if `task.drop` leaves it out. `place` ("file, line 3") begins the
        message of a UnipetError about it."""
        if not isinstance(record, dict):
            raise UnipetError(f"{place}: a JSON object is needed, {type(record).__name__} found.")
        try:
            row = self._row(record, place)
        except Gap as gap:
            if gap.kind not in self._dropped:
                raise UnipetError(f"{gap}{self._advice(gap)}") from gap
            self._dropped[gap.kind] += 1
        else:
            self.rows.append(row)
        self._seen += 1
        if not record.keys() <= self._columns_seen.keys():
            self._columns_seen.update(dict.fromkeys(record))

    def finished(self) -> SplitRows:
        """All rows. Raises UnipetError if there are none."""
        if not self._seen:
            raise UnipetError(f"{self.place}: no rows; the split {self.split!r} is empty.")
        if not self.rows:
            counts = ", ".join(f"{kind} {count}" for kind, count in self._dropped.items())
            raise UnipetError(
                f"{self.place}: task.drop leaves out all {self._seen} rows of the split {self.split!r} ({counts}). "
                f"Columns found: {shown(self._columns_seen)}. Check task.text, task.label and task.target."
            )
        one_each = self.evaluation and not self._listed  # lists of references are grouped already
        rows = grouped(self.rows) if self.task.group_references and one_each else self.rows
        labels = self._labels
        return SplitRows(rows, self.place, self._dropped, self._declared, labels.reordered, labels.plain_index)

    def _row(self, record: dict[str, Any], place: str) -> Row:
        answer = KINDS[self.task.kind].answer
        if answer == "tags":
            row: Row = {"text": self._words(record, place)}
        else:
            row = self._texts(record, place)
        if not self.hidden:
            row |= self._answer(record, row, answer, place)
        return {"id": self._id(record, place), **row}

    def _advice(self, gap: Gap) -> str:
        if self.hidden:
            return " A hidden split needs an answer for every row, so task.drop does not apply: fill the row."
        if not gap.a_row:
            return ""
        kinds = ",".join(dict.fromkeys([*self.task.drop, gap.kind]))
        what = "Choose a split with answers" if gap.kind == "unlabelled" else "Fill the row"
        return f" {what}, or leave such rows out and count them: task.drop=[{kinds}]."

    def _texts(self, record: dict[str, Any], place: str) -> Row:
        values = {name: self._text(record, name, place) for name in self._columns}
        if KINDS[self.task.kind].prompted:  # the tokenizer knows the mask token, so encoding fills the template
            return {"text": [values[name] for name in self._columns]}
        row: Row = {"text": [render(entry, values) for entry in self.task.text]}
        if self.task.choices:
            row["choices"] = [render(entry, values) for entry in self.task.choices]
        return row

    def _answer(self, record: dict[str, Any], row: Row, answer: str, place: str) -> Row:
        task = self.task
        if answer == "text":
            return self._references(record, place) if self.evaluation else self._target(record, place)
        if task.label_columns:
            cells = {name: self._cell(record, name, "task.labels", "unlabelled", place) for name in task.labels}
            return {"label": label_columns(cells, task.labels, place)}
        value = self._cell(record, task.label, "task.label", "unlabelled", place)
        place = f"{place}, field {task.label!r}"
        if answer == "number":
            return {"label": answers.number(value, place, self._scale)}
        if answer == "tags":
            return {"label": answers.tags(value, len(row["text"]), self._labels, place)}
        if answer == "label_set":
            return {"label": label_set(value, self._labels, place)}
        return {"label": self._labels.index(value, place)}

    def _target(self, record: dict[str, Any], place: str) -> Row:
        value = self._cell(record, self.task.target, "task.target", "unlabelled", place)
        return {"target": answers.text(value, f"{place}, field {self.task.target!r}", "unlabelled")}

    def _references(self, record: dict[str, Any], place: str) -> Row:
        task = self.task
        if task.references in record:
            self._listed = True
            return {"references": answers.references(record[task.references], f"{place}, field {task.references!r}")}
        if task.target in record:
            return {"references": [self._target(record, place)["target"]]}
        raise Gap(
            "unlabelled",
            f"{place}: references missing: no column {task.references!r:.200} (task.references) and no {task.target!r:.200} "
            f"(task.target). Columns found: {shown(record)}.{_closest(task.references, record)}",
            task.references in self._columns_seen or task.target in self._columns_seen,
        )

    def _cell(self, record: dict[str, Any], column: str, key: str, gap: str, place: str) -> Any:
        if column not in record:
            raise Gap(
                gap,
                f"{place}: no column {column!r:.200} ({key}). Columns found: {shown(record)}."
                f"{_closest(column, record)} Rename the column, or set {key}.",
                column in self._columns_seen,
            )
        return record[column]

    def _text(self, record: dict[str, Any], column: str, place: str) -> str:
        return answers.text(self._cell(record, column, "task.text", "empty", place), f"{place}, field {column!r}")

    def _words(self, record: dict[str, Any], place: str) -> list[str]:
        column = columns(self.task.text[0])[0]
        return answers.words(self._cell(record, column, "task.text", "empty", place), f"{place}, field {column!r}")

    def _id(self, record: dict[str, Any], place: str) -> str:
        given = record.get("id")
        if given is None or given == "":
            given = f"{self.split}-{self._seen}"  # counted over all records: rows that are left out shift no id
        place = f"{place}, field 'id'"
        if isinstance(given, bool) or not isinstance(given, (int, str)):
            raise UnipetError(f"{place}: {short(given)} given; a string or a whole number is needed.")
        name = answers.whole(str(given), place)
        if name in self._ids:
            raise UnipetError(
                f"{place}: {short(name)} occurs again (first in {self._ids[name]}); ids must be distinct."
            )
        self._ids[name] = place.removesuffix(", field 'id'")
        return name


def shown(names: Iterable[object]) -> str:
    """Column names for an error message: at most twenty, shortened, without control characters."""
    found = [str(name) for name in names]
    short_names = [name if name.isprintable() and len(name) <= 60 else short(name) for name in found[:20]]
    more = f" and {len(found) - 20} more" if len(found) > 20 else ""
    return (", ".join(short_names) or "(none)") + more


def _closest(column: str, names: Iterable[object]) -> str:
    """The hint at the nearest column name."""
    return nearest(column, [name for name in map(str, names) if name.isprintable()])


def grouped(rows: list[Row]) -> list[Row]:
    """One row per source text, in order of first appearance, with the references of all rows with this text."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first = found.setdefault(tuple(row["text"]), {**row, "references": []})
        first["references"] += [text for text in row["references"] if text not in first["references"]]
    return list(found.values())
