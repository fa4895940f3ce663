"""The walk of test_parity.py on oracles of other sizes: written here by the installed peft, read like those of the directory.

More layers, another width, other heads, ranks, factors and lengths than the oracles beside the checkout have.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from tests.adaptation.test_parity import case_of, why_not_covered
from tests.support import oracle_reading
from tests.support.oracle_comparing import agree

# peft 0.21 asks transformers by a name that 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

_SIZES = {
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "intermediate_size": 60,
    "vocab_size": 40,
}
BERT = ("BertModel", "BertConfig", {**_SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
LLAMA = ("LlamaModel", "LlamaConfig", {**_SIZES, "num_key_value_heads": 3})
LM = ("LlamaForCausalLM", "LlamaConfig", {**_SIZES, "num_key_value_heads": 2, "use_cache": False})
GPT2 = ("GPT2Model", "GPT2Config", {"n_embd": 48, "n_head": 4, "n_layer": 3, "n_positions": 30, "vocab_size": 40})
GPT2[2].update(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, bos_token_id=1, eos_token_id=2)
BERT_ALL, LLAMA_SOME = ["query", "intermediate.dense", "output.dense"], ["q_proj", "v_proj", "down_proj"]

#: name -> (base model, peft's configuration, peft's name of a tensor -> the oracle's)
CASES: dict[str, tuple[Any, Callable[[], Any], dict[str, str]]] = {
    "lora": (
        BERT,
        lambda: peft.LoraConfig(r=5, lora_alpha=7, target_modules=BERT_ALL),
        {"lora_A.default.weight": "lora_A", "lora_B.default.weight": "lora_B"},
    ),
    "lora_fused": (
        GPT2,
        lambda: peft.LoraConfig(r=2, lora_alpha=9, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True),
        {"lora_A.default.weight": "lora_A", "lora_B.default.weight": "lora_B"},
    ),
    "rslora": (
        LLAMA,
        lambda: peft.LoraConfig(r=6, lora_alpha=3, use_rslora=True, target_modules=LLAMA_SOME),
        {"lora_A.default.weight": "lora_A", "lora_B.default.weight": "lora_B"},
    ),
    "dora": (
        LLAMA,
        lambda: peft.LoraConfig(r=3, lora_alpha=11, use_dora=True, target_modules=LLAMA_SOME),
        {
            "lora_A.default.weight": "lora_A",
            "lora_B.default.weight": "lora_B",
            "lora_magnitude_vector.default.weight": "magnitude",
        },
    ),
    "loha": (
        BERT,
        lambda: peft.LoHaConfig(r=3, alpha=5, target_modules=BERT_ALL),
        {f"hada_w{i}_{x}.default": f"hada_w{i}_{x}" for i in (1, 2) for x in "ab"},
    ),
    "lokr": (
        LLAMA,
        lambda: peft.LoKrConfig(r=2, alpha=3, decompose_factor=4, target_modules=LLAMA_SOME),
        {f"lokr_{name}.default": f"lokr_{name}" for name in ("w1", "w2", "w2_a", "w2_b")},
    ),
    "hira": (
        BERT,
        lambda: peft.HiraConfig(r=7, target_modules=BERT_ALL),
        {"hira_A.default": "hira_A", "hira_B.default": "hira_B"},
    ),
    "oft": (
        LLAMA,
        lambda: peft.OFTConfig(r=0, oft_block_size=6, target_modules=LLAMA_SOME),
        {"oft_R.default.weight": "oft_R"},
    ),
    # C3A is left out: the gradient that peft returns of its kernel is not the kernel's.
    "hra": (BERT, lambda: peft.HRAConfig(r=6, target_modules=BERT_ALL), {"hra_u.default": "hra_u"}),
    "road": (
        LLAMA,
        lambda: peft.RoadConfig(variant="road_2", group_size=6, target_modules=LLAMA_SOME),
        {"road_theta.default": "road_theta", "road_alpha.default": "road_alpha"},
    ),
    "miss": (LLAMA, lambda: peft.MissConfig(r=6, target_modules=LLAMA_SOME), {"miss_block.default": "miss_block"}),
    "prefix": (
        LM,
        lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
        {"prompt_encoder.default.embedding.weight": ""},
    ),
}
MODES = {**CASES, "prompt": (LM, lambda: peft.PromptTuningConfig(num_virtual_tokens=7, task_type="CAUSAL_LM"), {})}


def columns_of(table: Tensor, layers: int, kv_heads: int) -> dict[str, Tensor]:
    """A prefix of all layers as the oracles have it: keys and values of each, (l, heads, width)."""
    pieces = table.view(len(table), 2 * layers, kv_heads, -1).unbind(1)
    return {f"model.layers.{i // 2}.attn/prefix_{'kv'[i % 2]}": piece for i, piece in enumerate(pieces)}


def tensors_of(theirs: Any, name: str, kind: str, value: Callable[[Any], Tensor | None]) -> dict[str, Tensor]:
    """`value` of each of peft's trained parameters under the oracle's key."""
    found: dict[str, Tensor] = {}
    for full, parameter in theirs.named_parameters():
        if not parameter.requires_grad:
            continue
        one = value(parameter)
        assert one is not None, full
        if name == "prefix":
            found |= {f"{kind}/{key}": piece.clone() for key, piece in columns_of(one, 3, 2).items()}
        elif name == "prompt":
            found[f"{kind}/prompt_encoder/prompt"] = one.clone()
        else:
            suffix = next(suffix for suffix in MODES[name][2] if full.endswith(f".{suffix}"))
            path = full.removeprefix("base_model.model.").removesuffix(f".{suffix}")
            found[f"{kind}/{path}/{MODES[name][2][suffix]}"] = one.clone()
    return found


def write(directory: Path, name: str) -> None:
    """An oracle in the format of the directory: INDEX.json and one file of tensors."""
    (model_class, config_class, options), make, _ = MODES[name]
    torch.manual_seed(7)
    config = getattr(transformers, config_class)(**options, attn_implementation="eager")
    base = getattr(transformers, model_class)(config).eval()
    key = "logits" if model_class.endswith("LM") else "last_hidden_state"
    ids = torch.randint(1, 40, (3, 8))
    mask = (torch.arange(8) < torch.tensor([[8], [6], [5]])).long()
    tensors = {f"base/{path}": tensor.clone() for path, tensor in base.state_dict().items()}
    tensors |= {"input/input_ids": ids, "input/attention_mask": mask, "input/valid_mask": mask}
    tensors[f"out_base/{key}"] = base(input_ids=ids, attention_mask=mask)[key]
    theirs = peft.get_peft_model(base, make()).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.2)
    out = theirs(input_ids=ids, attention_mask=mask)[key]
    if out.shape[1] > mask.shape[1]:
        tensors["input/out_valid_mask"] = torch.cat([mask.new_ones(3, out.shape[1] - 8), mask], 1)
    probe = torch.randn(out.shape) * tensors.get("input/out_valid_mask", mask).unsqueeze(-1)
    loss = (out * probe).sum()
    loss.backward()
    tensors |= {f"out/{key}": out, "out/loss": loss, "probe": probe}
    tensors |= tensors_of(theirs, name, "delta", lambda parameter: parameter)
    tensors |= tensors_of(theirs, name, "grad", lambda parameter: parameter.grad)
    config_of = {k: v.value if hasattr(v, "value") else v for k, v in theirs.peft_config["default"].to_dict().items()}
    worst = max(float(tensor.abs().max()) for full, tensor in tensors.items() if full.startswith("grad/"))
    entry = {
        "group": "peft",
        "method": name,
        "method_config": config_of,
        "mods": [],
        "model": "base",
        "out_key": key,
        "file": f"{name}.safetensors",
        "tolerance": {"out_abs": 1e-5 * max(1.0, float(out.detach().abs().max())), "grad_abs": 2e-5 * max(1.0, worst)},
    }
    spec = {"config_full": options, "config_class": config_class, "model_class": model_class, "init_kwargs": {}}
    ready = {full: tensor.detach().clone().contiguous() for full, tensor in tensors.items()}
    save_file(ready, directory / entry["file"])
    text = json.dumps({"models": {"base": spec}, "oracles": {name: entry}}, default=sorted)
    (directory / "INDEX.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", MODES)
def test_other_sizes_agree(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, name)
    monkeypatch.setattr(oracle_reading, "ORACLES", tmp_path)
    index = json.loads((tmp_path / "INDEX.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(oracle_reading, "index", lambda: index)
    which = oracle_reading.oracle(name)
    assert why_not_covered(which.entry) is None
    base, changed = (which.tensors[f"{kind}/{which.entry['out_key']}"] for kind in ("out_base", "out"))
    assert (changed[:, -base.shape[1] :] - base).abs().max() > 1e-2, "it does nothing"
    agree(which, case_of)


def test_an_oracle_of_no_family_is_named() -> None:
    unknown = [
        {"group": "peft", "method": "lily", "method_config": {"peft_type": "LILY"}},
        {"group": "stranger", "method": "lora"},
        {"group": "adapters", "method": "new", "method_config": {"architecture": "new"}},
        {"group": "adapters", "method": "inv", "method_config": {"architecture": None, "inv_adapter": "nice"}},
    ]
    for entry in unknown:
        assert str(why_not_covered(entry)).startswith(f"no family covers '{entry['group']} {entry['method']}'")
    fault = {"group": "adapters", "method": "vera", "method_config": {"architecture": "lora", "vera_d": 0.1}}
    assert "full matrices" in str(why_not_covered(fault))
