"""GPT-NeoX and Pythia: query, key and value of each head side by side; attention and feed-forward in parallel or not."""

from dataclasses import replace

from unipet.calculus.sites.table import Architecture, HookPoint, Stack

_DECODER = Stack(
    layers="layers",
    roles={
        "attn.qkv": (HookPoint("attention.query_key_value"),),
        "attn.q": (HookPoint("attention.query_key_value", part=(0, 3), per_head=True),),
        "attn.k": (HookPoint("attention.query_key_value", part=(1, 3), per_head=True),),
        "attn.v": (HookPoint("attention.query_key_value", part=(2, 3), per_head=True),),
        "attn.heads": (HookPoint("attention", at="heads"),),
        "attn.o": (HookPoint("attention.dense"),),
        "attn": (HookPoint("attention.dense", x="attention"),),
        "ffn.up": (HookPoint("mlp.dense_h_to_4h"),),
        "ffn.mid": (HookPoint("mlp.dense_4h_to_h", at="input"),),
        "ffn.down": (HookPoint("mlp.dense_4h_to_h"),),
        "ffn": (HookPoint("mlp.dense_4h_to_h", x="mlp"),),
        "ffn.post": (HookPoint("", x="mlp"),),
        "layer": (HookPoint(""),),
        "norm": (HookPoint("input_layernorm"), HookPoint("post_attention_layernorm")),
    },
    outside={"embed": (HookPoint("embed_in"),), "norm": (HookPoint("final_layer_norm"),)},
    norms={"attn": "input_layernorm", "ffn": "post_attention_layernorm"},
    causal=True,
)
GPT_NEOX = Architecture(
    name="gpt_neox",
    model_types=("gpt_neox",),
    stacks={"decoder": replace(_DECODER, parallel=True)},
    when={"use_parallel_residual": True},
    without={"attn.post": "attention and feed-forward read the same stream and are added together"},
)
GPT_NEOX_SERIAL = replace(
    GPT_NEOX,
    name="gpt_neox_serial",
    stacks={
        "decoder": replace(
            _DECODER,
            roles={**_DECODER.roles, "attn.post": (HookPoint("post_attention_layernorm", x="attention", at="stream"),)},
        )
    },
    when={"use_parallel_residual": False},
    without={},
)
TABLES = (GPT_NEOX, GPT_NEOX_SERIAL)
