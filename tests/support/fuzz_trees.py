"""Plain trees (mappings, lists, values) and YAML texts with something done to them, as hypothesis draws it.

Each change returns its name; where there is nothing to do it to, the tree stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
Place = tuple[str | int, ...]

#: What YAML can say and nobody means.
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 0.5, -0.5, 1e-30, 1e30, -1e30, 1e300, 10**9, -(10**9), 2**63, 10**30, 10**300),
    *(float("nan"), float("inf"), float("-inf"), 10**400),
    *("", " ", "x", "all", "none", "null", "true", "1", "1e3", "-1", "???", "${seed}", "${oc.env:HOME}", "a.b", "../x"),
    *("*", "é", "\x00", "\x1b[31mred", "x" * 3000, "0-1", "1-0", "first:1", "last:9", "first:-1", "!!python/object"),
    *([], {}, [None], [[]], [[1]], [1, 2, 3], [True], ["x"], [0.5], {"name": None}, {"": 1}, {"a": {"b": 1}}),
    *({"name": {"name": "x"}}, [{"name": "x"}], {"value": 1}, {"_target_": "os.system"}, {"1": 2}, {"name": []}),
]
#: What only Python can say.
PYTHON: list[Any] = [
    *(
        b"bytes",
        (1, 2),
        {1, 2},
        1j,
        object(),
        range(3),
        Path("x"),
        Ellipsis,
        int,
        yaml.YAMLError("x"),
        {1: 2},
        {None: 1},
    ),
    *({("a",): 1}, [object()], bytearray(b"x"), frozenset({"x"}), {"name": object()}),
]
DEEP = 5000


def places(tree: Any, at: Place = (), seen: tuple[int, ...] = ()) -> Iterator[Place]:
    """Where the values of a tree stand, the tree's own place left out."""
    if isinstance(tree, dict | list) and id(tree) not in seen and len(seen) < 20:
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield (*at, key)
            yield from places(value, (*at, key), (*seen, id(tree)))


def value_at(tree: Any, place: Place) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def put(tree: Any, place: Place, value: Any) -> None:
    value_at(tree, place[:-1])[place[-1]] = value


def nested(depth: int, key: str | None = None) -> Any:
    """A list, or a mapping, this deep."""
    tree: Any = 1
    for _ in range(depth):
        tree = [tree] if key is None else {key: tree}
    return tree


def copied(value: Any) -> Any:
    """A copy of any depth; what is the same object twice, or inside itself, is so in the copy."""
    if type(value) not in (dict, list):
        return copy.deepcopy(value)
    made, waiting = {id(value): type(value)()}, [value]
    while waiting:
        old = waiting.pop()
        for key, each in old.items() if isinstance(old, dict) else enumerate(old):
            if type(each) in (dict, list) and id(each) not in made:
                made[id(each)] = type(each)()
                waiting.append(each)
            new = made[id(each)] if type(each) in (dict, list) else copy.deepcopy(each)
            if isinstance(old, dict):
                made[id(old)][key] = new
            else:
                made[id(old)].append(new)
    return made[id(value)]


class Changer:
    """Changes of trees whose values may come from `donors`: other trees of the same kind."""

    def __init__(self, donors: Mapping[str, Any]) -> None:
        self.donors = dict(donors)
        self.pairs: list[tuple[str, Any]] = []  # key -> a value that stands under it somewhere
        for tree in self.donors.values():
            self.pairs += [(p[-1], value_at(tree, p)) for p in places(tree) if isinstance(p[-1], str)]
        self.keys = sorted({key for key, _ in self.pairs})

    def change(self, draw: Draw, tree: Any, python: bool) -> str:
        """Do one thing to `tree`, in place. `python`: what no file could hold may come in."""
        every = list(places(tree))
        if not every:
            return "nothing"
        place = draw(st.sampled_from(every))
        change = draw(st.sampled_from(_PLAIN))
        return str(change(self, draw, tree, place, python))

    def drop(self, draw: Draw, tree: Any, place: Place, python: bool) -> str:
        del value_at(tree, place[:-1])[place[-1]]
        return "dropped"

    def rename(self, draw: Draw, tree: Any, place: Place, python: bool) -> str:
        inside = value_at(tree, place[:-1])
        if not isinstance(inside, dict):
            return self.retype(draw, tree, place, python)
        key = str(place[-1])
        other = draw(st.sampled_from([key + "s", key[:-1], key.upper(), key + ".x", "", "é", key[::-1], *self.keys]))
        inside[other] = inside.pop(place[-1])
        return "renamed"

    def retype(self, draw: Draw, tree: Any, place: Place, python: bool) -> str:
        put(tree, place, copied(draw(st.sampled_from(ODD + PYTHON if python else ODD))))
        return "retyped"

    def number(self, draw: Draw, tree: Any, place: Place, python: bool) -> str:
        value = value_at(tree, place)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.swap(draw, tree, place, python)
        factor = draw(st.sampled_from([-1, 0, 2, 0.5, 10, 1000, 10**6, 10**12, 1e40, 1e-40]))
        put(tree, place, type(value)(value * factor) if isinstance(value * factor, int) else value * factor)
        return "number"

    def nest(self, draw: Draw, tree: Any, place: Place, python: bool) -> str:
        value = value_at(tree, place)
        wrapped = draw(
            st.sampled_from([lambda v: [v], lambda v: {"name": v}, lambda v: {"value": v}, lambda v: [v, v]])
        )
        put(tree, place, wrapped(value))
        return "nested"

    def deep(self, draw: Draw, tree: Any, place: Place, python: bool) -> str:
        put(
            tree,
            place,
            nested(
                draw(st.sampled_from([30, 70, 400, DEEP] if python else [30, 70, 150])),
                "name" if draw(st.booleans()) else None,
            ),
        )
        return "deep"

    def swap(self, draw: Draw, tree: Any, place: Place, python: bool) -> str:
        """What another tree has under this key."""
        same = [value for key, value in self.pairs if key == place[-1]]
        if not same:
            return self.retype(draw, tree, place, python)
        put(tree, place, copied(draw(st.sampled_from(same))))
        return "swapped"

    def add(self, draw: Draw, tree: Any, place: Place, python: bool) -> str:
        """A key of another tree, here."""
        inside = value_at(tree, place)
        if not isinstance(inside, dict):
            return self.swap(draw, tree, place, python)
        key, value = draw(st.sampled_from(self.pairs))
        inside[key] = copied(value)
        return "added"

    def double(self, draw: Draw, tree: Any, place: Place, python: bool) -> str:
        """The value once more: under another key, or in its list."""
        inside, value = value_at(tree, place[:-1]), value_at(tree, place)
        if isinstance(inside, dict):
            inside[draw(st.sampled_from([f"{place[-1]}2", *self.keys[:40]]))] = copied(value)
        else:
            inside.append(copied(value))
        return "doubled"

    def alias(self, draw: Draw, tree: Any, place: Place, python: bool) -> str:
        """The same object in two places; in Python also inside itself."""
        other = draw(st.sampled_from(list(places(tree))))
        inside = python and place[: len(other)] == other
        if other[: len(place)] == place or (place[: len(other)] == other and not inside):
            return "nothing"
        put(tree, place, value_at(tree, other))
        return "inside itself" if inside else "aliased"


