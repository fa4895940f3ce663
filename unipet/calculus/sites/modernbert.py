"""ModernBERT: pre-norm encoder layers, fused query-key-value and gated feed-forward, without a norm before the first."""

from unipet.calculus.sites.table import Architecture, Stack, Tap

MODERNBERT = Architecture(
    name="modernbert",
    model_types=("modernbert",),
    stacks={
        "encoder": Stack(
            layers="layers",
            roles={
                "attn.qkv": (Tap("attn.Wqkv"),),
                "attn.q": (Tap("attn.Wqkv", part=(0, 3)),),
                "attn.k": (Tap("attn.Wqkv", part=(1, 3)),),
                "attn.v": (Tap("attn.Wqkv", part=(2, 3)),),
                "attn.heads": (Tap("attn", at="heads"),),
                "attn.o": (Tap("attn.Wo"),),
                "attn": (Tap("attn.Wo", x="attn"),),
                "attn.post": (Tap("mlp_norm", x="attn", at="stream"),),
                "ffn.gate": (Tap("mlp.Wi", part=(0, 2)),),
                "ffn.up": (Tap("mlp.Wi", part=(1, 2)),),
                "ffn.mid": (Tap("mlp.Wo", at="input"),),
                "ffn.down": (Tap("mlp.Wo"),),
                "ffn": (Tap("mlp.Wo", x="mlp"),),
                "ffn.post": (Tap("", x="mlp"),),
                "layer": (Tap(""),),
                "norm": (Tap("attn_norm"), Tap("mlp_norm")),
            },
            outside={"embed": (Tap("embeddings"),), "norm": (Tap("embeddings.norm"), Tap("final_norm"))},
            norms={"attn": "attn_norm", "ffn": "mlp_norm"},
        )
    },
)
TABLES = (MODERNBERT,)
