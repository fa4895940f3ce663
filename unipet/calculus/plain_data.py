"""What Python hands over in place of a file's content: bounded as files are, before anything walks through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unipet.calculus.options import joined
from unipet.calculus.yaml_reader import DEPTH, DIGITS, NODES
from unipet.errors import UnipetError

LONGEST = 100_000  # characters of one text


def check_plain(tree: Any, key: str) -> None:
    """Raise UnipetError, with the full key, for values nested more than `DEPTH` deep (inside themselves, say), for more than
    `NODES` of them, each counted as often as it is referred to, for a key that is no text, and for a number or a text that no
    file could hold."""
    _count(tree, key, 0, 0)


def _count(tree: Any, key: str, depth: int, count: int) -> int:
    """How many values there are up to this one, with all inside it."""
    if depth > DEPTH:
        raise UnipetError(f"{key[:200]}: more than {DEPTH} levels deep, or inside itself.")
    count += 1
    if count > NODES:
        raise UnipetError(f"{key[:200]}: more than {NODES:,} values.")
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            if not isinstance(name, str):
                raise UnipetError(f"{key[:200]}: the key {name!r:.60} is no text. Put it in quotes.")
            count = _count(value, joined(key, name[:60]), depth + 1, count)
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            count = _count(value, f"{key}[{number}]", depth + 1, count)
    elif isinstance(tree, int) and tree.bit_length() > 4 * DIGITS:
        raise UnipetError(f"{key[:200]}: a number of more than {DIGITS} digits.")
    elif isinstance(tree, str) and len(tree) > LONGEST:
        raise UnipetError(f"{key[:200]}: a text of {len(tree):,} characters; at most {LONGEST:,} are read.")
    return count
