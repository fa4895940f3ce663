"""WHERE: one table per architecture, the roles, and how a position becomes modules."""

from __future__ import annotations

from unipet.sites.bart import BART
from unipet.sites.bert import BERT
from unipet.sites.deberta import DEBERTA
from unipet.sites.distilbert import DISTILBERT
from unipet.sites.electra import ELECTRA
from unipet.sites.gemma import GEMMA, GEMMA2
from unipet.sites.gpt2 import GPT2
from unipet.sites.gpt_neox import GPT_NEOX, GPT_NEOX_SERIAL
from unipet.sites.llama import LLAMA
from unipet.sites.mbart import MBART
from unipet.sites.modernbert import MODERNBERT
from unipet.sites.opt import OPT, OPT_POST_NORM
from unipet.sites.position import Position
from unipet.sites.resolve import Part, Site, architecture_of, base_of, head_prefix, prefix_of, resolve
from unipet.sites.roberta import ROBERTA
from unipet.sites.t5 import T5
from unipet.sites.table import ROLES, Architecture, Stack, Tap
from unipet.sites.vit import VIT

_ENCODERS = (BERT, ROBERTA, ELECTRA, DISTILBERT, DEBERTA, MODERNBERT, VIT)
_DECODERS = (GPT2, GPT_NEOX, GPT_NEOX_SERIAL, OPT, OPT_POST_NORM, LLAMA, GEMMA, GEMMA2)
_BOTH = (BART, MBART, T5)
ARCHITECTURES: dict[str, Architecture] = {table.name: table for table in (*_ENCODERS, *_DECODERS, *_BOTH)}

__all__ = [
    "ARCHITECTURES",
    "ROLES",
    "Architecture",
    "Part",
    "Position",
    "Site",
    "Stack",
    "Tap",
    "architecture_of",
    "base_of",
    "head_prefix",
    "prefix_of",
    "resolve",
]
