"""BERT: post-norm encoder layers, separate query, key and value projections."""

from unipet.calculus.sites.table import Architecture, Stack, Tap

ENCODER = Stack(
    layers="encoder.layer",
    roles={
        "attn.q": (Tap("attention.self.query"),),
        "attn.k": (Tap("attention.self.key"),),
        "attn.v": (Tap("attention.self.value"),),
        "attn.heads": (Tap("attention.self", at="heads"),),
        "attn.o": (Tap("attention.output.dense"),),
        "attn": (Tap("attention.output.dense", x="attention"),),
        "attn.post": (Tap("attention.output", x="attention"),),
        "ffn.up": (Tap("intermediate.dense"),),
        "ffn.mid": (Tap("output.dense", at="input"),),
        "ffn.down": (Tap("output.dense"),),
        "ffn": (Tap("output.dense", x="intermediate"),),
        "ffn.post": (Tap("output", x="intermediate"),),
        "layer": (Tap(""),),
        "norm": (Tap("attention.output.LayerNorm"), Tap("output.LayerNorm")),
    },
    post_norms={"attn": "attention.output.LayerNorm", "ffn": "output.LayerNorm"},
    outside={"embed": (Tap("embeddings"),), "norm": (Tap("embeddings.LayerNorm"),)},
)
BERT = Architecture(name="bert", model_types=("bert",), stacks={"encoder": ENCODER})
TABLES = (BERT,)
