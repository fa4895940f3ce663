"""Insertions in the routed experts of a base model: each expert computes as if its own weights were changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import HIDDEN, SPARSE
from tests.support.matrix import close, deep_copy, randomise, same_bits, values
from tests.support.tasks import config_of, tokenizer
from unipet.adaptation.adapted import adaptation
from unipet.calculus.library import load_method
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs.run import run
from unipet.training.compiling import check_compile

everywhere = pytest.mark.parametrize("arch", list(SPARSE))
LOW_RANK: dict[str, Any] = {"name": "low_rank", "size": 3}
INNER = {"mixtral": 48, "olmoe": 48, "qwen3_moe": 24, "qwen2_moe": 24}
EXPERTS = 4
SPARSE_LAYERS = {"mixtral": [0, 1], "olmoe": [0, 1], "qwen3_moe": [0, 1], "qwen2_moe": [0, 2]}


def method(site: list[str] | str, function: Any = LOW_RANK, **more: Any) -> dict[str, Any]:
    position = {"site": site, **more.pop("position", {})}
    return {"name": "inside", "insertions": {"one": {"function": function, "position": position, **more}}}


def says(model: nn.Module, arch: str, batch: dict[str, Tensor] | None = None) -> Tensor:
    batch = batch or SPARSE[arch].batch(4, 9)
    with torch.inference_mode():
        return SPARSE[arch].real(batch, model(**batch, use_cache=False).logits)


def experts_of(model: Any) -> list[Any]:
    """The modules of experts, found without a table."""
    return [module for module in model.modules() if hasattr(module, "gate_up_proj") and module.gate_up_proj.dim() == 3]


def adapted(arch: str, spec: dict[str, Any], std: float = 0.3) -> Any:
    model = SPARSE[arch].build()
    torch.manual_seed(0)
    unipet.adapt(model, spec)
    randomise(model, std)
    return model


@everywhere
def test_counts_by_hand_and_the_report_tells_routed_from_shared(arch: str) -> None:
    roles = ["experts.up", "experts.down", "shared.up", "shared.down"]
    spec = method(roles, position={"optional": ["shared.up", "shared.down"]})
    report = unipet.adapt(SPARSE[arch].build(), spec)
    (row,) = report.insertions
    layers, inner = len(SPARSE_LAYERS[arch]), INNER[arch]
    routed = layers * EXPERTS * 2 * 3 * (HIDDEN + inner)
    shared = layers * 2 * 3 * (HIDDEN + 40) if arch == "qwen2_moe" else 0
    assert row.experts["routed"] == {"sites": layers * EXPERTS * 2, "parameters": routed}
    assert row.experts.get("shared", {}).get("parameters", 0) == shared
    assert row.parameters == report.trainable == routed + shared
    assert f"{routed:,} parameters at {layers * EXPERTS * 2:,} sites of routed experts" in report.table()
    assert ("of shared experts" in report.table()) == bool(shared)
    first = SPARSE_LAYERS[arch][0]
    assert row.modules[0] == f"model.layers.{first}.mlp.experts.0.up"
    assert len(set(row.modules)) == len(row.modules)


def test_methods_elsewhere_say_nothing_of_experts() -> None:
    report = unipet.adapt(SPARSE["mixtral"].build(), method("attn.q"))
    assert not report.insertions[0].experts and "experts" not in report.to_dict()["insertions"][0]


@everywhere
@pytest.mark.parametrize("role", ["gate", "up", "down"])
def test_an_expert_computes_as_with_the_weight_changed_by_hand(arch: str, role: str) -> None:
    """h + s B A x against transformers' own experts with W + s B A in the slice."""
    spec = method(f"experts.{role}", scaling=2.0)
    model, other = adapted(arch, spec), SPARSE[arch].build()
    by_site = {item.site.name: item for item in adaptation(model).items}
    paths = {module: path for path, module in other.named_modules()}
    with torch.no_grad():
        for experts in experts_of(other):
            for number in range(EXPERTS):
                item = by_site[f"{paths[experts]}.{number}.{role}"]
                tensors = {name.rpartition(".")[2]: t for name, t in item.tensors.named_parameters()}
                assert len(tensors) in (1, 2)
                (down,) = (t for n, t in item.tensors.named_parameters() if "down" in n)
                (up,) = (t for n, t in item.tensors.named_parameters() if "up" in n)
                change = 2.0 * up @ down
                slice_ = experts.down_proj[number]
                if role != "down":
                    half = slice(0, INNER[arch]) if role == "gate" else slice(INNER[arch], None)
                    slice_ = experts.gate_up_proj[number][half]
                slice_ += change
    assert not close(says(model, arch), says(SPARSE[arch].build(), arch))
    assert close(says(model, arch), says(other, arch))


