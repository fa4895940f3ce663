"""GPT-2: pre-norm decoder layers, fused query-key-value, Conv1D weights."""

from unipet.calculus.sites.table import Architecture, HookPoint, Stack

GPT2 = Architecture(
    name="gpt2",
    model_types=("gpt2",),
    stacks={
        "decoder": Stack(
            layers="h",
            roles={
                "attn.qkv": (HookPoint("attn.c_attn"),),
                "attn.q": (HookPoint("attn.c_attn", part=(0, 3)),),
                "attn.k": (HookPoint("attn.c_attn", part=(1, 3)),),
                "attn.v": (HookPoint("attn.c_attn", part=(2, 3)),),
                "attn.heads": (HookPoint("attn", at="heads"),),
                "attn.o": (HookPoint("attn.c_proj"),),
                "attn": (HookPoint("attn.c_proj", x="attn"),),
                "attn.post": (HookPoint("ln_2", x="attn", at="stream"),),
                "ffn.up": (HookPoint("mlp.c_fc"),),
                "ffn.mid": (HookPoint("mlp.c_proj", at="input"),),
                "ffn.down": (HookPoint("mlp.c_proj"),),
                "ffn": (HookPoint("mlp.c_proj", x="mlp"),),
                "ffn.post": (HookPoint("", x="mlp"),),
                "layer": (HookPoint(""),),
                "norm": (HookPoint("ln_1"), HookPoint("ln_2")),
            },
            outside={"embed": (HookPoint("drop", x="wte", at="input"),), "norm": (HookPoint("ln_f"),)},
            norms={"attn": "ln_1", "ffn": "ln_2"},
            causal=True,
        )
    },
)
TABLES = (GPT2,)
