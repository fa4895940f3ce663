"""Weights that several modules share, such as a token embedding and its output layer: given to each as its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from unipet.adaptation.adapted import CONTAINER
from unipet.errors import UnipetError

_KEY = "tie_word_embeddings"


def owners_of(model: nn.Module) -> Counter[int]:
    """How many modules hold each parameter, by its id."""
    return Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))


@torch.no_grad()
def untie(model: Any) -> list[str]:
    """Give each module that shares a weight its own copy of it, in place, and say so in the configuration
    (`tie_word_embeddings: false`), so that a saved checkpoint holds all of them. Outputs stay what they are. Returns the names
    of the new parameters; none if nothing is shared.

    Raises UnipetError for a model whose configuration has no such key: its checkpoint would be tied again when it is loaded.
    """
    owners, seen, made = owners_of(model), set[int](), list[str]()
    named = [item for item in model.named_parameters(remove_duplicate=False) if not item[0].startswith(f"{CONTAINER}.")]
    shared = [(name, parameter) for name, parameter in named if owners[id(parameter)] > 1]
    if not shared:
        return []
    if not getattr(model.config, _KEY, False):
        raise UnipetError(
            f"{type(model).__name__}: {shared[0][0]} is shared with other modules, and its configuration has no {_KEY} to say "
            "that it no longer is. Leave out the insertion at it, or keep the adapter beside the base model."
        )
    for name, parameter in shared:
        if id(parameter) in seen:
            path, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(path), leaf, nn.Parameter(parameter.clone(), parameter.requires_grad))
            made.append(name)
        seen.add(id(parameter))
    setattr(model.config, _KEY, False)
    text = model.config.get_text_config()
    setattr(text, _KEY, False)
    if hasattr(model, "all_tied_weights_keys"):
        model.all_tied_weights_keys = {}  # else save_pretrained leaves out what it believes to be shared
    return made
