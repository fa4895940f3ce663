"""One kind of error for every mistake a user can make, and the nearest name to what was typed."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UnipetError(ValueError):
    """A mistake that its message explains: what was given, what is allowed, what to do next."""


def nearest(given: object, allowed: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the closest allowed name, or an empty string."""
    match = get_close_matches(str(given), list(allowed), n=5, cutoff=0.5)
    swapped = [name for name in match if sorted(name) == sorted(str(given))]  # the same letters in another order
    return f" Did you mean '{[*swapped, *match][0]}'?" if match else ""


def unknown(what: str, given: object, allowed: Iterable[str]) -> UnipetError:
    """An error for a name outside a closed set: the full key, the value, the choices, the nearest one."""
    names = sorted(str(name) for name in allowed)
    return UnipetError(f"{what}: unknown {given!r}. Allowed: {', '.join(names) or '(nothing)'}.{nearest(given, names)}")
