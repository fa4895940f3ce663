"""DeBERTa-v2 and v3: BERT's layers with disentangled attention."""

from dataclasses import replace

from unipet.calculus.sites.bert import ENCODER
from unipet.calculus.sites.table import Architecture, HookPoint

_OWN = {
    "attn.q": (HookPoint("attention.self.query_proj"),),
    "attn.k": (HookPoint("attention.self.key_proj"),),
    "attn.v": (HookPoint("attention.self.value_proj"),),
}
DEBERTA = Architecture(
    name="deberta-v2",
    model_types=("deberta-v2",),
    stacks={
        "encoder": replace(
            ENCODER, roles={**{role: points for role, points in ENCODER.roles.items() if role != "attn.heads"}, **_OWN}
        )
    },
    without={
        "attn.heads": "its attention adds position terms to every logit by itself and does not go through transformers' "
        "AttentionInterface, so nothing can be put in front of its keys"
    },
)
TABLES = (DEBERTA,)
