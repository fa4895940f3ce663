"""A warning where `model.save_pretrained` would write an adapted model as if it had no method."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

NAME = "save_pretrained"


class WarnedSaving:
    """`save_pretrained` of a model that carries a method. A copy of the model has a copy of this."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Save as transformers does, and warn unless the tensors are given."""
        if named.get("state_dict") is None:
            warnings.warn(
                "save_pretrained writes no method that transformers could load, so what it has learned would be lost. "
                "Save it with unipet.save(model, DIR), or fold it into the weights with unipet.merge(model) first.",
                stacklevel=2,
            )
        return getattr(type(self._model), NAME)(self._model, *given, **named)


def warn_when_saved(model: nn.Module) -> None:
    """Let `model.save_pretrained` warn from now on, where there is one."""
    if callable(getattr(type(model), NAME, None)):
        setattr(model, NAME, WarnedSaving(model))


def as_before(model: nn.Module) -> None:
    """Take that back."""
    if isinstance(vars(model).get(NAME), WarnedSaving):
        delattr(model, NAME)
