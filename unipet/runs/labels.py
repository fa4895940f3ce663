"""Labels of variants: short texts that distinguish runs of the same method.

Configurations are flat, with dotted keys: `method.insertions.ffn.position.site`. A label names an option by the shortest
unambiguous end of its key (`site`, `lr`), and adds the insertion if a method has several: `ffn site=attn · attention
size=16`. Labels are never shortened further, so different variants always get different labels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

SEPARATOR = " · "
AS_GIVEN = "as given"  # the label of a variant that has none of the options in which the others differ
#: Keys that have columns of their own in a report.
NAMED = ("method.name", "task.name", "model.name", "budget.name")
#: The names of a method's insertions, in their order.
INSERTION_ORDER = "method.order"
#: An insertion's dimensions, in the order in which a label names them.
ORDER = ("position", "function", "composition", "scaling", "mixture", "ratio")
_INSERTION = re.compile(r"(?:fitted\.)?method\.insertions\.([^.]+)\.(.+)")
_MISSING = "(missing)"


class Told(str):
    """A value that is shown by the first of `texts` that differs from those of the other variants."""

    texts: tuple[str, ...]

    def __new__(cls, value: str, *texts: str) -> Told:
        made = super().__new__(cls, value)
        made.texts = (*texts, value)
        return made


def leaves(value: object, prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted keys: {"a": {"b": 1}} -> {"a.b": 1}. Lists are values."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(leaves(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat


class Leaves:
    """`leaves` of many mappings, which may share parts: a part that is one object in several of them is laid flat once."""

    def __init__(self) -> None:
        self._flat: dict[
            tuple[str, int], tuple[object, dict[str, Any]]
        ] = {}  # with the part itself: its id stays its own

    def of(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """`leaves(mapping)`."""
        flat: dict[str, Any] = {}
        for key, value in mapping.items():
            if isinstance(value, dict):
                known = self._flat.get((key, id(value)))
                if known is None:
                    known = self._flat[key, id(value)] = value, leaves(value, key)
                flat.update(known[1])
            else:
                flat[key] = value
        return flat


def plain(value: object) -> str:
    """A value as text; the elements of a list are joined by "+"."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value and not any(isinstance(one, list | tuple | Mapping) for one in value):
        return "+".join(map(plain, value))
    return json.dumps(value, default=str)


def labelled(method: str, variant: str) -> str:
    """A method's name, followed by its variant if there is one."""
    return f"{method}{SEPARATOR}{variant}" if variant else method


def variants(identities: Sequence[Mapping[str, Any]], requested: Sequence[Collection[str]] = ()) -> list[str]:
    """For each configuration of one method, the options in which it differs from the others; "" if there are none.

    `identities` are flat. Equal ones get equal texts, different ones different texts. `requested` are for each of them the
    keys of sizes that its budget replaced; their values are marked as "asked".
    """
    requested = requested or [()] * len(identities)
    everywhere = [key for key in identities[0] if all(key in one for one in identities)]
    kinds = [json.dumps({key: one[key] for key in sorted(one) if key not in NAMED}, default=str) for one in identities]
    for keys in (everywhere, list(dict.fromkeys(key for one in identities for key in one))):
        labels = _labels(identities, keys, requested)
        if len(set(labels)) == len(set(kinds)) == len(set(zip(labels, kinds, strict=True))):
            return labels  # options that only some of them have are named only if the shared ones do not suffice
    number = {kind: at for at, kind in enumerate(dict.fromkeys(kinds), 1)}
    return [f"{text} #{number[kind]}" for text, kind in zip(labels, kinds, strict=True)]


