"""DistilBERT: six post-norm encoder layers with names of their own."""

from unipet.calculus.sites.table import Architecture, HookPoint, Stack

DISTILBERT = Architecture(
    name="distilbert",
    model_types=("distilbert",),
    stacks={
        "encoder": Stack(
            layers="transformer.layer",
            roles={
                "attn.q": (HookPoint("attention.q_lin"),),
                "attn.k": (HookPoint("attention.k_lin"),),
                "attn.v": (HookPoint("attention.v_lin"),),
                "attn.heads": (HookPoint("attention", at="heads"),),
                "attn.o": (HookPoint("attention.out_lin"),),
                "attn": (HookPoint("attention.out_lin", x="attention"),),
                "attn.post": (HookPoint("sa_layer_norm", x="attention"),),
                "ffn.up": (HookPoint("ffn.lin1"),),
                "ffn.mid": (HookPoint("ffn.lin2", at="input"),),
                "ffn.down": (HookPoint("ffn.lin2"),),
                "ffn": (HookPoint("ffn.lin2", x="ffn"),),
                "ffn.post": (HookPoint("output_layer_norm", x="ffn"),),
                "layer": (HookPoint(""),),
                "norm": (HookPoint("sa_layer_norm"), HookPoint("output_layer_norm")),
            },
            post_norms={"attn": "sa_layer_norm", "ffn": "output_layer_norm"},
            outside={"embed": (HookPoint("embeddings"),), "norm": (HookPoint("embeddings.LayerNorm"),)},
        )
    },
)
TABLES = (DISTILBERT,)
