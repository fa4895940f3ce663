"""OPT: decoder layers, pre-norm but for the 350M model, which normalises after each block."""

from dataclasses import replace

from unipet.calculus.sites.table import Architecture, HookPoint, Stack

_PRE = Stack(
    layers="decoder.layers",
    roles={
        "attn.q": (HookPoint("self_attn.q_proj"),),
        "attn.k": (HookPoint("self_attn.k_proj"),),
        "attn.v": (HookPoint("self_attn.v_proj"),),
        "attn.heads": (HookPoint("self_attn", at="heads"),),
        "attn.o": (HookPoint("self_attn.out_proj"),),
        "attn": (HookPoint("self_attn.out_proj", x="self_attn"),),
        "attn.post": (HookPoint("final_layer_norm", x="self_attn", at="stream"),),
        "ffn.up": (HookPoint("fc1"),),
        "ffn.mid": (HookPoint("fc2", at="input"),),
        "ffn.down": (HookPoint("fc2"),),
        "ffn": (HookPoint("fc2", x="fc1"),),
        "ffn.post": (HookPoint("", x="fc1"),),
        "layer": (HookPoint(""),),
        "norm": (HookPoint("self_attn_layer_norm"), HookPoint("final_layer_norm")),
    },
    outside={
        "embed": (HookPoint("decoder.layers.0", x="decoder.embed_tokens", at="input"),),
        "norm": (HookPoint("decoder.final_layer_norm"),),
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
                "attn.post": (HookPoint("self_attn_layer_norm", x="self_attn"),),
                "ffn.post": (HookPoint("final_layer_norm", x="fc1"),),
            },
            outside={"embed": _PRE.outside["embed"]},
            norms={},
            post_norms=_PRE.norms,
        )
    },
    when={"do_layer_norm_before": False},
)
TABLES = (OPT, OPT_POST_NORM)
