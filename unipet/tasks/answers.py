"""What a record says the answer is: a label's index, a number, tags of words or texts; every wrong one is an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError, nearest


class LabelReader:
    """Label names or indices to indices: one style per split, because a name may look like another's index."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        self._index = {name: i for i, name in enumerate(self.labels)}
        self._style: tuple[type, str] | None = None

    def index(self, value: object, where: str) -> int:
        """The index of a label. Raises UnipetError for another type, an unknown name, and names mixed with indices."""
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise UnipetError(f"{where}: {short(value)} given; a label name or its index is needed {self._allowed()}.")
        if self._style is None:
            self._style = (type(value), where)
        elif not isinstance(value, self._style[0]):
            raise UnipetError(
                f"{where}: {short(value)} given, but {self._style[1]} has a label of type {self._style[0].__name__}; "
                "use names or indices, not both."
            )
        if isinstance(value, str):
            if value not in self._index:
                raise UnipetError(f"{where}: unknown label {value!r} {self._allowed()}.{nearest(value, self.labels)}")
            return self._index[value]
        if value == -1:
            raise UnipetError(
                f"{where}: -1, which stands for a hidden answer (a test split?). Choose a labelled split."
            )
        if not 0 <= value < len(self.labels):
            raise UnipetError(f"{where}: {value} is outside the range of the labels {self._allowed()}.")
        return value

    def _allowed(self) -> str:
        return "(allowed: " + ", ".join(f"{i} = {name}" for i, name in enumerate(self.labels)) + ")"


def number(value: object, where: str) -> float:
    """A finite number. Raises UnipetError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
        raise UnipetError(f"{where}: {short(value)} given; a finite number is needed.")
    return float(value)


def text(value: object, where: str) -> str:
    """A text that is not empty. Raises UnipetError for another type, an empty text and half a character."""
    if not isinstance(value, str):
        raise UnipetError(f"{where}: {short(value)} given; a string is needed.")
    if not value.strip():
        raise UnipetError(f"{where}: empty text. Remove the row, or fill it.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnipetError(f"{where}: half a character (a lone surrogate) in the text.") from error
    return value


def tags(value: object, words: int, labels: LabelReader, where: str) -> list[int]:
    """One label index per word. Raises UnipetError for another type or another number of tags."""
    if not isinstance(value, (list, tuple)):
        raise UnipetError(f"{where}: {short(value)} given; a list with one label per word is needed.")
    if len(value) != words:
        raise UnipetError(f"{where}: {len(value)} labels for {words} words; one per word is needed.")
    return [labels.index(each, f"{where}, word {i + 1}") for i, each in enumerate(value)]


def references(record: dict[str, Any], task: TaskConfig, where: str) -> list[str]:
    """The right texts of an evaluation row: its references, or its one target."""
    if task.references in record:
        given = record[task.references]
        if not isinstance(given, (list, tuple)):
            given = [given]
        if not given:
            raise UnipetError(f"{where}, field {task.references!r}: no references; at least one text is needed.")
        return [text(each, f"{where}, field {task.references!r}") for each in given]
    if task.target in record:
        return [text(record[task.target], f"{where}, field {task.target!r}")]
    raise UnipetError(
        f"{where}: references missing: no column {task.references!r} (task.references) and no {task.target!r} "
        f"(task.target). Columns found: {', '.join(map(str, record)) or '(none)'}."
        f"{nearest(task.references, map(str, record))}"
    )


def short(value: object) -> str:
    """`value` as an error shows it."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        return False
