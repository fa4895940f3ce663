"""ModernBERT: pre-norm encoder layers, fused query-key-value and gated feed-forward, without a norm before the first."""

from unipet.calculus.sites.table import Architecture, HookPoint, Stack

MODERNBERT = Architecture(
    name="modernbert",
    model_types=("modernbert",),
    stacks={
        "encoder": Stack(
            layers="layers",
            roles={
                "attn.qkv": (HookPoint("attn.Wqkv"),),
                "attn.q": (HookPoint("attn.Wqkv", part=(0, 3)),),
                "attn.k": (HookPoint("attn.Wqkv", part=(1, 3)),),
                "attn.v": (HookPoint("attn.Wqkv", part=(2, 3)),),
                "attn.heads": (HookPoint("attn", at="heads"),),
                "attn.o": (HookPoint("attn.Wo"),),
                "attn": (HookPoint("attn.Wo", x="attn"),),
                "attn.post": (HookPoint("mlp_norm", x="attn", at="stream"),),
                "ffn.gate": (HookPoint("mlp.Wi", part=(0, 2)),),
                "ffn.up": (HookPoint("mlp.Wi", part=(1, 2)),),
                "ffn.mid": (HookPoint("mlp.Wo", at="input"),),
                "ffn.down": (HookPoint("mlp.Wo"),),
                "ffn": (HookPoint("mlp.Wo", x="mlp"),),
                "ffn.post": (HookPoint("", x="mlp"),),
                "layer": (HookPoint(""),),
                "norm": (HookPoint("attn_norm"), HookPoint("mlp_norm")),
            },
            outside={
                "embed": (HookPoint("embeddings"),),
                "norm": (HookPoint("embeddings.norm"), HookPoint("final_norm")),
            },
            norms={"attn": "attn_norm", "ffn": "mlp_norm"},
        )
    },
)
TABLES = (MODERNBERT,)