def difference(content: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """The options in which a flat configuration differs from `base`, and the insertions of `base` that it lacks."""
    changed = [key for key in content if key not in NAMED and content[key] != base.get(key, _MISSING)]
    names = option_names(changed, [content, base])
    values = [f"{names[key]}={plain(content[key])}" for key in sorted(changed, key=_place)]
    gone = dict.fromkeys(name for name in _insertions([base]) if name not in _insertions([content]))
    lost = dict.fromkeys(  # dimensions that an insertion no longer has, for example its mixture
        f"{match[1]} without {match[2].split('.')[0]}"
        for key in base
        if (match := _INSERTION.fullmatch(key)) and match[1] not in gone and match[2].split(".")[0] in ORDER
        if not any(one.startswith(key.removesuffix(match[2]) + match[2].split(".")[0]) for one in content)
    )
    return SEPARATOR.join([*values, *(f"without {name}" for name in gone), *lost])


def _labels(
    identities: Sequence[Mapping[str, Any]], keys: Sequence[str], requested: Sequence[Collection[str]]
) -> list[str]:
    optional = [one for one in _containers(keys) if len({_has(each, one) for each in _owning(identities, one)}) > 1]
    varying = [key for key in keys if key not in NAMED and _varies(identities, key, optional)]
    varying = sorted((key for key in varying if not _implied(identities, key, varying)), key=_place)
    names = option_names(varying, identities)
    several = len(_insertions(identities)) > 1
    said: list[list[str]] = [[] for _ in identities]
    listed = _listed(identities, optional)
    for container in optional:
        insertion, *dimension = container.split(".")[2:-1]
        what = " ".join([insertion] * (several or not dimension) + dimension)
        for parts, one in zip(said, identities, strict=True):
            if _has(one, container):
                parts.append(what)
            elif _owning([one], container) and (dimension or not listed):
                parts.append(f"no {what}")
    for key in varying:
        texts = _texts([one.get(key, _MISSING) for one in identities])
        for parts, text, replaced in zip(said, texts, requested, strict=True):
            parts += [f"{'asked ' * (key in replaced)}{names[key]}={text}"] if text != _MISSING else []
    return [SEPARATOR.join(parts) or (AS_GIVEN if varying else "") for parts in said]


def _containers(keys: Iterable[str]) -> list[str]:
    """The key prefixes of every insertion and of every dimension of an insertion."""
    found = (match for key in keys if (match := _INSERTION.fullmatch(key)))
    names = [(match[1], match[2].split(".")[0]) for match in found if "." in match[2]]
    wholes = [f"method.insertions.{name}." for name, _ in names]
    return list(dict.fromkeys([*wholes, *(f"method.insertions.{name}.{part}." for name, part in names)]))


def _owning(identities: Sequence[Mapping[str, Any]], container: str) -> list[Mapping[str, Any]]:
    """The configurations that could have `container`: all for an insertion; for a dimension, those with its insertion."""
    above = ".".join(container.split(".")[:3]) + "."
    return [one for one in identities if above == container or _has(one, above)]


def _has(identity: Mapping[str, Any], container: str) -> bool:
    return any(key.startswith(container) for key in identity)


def _varies(identities: Sequence[Mapping[str, Any]], key: str, optional: Sequence[str]) -> bool:
    """Whether the key's value differs among the configurations that have its insertion and its dimension."""
    inside = [container for container in optional if key.startswith(container)]
    having = [one for one in identities if all(_has(one, container) for container in inside)]
    return len({json.dumps(one.get(key, _MISSING), default=str) for one in having}) > 1


def _listed(identities: Sequence[Mapping[str, Any]], optional: Sequence[str]) -> bool:
    """Whether the insertions that a configuration has say enough: there are three or more, as in a design space, and none is
    without any. What it lacks is then not named."""
    insertions = [container for container in optional if container.count(".") == 3]
    return len(insertions) > 2 and all(any(_has(one, each) for each in insertions) for one in identities)


def _implied(identities: Sequence[Mapping[str, Any]], key: str, varying: Sequence[str]) -> bool:
    """Whether `key` is a fingerprint that other options determine, as the number of examples determines the data's, or the
    order of insertions where those that have the same have them in the same order."""
    if key == INSERTION_ORDER:
        orders = {tuple(one.get(key) or _insertions([one])) for one in identities}
        return len(orders) == len({frozenset(order) for order in orders})
    if not any(isinstance(one.get(key), Told) for one in identities):
        return False
    others = [other for other in varying if other != key]
    rest = [json.dumps([one.get(other, _MISSING) for other in others], default=str) for one in identities]
    return len(set(rest)) == len({(text, str(one.get(key))) for text, one in zip(rest, identities, strict=True)})


def _place(key: str) -> int:
    """The sort key of an option: its dimension. Within a dimension, and outside insertions, the order stays."""
    match = _INSERTION.fullmatch(key)
    dimension = match[2].split(".")[0] if match else ""
    return ORDER.index(dimension) if dimension in ORDER else len(ORDER)


def _texts(values: Sequence[Any]) -> list[str]:
    """One text per value, as short as possible, so that different values have different texts."""
    exact = [json.dumps(value, default=str) for value in values]
    for level in range(3):
        texts = [_text(value, level) for value in values]
        if len(set(zip(texts, exact, strict=True))) == len(set(texts)) == len(set(exact)):
            return texts
    return exact


def _text(value: Any, level: int) -> str:
    if isinstance(value, Told):
        return value.texts[min(level, len(value.texts) - 1)]
    return plain(value)


def option_names(keys: Iterable[str], identities: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Key -> its name in a label: the shortest end that no other of these keys has."""
    keys = list(keys)
    several = len(_insertions(identities)) > 1
    split = {key: _INSERTION.fullmatch(key) for key in keys}
    owner = {key: f"{match[1]} " if match and several else "" for key, match in split.items()}
    ends = {key: [owner[key] + end for end in _ends(match[2] if match else key)] for key, match in split.items()}
    found = {}
    for key in keys:
        value = (
            key.removesuffix("name") + "value" if key.endswith(".name") else ""
        )  # it gets the longer name: `scaling value`
        others = {end for other in keys if other != key for end in ends[other][other == value :]}
        found[key] = next((end for end in ends[key] if end not in others), key)
    return found


def _ends(path: str) -> list[str]:
    """The ends of a dotted path, shortest first. An end `name` or `value` is replaced by the word before it."""
    parts = path.removeprefix("method.").removeprefix("objective.").split(".")
    if "objective" in path and len(parts) > 1:
        return [" ".join(parts)]
    found = [" ".join(parts[-length:]) for length in range(1, len(parts) + 1)]
    if parts[-1] in ("name", "value") and len(parts) > 1:
        found[0] = parts[-2]
    return found


def _insertions(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all insertions, without duplicates."""
    found = (_INSERTION.fullmatch(key) for one in identities for key in one)
    return list(dict.fromkeys(match[1] for match in found if match))
