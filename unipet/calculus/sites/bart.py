"""BART, Marian: post-norm encoder and decoder with cross-attention."""

from unipet.calculus.sites.table import Architecture, HookPoint, Stack

SELF = {
    "attn.q": (HookPoint("self_attn.q_proj"),),
    "attn.k": (HookPoint("self_attn.k_proj"),),
    "attn.v": (HookPoint("self_attn.v_proj"),),
    "attn.heads": (HookPoint("self_attn", at="heads"),),
    "attn.o": (HookPoint("self_attn.out_proj"),),
    "attn": (HookPoint("self_attn.out_proj", x="self_attn"),),
}
CROSS = {
    "cross.q": (HookPoint("encoder_attn.q_proj"),),
    "cross.k": (HookPoint("encoder_attn.k_proj"),),
    "cross.v": (HookPoint("encoder_attn.v_proj"),),
    "cross.heads": (HookPoint("encoder_attn", at="heads"),),
    "cross.o": (HookPoint("encoder_attn.out_proj"),),
    "cross": (HookPoint("encoder_attn.out_proj", x="encoder_attn"),),
}
FFN = {
    "ffn.up": (HookPoint("fc1"),),
    "ffn.mid": (HookPoint("fc2", at="input"),),
    "ffn.down": (HookPoint("fc2"),),
    "ffn": (HookPoint("fc2", x="fc1"),),
    "layer": (HookPoint(""),),
}
_POST = {
    "attn.post": (HookPoint("self_attn_layer_norm", x="self_attn"),),
    "ffn.post": (HookPoint("final_layer_norm", x="fc1"),),
}
_CROSS_POST = {"cross.post": (HookPoint("encoder_attn_layer_norm", x="encoder_attn"),)}
ENCODER_NORMS = (HookPoint("self_attn_layer_norm"), HookPoint("final_layer_norm"))
DECODER_NORMS = (HookPoint("self_attn_layer_norm"), HookPoint("encoder_attn_layer_norm"), HookPoint("final_layer_norm"))


def outside(stack: str, *norms: str) -> dict[str, tuple[HookPoint, ...]]:
    """The embedded sequence of one stack (token and position embeddings added, then normed), and the norms around it."""
    return {
        "embed": (HookPoint(f"{stack}.layers.0", x=f"{stack}.embed_tokens", at="input"),),
        "norm": tuple(HookPoint(f"{stack}.{norm}") for norm in norms),
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
