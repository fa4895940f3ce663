"""One rule for labels in every format: which values are names, which are indices, and which are ambiguous."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real

from unipet.errors import UnipetError, nearest
from unipet.tasks.gaps import Gap, short, without_answer

#: Pairs of names that stand for false and true, in any case and order.
TRUTHS = (("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("off", "on"), ("0", "1"))
_NUMERAL = re.compile(r" *[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,3})? *")


class LabelReader:
    """Converts label names and indices to indices, for one split.

    - A text that equals a label's name is that label. A number is the label whose name is that number.
    - A whole number from 0, also written as 2.0 or as text, is an index.
    - True and false (also as text, in any case) are labels if two names stand for them (`TRUTHS`).
    - A value that could mean two different labels is an error, unless `label_is` ("name" or "index") decides.
    - A split uses either names or indices.
    - With an `order` (the column declares names, see `declared.alignment`), a number is an index into the declared names.
    """

    def __init__(self, labels: Sequence[str], label_is: str = "auto", order: Sequence[int] | None = None) -> None:
        self.labels = list(labels)
        self.order = order
        self._is = label_is
        self._index = {name: i for i, name in enumerate(self.labels)}
        self._numbers: dict[Decimal, list[int]] = {}
        for i, name in enumerate(self.labels):
            found = numeral(name)
            if found is not None:
                self._numbers.setdefault(found, []).append(i)
        self._style: tuple[str, str] | None = None

    @property
    def reordered(self) -> bool:
        """Whether the declared order differs from that of the labels."""
        return self.order is not None and list(self.order) != list(range(len(self.order)))

    @property
    def plain_index(self) -> str | None:
        """The place of the first index without declared names; None if there is none."""
        return self._style[1] if self._style is not None and self._style[0] == "index" else None

    def index(self, value: object, place: str) -> int:
        """The index of a label. Raises Gap if the answer is missing, UnipetError for a value that is no label or could be
        two, and for a mixture of names and indices."""
        if without_answer(value):
            raise Gap("unlabelled", f"{place}: {short(value)} given, which is no answer; {self._allowed()}.")
        if self.order is not None:
            return self._declared(value, place, self.order)
        names = self._named(value) if self._is != "index" else []
        indices = self._indexed(value) if self._is != "name" else []
        found = {*names, *indices}
        if len(found) > 1:
            raise UnipetError(self._ambiguous(value, names, indices, place))
        if not found:
            raise self._no_label(value, place)
        if not (names and indices):
            self._keep_style("name" if names else "index", value, place)
        return found.pop()

    def _declared(self, value: object, place: str, order: Sequence[int]) -> int:
        if isinstance(value, str) and value in self._index:
            return self._index[value]
        number = None if isinstance(value, str) else as_number(value)
        if number is None or not _whole(number) or not 0 <= number < len(order):
            raise self._no_label(value, place)
        return order[int(number)]

    def _named(self, value: object) -> list[int]:
        """The labels whose name `value` can be."""
        if isinstance(value, str) and value in self._index:
            return [self._index[value]]
        truth = _truth(value)
        if truth is not None:
            return self._true_or_false(truth)
        number = as_number(value)
        return self._numbers.get(number, []) if number is not None else []

    def _true_or_false(self, truth: bool) -> list[int]:
        names = [name.casefold() for name in self.labels]
        return next(([names.index(pair[truth])] for pair in TRUTHS if sorted(pair) == sorted(names)), [])

    def _indexed(self, value: object) -> list[int]:
        number = as_number(value)
        if number is None or not 0 <= number < len(self.labels) or not _whole(number):
            return []
        return [int(number)]

    def _keep_style(self, style: str, value: object, place: str) -> None:
        if self._style is None:
            self._style = (style, place)
        elif style != self._style[0]:
            raise UnipetError(
                f"{place}: {short(value)} given, which is a label's {style}, but {self._style[1]} has a label's "
                f"{self._style[0]}; use names or indices, not both."
            )

    def _ambiguous(self, value: object, names: list[int], indices: list[int], place: str) -> str:
        meanings = [f"the name of the label {self.labels[i]!r} (index {i})" for i in names]
        meanings += [f"the index of the label {self.labels[i]!r}" for i in indices]
        advice = "Say which is meant: task.label_is=name or task.label_is=index."
        if len(names) > 1:
            advice = "Write the name as text, and set task.label_is=name."
        return f"{place}: {short(value)} given, which is {' and '.join(meanings)}. {advice}"

    def _no_label(self, value: object, place: str) -> UnipetError:
        number = as_number(value)
        if number == -1:
            return Gap("unlabelled", f"{place}: {short(value)} given, which stands for a hidden answer.")
        if isinstance(value, bool):
            pairs = ", ".join("/".join(pair) for pair in TRUTHS)
            return UnipetError(
                f"{place}: {short(value)} given; true and false are labels only where task.labels are two names that "
                f"say so ({pairs}); {self._allowed()}. Set such names, for example task.labels=[no,yes], or write names "
                "or indices."
            )
        if number is not None and self._is != "name":
            what = "no whole number" if not _whole(number) else "outside the range of the labels"
            return UnipetError(f"{place}: {short(value)} is {what}; {self._allowed()}.")
        if isinstance(value, str) or number is not None:
            return UnipetError(
                f"{place}: unknown label {short(value)}; {self._allowed()}.{nearest(str(value)[:80], self.labels)}"
            )
        return UnipetError(f"{place}: {short(value)} given; a label's name or index is needed; {self._allowed()}.")

    def _allowed(self) -> str:
        shown = ", ".join(f"{i} = {name}" for i, name in enumerate(self.labels[:20]))
        return f"allowed: {shown}" + (f" and {len(self.labels) - 20} more" if len(self.labels) > 20 else "")


def numeral(text: str) -> Decimal | None:
    """The exact number that `text` contains in ASCII digits, ignoring surrounding spaces; None for any other text."""
    return Decimal(text.strip(" ")) if _NUMERAL.fullmatch(text) else None


def as_number(value: object) -> Decimal | None:
    """`value` as a finite number, also from a text; None for anything else, including truth values."""
    if isinstance(value, str):
        return numeral(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, Decimal)):
        found = Decimal(value)
    elif isinstance(value, Real):
        found = Decimal(repr(float(value)))
    else:
        return None
    return found if found.is_finite() else None


def _whole(number: Decimal) -> bool:
    return number == number.to_integral_value()


def _truth(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.casefold()) if isinstance(value, str) else None
