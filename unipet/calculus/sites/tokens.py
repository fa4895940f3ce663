"""The token embedding and the output layer tied to it: found through the model's own accessors, in no table."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from unipet.calculus.sites.table import Architecture


def token_embeddings(model: nn.Module, table: Architecture, prefix: str) -> dict[str, tuple[str, nn.Module]]:
    """For each stack of the model the path of its token embedding and the module; none where it reads no tokens.

    Stacks that share one module have it once, under the first stack's name.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    found: dict[str, tuple[str, nn.Module]] = {}
    for name, stack in table.stacks.items():
        try:
            entry: Any = model.get_submodule((prefix + stack.entry).rstrip("."))
        except AttributeError:
            continue
        if "input_ids" not in inspect.signature(type(entry).forward).parameters:
            continue
        module = entry.get_input_embeddings()
        if all(module is not other for _, other in found.values()):
            found[name] = paths[id(module)], module
    return found


def tied_head(model: nn.Module, embeddings: dict[str, tuple[str, nn.Module]]) -> str | None:
    """The path of the output layer whose weight is the token embedding's, or None."""
    output: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if output is None or all(module.weight is not output.weight for _, module in embeddings.values()):
        return None
    return next((path for path, module in model.named_modules() if module is output), None)
