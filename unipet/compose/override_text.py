"""Writing overrides as text: any value in Hydra's grammar, and command lines quoted for a POSIX shell."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from unipet.errors import UnipetError

_BARE = re.compile(r"[A-Za-z_./][A-Za-z0-9_./:@-]*")  # texts that need no quotes ...
_WORDS = ("null", "true", "false", "nan", "inf")  # ... except these, which Hydra reads as other values
_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*|0|[1-9][0-9]*")  # one element of a dotted key
# Keys of a mapping cannot be quoted. The first pattern has the allowed characters, the second those that need a backslash.
_MAPPING_KEY, _ESCAPED = re.compile(r"[A-Za-z0-9_./$%*@?|+\\()\[\]{}:=, \t-]+"), re.compile(r"[\\()\[\]{}:=, \t]")


def override(key: str, value: Any) -> str:
    """`key=value`. Raises `UnipetError` for a key that Hydra's grammar cannot express."""
    return f"{_named(key)}={value_text(value)}"


def deletion(key: str) -> str:
    """The override that removes a key. Raises `UnipetError` for a key that Hydra's grammar cannot express."""
    return f"~{_named(key)}"


def _named(key: str) -> str:
    if not all(_KEY.fullmatch(part) for part in key.split(".")):
        raise UnipetError(f"{key}: no override can name this key.")
    return key


def value_text(value: Any) -> str:
    """A value as text that Hydra and OmegaConf read back as the same value: None, bool, number, text, list or mapping."""
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
    """A text in single quotes. OmegaConf undoes the first step, and Hydra the second."""
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", text)
    # within quotes, a backslash is special only before a quote, including the closing one
    text = re.sub(r"(\\*)'", lambda match: match[1] * 2 + "\\'", text)
    return "'" + re.sub(r"(\\+)$", lambda match: match[1] * 2, text) + "'"


def _mapping_key(key: str) -> str:
    if not _MAPPING_KEY.fullmatch(key) or key != key.strip():
        raise UnipetError(f"{key!r}: no override can hold this key of a mapping.")
    return _ESCAPED.sub(lambda match: "\\" + match[0], key)


def command_line(command: str, arguments: Sequence[str]) -> str:
    """`unipet COMMAND ...`, quoted for a shell."""
    return " ".join(["unipet", command, *map(shlex.quote, arguments)])
