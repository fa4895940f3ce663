"""Several adaptations on one model: named, used in turn, switched off, and each row of a batch with its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.generating import generate, lively, prompts, steps
from tests.support.matrix import (
    ARCHS,
    METHODS,
    REASONS,
    randomise,
    same_bits,
    spec_of,
    untouched,
    values,
    with_loss,
    without_cache,
)
from unipet.adaptation import several
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.attaching import Attachment

STRUCTURES = ("bert", "llama", "bart")
ROWS = ("a", "b", None, "a")  # of the batches below
OTHER = "lora"  # what shares a batch with the method that a test is about

#: What a method that cannot share a forward pass is told, by the part of `unfreeze` or the composition that it has.
REFUSED: dict[tuple[str, str], str] = {
    **{("bitfit", arch): r"trains parts of the base model \(unfreeze: bias\)" for arch in ("bert", "bart")},
    **{("ln_tuning", arch): r"trains parts of the base model \(unfreeze: norm\)" for arch in STRUCTURES},
    **{("full", arch): r"trains parts of the base model \(unfreeze: all\)" for arch in STRUCTURES},
}
SERVED = [(m, a) for m in METHODS for a in STRUCTURES if REASONS[m, a] is None and (m, a) not in REFUSED]


def adapt(model: Any, method: Any, seed: int, name: str | None = None) -> None:
    """The method with values in every trained tensor, the head's included: the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unipet.adapt(model, spec_of(method), **({} if name is None else {"name": name}))
    randomise(model, 0.1, seed)


def alone(arch: str, method: Any, seed: int, build: Callable[[str], Any] | None = None) -> Any:
    model = (build or built)(arch)
    adapt(model, method, seed)
    return model


def built(arch: str) -> Any:
    return ARCHS[arch].build()


def together(arch: str, method: Any, other: Any = OTHER, build: Callable[[str], Any] = built) -> Any:
    """One model that carries `method` as a and `other` as b."""
    model = build(arch)
    adapt(model, method, 1, "a")
    adapt(model, other, 2, "b")
    return model


def logits(arch: str, model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**ARCHS[arch].batch(len(ROWS)), **without_cache(arch)).logits
    return found


def expected(parts: dict[str | None, Tensor]) -> Tensor:
    """Of every row what its own model says of the whole batch."""
    return torch.stack([parts[name][row] for row, name in enumerate(ROWS)])


def assert_close(found: Tensor, wanted: Tensor) -> None:
    """Within 1e-6 of the scale of what is expected."""
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-6 * max(1.0, wanted.abs().max().item()))


def real(arch: str, logits: Tensor) -> Tensor:
    """Without what is said of padding."""
    return ARCHS[arch].real(ARCHS[arch].batch(len(ROWS)), logits)


# -- one in use -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", STRUCTURES)
@pytest.mark.parametrize("method", ["mam", "prompt_tuning", "full"])
def test_each_is_in_use_what_it_is_alone(method: str, arch: str) -> None:
    model, base = together(arch, method), ARCHS[arch].build()
    assert unipet.adaptations(model) == ["a", "b"] and adaptation(model).name == "b"
    first, second = logits(arch, alone(arch, method, 1)), logits(arch, alone(arch, OTHER, 2))
    for name, said in (("b", second), ("a", first), ("b", second), ("a", first)):
        unipet.use(model, name)
        assert torch.equal(logits(arch, model), said), name
        trained = {id(p) for p in unipet.parameters(model, head=True).values()}
        assert (
            {id(p) for p in model.parameters() if p.requires_grad} - trained
            == {id(p) for other in {"a", "b"} - {name} for p in unipet.parameters(model, name=other).values()}
            if method != "full"
            else trained
        )
        with unipet.disabled(model):
            assert torch.equal(logits(arch, model), logits(arch, base))
        assert torch.equal(logits(arch, model), said), name
    unipet.eject(model)
    assert same_bits(model.state_dict(), base.state_dict()) and untouched(model) == untouched(base)