@everywhere
def test_before_training_and_after_ejecting_it_is_the_base_model_bit_for_bit(arch: str) -> None:
    base = SPARSE[arch].build()
    before, weights = says(base, arch), values(base)
    unipet.adapt(base, method(["experts.gate", "experts.up", "experts.down"]))
    assert close(says(base, arch), before, 1e-6), "an activation of what lies otherwise in memory may round otherwise"
    unipet.eject(base)
    unipet.adapt(base, method("experts.down"))
    assert torch.equal(says(base, arch), before), "eager experts, in the same order"
    randomise(base)
    assert not torch.equal(says(base, arch), before)
    unipet.eject(base)
    assert torch.equal(says(base, arch), before) and same_bits(values(base), weights)
    assert all("forward" not in vars(module) for module in experts_of(base))


@everywhere
@pytest.mark.parametrize(
    "spec",
    [
        method(["experts.gate", "experts.up", "experts.down"]),
        method(["experts.up", "experts.down"], composition="normalise"),
        method("experts.down", composition="hadamard"),
        method("experts.mid", "vector", composition="multiply", position={"form": "sequential"}),
        method(["experts.mid", "experts.down"], "vector", composition="multiply", position={"form": "sequential"}),
    ],
    ids=["low_rank", "normalise", "hadamard", "vector at mid", "vectors at mid and down"],
)
def test_it_merges_into_the_slices(arch: str, spec: dict[str, Any]) -> None:
    model = adapted(arch, spec, std=0.2)
    before = says(model, arch)
    weights = values(SPARSE[arch].build())
    assert not close(before, says(SPARSE[arch].build(), arch))
    assert unipet.merge(model) == {"one": "folded"}
    assert close(says(model, arch), before)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, weights[name])}
    assert changed and all(".mlp.experts." in name for name in changed)
    assert model.state_dict().keys() == weights.keys()


@everywhere
def test_every_expert_that_a_token_chose_learns_and_no_other(arch: str) -> None:
    model = adapted(arch, method(["experts.up", "experts.down"]))
    chosen: dict[str, set[int]] = {}
    for path, module in model.named_modules():
        if module in experts_of(model):
            inner = module.forward

            def watched(h: Tensor, index: Tensor, weight: Tensor, inner: Any = inner, path: str = path) -> Tensor:
                chosen.setdefault(path, set()).update(index.unique().tolist())
                return inner(h, index, weight)

            module.forward = watched
    token = SPARSE[arch].batch(1, 3)["input_ids"][:, :1]  # which two of four experts take
    model(input_ids=token, use_cache=False).logits.square().mean().backward()
    learned = {name for name, each in unipet.parameters(model).items() if each.grad is not None and each.grad.any()}
    wanted = {
        name
        for name in unipet.parameters(model)
        for path, numbers in chosen.items()
        if any(f"{path}.{number}." in name.replace("/", ".") for number in numbers)
    }
    assert learned == wanted and len(wanted) < len(unipet.parameters(model))
    assert all(each.grad is None for name, each in model.named_parameters() if not name.startswith("_unipet"))


@everywhere
def test_it_is_saved_and_loaded(arch: str, tmp_path: Path) -> None:
    model = adapted(arch, method(["experts.up", "experts.down"]))
    unipet.save(model, tmp_path / "adapter")
    again = SPARSE[arch].build()
    unipet.load(again, tmp_path / "adapter")
    assert torch.equal(says(again, arch), says(model, arch))


@everywhere
@pytest.mark.parametrize(
    "spec",
    [
        load_method("lora").to_dict(),
        load_method("adapter").to_dict(),
        load_method("parallel_adapter").to_dict(),
        load_method("prefix").to_dict(),
        method("experts", {"name": "bottleneck", "size": 4}, position={"form": "sequential"}),
        method("experts", mixture={"experts": 3, "router": "per_example"}),
        method("ffn", position={"tokens": "first:2"}),
        method("ffn.post", {"name": "bottleneck", "size": 4}),
    ],
    ids=["lora", "adapter", "parallel_adapter", "prefix", "experts", "mixture at experts", "tokens at ffn", "ffn.post"],
)
def test_methods_act_on_the_block_as_a_whole(arch: str, spec: dict[str, Any]) -> None:
    base = SPARSE[arch].build()
    before = says(base, arch)
    report = unipet.adapt(base, spec)
    randomise(base)
    owned = unipet.parameters(base)
    assert sum(each.numel() for each in owned.values()) == report.trainable
    base.train()
    adaptation(base).draw(0, 0)
    batch = SPARSE[arch].batch()
    base(**batch, use_cache=False, labels=SPARSE[arch].labels(batch)).loss.backward()
    assert any(each.grad is not None and each.grad.any() for each in owned.values())
    base.eval()
    assert not torch.equal(says(base, arch), before)
    unipet.eject(base)
    assert torch.equal(says(base, arch), before)


