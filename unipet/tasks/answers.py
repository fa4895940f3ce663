"""Reading the values of a row: texts, a number, words and their tags, references. An invalid value is an error."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from unipet.errors import UnipetError
from unipet.tasks.gaps import Gap, short, without_answer
from unipet.tasks.labels import LabelReader, as_number


def number(value: object, place: str, scale: Sequence[float] | None = None) -> float:
    """A finite number as a float. With a `scale` (label names of the column that are numbers), the value is an index into
    it. Raises Gap if the value is missing, UnipetError if it is invalid."""
    if without_answer(value):
        raise Gap("unlabelled", f"{place}: {short(value)} given; a finite number is needed.")
    found = None if isinstance(value, str) else as_number(value)
    if scale is not None:
        if found == -1:
            raise Gap("unlabelled", f"{place}: -1 given, which stands for a hidden answer; a finite number is needed.")
        if found is None or found not in range(len(scale)):
            raise UnipetError(f"{place}: {short(value)} is not an index of the declared names {list(scale)}.")
        return scale[int(found)]
    try:
        if found is not None:
            return float(value if isinstance(value, Real) else found)
    except OverflowError:  # a whole number too large for a float
        pass
    raise UnipetError(f"{place}: {short(value)} given; a finite number is needed.")


def text(value: object, place: str, gap: str = "empty") -> str:
    """A text that is not empty. Raises Gap of kind `gap` for null and an empty text, UnipetError for another type and for
    a lone surrogate."""
    if value is None:
        raise Gap(gap, f"{place}: None given; a string is needed.")
    if not isinstance(value, str):
        raise UnipetError(f"{place}: {short(value)} given; a string is needed.")
    if not value.strip():
        raise Gap(gap, f"{place}: empty text.")
    return whole(value, place)


def whole(value: str, place: str) -> str:
    """`value`, if it can be written as UTF-8. Raises UnipetError for a lone surrogate (half a character)."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnipetError(f"{place}: half a character (a lone surrogate) in the text.") from error
    return value


def words(value: object, place: str) -> list[str]:
    """A list of words. Raises Gap if it is missing or empty, or if a word is empty, UnipetError for another type."""
    if value is None or value == [] or value == "":
        raise Gap("empty", f"{place}: {short(value)} given; a list of words is needed.")
    if not isinstance(value, (list, tuple)):
        raise UnipetError(f"{place}: {short(value)} given; a list of words is needed.")
    return [text(word, f"{place}, word {i + 1}") for i, word in enumerate(value)]


def tags(value: object, count: int, labels: LabelReader, place: str) -> list[int]:
    """One label index for each of `count` words. Raises Gap if an answer is missing, UnipetError for another type or
    another number of tags."""
    if value is None or value == [] or value == "":
        raise Gap("unlabelled", f"{place}: {short(value)} given; a list with one label per word is needed.")
    if not isinstance(value, (list, tuple)):
        raise UnipetError(f"{place}: {short(value)} given; a list with one label per word is needed.")
    if len(value) != count:
        raise UnipetError(f"{place}: {len(value)} labels for {count} words; one per word is needed.")
    return [labels.index(each, f"{place}, word {i + 1}") for i, each in enumerate(value)]


def references(value: object, place: str) -> list[str]:
    """The references of an evaluation row: a list of texts, or one text. Raises Gap if there is none, or an empty one."""
    texts = list(value) if isinstance(value, (list, tuple)) else [value]
    if not texts:
        raise Gap("unlabelled", f"{place}: no references; at least one text is needed.")
    return [text(each, place, "unlabelled") for each in texts]
