"""One key of a search space, as Hydra's grammar writes it: choice, range, interval, tag(log, interval(LOW, HIGH)), and
tag(subset, choice(A, B, ...)), any non-empty subset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unipet.errors import UnipetError

SUBSET = "subset"  # the tag of a list of which a search chooses any non-empty part
LOG = "log"  # the tag of an interval that is searched on a logarithmic scale


@dataclass(frozen=True)
class SearchedKey:
    """A key with the values that it may take: some (`texts`), or all between `low` and `high`, both included. A `subset` takes
    lists of some of its texts, in their order: `[a,c]`."""

    key: str
    prefix: str  # the left side of its overrides, as Hydra wants it
    texts: tuple[str, ...] = ()  # as Hydra's grammar writes them
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False  # an interval of whole numbers
    subset: bool = False

    def override(self, value: float | int | str) -> str:
        """The override that sets the key to one of its values."""
        return f"{self.prefix}={value!r}" if isinstance(value, float | int) else f"{self.prefix}={value}"


@dataclass(frozen=True)
class SearchSpace:
    """What a study chooses: the keys that are searched for every method, and those that are searched for its own, which take
    the place of `common` ones of the same name."""

    common: Sequence[SearchedKey] = ()
    own: Sequence[SearchedKey] = ()

    @property
    def keys(self) -> list[SearchedKey]:
        """Every searched key once, in the order of a choice."""
        return list({each.key: each for each in (*self.common, *self.own)}.values())


def is_searched(parsed: Any) -> bool:
    """Whether an override is searched. A comma list is none: it says what is compared."""
    return parsed.value_type is not None and parsed.value_type.name in ("CHOICE_SWEEP", "RANGE_SWEEP", "INTERVAL_SWEEP")


def searched_key(prefix: str, parsed: Any) -> SearchedKey:
    """The searched key that Hydra's parser read. Raises `UnipetError` for an empty one, and for a scale that does not exist."""
    key, value, text = parsed.key_or_group, parsed.value(), parsed.input_line
    log, subset = LOG in value.tags, SUBSET in value.tags
    if unknown := sorted(set(value.tags) - {LOG, SUBSET}):
        raise UnipetError(
            f"{text}: the tag {unknown[0]!r} means nothing here. Allowed: tag(log, interval(LOW, HIGH)) and "
            "tag(subset, choice(A, B, ...))."
        )
    if parsed.is_discrete_sweep():
        texts = tuple(parsed.sweep_string_iterator())
        if len(set(texts)) < len(texts):
            raise UnipetError(f"{text}: a value stands in it twice. List every value once.")
        return SearchedKey(key, prefix, texts, subset=subset)
    if subset:
        raise UnipetError(
            f"{text}: an interval has no list of which to take a part. Write tag(subset, range(LOW, HIGH))."
        )
    low, high, whole = value.start, value.end, isinstance(value.start, int) and isinstance(value.end, int)
    if not low < high:
        raise UnipetError(f"{text}: the interval is empty. Write interval(LOW, HIGH) with LOW less than HIGH.")
    if log and low <= 0:
        raise UnipetError(f"{text}: a logarithmic scale begins above 0; {low:g} given.")
    return SearchedKey(key, prefix, (), low, high, log, whole)
