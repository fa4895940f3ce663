"""WHERE: one table per architecture, the roles, and how a position becomes modules."""

from __future__ import annotations

from importlib import import_module

from unipet.calculus.sites.checks import check_table
from unipet.calculus.sites.experts import INSIDE, OneExpert, experts_in, why_not_inside
from unipet.calculus.sites.head import head_names, is_formula, outside
from unipet.calculus.sites.lookup import architecture_of
from unipet.calculus.sites.parse import parse_table, table_data
from unipet.calculus.sites.position import Position
from unipet.calculus.sites.resolve import Part, Site, base_of, module_at, module_of, prefix_of, resolve
from unipet.calculus.sites.table import ROLES, Architecture, HookPoint, Stack

#: The files with tables, one line each.
FILES = (
    "bert",
    "roberta",
    "electra",
    "distilbert",
    "deberta",
    "modernbert",
    "vit",
    "gpt2",
    "gpt_neox",
    "opt",
    "llama",
    "gemma",
    "mixtral",
    "bart",
    "mbart",
    "t5",
)
ARCHITECTURES: dict[str, Architecture] = {
    table.name: table for file in FILES for table in import_module(f"{__name__}.{file}").TABLES
}

__all__ = [
    "ARCHITECTURES",
    "FILES",
    "INSIDE",
    "ROLES",
    "Architecture",
    "HookPoint",
    "OneExpert",
    "Part",
    "Position",
    "Site",
    "Stack",
    "architecture_of",
    "base_of",
    "check_table",
    "experts_in",
    "head_names",
    "is_formula",
    "module_at",
    "module_of",
    "outside",
    "parse_table",
    "prefix_of",
    "resolve",
    "table_data",
    "why_not_inside",
]
