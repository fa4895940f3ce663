"""Rows with a gap: a text that is empty, or no answer. `task.drop` leaves them out and counts them."""

from __future__ import annotations

from unipet.errors import UnipetError


class Gap(UnipetError):
    """A row that cannot be used because something is missing. `kind` is what `task.drop` calls it."""

    def __init__(self, kind: str, message: str, a_row: bool = True) -> None:
        super().__init__(message)
        self.kind = kind
        self.a_row = a_row  # False: the column may be missing in every row, which is a mistake in the task


def without_answer(value: object) -> bool:
    """Whether `value` stands for no answer: null, an empty text, or NaN, which is how some libraries store null."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def short(value: object) -> str:
    """`value` shortened for an error."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
