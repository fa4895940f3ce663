"""WHERE: one table per architecture, the roles, and how a position becomes modules."""

from __future__ import annotations

from unipet.sites.bert import BERT
from unipet.sites.position import Position
from unipet.sites.resolve import Site, architecture_of, base_of, prefix_of, resolve
from unipet.sites.roberta import ROBERTA
from unipet.sites.table import ROLES, Architecture, Stack, Tap

ARCHITECTURES: dict[str, Architecture] = {table.name: table for table in (BERT, ROBERTA)}

__all__ = [
    "ARCHITECTURES",
    "ROLES",
    "Architecture",
    "Position",
    "Site",
    "Stack",
    "Tap",
    "architecture_of",
    "base_of",
    "prefix_of",
    "resolve",
]
