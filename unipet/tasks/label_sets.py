"""Answers that are sets of labels: read from a list of labels or from one column per label, and as rows of 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unipet.errors import UnipetError
from unipet.tasks.gaps import Gap, short, without_answer
from unipet.tasks.labels import LabelReader, as_number

_YES_OR_NO = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True}


def label_set(value: object, labels: LabelReader, place: str) -> list[int]:
    """The indices of a list of labels, in increasing order; an empty list is an example that has none. Raises Gap for a missing
    answer, UnipetError for anything but a list, and for a label that occurs twice."""
    if without_answer(value):
        raise Gap("unlabelled", f"{place}: {short(value)} given; a list of labels is needed ([] for none of them).")
    if not isinstance(value, (list, tuple)):
        raise UnipetError(
            f"{place}: {short(value)} given; a list of labels is needed, for example [{labels.labels[0]!r}]. Where each label "
            "is a column of its own, set task.label_columns=true."
        )
    found = [labels.index(each, f"{place}, label {number}") for number, each in enumerate(value, 1)]
    if len(set(found)) < len(found):
        raise UnipetError(f"{place}: {short(value)} has a label twice.")
    return sorted(found)


def label_columns(cells: Mapping[str, Any], labels: Sequence[str], place: str) -> list[int]:
    """The indices of the labels whose cell says yes: 1, true or yes, for no 0, false or no. Raises Gap for a missing answer,
    UnipetError for any other value."""
    found = []
    for index, name in enumerate(labels):
        value, own = cells[name], f"{place}, field {name!r}"
        if without_answer(value) or as_number(value) == -1:
            raise Gap("unlabelled", f"{own}: {short(value)} given, which is no answer; 0 or 1 is needed.")
        number = as_number(value)
        text = str(int(number)) if number in (0, 1) else str(value).strip().casefold()
        if text not in _YES_OR_NO:
            raise UnipetError(f"{own}: {short(value)} given; allowed: 0 or 1 (also false and true, no and yes).")
        found += [index] if _YES_OR_NO[text] else []
    return found


def many_hot(sets: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """(n, count), 1.0 where a label is in its set and 0.0 elsewhere."""
    found = np.zeros((len(sets), count))
    for row, own in zip(found, sets, strict=True):
        row[list(own)] = 1.0
    return found


def members(row: np.ndarray) -> list[int]:
    """The indices of what is not 0 in (count,)."""
    return [int(index) for index in np.flatnonzero(row)]
