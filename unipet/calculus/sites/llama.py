"""Llama, and the decoders that share its layers: Mistral, Qwen2, Qwen3, Gemma."""

from unipet.calculus.sites.table import Architecture, HookPoint, Stack

DECODER = Stack(
    layers="layers",
    roles={
        "attn.q": (HookPoint("self_attn.q_proj"),),
        "attn.k": (HookPoint("self_attn.k_proj"),),
        "attn.v": (HookPoint("self_attn.v_proj"),),
        "attn.heads": (HookPoint("self_attn", at="heads"),),
        "attn.o": (HookPoint("self_attn.o_proj"),),
        "attn": (HookPoint("self_attn.o_proj", x="self_attn"),),
        "attn.post": (HookPoint("post_attention_layernorm", x="self_attn", at="stream"),),
        "ffn.up": (HookPoint("mlp.up_proj"),),
        "ffn.gate": (HookPoint("mlp.gate_proj"),),
        "ffn.mid": (HookPoint("mlp.down_proj", at="input"),),
        "ffn.down": (HookPoint("mlp.down_proj"),),
        "ffn": (HookPoint("mlp.down_proj", x="mlp"),),
        "ffn.post": (HookPoint("", x="mlp"),),
        "layer": (HookPoint(""),),
        "norm": (HookPoint("input_layernorm"), HookPoint("post_attention_layernorm")),
    },
    outside={"embed": (HookPoint("embed_tokens"),), "norm": (HookPoint("norm"),)},
    norms={"attn": "input_layernorm", "ffn": "post_attention_layernorm"},
    causal=True,
)
LLAMA = Architecture(name="llama", model_types=("llama", "mistral", "qwen2", "qwen3"), stacks={"decoder": DECODER})
TABLES = (LLAMA,)
