"""What an insertion cannot do at the places that it asks for."""

from __future__ import annotations

import torch
from torch import nn

from unipet.calculus.method import InsertionSpec
from unipet.calculus.sites import Site
from unipet.errors import UnipetError


def check_in_memory(model: nn.Module, device: torch.device) -> None:
    """Raise UnipetError for a model of which parts were left on a disk; one without any weights is described on `meta`."""
    absent = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if absent and device.type != "meta":
        raise UnipetError(
            f"{len(absent)} parameters of the base model are not in memory, {absent[0]} the first: its device_map left them on "
            'the disk. Load the model onto one device, device_map="cpu" or device_map={"": 0}.'
        )


def check_forms(spec: InsertionSpec, sites: list[Site], key: str) -> None:
    """Raise UnipetError for the parallel form at an activation, which has no x."""
    for site in sites:
        own = site.on_input and site.x_path == site.path
        if own and spec.position.form == "parallel" and spec.function.reads == "u":
            raise UnipetError(
                f"{key}.position.form: {site.role} is an activation, it has no x of its own. Use form: sequential."
            )


def check_inside(spec: InsertionSpec, sites: list[Site], key: str) -> None:
    """Raise UnipetError for what needs to know whose tokens it works on: those of all rows meet in an expert."""
    inside = next((site for site in sites if site.expert is not None), None)
    if inside is None:
        return
    refused = {
        "mixture": "a mixture has its own experts for rows and passes" if spec.mixture is not None else None,
        "position.tokens": "tokens are chosen by their place in a row" if spec.position.tokens != "all" else None,
        "scaling": spec.scaling.dynamic,
    }
    for name, reason in refused.items():
        if reason:
            raise UnipetError(
                f"{key}.{name}: not at {inside.role}, where each expert sees the tokens of all rows that chose it: {reason}. "
                "Use the site experts or ffn, the whole block."
            )
