"""Regular expressions out of a stranger's configuration: only those that cannot take long."""

from __future__ import annotations

import re
from pathlib import Path

from unipet.errors import UnipetError

LENGTH, REPEATS = 500, 8  # characters of a pattern, and unbounded repetitions in it
_REPEATS = "*+"


def checked_pattern(source: Path, key: str, text: str) -> re.Pattern[str]:
    """The compiled pattern. Raises UnipetError for one that is broken, or could try more ways than a computer has time for: it
    repeats what repeats itself, or holds too many repetitions."""
    why = None
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise UnipetError(f"{source}: {key}: {text[:80]!r} is no regular expression: {error}.") from None
    if len(text) > LENGTH:
        why = f"it has {len(text):,} characters"
    else:
        nested, count = _repetitions(text)
        if nested:
            why = "it repeats a group that holds a repetition"
        elif count > REPEATS:
            why = f"it has {count} repetitions"
    if why is not None:
        raise UnipetError(
            f"{source}: {key}: {text[:80]!r} could take for ever to compare: {why}. Name the modules in a list."
        )
    return pattern


def _repetitions(text: str) -> tuple[bool, int]:
    """Whether a group that holds a repetition is repeated itself, and how many repetitions there are."""
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]", "x", text)  # no escapes, no sets of characters
    plain = re.sub(r"\{(\d*),?(\d*)\}", lambda match: "*" if match[0] not in ("{0}", "{1}") else "", plain)
    holding = [False]
    count = 0
    for at, letter in enumerate(plain):
        if letter == "(":
            holding.append(False)
        elif letter == ")" and len(holding) > 1:
            inner = holding.pop()
            if inner and plain[at + 1 : at + 2] in tuple(_REPEATS):
                return True, count
            holding[-1] |= inner
        elif letter in _REPEATS:
            holding[-1], count = True, count + 1
    return False, count
