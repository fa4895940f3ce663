"""Mixtral, and the decoders whose feed-forward blocks are routed experts as well: OLMoE, Qwen3-MoE, Qwen2-MoE.

Attention, norms and the dense layers that some of them have between are those of Llama.
"""

from dataclasses import replace

from unipet.calculus.sites.llama import DECODER
from unipet.calculus.sites.table import Architecture, HookPoint

_ROUTED = {
    "experts": (HookPoint("mlp.experts"),),
    "experts.gate": (HookPoint("mlp.experts", at="expert.gate"),),
    "experts.up": (HookPoint("mlp.experts", at="expert.up"),),
    "experts.mid": (HookPoint("mlp.experts", at="expert.mid"),),
    "experts.down": (HookPoint("mlp.experts", at="expert.down"),),
}
_SHARED = {
    "shared": (HookPoint("mlp.shared_expert"),),
    "shared.gate": (HookPoint("mlp.shared_expert.gate_proj"),),
    "shared.up": (HookPoint("mlp.shared_expert.up_proj"),),
    "shared.mid": (HookPoint("mlp.shared_expert.down_proj", at="input"),),
    "shared.down": (HookPoint("mlp.shared_expert.down_proj"),),
}
_NOT_DENSE = {
    f"ffn.{part}": f"its feed-forward blocks are experts: experts.{part} is in each of them, ffn is the block's output"
    for part in ("up", "gate", "mid", "down")
}
_NO_SHARED = dict.fromkeys(_SHARED, "all of its experts are routed; roles of these begin with experts")
_LLAMA = {**DECODER.roles, "ffn": (HookPoint("mlp"),)}
_DENSE = ("ffn.up", "ffn.gate", "ffn.mid", "ffn.down")

MIXTRAL = Architecture(
    name="mixtral",
    model_types=("mixtral", "olmoe", "qwen3_moe"),
    stacks={
        "decoder": replace(DECODER, roles={k: v for k, v in _LLAMA.items() if k not in _DENSE} | _ROUTED),
    },
    without={**_NOT_DENSE, **_NO_SHARED},
)
QWEN2_MOE = Architecture(
    name="qwen2_moe",
    model_types=("qwen2_moe",),
    stacks={"decoder": replace(DECODER, roles={**_LLAMA, **_ROUTED, **_SHARED})},
    without=_NOT_DENSE,
)
TABLES = (MIXTRAL, QWEN2_MOE)
