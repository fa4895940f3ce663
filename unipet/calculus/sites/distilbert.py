"""DistilBERT: six post-norm encoder layers with names of their own."""

from unipet.calculus.sites.table import Architecture, Stack, Tap

DISTILBERT = Architecture(
    name="distilbert",
    model_types=("distilbert",),
    stacks={
        "encoder": Stack(
            layers="transformer.layer",
            roles={
                "attn.q": (Tap("attention.q_lin"),),
                "attn.k": (Tap("attention.k_lin"),),
                "attn.v": (Tap("attention.v_lin"),),
                "attn.heads": (Tap("attention", at="heads"),),
                "attn.o": (Tap("attention.out_lin"),),
                "attn": (Tap("attention.out_lin", x="attention"),),
                "attn.post": (Tap("sa_layer_norm", x="attention"),),
                "ffn.up": (Tap("ffn.lin1"),),
                "ffn.mid": (Tap("ffn.lin2", at="input"),),
                "ffn.down": (Tap("ffn.lin2"),),
                "ffn": (Tap("ffn.lin2", x="ffn"),),
                "ffn.post": (Tap("output_layer_norm", x="ffn"),),
                "layer": (Tap(""),),
                "norm": (Tap("sa_layer_norm"), Tap("output_layer_norm")),
            },
            post_norms={"attn": "sa_layer_norm", "ffn": "output_layer_norm"},
            outside={"embed": (Tap("embeddings"),), "norm": (Tap("embeddings.LayerNorm"),)},
        )
    },
)
TABLES = (DISTILBERT,)
