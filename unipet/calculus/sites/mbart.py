"""mBART and Pegasus: BART's blocks, with each norm before its block."""

from dataclasses import replace

from unipet.calculus.sites.bart import BART, CROSS, DECODER, DECODER_NORMS, ENCODER, ENCODER_NORMS, FFN, SELF, outside
from unipet.calculus.sites.table import HookPoint

_POST = {"ffn.post": (HookPoint("", x="fc1"),)}
_NORMS = {"attn": "self_attn_layer_norm", "ffn": "final_layer_norm"}
MBART = replace(
    BART,
    name="mbart",
    model_types=("mbart", "pegasus"),
    stacks={
        "encoder": replace(
            ENCODER,
            roles={
                **SELF,
                **FFN,
                **_POST,
                "attn.post": (HookPoint("final_layer_norm", x="self_attn", at="stream"),),
                "norm": ENCODER_NORMS,
            },
            outside=outside("encoder", "layernorm_embedding", "layer_norm"),
            norms=_NORMS,
            post_norms={},
        ),
        "decoder": replace(
            DECODER,
            roles={
                **SELF,
                **CROSS,
                **FFN,
                **_POST,
                "attn.post": (HookPoint("encoder_attn_layer_norm", x="self_attn", at="stream"),),
                "cross.post": (HookPoint("final_layer_norm", x="encoder_attn", at="stream"),),
                "norm": DECODER_NORMS,
            },
            outside=outside("decoder", "layernorm_embedding", "layer_norm"),
            norms={**_NORMS, "cross": "encoder_attn_layer_norm"},
            post_norms={},
        ),
    },
)
TABLES = (MBART,)
