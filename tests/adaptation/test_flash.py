"""Flash attention without a GPU: transformers' own path down to the kernels, which are stood in for.

The stand-ins do what flash kernels do: no 4-D masks, causal order counted from the last key, sequences of different
lengths side by side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers.modeling_flash_attention_utils as flash_utils
from torch import Tensor

import unipet
from tests.support.architectures import ARCHS
from tests.support.generating import adapted, generate, prompts, steps
from tests.support.matrix import close


def kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Tensor:
    """(B, T, H, E) from q and from k, v (B, S, G, E)."""
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    logits = torch.einsum("bthe,bshe->bhts", q, k) * softmax_scale
    ahead = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1] - torch.arange(k.shape[1])
    hidden = (ahead < 0) if causal else torch.zeros_like(ahead, dtype=torch.bool)
    if window_size[0] >= 0:
        hidden = hidden | (ahead > window_size[0])
    return torch.einsum("bhts,bshe->bthe", logits.masked_fill(hidden, -torch.inf).softmax(-1), v)


def varlen_kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Tensor:
    """The same for sequences laid end to end, (tokens, H, E)."""
    ends_q, ends_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    assert ends_k[-1] == len(k) == len(v) and max_seqlen_k == max(b - a for a, b in itertools.pairwise(ends_k))
    return torch.cat(
        [
            kernel(q[a:b][None], k[c:d][None], v[c:d][None], 0.0, softmax_scale, causal, window_size)[0]
            for a, b, c, d in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False)
        ]
    )


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The kernels in place; yields the names under which transformers asks for them."""
    names: set[str] = set()

    def load(implementation: str, *args: Any, **kwargs: Any) -> Any:
        names.add(implementation)
        return kernel, varlen_kernel, None, flash_utils._pad_input, flash_utils._unpad_input

    kept = {name: getattr(flash_utils, name) for name in vars(flash_utils) if name.endswith("_fn") or "_loaded" in name}
    monkeypatch.setattr(flash_utils, "_lazy_imports", load)
    monkeypatch.setattr(flash_utils, "_loaded_implementation", None)
    yield names
    for name, value in kept.items():
        setattr(flash_utils, name, value)


def pair(arch: str, method: Any) -> tuple[Any, Any]:
    """The same adapted model with sdpa and with flash attention."""
    return adapted(arch, method), adapted(arch, method, implementation="flash_attention_2")


def one(position: dict[str, Any], scaling: Any = 1.0) -> dict[str, Any]:
    function = {"name": "prefix", "size": 3, "scale_keys": True}
    insertion = {"function": function, "composition": "gated", "position": position, "scaling": scaling}
    return {"name": "test", "insertions": {"one": insertion}}


EVERYWHERE = {"site": "attn.heads"}
PACKED = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])
CROSS = {"site": ["attn.heads", "cross.heads"]}


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    ("arch", "method"),
    [
        ("llama", one(EVERYWHERE)),
        ("llama", one(EVERYWHERE, "input_gate")),
        ("llama", "multihead_parallel_adapter"),
        ("bert", one(EVERYWHERE, "input_gate")),
        ("opt", "mam"),
        ("bart", one(CROSS, "input_gate")),
    ],
    ids=["prefix", "gated", "relu", "encoder", "opt", "cross"],
)
def test_flash_agrees_with_sdpa(arch: str, method: Any, padded: bool, loaded: set[str]) -> None:
    sdpa, flash = pair(arch, method)
    batch = ARCHS[arch].batch(3, 8)
    if not padded or arch == "bart":  # transformers itself cannot hand a padded encoder to a flash kernel
        batch = {name: torch.ones_like(value) if "mask" in name else value + 7 for name, value in batch.items()}
        batch = {name: value % 64 if "ids" in name else value for name, value in batch.items()}
    real = batch.get("decoder_attention_mask", batch["attention_mask"]).bool()
    expected, found = sdpa(**batch).logits, flash(**batch).logits
    if arch != "bert":
        expected, found = expected[real], found[real]
    assert close(found, expected)
    assert loaded == {"flash_attention_2"}, "the kernel is loaded by the name that the user chose"


@pytest.mark.parametrize("method", [one(EVERYWHERE), one(EVERYWHERE, "input_gate")], ids=["prefix", "gated"])
def test_flash_generates_what_sdpa_does(method: Any, loaded: set[str]) -> None:
    sdpa, flash = pair("llama", method)
    batch = prompts("llama")
    for options in ({}, {"num_beams": 2}):
        expected, found = generate(sdpa, batch, **options), generate(flash, batch, **options)
        assert torch.equal(found.sequences, expected.sequences) and close(steps(found), steps(expected))


def test_flash_gradients_are_those_of_sdpa(loaded: set[str]) -> None:
    sdpa, flash = pair("llama", one(EVERYWHERE, "input_gate"))
    batch = ARCHS["llama"].batch(3, 8)
    for model in (sdpa, flash):
        model(**batch, labels=ARCHS["llama"].labels(batch)).loss.backward()
    for name, parameter in unipet.parameters(sdpa).items():
        assert close(unipet.parameters(flash)[name].grad, parameter.grad), name


@pytest.mark.parametrize(
    ("arch", "position", "why"),
    [
        ("mistral", EVERYWHERE, "in front of a sliding window"),
        ("modernbert", EVERYWHERE, "in front of a sliding window"),
        ("llama", {**EVERYWHERE, "tokens": "first:2"}, "act on some tokens only"),
    ],
)
def test_what_a_flash_kernel_cannot_do_is_an_error(
    arch: str, position: dict[str, Any], why: str, loaded: set[str]
) -> None:
    _, flash = pair(arch, one(position))
    with pytest.raises(unipet.UnipetError, match=f"{why}.*'sdpa' or 'eager'"):
        flash(**ARCHS[arch].batch())


def test_sequences_packed_into_one_row_are_an_error_only_with_a_prefix(loaded: set[str]) -> None:
    ids, packed = torch.arange(5, 13)[None], {"position_ids": PACKED, "use_cache": False}
    sdpa, flash = pair("llama", "lora")
    assert close(
        flash(ids, **packed).logits,
        sdpa(ids, **packed).logits,
    )
    _, flash = pair("llama", one(EVERYWHERE))
    with pytest.raises(unipet.UnipetError, match="several packed sequences"):
        flash(ids, **packed)
    ends = torch.tensor([0, 5, 8], dtype=torch.int32)
    lengths = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 5, "max_length_k": 5}
    with pytest.raises(unipet.UnipetError, match="several packed sequences"):
        flash(ids, **lengths)


def test_packed_sequences_see_the_prefix_each_where_masks_are_written_out() -> None:
    model, _ = pair("llama", one(EVERYWHERE))
    ids, packed = torch.arange(5, 13)[None], {"position_ids": PACKED, "use_cache": False}
    together = model(ids, **packed).logits
    assert close(together, torch.cat([model(ids[:, :5]).logits, model(ids[:, 5:]).logits], 1))
