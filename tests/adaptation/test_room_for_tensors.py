"""What a method would hold is counted before any of it is made: frozen and shared tensors, every expert, all insertions."""

from __future__ import annotations

import time
from typing import Any

import pytest

import unipet
from tests.support.insertions import method
from tests.support.tiny import tiny_bert
from unipet.adaptation import room_for_tensors
from unipet.errors import UnipetError

MUCH = 10**9
#: What no memory holds, each in another kind of tensor.
TOO_MUCH: dict[str, dict[str, Any]] = {
    "trained": {"function": {"name": "low_rank", "size": MUCH}},
    "beyond every float": {"function": {"name": "low_rank", "size": 10**350}},
    "frozen": {"function": {"name": "low_rank", "size": MUCH, "freeze": ["down"]}},
    "frozen at each site": {"function": {"name": "singular_core", "count": MUCH}},
    "frozen and shared": {"function": {"name": "random_low_rank", "size": MUCH}},
    "frozen bases": {"function": {"name": "random_bases", "size": MUCH}},
    "places of shared numbers": {"function": {"name": "hashed_low_rank", "size": MUCH}},
    "shared numbers": {"function": {"name": "hashed_low_rank", "length": 100 * MUCH}},
    "shared vectors": {"function": {"name": "vector_bank", "vectors": MUCH, "size": 1}},
    "positions that do not train": {
        "function": {"name": "prefix", "size": MUCH, "freeze_first": MUCH - 1},
        "position": "attn.heads",
        "composition": "gated",
    },
    "a network that makes a prefix": {
        "function": {"name": "prefix", "reparam": {"hidden": MUCH}},
        "position": "attn.heads",
        "composition": "gated",
    },
    "experts": {"function": {"name": "low_rank", "size": MUCH // 1000}, "mixture": {"experts": 4000}},
    "experts of their own": {
        "mixture": {"experts": {"a": {"name": "low_rank", "size": MUCH}, "b": {"name": "bottleneck", "size": 1}}}
    },
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_more_than_memory_holds_is_refused_before_it_is_made(kind: str) -> None:
    model, began = tiny_bert(), time.process_time()
    spec = method(**TOO_MUCH[kind])
    if "function" not in TOO_MUCH[kind]:
        del spec["insertions"]["one"]["function"]
    with pytest.raises(UnipetError, match=r"method\.insertions\.one would take .* GiB") as refused:
        unipet.adapt(model, spec)
    assert len(str(refused.value)) < 2000 and time.process_time() - began < 2


def test_insertions_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would fit alone."""
    monkeypatch.setattr(room_for_tensors, "ALWAYS_GIB", 0.001)
    monkeypatch.setattr(room_for_tensors, "available_gib", lambda: 0.005)
    one = method(function={"name": "low_rank", "size": 8000})["insertions"]["one"]
    unipet.adapt(tiny_bert(), {"name": "test", "insertions": {"one": one}})
    with pytest.raises(UnipetError, match=r"method\.insertions\.two would take .* beside the"):
        unipet.adapt(tiny_bert(), {"name": "test", "insertions": {"one": one, "two": one}})


def test_nothing_is_made_to_describe_it() -> None:
    """Without weights a method of any size can be described, unless it freezes what would have to be drawn."""
    from unipet.adaptation.describing import describe

    assert describe(method(function={"name": "low_rank", "size": MUCH}), tiny_bert().to("meta")).trainable > MUCH
    with pytest.raises(UnipetError, match="GiB"):
        describe(method(function={"name": "random_low_rank", "size": MUCH}), tiny_bert().to("meta"))


@pytest.mark.parametrize(
    "function",
    [
        *({"name": "prompt", "reparam": {"depth": MUCH}}, {"name": "weight_network", "depth": MUCH}),
        *({"name": "rotation", "terms": MUCH}, {"name": "subspace_rotation", "terms": MUCH}),
    ],
    ids=lambda function: str(function["name"]),
)
def test_work_without_end_is_refused(function: dict[str, Any]) -> None:
    with pytest.raises(UnipetError, match=r"function\.(reparam\.)?(depth|terms): 1000000000 given; allowed"):
        unipet.load_method(method(function=function))