def test_recomputed_activations_give_the_same_gradients() -> None:
    def gradients(again: bool) -> dict[str, Tensor]:
        model = adapted("qwen2_moe", method(["experts.up", "shared.down"]))
        model.train()
        if again:
            model.activation_checkpointing_enable({"use_reentrant": False})
        batch = SPARSE["qwen2_moe"].batch()
        model(**batch, use_cache=False, labels=SPARSE["qwen2_moe"].labels(batch)).loss.backward()
        return {name: each.grad for name, each in unipet.parameters(model).items() if each.grad is not None}

    plain, other = gradients(False), gradients(True)
    assert plain.keys() == other.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(other[name], gradient)


@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm"])
def test_other_implementations_are_computed_up_to_rounding_and_come_back(implementation: str) -> None:
    model = SPARSE["mixtral"].build()
    model.set_experts_implementation(implementation)
    before = says(model, "mixtral")
    unipet.adapt(model, method("experts.up"))
    assert close(says(model, "mixtral"), before)
    unipet.eject(model)
    assert torch.equal(says(model, "mixtral"), before)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (method("experts.up", mixture={"experts": 2}), "one.mixture: not at experts.up"),
        (method("experts.up", position={"tokens": "first:1"}), "one.position.tokens: not at experts.up"),
        (method("experts.up", scaling="input_gate"), "one.scaling: not at experts.up"),
        (method("experts.mid"), "is an activation, it has no x of its own"),
        (method("ffn.up"), "its feed-forward blocks are experts: experts.up is in each of them"),
        (method("shared.up"), "all of its experts are routed"),
        (method("experts.up", position={"side": "input", "form": "sequential"}), "position.side"),
        (method("experts.up", position={"input": "pre_norm"}), "Use post_norm"),
    ],
    ids=["mixture", "tokens", "gate", "mid in parallel", "ffn.up", "shared", "side", "pre_norm"],
)
def test_what_cannot_be_inside_is_refused_with_the_reason(spec: dict[str, Any], said: str) -> None:
    model = SPARSE["mixtral"].build()
    before = says(model, "mixtral")
    with pytest.raises(UnipetError) as error:
        unipet.adapt(model, spec)
    assert said in str(error.value)
    assert torch.equal(says(model, "mixtral"), before)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("has_bias", True, "its experts have biases"),
        ("is_transposed", True, "its experts' weights are transposed"),
        ("is_concatenated", False, "interleaved"),
        ("_is_expert_parallel", True, "spread over devices"),
        ("down_proj", None, "does not keep its experts as"),
    ],
)
def test_experts_of_another_kind_are_refused_by_name(name: str, value: Any, said: str) -> None:
    model = SPARSE["mixtral"].build()
    for module in experts_of(model):
        setattr(module, name, value)
    with pytest.raises(UnipetError, match=r"nothing can act at experts\.up") as error:
        unipet.adapt(model, method("experts.up"))
    assert said in str(error.value) and "Use experts, or ffn." in str(error.value)
    unipet.adapt(model, method("experts"))


def test_rows_of_several_adaptations_do_not_meet_in_experts() -> None:
    model = SPARSE["mixtral"].build()
    unipet.adapt(model, method("experts.up"), name="a")
    unipet.adapt(model, method("attn.q"), name="b")
    with pytest.raises(UnipetError, match="inside of experts, where the tokens of all rows meet"):
        unipet.rows(model, ["a", "b"])
    before = says(model, "mixtral")
    unipet.use(model, "a")
    randomise(model)
    assert not close(says(model, "mixtral"), before)


def test_compiled_steps_are_refused() -> None:
    config = replace(RunConfig(), compile=True)
    with pytest.raises(UnipetError, match=r"is at experts\.up, inside of experts"):
        check_compile(config, load_method(method("experts.up")))


def test_a_copied_model_has_its_own_experts() -> None:
    model = adapted("mixtral", method("experts.down"))
    before = says(model, "mixtral")
    copied = deep_copy(model)
    randomise(model, seed=5)
    assert torch.equal(says(copied, "mixtral"), before) or not torch.equal(says(model, "mixtral"), before)


def test_a_run_records_routed_and_shared_and_is_certified(tmp_path: Path) -> None:
    path = tmp_path / "model"
    made = SPARSE["qwen2_moe"].build()
    made.generation_config.pad_token_id = 0
    made.save_pretrained(path)
    tokenizer().save_pretrained(path)
    roles = ["experts.up", "shared.down"]  # a dense layer between has neither
    config = config_of("causal_generation", tmp_path, path, method(roles, position={"optional": roles}))
    record = run(config)
    assert record["status"] == "ok", record["error"]
    (row,) = record["insertions"]
    assert record["memory"]["predicted_gib"], "a step is measured without tokens that choose"
    assert row["experts"]["routed"]["sites"] == 8 and row["experts"]["shared"]["sites"] == 2
    failed = [name for name, check in record["certificate"]["checks"].items() if check["status"] == "failed"]
    assert not failed, record["certificate"]
