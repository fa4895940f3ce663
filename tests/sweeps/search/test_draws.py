"""Draws from a search space: every one a function of space, seed and number."""

from __future__ import annotations

import math

import pytest

from unipet.compose.search_space import SearchedKey, SearchSpace
from unipet.errors import UnipetError
from unipet.sweeps.search.draws import all_choices, count, random_choices

LR = SearchedKey("optim.lr", "optim.lr", (), 1e-4, 1e-1, log=True)
SIZE = SearchedKey("size", "++size", ("4", "8"))
WHOLE = SearchedKey("n", "n", (), 2, 5, whole=True)


def test_more_trials_begin_with_the_same_ones() -> None:
    assert random_choices(SearchSpace([LR, SIZE]), 20, 7)[:8] == random_choices(SearchSpace([LR, SIZE]), 8, 7)
    assert random_choices(SearchSpace([LR, SIZE]), 8, 7) != random_choices(SearchSpace([LR, SIZE]), 8, 8)


def test_draws_lie_in_their_interval_on_its_scale() -> None:
    rates = [float(choice[0]) for choice in random_choices(SearchSpace([LR]), 2000, 0)]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates) and len(set(rates)) == 2000
    below = sum(rate < 1e-3 for rate in rates) / len(rates)
    assert below == pytest.approx(1 / 3, abs=0.03), "a third of a logarithmic scale of three decades"
    assert sum(rate < 10**-2.5 for rate in rates) / len(rates) == pytest.approx(0.5, abs=0.03)


def test_whole_numbers_reach_both_ends() -> None:
    assert sorted(int(choice[0]) for choice in random_choices(SearchSpace([WHOLE]), 4, 0)) == [2, 3, 4, 5]
    logged = SearchedKey("n", "n", (), 1, 64, log=True, whole=True)
    values = [int(choice[0]) for choice in random_choices(SearchSpace([logged]), 40, 0)]
    assert min(values) >= 1 and max(values) <= 64 and len(set(values)) == 40


def test_no_combination_comes_twice() -> None:
    assert len(set(random_choices(SearchSpace([SIZE, WHOLE]), 8, 0))) == 8
    with pytest.raises(UnipetError, match="9 given, but the space has 8 combinations"):
        random_choices(SearchSpace([SIZE, WHOLE]), 9, 0)


def test_spaces_draw_the_same_for_what_they_have_in_common() -> None:
    alone = SearchSpace([LR, SIZE])
    more = SearchSpace([LR, SIZE], [SearchedKey("scale", "scale", ("1", "2", "4")), WHOLE])
    assert [choice[:2] for choice in random_choices(more, 20, 0)] == random_choices(alone, 20, 0)
    assert len({choice[2:] for choice in random_choices(more, 20, 0)}) > 5
    fewer = SearchSpace([LR, SIZE], [WHOLE])
    assert [choice[-1] for choice in random_choices(more, 20, 0)] == [
        choice[-1] for choice in random_choices(fewer, 20, 0)
    ]
    other = SearchSpace([LR, SIZE], [SearchedKey("optim.lr", "optim.lr", (), 1e-1, 1.0, log=True)])
    drawn = random_choices(other, 20, 0)
    assert [key.key for key in other.keys] == ["optim.lr", "size"] and all(float(each[0]) >= 0.1 for each in drawn)
    assert [each[1] for each in drawn] == [each[1] for each in random_choices(alone, 20, 0)]


def test_a_grid_is_every_combination() -> None:
    other = SearchedKey("a", "a", ("x", "y", "z"))
    assert all_choices([SIZE, other])[:4] == [("4", "x"), ("4", "y"), ("4", "z"), ("8", "x")]
    assert count([SIZE, other]) == 6 and count([WHOLE]) == 4 and count([LR, SIZE]) == math.inf
    with pytest.raises(UnipetError, match="search=grid: n is an interval"):
        all_choices([SIZE, WHOLE])


def test_an_override_is_what_a_person_would_type() -> None:
    assert LR.override(0.0005) == "optim.lr=0.0005" and SIZE.override("8") == "++size=8" and WHOLE.override(3) == "n=3"


def test_subsets_are_drawn_alike_and_listed_whole() -> None:
    layers = SearchedKey("layers", "++layers", ("0", "1", "2"), subset=True)
    assert count([layers, SIZE]) == 7 * 2 and len(all_choices([layers])) == 7
    assert sorted(random_choices(SearchSpace([layers]), 7, 0)) == sorted(all_choices([layers]))
    drawn = [choice[0] for seed in range(700) for choice in random_choices(SearchSpace([layers]), 1, seed)]
    shares = {text: drawn.count(text) / len(drawn) for text in set(drawn)}
    assert len(shares) == 7 and all(share == pytest.approx(1 / 7, abs=0.05) for share in shares.values())
    assert "[0,2]" in shares and layers.override("[0,2]") == "++layers=[0,2]"
