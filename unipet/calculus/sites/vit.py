"""ViT: pre-norm encoder layers over image patches."""

from unipet.calculus.sites.table import Architecture, HookPoint, Stack

VIT = Architecture(
    name="vit",
    model_types=("vit",),
    without={"embed.tokens": "it reads images", "head.tokens": "it reads images"},
    stacks={
        "encoder": Stack(
            layers="layers",
            roles={
                "attn.q": (HookPoint("attention.q_proj"),),
                "attn.k": (HookPoint("attention.k_proj"),),
                "attn.v": (HookPoint("attention.v_proj"),),
                "attn.heads": (HookPoint("attention", at="heads"),),
                "attn.o": (HookPoint("attention.o_proj"),),
                "attn": (HookPoint("attention.o_proj", x="attention"),),
                "attn.post": (HookPoint("layernorm_after", x="attention", at="stream"),),
                "ffn.up": (HookPoint("mlp.fc1"),),
                "ffn.mid": (HookPoint("mlp.fc2", at="input"),),
                "ffn.down": (HookPoint("mlp.fc2"),),
                "ffn": (HookPoint("mlp.fc2", x="mlp"),),
                "ffn.post": (HookPoint("", x="mlp"),),
                "layer": (HookPoint(""),),
                "norm": (HookPoint("layernorm_before"), HookPoint("layernorm_after")),
            },
            outside={"embed": (HookPoint("embeddings"),), "norm": (HookPoint("layernorm"),)},
            norms={"attn": "layernorm_before", "ffn": "layernorm_after"},
        )
    },
)
TABLES = (VIT,)
