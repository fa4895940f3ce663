"""Pairs of method and architecture that cannot be: one error that says why, and nothing touched."""

from __future__ import annotations

import pytest

import unipet
from tests.support.matrix import ARCHS, METHODS, REASONS, REFUSED, WORKING, same_bits, untouched, values


@pytest.mark.parametrize(("method", "arch", "why"), REFUSED)
def test_a_refused_pair_says_why_and_touches_nothing(method: str, arch: str, why: str) -> None:
    model = ARCHS[arch].build()
    state, outside = values(model), untouched(model)
    with pytest.raises(unipet.UnipetError, match=why) as caught:
        unipet.adapt(model, METHODS[method])
    assert str(caught.value).startswith(("method.", f"method {method!r}")), "the key, or the method"
    assert same_bits(values(model), state) and untouched(model) == outside
    for asked in (model, model.config):
        with pytest.raises(unipet.UnipetError) as described:
            unipet.describe(METHODS[method], asked)
        assert str(described.value) == str(caught.value)


def test_the_matrix_is_whole() -> None:
    """Every method works somewhere, every architecture takes most methods, and all pairs are accounted for."""
    assert len(WORKING) + len(REFUSED) == len(REASONS)
    works = {pair.values for pair in WORKING}
    assert {method for method, _ in works} == {method for method, _ in REASONS}
    assert {arch for _, arch in works} == set(ARCHS)