def test_the_default_name_is_the_methods_and_a_second_one_needs_its_own() -> None:
    model = ARCHS["bert"].build()
    unipet.adapt(model, "lora")
    assert unipet.adaptations(model) == ["lora"]
    state = values(model)
    for name, message in (
        (None, r"already carries method 'lora'.*name='\.\.\.'"),
        ("lora", "already carries an adaptation called 'lora'"),
        ("x.y", "name: 'x.y' given; allowed: a word without dots"),
        ("", "name: '' given"),
    ):
        with pytest.raises(unipet.UnipetError, match=message):
            unipet.adapt(model, "ia3", name=name)
        assert unipet.adaptations(model) == ["lora"] and same_bits(model.state_dict(), state)
    unipet.adapt(model, "ia3", name="lora2")
    for act in (unipet.use, unipet.eject):
        with pytest.raises(unipet.UnipetError, match=r"name: unknown 'lora3'.*lora, lora2. Did you mean 'lora'"):
            act(model, "lora3")


def test_an_adaptation_that_does_not_fit_leaves_the_others_as_they_were() -> None:
    model = together("bert", "mam")
    said, state = logits("bert", model), values(model)
    for wrong in ({"name": "x", "insertions": {"y": {"function": "low_rank", "position": "cross.q"}}}, "no_method"):
        with pytest.raises(unipet.UnipetError):
            unipet.adapt(model, wrong, name="c")
        assert unipet.adaptations(model) == ["a", "b"] and same_bits(model.state_dict(), state)
        assert torch.equal(logits("bert", model), said)


def test_names_in_the_model_are_those_of_one_adaptation_while_there_is_one() -> None:
    one, model = alone("bert", "mam", 1), together("bert", "mam")
    unipet.eject(model, "b")
    assert unipet.adaptations(model) == ["a"]
    assert same_bits(model.state_dict(), one.state_dict())
    assert list(model.state_dict()) == list(one.state_dict()) and untouched(model) == untouched(one)
    assert torch.equal(logits("bert", model), logits("bert", one))


def test_one_adaptation_costs_no_more_hooks_than_before() -> None:
    """Those of a model that carries one: at its sites (the heads' prefix reads no x), at the entry, and none at the head;
    carrying another adds none."""
    one = alone("bert", "mam", 1)
    sites = {
        "bert",
        *(f"bert.encoder.layer.{i}.{path}" for i in (0, 1) for path in ("intermediate", "output")),
    }
    hooked = {name.removesuffix(".self").removesuffix(".dense") for name in untouched(one)["hooks"]}
    assert hooked == sites
    assert untouched(together("bert", OTHER, "mam"))["hooks"] == untouched(one)["hooks"]


def test_training_one_leaves_the_others_values_and_gradients() -> None:
    model = together("bert", "mam")
    unipet.use(model, "a")
    with_loss("bert", model, ARCHS["bert"].batch()).loss.backward()
    grads = {name: p.grad.clone() for name, p in unipet.parameters(model, head=True).items() if p.grad is not None}
    assert any(name.startswith("head/") for name in grads)
    unipet.use(model, "b")
    before = {name: p.clone() for name, p in unipet.parameters(model, head=True).items()}
    assert all(p.grad is None for p in unipet.parameters(model, head=True).values())
    with unipet.disabled(model):
        pass
    unipet.use(model, "a")
    found = {name: p.grad for name, p in unipet.parameters(model, head=True).items() if p.grad is not None}
    assert same_bits(found, grads)
    with torch.no_grad():
        for p in unipet.parameters(model, head=True).values():
            p.sub_(1.0)
    unipet.use(model, "b")
    assert same_bits(unipet.parameters(model, head=True), before)


