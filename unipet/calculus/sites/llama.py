"""Llama, and the decoders that share its layers: Mistral, Qwen2, Qwen3, Gemma."""

from unipet.calculus.sites.table import Architecture, Stack, Tap

DECODER = Stack(
    layers="layers",
    roles={
        "attn.q": (Tap("self_attn.q_proj"),),
        "attn.k": (Tap("self_attn.k_proj"),),
        "attn.v": (Tap("self_attn.v_proj"),),
        "attn.heads": (Tap("self_attn", at="heads"),),
        "attn.o": (Tap("self_attn.o_proj"),),
        "attn": (Tap("self_attn.o_proj", x="self_attn"),),
        "attn.post": (Tap("post_attention_layernorm", x="self_attn", at="stream"),),
        "ffn.up": (Tap("mlp.up_proj"),),
        "ffn.gate": (Tap("mlp.gate_proj"),),
        "ffn.mid": (Tap("mlp.down_proj", at="input"),),
        "ffn.down": (Tap("mlp.down_proj"),),
        "ffn": (Tap("mlp.down_proj", x="mlp"),),
        "ffn.post": (Tap("", x="mlp"),),
        "layer": (Tap(""),),
        "norm": (Tap("input_layernorm"), Tap("post_attention_layernorm")),
    },
    outside={"embed": (Tap("embed_tokens"),), "norm": (Tap("norm"),)},
    norms={"attn": "input_layernorm", "ffn": "post_attention_layernorm"},
    causal=True,
)
LLAMA = Architecture(name="llama", model_types=("llama", "mistral", "qwen2", "qwen3"), stacks={"decoder": DECODER})
TABLES = (LLAMA,)
