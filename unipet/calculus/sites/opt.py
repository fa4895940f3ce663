"""OPT: decoder layers, pre-norm but for the 350M model, which normalises after each block."""

from dataclasses import replace

from unipet.calculus.sites.table import Architecture, Stack, Tap

_PRE = Stack(
    layers="decoder.layers",
    roles={
        "attn.q": (Tap("self_attn.q_proj"),),
        "attn.k": (Tap("self_attn.k_proj"),),
        "attn.v": (Tap("self_attn.v_proj"),),
        "attn.heads": (Tap("self_attn", at="heads"),),
        "attn.o": (Tap("self_attn.out_proj"),),
        "attn": (Tap("self_attn.out_proj", x="self_attn"),),
        "attn.post": (Tap("final_layer_norm", x="self_attn", at="stream"),),
        "ffn.up": (Tap("fc1"),),
        "ffn.mid": (Tap("fc2", at="input"),),
        "ffn.down": (Tap("fc2"),),
        "ffn": (Tap("fc2", x="fc1"),),
        "ffn.post": (Tap("", x="fc1"),),
        "layer": (Tap(""),),
        "norm": (Tap("self_attn_layer_norm"), Tap("final_layer_norm")),
    },
    outside={
        "embed": (Tap("decoder.layers.0", x="decoder.embed_tokens", at="input"),),
        "norm": (Tap("decoder.final_layer_norm"),),
    },
    norms={"attn": "self_attn_layer_norm", "ffn": "final_layer_norm"},
    entry="decoder",
    causal=True,
)
OPT = Architecture(name="opt", model_types=("opt",), stacks={"decoder": _PRE}, when={"do_layer_norm_before": True})
OPT_POST_NORM = replace(
    OPT,
    name="opt_post_norm",
    stacks={
        "decoder": replace(
            _PRE,
            roles={
                **_PRE.roles,
                "attn.post": (Tap("self_attn_layer_norm", x="self_attn"),),
                "ffn.post": (Tap("final_layer_norm", x="fc1"),),
            },
            outside={"embed": _PRE.outside["embed"]},
            norms={},
            post_norms=_PRE.norms,
        )
    },
    when={"do_layer_norm_before": False},
)
TABLES = (OPT, OPT_POST_NORM)
