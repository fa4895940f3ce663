"""GPT-2: pre-norm decoder layers, fused query-key-value, Conv1D weights."""

from unipet.calculus.sites.table import Architecture, Stack, Tap

GPT2 = Architecture(
    name="gpt2",
    model_types=("gpt2",),
    stacks={
        "decoder": Stack(
            layers="h",
            roles={
                "attn.qkv": (Tap("attn.c_attn"),),
                "attn.q": (Tap("attn.c_attn", part=(0, 3)),),
                "attn.k": (Tap("attn.c_attn", part=(1, 3)),),
                "attn.v": (Tap("attn.c_attn", part=(2, 3)),),
                "attn.heads": (Tap("attn", at="heads"),),
                "attn.o": (Tap("attn.c_proj"),),
                "attn": (Tap("attn.c_proj", x="attn"),),
                "attn.post": (Tap("ln_2", x="attn", at="stream"),),
                "ffn.up": (Tap("mlp.c_fc"),),
                "ffn.mid": (Tap("mlp.c_proj", at="input"),),
                "ffn.down": (Tap("mlp.c_proj"),),
                "ffn": (Tap("mlp.c_proj", x="mlp"),),
                "ffn.post": (Tap("", x="mlp"),),
                "layer": (Tap(""),),
                "norm": (Tap("ln_1"), Tap("ln_2")),
            },
            outside={"embed": (Tap("drop", x="wte", at="input"),), "norm": (Tap("ln_f"),)},
            norms={"attn": "ln_1", "ffn": "ln_2"},
            causal=True,
        )
    },
)
TABLES = (GPT2,)
