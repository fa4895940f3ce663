"""The reducer `ensemble_logits`: a call of the model in evaluation becomes one pass for each expert, their logits averaged."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unipet.adaptation.routing import Routing
from unipet.calculus.insertion import Insertion
from unipet.errors import UnipetError


class Ensemble:
    """A forward hook on the whole model, which repeats the call for every expert but the first and averages the logits."""

    def __init__(self, items: list[Insertion], routing: Routing) -> None:
        self._items, self._routing = items, routing
        self._inside = False

    @property
    def experts(self) -> int:
        """How many passes a call takes now; 1 where no mixture is reduced so."""
        mixtures = [item.parts.mixture for item in self._items if item.parts.mixture is not None]
        return max((mixture.experts for mixture in mixtures if mixture.reducer == "ensemble_logits"), default=1)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        experts = 1 if self._inside or module.training else self.experts
        if experts == 1:
            return output
        self._check(kwargs, output)
        logits = [output.logits]
        self._inside = True
        try:
            for expert in range(1, experts):
                self._routing.expert = expert
                logits.append(module(*args, **kwargs).logits)
        finally:
            self._inside, self._routing.expert = False, 0
        output.logits = torch.stack(logits).mean(0)
        return output

    @staticmethod
    def _check(kwargs: dict[str, Any], output: Any) -> None:
        """Raise UnipetError for a call whose passes would not be one for each expert."""
        if getattr(output, "logits", None) is None:
            raise UnipetError(
                "mixture.reducer=ensemble_logits: this model makes no logits. Use reducer: mean_of_outputs."
            )
        if kwargs.get("labels") is not None:
            raise UnipetError(
                "mixture.reducer=ensemble_logits averages logits, and the loss that a model computes of `labels` would be of one "
                "expert alone. Call it without labels."
            )
        for name in ("past_key_values", "encoder_outputs"):
            if kwargs.get(name) is not None:
                raise UnipetError(
                    f"mixture.reducer=ensemble_logits runs the model once for each expert, and `{name}` would be of one expert "
                    "alone. It does not generate with a cache; use reducer: mean_of_weights or mean_of_outputs."
                )