def test_a_backward_pass_may_come_after_the_base_model_was_asked() -> None:
    """As where a frozen reference is compared with what trains; after another one was in use it is an error, not wrong."""
    model, batch = together("bert", "adapter", "mam"), ARCHS["bert"].batch()
    with_loss("bert", model, batch).loss.backward()
    plain = {name: p.grad.clone() for name, p in unipet.parameters(model, head=True).items() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    loss = with_loss("bert", model, batch).loss
    with unipet.disabled(model), torch.no_grad():
        model(**batch)
    loss.backward()
    found = {name: p.grad for name, p in unipet.parameters(model, head=True).items() if p.grad is not None}
    assert same_bits(found, plain)
    loss = with_loss("bert", model, batch).loss
    unipet.use(model, "a")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(("owner", "step"), [(Attachment, "put_in"), (several, "give_head"), (several, "register")])
@pytest.mark.parametrize("number", [1, 2])
def test_whatever_fails_on_the_way_the_model_is_as_it_was(
    owner: Any, step: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = together("bert", "mam")
    said, state, around = logits("bert", model), values(model), untouched(model)
    original, left = getattr(owner, step), [number]

    def failing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise ZeroDivisionError
        return original(*args, **kwargs)

    for change in (lambda: unipet.rows(model, ROWS), lambda: unipet.use(model, "a"), lambda: unipet.eject(model, "a")):
        left[0] = number
        monkeypatch.setattr(owner, step, failing)
        try:
            change()
        except ZeroDivisionError:
            monkeypatch.setattr(owner, step, original)
        else:
            monkeypatch.setattr(owner, step, original)
            assert left[0] > 0, "it failed, and nobody was told"
            break
        assert same_bits(model.state_dict(), state) and untouched(model) == around
        assert torch.equal(logits("bert", model), said)


def test_parameters_save_load_merge_and_eject_by_name(tmp_path: Path) -> None:
    model, base = together("bert", "mam"), ARCHS["bert"].build()
    said = logits("bert", model)
    singles = {"a": alone("bert", "mam", 1), "b": alone("bert", OTHER, 2)}
    for name, single in singles.items():
        assert same_bits(unipet.parameters(model, name=name), unipet.parameters(single))
        unipet.save(model, tmp_path / name, name=name)
        unipet.save(single, tmp_path / f"{name}_alone")
        for file in ("adapter.safetensors", "adapter.json"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / f"{name}_alone" / file).read_bytes()
    assert torch.equal(logits("bert", model), said)
    with pytest.raises(unipet.UnipetError, match=r"'a' is not in use.*unipet.use\(model, 'a'\) first.*head=False"):
        unipet.parameters(model, head=True, name="a")
    with pytest.raises(
        unipet.UnipetError, match=r"Merging 'b' would change the base model under 'a'.*eject\(model, 'a'\)"
    ):
        unipet.merge(model)
    unipet.eject(model, "a")
    assert torch.equal(logits("bert", model), said)
    with pytest.raises(unipet.UnipetError, match="unknown 'a'"):
        unipet.merge(model, name="a")
    assert unipet.merge(model, name="b") == {"attention": "folded"}
    unipet.load(base, tmp_path / "a", name="x")
    unipet.load(base, tmp_path / "b", name="y")
    for name, own in (("x", "a"), ("y", "b")):
        unipet.use(base, name)
        assert torch.equal(logits("bert", base), logits("bert", singles[own]))


def test_a_copy_carries_them_all() -> None:
    model = together("bert", "mam")
    unipet.rows(model, ROWS)
    said, twin = logits("bert", model), copy.deepcopy(model)
    unipet.eject(model)
    assert torch.equal(logits("bert", twin), said) and unipet.adaptations(twin) == ["a", "b"]
    unipet.eject(twin)
    assert same_bits(twin.state_dict(), ARCHS["bert"].build().state_dict())


# -- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "arch"), SERVED)
def test_each_row_is_what_its_adaptation_computes_alone(method: str, arch: str) -> None:
    """Outputs and gradients, beside another adaptation and the base model in one padded batch."""
    model, base = together(arch, method), ARCHS[arch].build()
    one, other = alone(arch, method, 1), alone(arch, OTHER, 2)
    unipet.rows(model, ROWS)
    parts = {"a": logits(arch, one), "b": logits(arch, other), None: logits(arch, base)}
    assert_close(real(arch, logits(arch, model)), real(arch, expected(parts)))
    assert len({part.sum().item() for part in parts.values()}) == 3, "they do the same"
    batch, weights = ARCHS[arch].batch(len(ROWS)), torch.Generator().manual_seed(3)
    weight = torch.randn(parts[None].shape, generator=weights)
    if ARCHS[arch].kind != "encoder":
        weight[~real_tokens(arch)] = 0.0

    def backward(which: nn.Module, rows: list[int]) -> None:
        said = which(**batch, **without_cache(arch)).logits
        (said[rows] * weight[rows]).sum().backward()

    backward(model, list(range(len(ROWS))))
    for name, single in (("a", one), ("b", other)):
        backward(single, [row for row, own in enumerate(ROWS) if own == name])
        found, wanted = unipet.parameters(model, head=True, name=name), unipet.parameters(single, head=True)
        assert found.keys() == wanted.keys()
        scale = max([1.0, *(p.grad.abs().max().item() for p in wanted.values() if p.grad is not None)])
        for tensor, p in wanted.items():
            mine = found[tensor].grad
            assert (mine is None or not mine.any()) if p.grad is None else mine is not None, tensor
            if p.grad is not None and mine is not None:
                assert torch.allclose(mine, p.grad, rtol=0.0, atol=2e-6 * scale), tensor
    unipet.eject(model)
    assert same_bits(model.state_dict(), base.state_dict()) and untouched(model) == untouched(base)


def real_tokens(arch: str) -> Tensor:
    batch = ARCHS[arch].batch(len(ROWS))
    return batch["decoder_attention_mask" if "decoder_attention_mask" in batch else "attention_mask"].bool()


@pytest.mark.parametrize(("method", "arch"), list(REFUSED))
def test_what_cannot_share_a_forward_pass_is_refused_by_name_and_reason(method: str, arch: str) -> None:
    if REASONS[method, arch] is not None:
        pytest.skip("refused already when it is adapted")
    model = together(arch, method)
    said, state, around = logits(arch, model), values(model), untouched(model)
    with pytest.raises(
        unipet.UnipetError, match=f"rows: 'a' cannot share.*{REFUSED[method, arch]}.*use\\(model, 'a'\\)"
    ):
        unipet.rows(model, ROWS)
    assert same_bits(model.state_dict(), state) and untouched(model) == around
    assert torch.equal(logits(arch, model), said)
    unipet.rows(model, ["b", None, "b", "b"])  # without it, all is well


GENERATED = [
    (m, a) for m, a in SERVED if a != "bert" and m in ("lora", "ia3", "mam", "unipelt", "prefix", "dora", "loreft")
]
GENERATED += [("prompt_tuning", "llama"), ("prompt_tuning", "bart"), ("p_tuning", "llama")]
GENERATED += [
    ("cartridge", "llama"),
    ("cartridge", "bart"),
    ("llama_adapter", "llama"),
    ("trainable_tokens", "llama"),
    ("adapter", "bart"),
]


@pytest.mark.parametrize(("method", "arch"), GENERATED)
@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_generation_with_a_cache_serves_each_row_its_own(method: str, arch: str, mode: str) -> None:
    """Beams and returned sequences of a row go its way. In float64, where nothing is left to rounding."""
    options: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 2} if mode == "beams" else {}
    each, batch = options.get("num_return_sequences", 1), prompts(arch, len(ROWS), 7)
    model = together(arch, method, build=lively).double()
    unipet.rows(model, ROWS)
    found = generate(model, batch, **options)
    singles = {"a": alone(arch, method, 1, lively), "b": alone(arch, OTHER, 2, lively), None: lively(arch)}
    for name, single in singles.items():
        wanted = generate(single.double(), batch, **options)
        own = [row * each + i for row, mine in enumerate(ROWS) if mine == name for i in range(each)]
        assert torch.equal(found.sequences[own], wanted.sequences[own]), name
        if mode == "greedy":
            torch.testing.assert_close(steps(found)[:, own], steps(wanted)[:, own], rtol=0.0, atol=1e-10)


PROMPT = {"function": {"name": "prompt", "size": 3}, "position": "embed", "composition": "concat"}
DECODER = {"function": {"name": "prompt", "size": 3}, "position": {"site": "embed", "stack": "decoder"}}
DECODER |= {"composition": "concat"}
GATED = {"function": "low_rank", "position": "attn.q", "scaling": "input_gate"}


@pytest.mark.parametrize("arch", [*STRUCTURES, "roberta", "gpt2", "t5", "opt", "modernbert"])
@pytest.mark.parametrize("other", ["prompt", "prompt and gates", "unipelt", "loreft", "trainable_tokens"])
def test_prompts_of_some_rows_are_hidden_from_the_others(other: str, arch: str) -> None:
    """Beside a prompt of another length, gates that average over real tokens, and what counts tokens."""
    insertions = {"prompt": PROMPT, **({"gates": GATED} if "gates" in other else {})}
    second = {"name": "x", "insertions": insertions} if "prompt" in other else other
    parts: dict[str | None, Tensor] = {None: logits(arch, ARCHS[arch].build())}
    parts |= {"a": logits(arch, alone(arch, "prompt_tuning", 1)), "b": logits(arch, alone(arch, second, 2))}
    for order in ("ab", "ba"):
        model = ARCHS[arch].build()
        for name in order:
            adapt(model, "prompt_tuning" if name == "a" else second, "ab".index(name) + 1, name)
        unipet.rows(model, ROWS)
        assert_close(real(arch, logits(arch, model)), real(arch, expected(parts)))


@pytest.mark.parametrize("arch", ["llama", "gpt2", "bart"])
def test_prompts_of_two_lengths_generate_with_a_cache(arch: str) -> None:
    other = {"name": "x", "insertions": {"prompt": PROMPT}}
    model, batch = together(arch, "prompt_tuning", other, lively).double(), prompts(arch, len(ROWS), 7)
    unipet.rows(model, ROWS)
    found = steps(generate(model, batch))
    for name, single in (("a", alone(arch, "prompt_tuning", 1, lively)), ("b", alone(arch, other, 2, lively))):
        own = [row for row, mine in enumerate(ROWS) if mine == name]
        wanted = steps(generate(single.double(), batch))
        torch.testing.assert_close(found[:, own], wanted[:, own], rtol=0.0, atol=1e-10)


#: Methods of nobody's, each with what it is told.
UNABLE: dict[str, tuple[str, dict[str, Any], str]] = {
    "prompt of a decoder that counts by itself": (
        "bart",
        DECODER,
        "BartDecoder takes no position_ids to count without",
    ),
    "prompt that stays": (
        "bert",
        {**PROMPT, "composition": {"name": "concat", "keep_outputs": True}},
        "keeps the outputs at its tokens",
    ),
    "prompt of images": ("vit", PROMPT, "ViTModel takes no mask that hides them"),
    "shifted bias": (
        "t5",
        {
            "function": {"name": "prefix", "size": 2},
            "position": "attn.heads",
            "composition": {"name": "gated", "shift_bias": True},
        },
        "moves the relative position bias",
    ),
    "prefix in a flash kernel": (
        "bert",
        {"function": {"name": "prefix", "size": 2}, "position": "attn.heads", "composition": "gated"},
        "a flash attention kernel takes no mask",
    ),
    "mean over padding": ("bert", {**GATED, "scaling": {"name": "input_gate", "pool": "all"}}, "'p' adds some"),
}


@pytest.mark.parametrize("case", list(UNABLE))
def test_options_that_cannot_share_a_forward_pass_are_refused(case: str) -> None:
    arch, insertion, why = UNABLE[case]
    model = ARCHS[arch].build()
    if "flash" in case:
        model.config._attn_implementation = "flash_attention_2"  # past the check that its kernel is installed
    if "padding" in case:
        unipet.adapt(model, {"name": "p", "insertions": {"prompt": PROMPT}}, name="p")
    unipet.adapt(model, {"name": "x", "insertions": {"it": insertion}}, name="a")
    state, around = values(model), untouched(model)
    with pytest.raises(unipet.UnipetError, match=f"rows: 'a' cannot share a forward pass with others: 'it' .*{why}"):
        unipet.rows(model, ["a", None, *unipet.adaptations(model)])
    assert same_bits(model.state_dict(), state) and untouched(model) == around


def test_two_loaded_adapters_of_different_types_serve_one_batch(tmp_path: Path) -> None:
    base = ARCHS["bert"].build()
    singles = {"a": alone("bert", "mam", 1), "b": alone("bert", "unipelt", 2)}
    for name, single in singles.items():
        unipet.save(single, tmp_path / name)
        unipet.load(base, tmp_path / name, name=name)
    parts: dict[str | None, Tensor] = {name: logits("bert", single) for name, single in singles.items()}
    parts[None] = logits("bert", ARCHS["bert"].build())
    for _ in range(2):
        unipet.rows(base, ROWS)
        assert_close(logits("bert", base), expected(parts))
    unipet.rows(base, ("b", "b", "a", None))  # another batch of the same adaptations
    assert_close(logits("bert", base), torch.stack([parts[n][i] for i, n in enumerate(("b", "b", "a", None))]))
    unipet.use(base, "a")
    assert torch.equal(logits("bert", base), parts["a"])


def test_each_head_trains_on_its_own_rows_and_is_kept() -> None:
    model = together("bert", "mam")
    unipet.rows(model, ROWS)
    owned = {name: unipet.parameters(model, head=True, name=name) for name in ("a", "b")}
    with_loss("bert", model, ARCHS["bert"].batch(len(ROWS))).loss.backward()
    with torch.no_grad():
        for tensors in owned.values():
            for p in tensors.values():
                if p.grad is not None:
                    p.sub_(p.grad, alpha=0.1)
    trained = {name: {key: p.clone() for key, p in tensors.items()} for name, tensors in owned.items()}
    for name, wanted in trained.items():
        unipet.use(model, name)
        assert same_bits(unipet.parameters(model, head=True), wanted)
    unipet.eject(model)
    assert same_bits(model.state_dict(), ARCHS["bert"].build().state_dict())


def test_checkpointed_layers_run_again_with_the_rows_of_their_pass() -> None:
    model = together("bert", "mam", "adapter")  # neither has dropout
    unipet.rows(model, ROWS)
    model.train()
    plain = gradients(model)
    model.activation_checkpointing_enable({"use_reentrant": False})
    loss = with_loss("bert", model, ARCHS["bert"].batch(len(ROWS))).loss
    unipet.rows(model, ROWS[::-1])
    with_loss("bert", model, ARCHS["bert"].batch(len(ROWS)))
    loss.backward()
    for name, grad in plain.items():
        assert_close(taken(model)[name], grad)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    with_loss("bert", model, ARCHS["bert"].batch(len(ROWS))).loss.backward()
    found = taken(model)
    model.zero_grad(set_to_none=True)
    return found


def taken(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{own} {name}": p.grad.clone()
        for own in ("a", "b")
        for name, p in unipet.parameters(model, head=True, name=own).items()
        if p.grad is not None
    }


def test_a_wrapper_around_the_model_is_looked_through() -> None:
    model = together("bert", "mam")
    wrapped = nn.DataParallel(model)
    unipet.use(wrapped, "a")
    said = logits("bert", model)
    unipet.rows(wrapped, ROWS)
    with unipet.disabled(wrapped):
        assert torch.equal(logits("bert", wrapped), logits("bert", ARCHS["bert"].build()))
    assert_close(logits("bert", wrapped)[3], said[3])
    unipet.eject(wrapped, "b")
    assert unipet.adaptations(wrapped) == ["a"] and torch.equal(logits("bert", wrapped), said)


def test_a_model_that_carries_nothing() -> None:
    model = ARCHS["bert"].build()
    around = untouched(model)
    assert unipet.adaptations(model) == []
    with pytest.raises(unipet.UnipetError, match="name: unknown 'a'"):
        unipet.use(model, "a")
    with pytest.raises(unipet.UnipetError, match="carries no method"):
        unipet.rows(model, [None, None])
    with unipet.disabled(model):
        pass
    assert untouched(model) == around


def test_an_adaptation_can_come_and_go_while_none_is_in_use() -> None:
    model = together("bert", "mam")
    said = logits("bert", model)
    with unipet.disabled(model):
        with pytest.raises(unipet.UnipetError, match=r"No adaptation is in use.* model carries 'a', 'b'"):
            unipet.parameters(model)
        adapt(model, "ia3", 3, "c")
        assert torch.equal(logits("bert", model), logits("bert", alone("bert", "ia3", 3)))
        unipet.eject(model, "a")
    assert unipet.adaptations(model) == ["b", "c"] and torch.equal(logits("bert", model), said)


def test_rows_that_are_not_those_of_the_batch_are_an_error() -> None:
    model = together("bert", "mam")
    for names, message in (
        (["a", "c"], "rows: unknown 'c'. Allowed: a, b"),
        ("ab", "rows: 'ab' given; allowed: a list"),
        ([], r"rows: \[\] given"),
    ):
        with pytest.raises(unipet.UnipetError, match=message):
            unipet.rows(model, names)
    unipet.rows(model, ["a", "b", None])
    with pytest.raises(unipet.UnipetError, match="names 3 rows, but this batch has 4"):
        logits("bert", model)
    with pytest.raises(unipet.UnipetError, match="'b' is not in use on all rows"):
        unipet.eject(model, "a")
        unipet.rows(model, ["b", None])
        unipet.merge(model)
