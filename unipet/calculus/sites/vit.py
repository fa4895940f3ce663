"""ViT: pre-norm encoder layers over image patches."""

from unipet.calculus.sites.table import Architecture, Stack, Tap

VIT = Architecture(
    name="vit",
    model_types=("vit",),
    without={"embed.tokens": "it reads images", "head.tokens": "it reads images"},
    stacks={
        "encoder": Stack(
            layers="layers",
            roles={
                "attn.q": (Tap("attention.q_proj"),),
                "attn.k": (Tap("attention.k_proj"),),
                "attn.v": (Tap("attention.v_proj"),),
                "attn.heads": (Tap("attention", at="heads"),),
                "attn.o": (Tap("attention.o_proj"),),
                "attn": (Tap("attention.o_proj", x="attention"),),
                "attn.post": (Tap("layernorm_after", x="attention", at="stream"),),
                "ffn.up": (Tap("mlp.fc1"),),
                "ffn.mid": (Tap("mlp.fc2", at="input"),),
                "ffn.down": (Tap("mlp.fc2"),),
                "ffn": (Tap("mlp.fc2", x="mlp"),),
                "ffn.post": (Tap("", x="mlp"),),
                "layer": (Tap(""),),
                "norm": (Tap("layernorm_before"), Tap("layernorm_after")),
            },
            outside={"embed": (Tap("embeddings"),), "norm": (Tap("layernorm"),)},
            norms={"attn": "layernorm_before", "ffn": "layernorm_after"},
        )
    },
)
TABLES = (VIT,)
