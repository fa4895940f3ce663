"""Label names that a column declares (ClassLabel of `datasets`, also for lists of tags): its values index these names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unipet.errors import UnipetError
from unipet.tasks.labels import numeral

_LISTS = ("List", "LargeList", "Sequence")


def declared_names(feature: object) -> list[str] | None:
    """The names of a ClassLabel, or of a list of ClassLabels, in the order of its indices; None for any other feature.

    `feature` has the form that `datasets` uses in parquet files and in `Features.to_dict()`.
    """
    while True:
        if isinstance(feature, list) and len(feature) == 1:  # how old versions write a list
            feature = feature[0]
        elif isinstance(feature, Mapping) and feature.get("_type") in _LISTS:
            feature = feature.get("feature")
        else:
            break
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) else None


def alignment(names: Sequence[str], labels: Sequence[str], place: str) -> list[int]:
    """For each declared name, in order, the index of the label with that name.

    Names that are only indices (a ClassLabel made without names) do not count as names: their order stays. Raises
    UnipetError, showing both lists, if the names differ.
    """
    if set(names) == set(labels):
        return [list(labels).index(name) for name in names]
    if list(names) == [str(i) for i in range(len(labels))]:
        return list(range(len(labels)))
    raise UnipetError(
        f"task.labels: {_shown(labels)} given, but {place} declares the labels {_shown(names)}. Use these names in "
        "task.labels; their order is free."
    )


def scale(names: Sequence[str], place: str) -> list[float]:
    """The declared names as numbers, for a regression. Raises UnipetError for a name that is not a number."""
    numbers = [numeral(name) for name in names]
    if None in numbers:
        raise UnipetError(
            f"task.kind=regression: {place} declares the labels {_shown(names)}, which are not numbers. Use "
            "task.kind=classification with these names in task.labels, or local files with numbers (task.data_dir)."
        )
    return [float(number) for number in numbers if number is not None]


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{list(names[:20])}{more}"
