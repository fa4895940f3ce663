"""A user's own site table, given as a YAML file, a mapping or a table: read, and checked against the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unipet.calculus.sites import Architecture, check_table, parse_table
from unipet.calculus.yaml_reader import read_yaml
from unipet.errors import UnipetError

#: What `sites=` and `model.sites` take; None stands for the table that the package has.
Sites = str | Path | Mapping[str, Any] | Architecture | None


def load_sites(sites: Sites) -> Architecture | None:
    """The table that `sites` means. Raises UnipetError for an unreadable file or any mistake inside, with its full key."""
    if sites is None or isinstance(sites, Architecture):
        return sites
    if isinstance(sites, Mapping):
        return parse_table(sites)
    path = Path(os.path.expanduser(sites))
    if not path.is_file():
        raise UnipetError(f"sites: no file {str(sites)!r}. Give the path of a YAML file with a site table.")
    given = read_yaml(path)
    try:
        return parse_table(given)
    except UnipetError as error:
        raise UnipetError(f"{path}: {error}") from None


def sites_for(model: nn.Module, sites: Sites) -> Architecture | None:
    """The table that `sites` means, checked against this model. Raises UnipetError where it does not fit."""
    table = load_sites(sites)
    if table is not None:
        try:
            check_table(table, model)
        except UnipetError as error:
            if isinstance(sites, str | Path):
                raise UnipetError(f"{sites}: {error}") from None
            raise
    return table
