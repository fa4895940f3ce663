"""BERT: post-norm encoder layers, separate query, key and value projections."""

from unipet.calculus.sites.table import Architecture, HookPoint, Stack

ENCODER = Stack(
    layers="encoder.layer",
    roles={
        "attn.q": (HookPoint("attention.self.query"),),
        "attn.k": (HookPoint("attention.self.key"),),
        "attn.v": (HookPoint("attention.self.value"),),
        "attn.heads": (HookPoint("attention.self", at="heads"),),
        "attn.o": (HookPoint("attention.output.dense"),),
        "attn": (HookPoint("attention.output.dense", x="attention"),),
        "attn.post": (HookPoint("attention.output", x="attention"),),
        "ffn.up": (HookPoint("intermediate.dense"),),
        "ffn.mid": (HookPoint("output.dense", at="input"),),
        "ffn.down": (HookPoint("output.dense"),),
        "ffn": (HookPoint("output.dense", x="intermediate"),),
        "ffn.post": (HookPoint("output", x="intermediate"),),
        "layer": (HookPoint(""),),
        "norm": (HookPoint("attention.output.LayerNorm"), HookPoint("output.LayerNorm")),
    },
    post_norms={"attn": "attention.output.LayerNorm", "ffn": "output.LayerNorm"},
    outside={"embed": (HookPoint("embeddings"),), "norm": (HookPoint("embeddings.LayerNorm"),)},
)
BERT = Architecture(name="bert", model_types=("bert",), stacks={"encoder": ENCODER})
TABLES = (BERT,)
