"""Which table is a model's; and for a model without one, an error that holds the draft of a table."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from unipet.calculus.sites.draft import draft
from unipet.calculus.sites.resolve import base_of
from unipet.calculus.sites.table import Architecture
from unipet.errors import UnipetError, nearest


def architecture_of(model: nn.Module, tables: Mapping[str, Architecture]) -> Architecture:
    """The table for this model. Raises UnipetError where there is none, with a YAML draft of one."""
    config = getattr(model, "config", None)
    for table in tables.values():
        if table.fits(config):
            return table
    kind = str(getattr(config, "model_type", type(model).__name__))
    known = sorted({name for table in tables.values() for name in table.model_types})
    problem = (
        f"No site table for the architecture {kind!r}.{nearest(kind, known)} Tables exist for: {', '.join(known)}."
    )
    text = draft(model)
    if text is None:
        kinds = dict.fromkeys(_without_numbers(name) for name, _ in base_of(model).named_modules() if name)
        raise UnipetError(
            f"{problem} A draft of one cannot be made, because the model has no list of equal layers. "
            f"Its modules are: {', '.join(list(kinds)[:30])}{', ...' if len(kinds) > 30 else ''}."
        )
    raise UnipetError(
        f"{problem} Give a table of your own: model.sites=FILE on the command line, sites=FILE in Python; "
        f"`unipet list sites model=...` drafts it.\n\nA draft from this model's modules. Save it as {kind}.yaml, compare it "
        f"with the modelling code, and say model.sites={kind}.yaml (`unipet list sites` explains the roles):\n\n{text}"
    )


def _without_numbers(path: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in path.split("."))
