"""ELECTRA: BERT's layers; the embeddings are projected when they are narrower than the layers."""

from dataclasses import replace

from unipet.calculus.sites.bert import BERT, ENCODER
from unipet.calculus.sites.table import HookPoint

ELECTRA = replace(
    BERT,
    name="electra",
    model_types=("electra",),
    stacks={
        "encoder": replace(
            ENCODER,
            outside={
                "embed": (HookPoint("encoder.layer.0", x="embeddings", at="input"),),
                "norm": (HookPoint("embeddings.LayerNorm"),),
            },
        )
    },
)
TABLES = (ELECTRA,)
