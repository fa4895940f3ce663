"""BART, Marian: post-norm encoder and decoder with cross-attention."""

from unipet.calculus.sites.table import Architecture, Stack, Tap

SELF = {
    "attn.q": (Tap("self_attn.q_proj"),),
    "attn.k": (Tap("self_attn.k_proj"),),
    "attn.v": (Tap("self_attn.v_proj"),),
    "attn.heads": (Tap("self_attn", at="heads"),),
    "attn.o": (Tap("self_attn.out_proj"),),
    "attn": (Tap("self_attn.out_proj", x="self_attn"),),
}
CROSS = {
    "cross.q": (Tap("encoder_attn.q_proj"),),
    "cross.k": (Tap("encoder_attn.k_proj"),),
    "cross.v": (Tap("encoder_attn.v_proj"),),
    "cross.heads": (Tap("encoder_attn", at="heads"),),
    "cross.o": (Tap("encoder_attn.out_proj"),),
    "cross": (Tap("encoder_attn.out_proj", x="encoder_attn"),),
}
FFN = {
    "ffn.up": (Tap("fc1"),),
    "ffn.mid": (Tap("fc2", at="input"),),
    "ffn.down": (Tap("fc2"),),
    "ffn": (Tap("fc2", x="fc1"),),
    "layer": (Tap(""),),
}
_POST = {"attn.post": (Tap("self_attn_layer_norm", x="self_attn"),), "ffn.post": (Tap("final_layer_norm", x="fc1"),)}
_CROSS_POST = {"cross.post": (Tap("encoder_attn_layer_norm", x="encoder_attn"),)}
ENCODER_NORMS = (Tap("self_attn_layer_norm"), Tap("final_layer_norm"))
DECODER_NORMS = (Tap("self_attn_layer_norm"), Tap("encoder_attn_layer_norm"), Tap("final_layer_norm"))


def outside(stack: str, *norms: str) -> dict[str, tuple[Tap, ...]]:
    """The embedded sequence of one stack (token and position embeddings added, then normed), and the norms around it."""
    return {
        "embed": (Tap(f"{stack}.layers.0", x=f"{stack}.embed_tokens", at="input"),),
        "norm": tuple(Tap(f"{stack}.{norm}") for norm in norms),
    }


_NORMS = {"attn": "self_attn_layer_norm", "ffn": "final_layer_norm"}
ENCODER = Stack(
    layers="encoder.layers",
    roles={**SELF, **FFN, **_POST, "norm": ENCODER_NORMS},
    outside=outside("encoder", "layernorm_embedding"),
    post_norms=_NORMS,
    entry="encoder",
    heads="encoder_attention_heads",
)
DECODER = Stack(
    layers="decoder.layers",
    roles={**SELF, **CROSS, **FFN, **_POST, **_CROSS_POST, "norm": DECODER_NORMS},
    outside=outside("decoder", "layernorm_embedding"),
    post_norms={**_NORMS, "cross": "encoder_attn_layer_norm"},
    entry="decoder",
    heads="decoder_attention_heads",
    causal=True,
)
BART = Architecture(name="bart", model_types=("bart", "marian"), stacks={"encoder": ENCODER, "decoder": DECODER})
TABLES = (BART,)
