"""Widths cut into blocks: the view, and the checks of a size against a width, whose errors name the sizes that would fit."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from unipet.errors import UnipetError


def cut(u: Tensor, *shape: int) -> Tensor:
    """(..., D) as (..., *shape); one of the numbers may be -1."""
    return u.reshape(*u.shape[:-1], *shape)


def divisors(widths: Iterable[int], least: int = 1) -> list[int]:
    """The numbers from `least` that divide every width."""
    common = math.gcd(*widths)
    return [number for number in range(least, common + 1) if common % number == 0]


def must_divide(option: str, number: int, **widths: int) -> None:
    """Raise UnipetError unless `number` divides every width; `option` is the option that set it."""
    for what, width in widths.items():
        if width % number:
            common = divisors(widths.values())
            shown = ", ".join(map(str, common[:12])) + (", ..." if len(common) > 12 else "")
            raise UnipetError(
                f"function.{option}: {number} does not divide the {what} width {width} of this site. It may be: {shown}."
            )


def at_most(option: str, number: int, **widths: int) -> None:
    """Raise UnipetError unless `number` is no larger than every width."""
    for what, width in widths.items():
        if number > width:
            raise UnipetError(
                f"function.{option}: {number} is more than the {what} width {width} of this site. "
                f"It may be at most {min(widths.values())}."
            )
