"""Several adapted models in one forward pass: what the frozen base model computes is computed once, for the rows of all.

Each model stays what it is: its tensors, its evaluation and its saved adapter are its own. Their frozen weights are the
same storage, and one more set of modules over it is where the rows meet: the insertions of every model are attached there
as well, each for its own block of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import Adaptation, adaptation
from unipet.adaptation.attaching import OWN, Attachment
from unipet.adaptation.own_head import hook_head
from unipet.adaptation.serving import why_alone
from unipet.adaptation.site_hooks import Gathered, Hook
from unipet.calculus.own_rows import Cut, OwnBlock


@dataclass(frozen=True)
class Part:
    """One model's part in a pass: its inputs, B rows each, which its objective sees in `views` stacked views. `stream` is where
    its insertions draw from."""

    model: nn.Module
    inputs: Mapping[str, Tensor]
    views: int = 1
    stream: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def rows(self) -> int:
        """How many rows of the pass are its own."""
        return self.views * len(next(iter(self.inputs.values())))


class _Beside(Attachment):
    """What one of the models changes on the common modules."""

    joins = False  # a weight is common

    def __init__(self, inserted: Adaptation, gathered: dict[nn.Module, Gathered]) -> None:
        super().__init__(inserted.items)
        self._gathered = gathered

    def after(self, module: nn.Module, hook: Hook) -> None:
        if module not in self._gathered:
            self._gathered[module] = Gathered()
            self.handles.append(module.register_forward_hook(self._gathered[module].on_output, with_kwargs=True))
        self._gathered[module].hooks.append(hook)


class Together:
    """A base model without a method, on which adapted models compute together."""

    def __init__(self, base: nn.Module) -> None:
        """`base`: modules of its own; its weights become those of the models."""
        self.base = base.requires_grad_(False)
        self._members: tuple[nn.Module, ...] = ()
        self._attached: list[_Beside] = []

    def why_not(self, model: nn.Module) -> str | None:
        """Why an adapted model cannot compute together with others, or None. Equal frozen parameters become one storage, and
        what it trains one of its own."""
        inserted, base = adaptation(model), dict(self.base.named_parameters())
        if why := why_alone(model, inserted, [inserted]):
            return why
        own = {name: each for name, each in model.named_parameters() if not name.startswith(OWN)}
        if own.keys() != base.keys():
            return "its base model has other parameters"
        for name, parameter in own.items():
            if name in inserted.unfrozen or name in inserted.head:
                if parameter.data_ptr() == base[name].data_ptr():
                    parameter.data = parameter.data.clone()
                continue
            if parameter.data_ptr() == base[name].data_ptr():
                continue
            here = base[name].to(parameter.device)
            if here.dtype != parameter.dtype or not torch.equal(here, parameter):
                return f"its frozen parameter {name} has other values"
            base[name].data = here
            parameter.data = here
        self.base.to(next(iter(own.values())).device)
        return None

    def why_apart(self, models: Sequence[nn.Module]) -> str | None:
        """Why these models cannot share a pass with each other, though each could with some, or None."""
        acting = [adaptation(model) for model in models]
        return next((why for inserted in acting if (why := why_alone(self.base, inserted, acting))), None)

    @contextmanager
    def logits(self, parts: Sequence[Part]) -> Iterator[list[Tensor]]:
        """One pass over all rows; the logits of each part. Gradients are to be taken inside. In training mode the base model's
        own dropout draws from the current random stream, for all rows."""
        self._seat([part.model for part in parts])
        cut = Cut([part.rows for part in parts])
        with ExitStack() as undoing:
            for number, part in enumerate(parts):
                inserted = adaptation(part.model)
                undoing.callback(setattr, inserted, "own", None)
                inserted.own = OwnBlock(cut, number, part.stream)
                undoing.enter_context(inserted.views(part.views))
            self._know_each_other(True)
            undoing.callback(self._know_each_other, False)
            names = parts[0].inputs
            stacked = {
                name: torch.cat([each for part in parts for each in [part.inputs[name]] * part.views]) for name in names
            }
            if not self.base.training:
                self.base.train()
            logits = self.base(**stacked).logits
            yield list(logits.split(cut.sizes))

    def close(self) -> None:
        """Take everything out of the common modules."""
        for attached in reversed(self._attached):
            attached.take_out(self.base, restore=False)
        self._attached, self._members = [], ()

    def _seat(self, models: Sequence[nn.Module]) -> None:
        """Attach the insertions of exactly these models, in this order."""
        if self._members == tuple(models):
            return
        self.close()
        self._members = tuple(models)
        self._know_each_other(True)  # as attaching puts their hooks in front of each other's
        gathered: dict[nn.Module, Gathered] = {}
        try:
            for model in models:
                self._attached.append(_Beside(adaptation(model), gathered))
                self._attach(adaptation(model), self._attached[-1], model)
        except BaseException:
            self.close()
            raise
        finally:
            for model in models:
                adaptation(model).current.beside = []

    def _attach(self, inserted: Adaptation, attached: _Beside, model: nn.Module) -> None:
        def begin(stacks: list[str], inputs: dict[str, Any]) -> None:
            inserted.begin_pass(stacks, inputs)
            if attached.recomputation is not None:
                attached.recomputation.keep_passes_apart()

        attached.put_in(self.base, {}, frozenset(), inserted.entries, begin, inserted.current)
        parameters = dict(model.named_parameters())
        attached.handles += hook_head(self.base, inserted, {name: parameters[name] for name in sorted(inserted.head)})

    def _know_each_other(self, now: bool) -> None:
        acting = [adaptation(model) for model in self._members]
        for inserted in acting:
            inserted.current.beside = [other.current for other in acting] if now else []
