"""What an adapted model carries: its insertions, the hooks that feed them, and all that taking them out again needs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unipet.attention import ATTRIBUTE, PREFIX, HeadsSite, wrap_implementation
from unipet.errors import UnipetError
from unipet.insertion import Call, Insertion
from unipet.method import Method
from unipet.mixture import Bank
from unipet.sites import base_of

CONTAINER = "_unipet"


class Hook:
    """One insertion's two hooks on the base model: take x on the way in, put h' in the place of h on the way out."""

    def __init__(self, insertion: Insertion):
        self.insertion = insertion
        self.x: Tensor | None = None

    def take_x(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.x = _first(args, kwargs)

    def on_output(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        own = self.insertion.site.x_path == self.insertion.site.path
        x = _first(args, kwargs) if own else self.x
        self.x = None
        if isinstance(output, tuple):
            return (self.insertion(output[0], x), *output[1:])
        return self.insertion(output, x)

    def on_input(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        h = args[0]
        return (self.insertion(h, h), *args[1:]), kwargs


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else next(iter(kwargs.values()), None)


class Adaptation(nn.Module):
    """The insertions of one method on one base model (registered on it as `_unipet`).

    `attach` puts them to work and freezes the base; `detach` takes them out and puts every changed value back.
    """

    def __init__(self, method: Method, insertions: list[Insertion], shared: dict[str, Bank]):
        super().__init__()
        self.method = method
        self.insertions = nn.ModuleList(insertions)
        self.shared = nn.ModuleDict(shared)
        self.call_record = Call()
        self.unfrozen: dict[str, str] = {}  # base parameter name -> the part of `unfreeze` that named it
        self._handles: list[Any] = []
        self._attention: list[tuple[Any, Any]] = []  # (config, its attention implementation before)
        self._required_grad: dict[str, bool] = {}
        self._originals: dict[str, Tensor] = {}
        self._views = 1
        self._driven = False  # a training loop draws the routes; otherwise every forward pass does
        self._generator = torch.Generator()
        for number, insertion in enumerate(insertions):
            insertion.number = number
            insertion.call_record = self.call_record
            insertion.__dict__["shared"] = shared.get(insertion.name)  # owned here, only read there

    @property
    def items(self) -> list[Insertion]:
        return list(self.insertions)  # type: ignore[arg-type]

    # -- routes and views ------------------------------------------------------------------------------------------

    @property
    def mixed(self) -> bool:
        return any(insertion.parts.mixture is not None for insertion in self.items)

    def draw(self, step: int, seed: int) -> None:
        """Fix every mixture's routes for one optimiser step, a function of (seed, step) alone.

        From then on a training loop is in charge: the routes stay until the next call, however many micro-batches the
        step has.
        """
        self._driven = True
        if self.mixed:
            self._generator.manual_seed((seed * 1_000_003 + step) % 2**63)
            self.call_record.routes = self._draw(views=2)

    def _draw(self, views: int) -> list[dict[int, Any]]:
        return [
            {i.number: i.bank.draw(self._generator) for i in self.items if i.parts.mixture is not None}
            for _ in range(views)
        ]

    @contextmanager
    def views(self, count: int) -> Iterator[None]:
        """Calls of the model inside see a batch of `count` stacked views, each with routes of its own."""
        self._views = count
        try:
            yield
        finally:
            self._views = 1

    def on_call(self, base: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before every forward pass of the base model: note the real tokens, the views and the routes.

        The record stays until the next pass, because gradient checkpointing runs layers again during backward.
        """
        if self._attention and not str(getattr(base.config, "_attn_implementation", "")).startswith(PREFIX):
            raise UnipetError(
                "The attention implementation was changed after `adapt`, so insertions at attn.heads would do nothing. "
                "Choose it before: unipet.eject(model), model.set_attn_implementation(...), unipet.adapt(model, ...)."
            )
        names = list(inspect.signature(type(base).forward).parameters)[1:]
        mask = {**dict(zip(names, args, strict=False)), **kwargs}.get("attention_mask")
        record = self.call_record
        if isinstance(mask, Tensor) and mask.dim() != 2 and any(i.needs_mask for i in self.items):
            raise UnipetError(
                f"Gates and `tokens` need to know the real tokens: give a 2-D attention_mask, not {tuple(mask.shape)}."
            )
        record.mask_BT = mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
        record.views = self._views
        if self.mixed and self.training and not self._driven:
            record.routes = self._draw(self._views)

    # -- attaching and detaching -----------------------------------------------------------------------------------

    def attach(self, model: nn.Module) -> None:
        """Register the hooks, freeze the base model and train the parts that the method unfreezes."""
        self._required_grad = {name: p.requires_grad for name, p in model.named_parameters()}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self.unfrozen)
            if name in self.unfrozen:
                self._originals[name] = parameter.detach().to("cpu", copy=True)
        for insertion in self.items:
            self._hook(model, insertion)
        base = base_of(model)
        self._handles.append(base.register_forward_pre_hook(self.on_call, with_kwargs=True))
        self.train(model.training)
        model.add_module(CONTAINER, self)

    def _hook(self, model: nn.Module, insertion: Insertion) -> None:
        site = insertion.site
        module = model.get_submodule(site.path)
        if site.at == "heads":
            self._hook_heads(module, insertion)
            return
        hook = Hook(insertion)
        if site.at == "input":
            self._handles.append(module.register_forward_pre_hook(hook.on_input, with_kwargs=True))
            return
        if site.x_path != site.path:
            reader = model.get_submodule(site.x_path)
            self._handles.append(reader.register_forward_pre_hook(hook.take_x, with_kwargs=True))
        self._handles.append(module.register_forward_hook(hook.on_output, with_kwargs=True))

    def _hook_heads(self, module: nn.Module, insertion: Insertion) -> None:
        site = getattr(module, ATTRIBUTE, None)
        if site is None:
            site = HeadsSite()
            setattr(module, ATTRIBUTE, site)
            self._handles.append(module.register_forward_pre_hook(site.take_x, with_kwargs=True))
            config: Any = module.config
            if all(config is not known for known, _ in self._attention):
                before = config._attn_implementation
                config._attn_implementation = wrap_implementation(config, before)
                self._attention.append((config, before))
        site.insertions.append(insertion)

    def detach(self, model: nn.Module, restore: bool) -> None:
        """Take everything out. With `restore`, put the values of unfrozen parameters back as they were."""
        for handle in self._handles:
            handle.remove()
        for insertion in self.items:
            if insertion.site.at == "heads":
                module = model.get_submodule(insertion.site.path)
                if hasattr(module, ATTRIBUTE):
                    delattr(module, ATTRIBUTE)
        for config, before in self._attention:
            config._attn_implementation = before
        delattr(model, CONTAINER)
        for name, parameter in model.named_parameters():
            if restore and name in self._originals:
                parameter.data.copy_(self._originals[name])
            parameter.requires_grad_(self._required_grad.get(name, True))
            parameter.grad = None

    def original(self, name: str, parameter: Tensor) -> Tensor:
        """A base parameter's value before adaptation."""
        return self._originals.get(name, parameter)


def adaptation(model: nn.Module) -> Adaptation:
    """The adaptation of a model. Raises UnipetError if it carries none."""
    found = getattr(model, CONTAINER, None)
    if not isinstance(found, Adaptation):
        raise UnipetError(
            "This model carries no method. Call unipet.adapt(model, method) or unipet.load(model, DIR) first."
        )
    return found
