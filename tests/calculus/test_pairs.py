"""Choices that are fine alone but not together: each row of the table refuses something, and says what and what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import unipet
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.pairs import PAIRS

PREFIX = {"function": "prefix", "position": "attn.heads", "composition": "gated"}
PROMPT = {"function": "prompt", "position": "embed", "composition": "concat"}
LOW_RANK = {"function": "low_rank", "position": {"site": "attn.q"}}
SITE, FORM = "position.site", "position.form"

#: The row (its key and the other choice), an insertion that it refuses, and what the error must say.
REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("composition", "function", {**LOW_RANK, "composition": "gated"}, "Use function prefix, projected_prefix, or"),
    ("composition", "function", {**PROMPT, "composition": "add"}, "need each other. Use composition: concat."),
    ("composition", "function", {**PROMPT, "function": "vector"}, "need each other. Use function prompt."),
    (
        "composition",
        "function",
        {"function": "vector", "position": "attn.q", "composition": "hadamard"},
        "'hadamard' does not go with function 'vector': it changes the weight itself",
    ),
    (
        "function",
        "composition",
        {**PREFIX, "function": {"name": "prefix", "norm": "in"}},
        "that needs function.norm: none.",
    ),
    (SITE, "composition", {**PROMPT, "position": ["embed", "ffn"]}, "['embed', 'ffn'] does not go with"),
    (
        "position.tokens",
        "composition",
        {**PROMPT, "position": {"site": "embed", "tokens": "first:1"}},
        "is tokens: all.",
    ),
    (
        "scaling",
        "composition",
        {**PROMPT, "scaling": "input_gate"},
        "'input_gate' does not go with composition 'concat'",
    ),
    (SITE, "function", {**PREFIX, "position": ["attn.heads", "ffn"]}, "Use attn.heads"),
    (SITE, "function", {"function": "rows", "position": "ffn"}, "Use embed.tokens"),
    (FORM, "function", {**PREFIX, "position": {"site": "attn.heads", "form": "sequential"}}, "it reads the queries"),
    (
        FORM,
        "composition",
        {**LOW_RANK, "composition": "normalise", "position": {"site": "attn.q", "form": "sequential"}},
        "'sequential' does not go with composition 'normalise': it changes the weight itself",
    ),
    (
        FORM,
        "function",
        {"function": {"name": "low_rank", "init": "svd"}, "position": {"site": "attn.q", "form": "sequential"}},
        "it needs the base weight",
    ),
    (
        "position.side",
        "composition",
        {**LOW_RANK, "composition": "normalise", "position": {"site": "attn.q", "side": "input"}},
        "Use side: output.",
    ),
    ("position.side", "composition", {**PROMPT, "position": {"site": "embed", "side": "input"}}, "Use side: output."),
    (FORM, "position.side", {**LOW_RANK, "position": {"site": "attn.q", "side": "input"}}, "with side 'input'"),
    (FORM, SITE, {**LOW_RANK, "position": "embed"}, "there, x is token ids. Use form: sequential."),
    ("scaling", SITE, {"function": "vector", "position": "embed", "scaling": "input_gate"}, "a gate cannot read"),
    ("scaling", "function", {"function": "vector", "position": "ffn", "scaling": "alpha_over_rank"}, "has none"),
    (
        "mixture",
        "composition",
        {**LOW_RANK, "composition": "normalise", "mixture": {"router": "per_example"}},
        "router 'per_example' with reducer 'mean_of_weights' does not go with composition 'normalise'",
    ),
    (
        "mixture",
        "scaling",
        {
            "position": "ffn",
            "scaling": {"name": "input_gate", "alpha": 2.0},
            "mixture": {"experts": [{"name": "low_rank", "size": 2}, {"name": "low_rank", "size": 4}]},
        },
        "router 'uniform' with reducer 'mean_of_outputs' does not go with scaling 'input_gate'",
    ),
    (
        "mixture",
        SITE,
        {"function": "vector", "position": "embed", "mixture": {"router": "learned"}},
        "token ids, which a gate cannot read",
    ),
]


@pytest.mark.parametrize(("key", "other", "insertion", "said"), REFUSED)
def test_two_choices_that_do_not_go_together(key: str, other: str, insertion: dict[str, Any], said: str) -> None:
    with pytest.raises(unipet.UnipetError) as caught:
        unipet.load_method({"name": "x", "insertions": {"part": insertion}})
    message = str(caught.value)
    assert message.startswith(f"method.insertions.part.{key}: ") and said in message, message
    assert f" does not go with {other.rpartition('.')[2]} " in message


def test_every_row_of_the_table_refuses_something() -> None:
    assert {(key, other) for key, other, *_ in REFUSED} == {(pair.key, pair.other) for pair in PAIRS}


def test_a_function_of_ones_own_reads_what_there_is() -> None:
    @dataclasses.dataclass(frozen=True)
    class Stranger(FUNCTIONS["low_rank"]):  # type: ignore[misc]
        reads = "head"

    with pytest.raises(unipet.UnipetError, match=r"Stranger\.reads: unknown 'head'.*Did you mean 'heads'"):
        unipet.register_function("stranger", Stranger)
    assert "stranger" not in FUNCTIONS


def test_a_function_s_own_mistake_under_a_mixture_has_the_full_key() -> None:
    insertion = {**LOW_RANK, "function": {"name": "low_rank", "freeze": ["up"]}, "mixture": {"experts": 2}}
    with pytest.raises(unipet.UnipetError, match=r"^method\.insertions\.part\.function\.freeze: "):
        unipet.load_method({"name": "x", "insertions": {"part": insertion}})
