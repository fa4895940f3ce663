"""Parameter counts: what a method trains is what its paper says."""

from __future__ import annotations

import pytest

import unipet
from tests.support.closed_forms import CLOSED_FORMS
from tests.support.tiny import SIZES, TINY


@pytest.mark.parametrize("arch", TINY)
@pytest.mark.parametrize("method", CLOSED_FORMS)
def test_parameter_count_is_the_closed_form_of_the_paper(method: str, arch: str) -> None:
    model = TINY[arch](head=False)
    biases = sum(p.numel() for name, p in model.named_parameters() if name.endswith("bias"))
    base = sum(p.numel() for p in model.parameters())
    expected = CLOSED_FORMS[method](d=SIZES["hidden_size"], f=SIZES["intermediate_size"], L=2, biases=biases, base=base)
    if method == "head_only":
        with pytest.raises(unipet.UnipetError, match="nothing"):
            unipet.adapt(model, method)
        return
    report = unipet.adapt(model, method)
    owned = sum(p.numel() for p in unipet.parameters(model).values())
    assert (owned, report.trainable, report.merged) == (expected.trained, expected.trained, expected.merged)
    assert report.base == base
