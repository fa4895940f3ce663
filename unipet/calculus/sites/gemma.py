"""Gemma 1, 2 and 3 (text): Llama's blocks; norms scale by 1 + weight, and 2 and 3 normalise each block's output, too."""

from dataclasses import replace

from unipet.calculus.sites.llama import DECODER, LLAMA
from unipet.calculus.sites.table import HookPoint

GEMMA = replace(LLAMA, name="gemma", model_types=("gemma",), unit_norms=True)
GEMMA2 = replace(
    GEMMA,
    name="gemma2",
    model_types=("gemma2", "gemma3_text"),
    stacks={
        "decoder": replace(
            DECODER,
            roles={
                **DECODER.roles,
                "attn.post": (HookPoint("pre_feedforward_layernorm", x="self_attn", at="stream"),),
                "norm": (
                    HookPoint("input_layernorm"),
                    HookPoint("post_attention_layernorm"),
                    HookPoint("pre_feedforward_layernorm"),
                    HookPoint("post_feedforward_layernorm"),
                ),
            },
            norms={"attn": "input_layernorm", "ffn": "pre_feedforward_layernorm"},
            post_norms={"attn": "post_attention_layernorm", "ffn": "post_feedforward_layernorm"},
        )
    },
)
TABLES = (GEMMA, GEMMA2)
