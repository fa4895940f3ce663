"""Which runs are meant: `task=sst2`, `seed=0,1`, `score>0.8`, `optim.lr<=1e-3`, `task=synthetic_*`.

A key is one of the record's, or else one of the configuration's, dotted where it lies inside another; `run` is the name of the
run's directory. `=` and `!=` take several values with commas, and in texts the patterns `*`, `?` and `[...]`. The other
operators compare numbers, or texts such as dates as they are sorted. `null` stands for what is not known.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, cast

from unipet.calculus.yaml_reader import Plain
from unipet.errors import UnipetError, nearest
from unipet.output.json_object import JsonObject
from unipet.runs.labels import leaves, plain
from unipet.runs.record import ErrorOf, Record
from unipet.runs.record_index import KnownRun

RUN = "run"  # the key of a run's directory
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_FORM = re.compile(r"([A-Za-z_][\w.\-/]*)\s*(!=|>=|<=|=|>|<)(.*)", re.DOTALL)
_MISSING = object()


@dataclass(frozen=True)
class Filter:
    """One condition on a run."""

    text: str  # as typed
    key: str
    operator: str
    value: str

    def takes(self, run: KnownRun) -> bool:
        """Whether the run fulfils it. Raises `UnipetError` where a number of the run is compared with a text."""
        own = value_of(run, self.key)
        own = None if own is _MISSING else own
        if self.operator in _ORDERS:
            return own is not None and self._ordered(own)
        return any(_equal(own, text) for text in self.value.split(",")) == (self.operator == "=")

    def _ordered(self, own: Any) -> bool:
        compare = _ORDERS[self.operator]
        if isinstance(own, str):
            return compare(own, self.value)
        if not isinstance(own, int | float) or isinstance(own, bool):
            raise UnipetError(f"{self.text}: {self.key} is {plain(own)}, which is no number. Use = or != with it.")
        number = Plain(self.value).value
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise UnipetError(
                f"{self.text}: {self.key} is a number, {self.value!r} is none. Give one, such as {self.key}{self.operator}0.5."
            )
        return compare(own, number)


def _equal(own: Any, text: str) -> bool:
    if isinstance(own, str):
        return fnmatchcase(own, text)
    meant = Plain(text).value
    if own is None or isinstance(own, bool):
        return own is meant
    if isinstance(own, int | float):
        return isinstance(meant, int | float) and not isinstance(meant, bool) and own == meant
    return fnmatchcase(plain(own), text)


def value_of(run: KnownRun, key: str) -> Any:
    """A run's value at a key; `_MISSING` where it has none."""
    if key == RUN:
        return run.directory.name
    own = _at(run.record, key)
    return own if own is not _MISSING else _at(run.config, key)


def _at(value: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(value, JsonObject):
            value = (
                getattr(value, part) if part in _keys(cast("Any", type(value))) else value.others.get(part, _MISSING)
            )
        elif isinstance(value, dict):
            value = value.get(part, _MISSING)
        else:
            return _MISSING
    return json.dumps(value.to_dict()) if isinstance(value, JsonObject) else value


#: Every key of a record that is there from the start: whether a run has a value at it or not, one may ask for it.
_BLANK = (Record(), Record(error=ErrorOf()))


def _has(record: JsonObject, key: str) -> bool:
    """Whether `key` is a field with one value; `time` has several."""
    value: Any = record
    for part in key.split("."):
        if not isinstance(value, JsonObject) or part not in _keys(cast("Any", type(value))):
            return False
        value = getattr(value, part)
    return not isinstance(value, JsonObject)


@functools.cache
def _keys(kind: type[Any]) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind)) - {"others"}


def read_filters(texts: Iterable[str]) -> list[Filter]:
    """Filters as typed. Raises `UnipetError` for what is none."""
    filters = []
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise UnipetError(
                f"{text!r} is no filter. Allowed: KEY=VALUE, KEY!=VALUE, KEY>VALUE, KEY>=VALUE, KEY<VALUE, KEY<=VALUE; put one "
                'with > or < in quotes, such as "score>0.8".'
            )
        filters.append(Filter(text, *match.groups()))
    return filters


def filtered(runs: Sequence[KnownRun], filters: Sequence[Filter]) -> list[KnownRun]:
    """The runs that fulfil every filter. Raises `UnipetError` for a key that no record and none of the configurations has."""
    for each in filters:
        if each.key == RUN or any(_has(record, each.key) for record in _BLANK):
            continue
        if runs and isinstance(getattr(runs[0].record, each.key, None), JsonObject):
            inside = ", ".join(f"{each.key}.{name}" for name in leaves(getattr(runs[0].record, each.key).to_dict()))
            raise UnipetError(f"{each.text}: {each.key!r} holds several values. Give one of them: {inside}.")
        if runs and all(value_of(run, each.key) is _MISSING for run in runs):
            known = {RUN, *(key for run in runs for key in (*leaves(run.config), *leaves(run.record.to_dict())))}
            raise UnipetError(
                f"{each.text}: no run has the key {each.key!r}.{nearest(each.key, known)} Allowed: a key of result.json or of "
                "config.yaml, dotted where it lies inside another, such as status, score, time.train_s, optim.lr."
            )
    return [run for run in runs if all(each.takes(run) for each in filters)]
