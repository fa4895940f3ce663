"""How a report writes numbers: every metric on the scale on which it is recorded, the same in every table, figure and page.

Scores on a scale to 100 (BLEU, ROUGE) have two decimals, all others four. A number that so many decimals would show as zero
gets two significant digits instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from unipet.runs.labels import SEPARATOR

GAP = "-"  # a value that there is not; never a 0
#: Metrics of these scales, as records say them, run to 1 or to 100.
TO_ONE, TO_HUNDRED = ("0 to 1", "-1 to 1"), ("0 to 100", "percent of the references' length")


def top(scale: str) -> float | None:
    """1 or 100, where a scale ends; None for one without an end."""
    return 1.0 if scale in TO_ONE else 100.0 if scale in TO_HUNDRED else None


def together(scales: Sequence[str], metrics: Sequence[str]) -> tuple[str, list[float]] | None:
    """The scale on which scores of several metrics may be averaged, and the factor of each: as recorded where all scales end
    alike, otherwise as shares of the whole scale. A metric without an end (perplexity) is averaged with itself alone: None."""
    tops = [top(scale) for scale in scales]
    if len(set(tops)) == 1 and (tops[0] is not None or len(set(metrics)) == 1):
        return scales[0], [1.0] * len(scales)
    ends = [end for end in tops if end is not None]
    return (TO_ONE[0], [1 / end for end in ends]) if len(ends) == len(tops) else None


def score(value: float | None, scale: str = "", sign: str = "") -> str:
    """A score or a difference of scores; `sign="+"` shows the sign."""
    return figure(value, 2 if top(scale) == 100.0 else 4, sign)


def spread(value: float | None, std: float | None, scale: str = "") -> str:
    """`0.9123 ± 0.0021`; without a deviation no ±; without a value a gap."""
    return score(value, scale) + ("" if value is None or std is None else f" ± {score(std, scale)}")


def percent(value: float | None) -> str:
    """Trained parameters in percent of the base model's."""
    return figure(value, 3)


def seconds(value: float | None) -> str:
    return figure(value, 1)


def figure(value: float | None, decimals: int, sign: str = "") -> str:
    """So many decimals, or two significant digits where these would all be zeros."""
    if value is None:
        return GAP
    text = f"{value:{sign}.{decimals}f}"
    return text if value == 0 or float(text) != 0 else f"{value:{sign}.2g}"


def wrapped(label: str, width: int) -> list[str]:
    """A label in lines of at most so many characters, broken between options where that is possible; nothing is cut."""
    lines: list[str] = []
    for part in label.split(SEPARATOR):
        joined = f"{lines[-1]}{SEPARATOR}{part}" if lines else part
        if lines and len(joined) <= width:
            lines[-1] = joined
        else:
            lines += [part[at : at + width] for at in range(0, len(part), width)] or [""]
    return lines