_PLAIN = [
    *(Changer.drop, Changer.rename, Changer.retype, Changer.retype, Changer.number, Changer.nest, Changer.deep),
    *(Changer.swap, Changer.swap, Changer.swap, Changer.add, Changer.double, Changer.alias),
]


def written(tree: Any) -> str:
    """The tree as YAML; what is the same object twice is an anchor and an alias."""
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1000))


def doubled_line(draw: Draw, lines: list[str]) -> None:
    at = draw(st.integers(0, len(lines) - 1))
    lines.insert(draw(st.sampled_from([at, at + 1])), lines[at])


def lost_line(draw: Draw, lines: list[str]) -> None:
    del lines[draw(st.integers(0, len(lines) - 1))]


def shifted_line(draw: Draw, lines: list[str]) -> None:
    at = draw(st.integers(0, len(lines) - 1))
    lines[at] = draw(st.sampled_from(["  ", "\t", " ", "- ", "? ", "# ", "!!str ", "&a ", "<<: "])) + lines[at]


def changed_value(draw: Draw, lines: list[str]) -> None:
    at = draw(st.integers(0, len(lines) - 1))
    values = [
        "!!python/name:os.system x",
        "&a [*a]",
        "*none",
        "!x y",
        "|",
        ">-",
        "'",
        '"',
        "[",
        "{",
        "0x1F",
        "0o17",
        "1_000",
    ]
    values += [
        ".inf",
        ".nan",
        "-.inf",
        "~",
        "2026-01-01",
        "1:30",
        "9" * 500,
        "9" * 5000,
        "010",
        "1e999",
        "${x}",
        "- 1",
        "%",
    ]
    lines[at] = lines[at].partition(":")[0] + ": " + draw(st.sampled_from(values))


def cut(draw: Draw, lines: list[str]) -> None:
    text = "\n".join(lines)
    lines[:] = text[: draw(st.integers(0, len(text)))].split("\n")


def strange_end(draw: Draw, lines: list[str]) -> None:
    lines.append(
        draw(
            st.sampled_from(
                ["---\nname: x", "...", "\x00", "\ufeff", "\x85", "%YAML 1.1", "\u2028x: 1", "a: &b 1\nc: *b"]
            )
        )
    )


def merged_alias(draw: Draw, lines: list[str]) -> None:
    """An alias bomb in front, merged into the document."""
    bomb = ["b0: &b0 {x: 1}"] + [
        f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 10)}]" for n in range(1, draw(st.sampled_from([2, 9])))
    ]
    lines[:0] = bomb


TEXTS = [
    doubled_line,
    doubled_line,
    lost_line,
    shifted_line,
    changed_value,
    changed_value,
    cut,
    strange_end,
    merged_alias,
]


def changed_text(draw: Draw, text: str) -> tuple[str, str]:
    """One thing done to a text by its lines, and its name."""
    lines = text.split("\n")
    change = draw(st.sampled_from(TEXTS))
    change(draw, lines)
    return "\n".join(lines), change.__name__


def some(draw: Draw, values: Sequence[Any], most: int = 3) -> list[Any]:
    """A few of these, each once."""
    return list(draw(st.lists(st.sampled_from(list(values)), min_size=1, max_size=most, unique=True)))
