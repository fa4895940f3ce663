"""Overrides as text: any value in Hydra's grammar, and a command line that a POSIX shell takes apart again."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from unipet.errors import UnipetError

_BARE = re.compile(r"[A-Za-z_./][A-Za-z0-9_./:@-]*")  # texts that need no quotes ...
_WORDS = ("null", "true", "false", "nan", "inf")  # ... unless Hydra reads something else in them
_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*|0|[1-9][0-9]*")  # one part of a dotted key
# A mapping's keys cannot be quoted: these characters stand bare, those behind a backslash, others not at all.
_MAPPING_KEY, _ESCAPED = re.compile(r"[A-Za-z0-9_./$%*@?|+\\()\[\]{}:=, \t-]+"), re.compile(r"[\\()\[\]{}:=, \t]")


def override(key: str, value: Any) -> str:
    """`key=value`. Raises `UnipetError` for what the grammar has no words for."""
    return f"{_named(key)}={value_text(value)}"


def deletion(key: str) -> str:
    """The override that takes a key out. Raises `UnipetError` for what the grammar has no words for."""
    return f"~{_named(key)}"


def _named(key: str) -> str:
    if not all(_KEY.fullmatch(part) for part in key.split(".")):
        raise UnipetError(f"{key}: no override can name this key.")
    return key


def value_text(value: Any) -> str:
    """None, a truth value, a number, a text, or lists and mappings of them, as Hydra and OmegaConf read them back."""
    if isinstance(value, str):
        plain = _BARE.fullmatch(value) and value.lower() not in _WORDS and not value.startswith(".")
        return value if plain else quoted(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_mapping_key(str(key))}: {value_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(value_text, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # nan, inf, -inf
    return json.dumps(value)


def quoted(text: str) -> str:
    """A text in single quotes. OmegaConf undoes the first step, Hydra the second."""
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", text)
    # in quotes a backslash is one, but before a quote, the closing one included
    text = re.sub(r"(\\*)'", lambda match: match[1] * 2 + "\\'", text)
    return "'" + re.sub(r"(\\+)$", lambda match: match[1] * 2, text) + "'"


def _mapping_key(key: str) -> str:
    if not _MAPPING_KEY.fullmatch(key) or key != key.strip():
        raise UnipetError(f"{key!r}: no override can hold this key of a mapping.")
    return _ESCAPED.sub(lambda match: "\\" + match[0], key)


def command_line(command: str, arguments: Sequence[str]) -> str:
    """`unipet COMMAND ...`, to be pasted into a shell."""
    return " ".join(["unipet", command, *map(shlex.quote, arguments)])
