"""Insertions that are written and not there, and layers in groups: what a design space needs of a method."""

from __future__ import annotations

from typing import Any

import pytest

from unipet.calculus.library import load_method
from unipet.calculus.sites.layer_groups import SCHEMES, group_layers, group_sizes
from unipet.errors import UnipetError


def method(**changes: dict[str, Any]) -> dict[str, Any]:
    insertions = {
        "low": {"function": {"name": "low_rank", "size": 4}, "position": {"site": "attn.q", "layers": "all"}},
        "shift": {"function": {"name": "vector"}, "position": {"site": "ffn", "layers": [0]}},
    }
    for name, change in changes.items():
        for part, values in change.items():
            insertions[name][part] = {**insertions[name][part], **values}  # type: ignore[dict-item]
    return {"name": "m", "insertions": insertions}


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, ["low", "shift"]),
        ({"low": {"function": {"size": 0}}}, ["shift"]),
        ({"low": {"position": {"layers": []}}}, ["shift"]),
        ({"shift": {"position": {"layers": []}}}, ["low"]),
        ({"shift": {"position": {"layers": 0}}}, ["low", "shift"]),  # layer 0
    ],
)
def test_an_insertion_of_size_0_or_at_no_layer_is_absent(changes: dict[str, Any], left: list[str]) -> None:
    loaded = load_method(method(**changes))
    assert [spec.name for spec in loaded.insertions] == left
    assert load_method(loaded.to_dict()) == loaded
    fewer = {"name": "m", "insertions": {name: method(**changes)["insertions"][name] for name in left}}
    assert loaded == load_method(fewer), "the same method as one that does not write it"


def test_an_absent_insertion_is_checked_like_any_other() -> None:
    with pytest.raises(UnipetError, match=r"low\.function\.initt"):
        load_method(method(low={"function": {"size": 0, "initt": "lora"}}))
    with pytest.raises(UnipetError, match="no option 'size'"):
        load_method(method(shift={"function": {"size": 0}}))
    with pytest.raises(UnipetError, match=r"each of them is absent .*nothing of 'm' is left"):
        load_method(method(low={"function": {"size": 0}}, shift={"position": {"layers": []}}))


@pytest.mark.parametrize(
    ("scheme", "count", "sizes"),
    [
        ("spindle", 12, [2, 4, 4, 2]),  # Chen et al. 2023
        ("uniform", 12, [3, 3, 3, 3]),
        ("bottleneck", 12, [4, 2, 2, 4]),
        ("increasing", 12, [1, 2, 4, 5]),
        ("decreasing", 12, [5, 4, 2, 1]),
        ("spindle", 6, [1, 2, 2, 1]),
        ("increasing", 4, [1, 1, 1, 1]),
    ],
)
def test_groups_have_the_sizes_of_their_scheme(scheme: str, count: int, sizes: list[int]) -> None:
    assert group_sizes(scheme, 4, count) == sizes


def test_groups_are_all_layers_once() -> None:
    for scheme in SCHEMES:
        for count in (4, 6, 12, 24, 25):
            together = [layer for number in range(1, 5) for layer in group_layers(scheme, number, 4, count)]
            assert together == list(range(count)), (scheme, count)


@pytest.mark.parametrize("layers", ["spindle:0/4", "spindle:5/4", "spindel:1/4", "spindle:1"])
def test_a_group_that_is_none_is_an_error(layers: str) -> None:
    with pytest.raises(UnipetError, match=r"position.layers: .*SCHEME:k/n"):
        load_method(method(low={"position": {"layers": layers}}))


def test_an_override_by_the_name_of_no_insertion_is_one_error_that_says_which_there_are() -> None:
    given = {"function": {"name": "low_rank"}, "position": {"site": ["attn.q"]}}
    with pytest.raises(
        UnipetError, match=r"method\.insertions\.fnf: there is no such insertion.*ffn.*Did you mean 'ffn'\?"
    ):
        load_method({"name": "x", "insertions": {"ffn": given, "fnf": {"scaling": 2.0}}})
    with pytest.raises(UnipetError, match="function"):  # none of them is whole
        load_method({"name": "x", "insertions": {"fnf": {"scaling": 2.0}}})
