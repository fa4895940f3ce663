"""Rows with a gap: an empty text or a missing answer. `task.drop` leaves them out, and they are counted."""

from __future__ import annotations

from unipet.errors import UnipetError


class Gap(UnipetError):
    """A row that cannot be used because a value is missing. `kind` is the name of the gap in `task.drop`."""

    def __init__(self, kind: str, message: str, a_row: bool = True) -> None:
        super().__init__(message)
        self.kind = kind
        self.a_row = a_row  # False: the column may be missing in every row, which is a mistake of the task


def without_answer(value: object) -> bool:
    """Whether `value` means that there is no answer: null, an empty text, or NaN, with which some libraries store null."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def short(value: object) -> str:
    """`value` shortened for an error message."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
