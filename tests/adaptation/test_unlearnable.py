"""What another insertion stands in the place of could never learn: refused where it is so, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import unipet
from tests.support.architectures import ARCHS
from tests.support.matrix import randomise, same_bits, with_loss
from unipet.adaptation import api
from unipet.errors import UnipetError

LOW_RANK = {"name": "low_rank", "size": 2, "init": "torch"}
VECTOR = {"name": "vector", "init": "ones"}


def insertion(site: str, function: dict[str, Any], composition: str = "add", **position: Any) -> dict[str, Any]:
    return {"function": function, "position": {"site": site, **position}, "composition": composition}


def method(unfreeze: list[str], *insertions: dict[str, Any]) -> dict[str, Any]:
    return {"name": "m", "insertions": {f"i{n}": each for n, each in enumerate(insertions)}, "unfreeze": unfreeze}


NEW_Q = insertion("attn.q", LOW_RANK, "replace")
#: what -> (a method, the words of its error)
DEAD = {
    "an insertion before it at the same site": (
        method(["head"], insertion("attn.q", LOW_RANK), NEW_Q),
        "i1.composition: it stands in the place of what 'i0' changes at",
    ),
    "an insertion inside the block": (
        method(["head"], insertion("ffn", LOW_RANK, "replace"), insertion("ffn.up", LOW_RANK)),
        "i0.composition: it stands in the place of what 'i1' changes at",
    ),
    "values under heads that are replaced": (
        method(["head"], insertion("attn.v", LOW_RANK), insertion("attn.heads", LOW_RANK, "replace")),
        "i1.composition",
    ),
    "the input of a module whose output is constant": (
        method(["head"], insertion("attn.q", LOW_RANK, form="sequential", side="input"), insertion("attn.q", VECTOR, "replace")),
        "i1.composition",
    ),
    "what feeds a constant": (
        method(["head"], insertion("ffn.up", LOW_RANK), insertion("ffn.down", VECTOR, "replace")),
        "i1.composition",
    ),
    "the weight of the base model": (method(["head", "all"], NEW_Q), "which method.unfreeze (all) trains"),
    "its bias": (method(["bias"], NEW_Q), "which method.unfreeze (bias) trains"),
}  # fmt: skip
ALIVE = {
    "an insertion after it": method(["head"], NEW_Q, insertion("attn.q", LOW_RANK)),
    "the input of a module whose x it reads": method(
        ["head"], insertion("attn.q", LOW_RANK, form="sequential", side="input"), NEW_Q
    ),
    "h that it reads": method(
        ["head"], insertion("attn.q", LOW_RANK), insertion("attn.q", LOW_RANK, "replace", form="sequential")
    ),
    "another block": method(["head"], insertion("attn.q", LOW_RANK), insertion("ffn", LOW_RANK, "replace")),
    "some tokens alone": method(["bias"], insertion("attn.q", LOW_RANK, "replace", tokens="first:1")),
    "another layer": method(
        ["head"], insertion("attn.q", LOW_RANK, layers=[0]), insertion("attn.q", LOW_RANK, "replace", layers=[1])
    ),
    "norms": method(["norm"], NEW_Q),
}  # fmt: skip


@pytest.mark.parametrize("what", DEAD)
def test_what_could_never_learn_is_refused(what: str) -> None:
    model = ARCHS["bert"].build()
    given, words = DEAD[what]
    with pytest.raises(UnipetError) as refused:
        unipet.adapt(model, given)
    assert str(refused.value).startswith("method.insertions.") and words in str(refused.value)
    assert not hasattr(model, "_unipet")


@pytest.mark.parametrize("what", ALIVE)
def test_what_learns_is_not(what: str) -> None:
    model = ARCHS["bert"].build()
    unipet.adapt(model, ALIVE[what])
    randomise(model, 0.1)
    with_loss("bert", model.train(), ARCHS["bert"].batch()).loss.backward()
    assert all(p.grad is not None for p in unipet.parameters(model, head=True).values())


@pytest.mark.parametrize("router", ["uniform", "fixed", "round_robin", "per_example", "learned", "hash"])
def test_scores_that_no_router_reads_are_refused(router: str) -> None:
    given = method(["head"], {**insertion("attn.q", LOW_RANK), "mixture": {"router": router, "reducer": "weighted"}})
    for act in (
        lambda: unipet.adapt(ARCHS["bert"].build(), given),
        lambda: unipet.describe(given, ARCHS["bert"].build()),
    ):
        with pytest.raises(UnipetError, match=r"method\.insertions\.i0\.mixture\.reducer: .* Use router: soft"):
            act()


def test_an_adapter_that_was_saved_with_such_tensors_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = ARCHS["bert"].build(), ARCHS["bert"].build()
    with monkeypatch.context() as patch:
        patch.setattr(api, "check_learns", lambda *given: None)
        unipet.adapt(model, DEAD["an insertion inside the block"][0])
    randomise(model, 0.1)
    unipet.save(model, tmp_path / "old")
    unipet.load(other, tmp_path / "old")
    assert same_bits(unipet.parameters(model), unipet.parameters(other))
