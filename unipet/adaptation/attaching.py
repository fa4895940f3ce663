"""Attaching insertions to a base model and detaching them: hooks, attention, and which parameters train."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn

from unipet.adaptation.attention import ATTRIBUTE, PREFIX, HeadsSite, wrap_implementation
from unipet.adaptation.inside_experts import InsideExperts
from unipet.adaptation.joined_weight import JoinedWeight, can_join
from unipet.adaptation.plain_saving import as_before, warn_when_saved
from unipet.adaptation.ready_prefix import CacheReading, may_read_cache
from unipet.adaptation.recomputation import Recomputation
from unipet.adaptation.site_hooks import Entry, HeadsReader, Hook
from unipet.adaptation.stack_hooks import changes
from unipet.adaptation.wide_masks import WideMasks
from unipet.calculus.forward_context import CurrentPass
from unipet.calculus.insertion import Insertion
from unipet.calculus.read_once import ReadOnce, group_of
from unipet.calculus.sites import base_of, module_at
from unipet.errors import UnipetError

#: How every name begins under which a model holds adaptations.
OWN = "_unipet"
#: A call before every forward pass through some stacks, with their names and the arguments by name.
BeginPass = Callable[[list[str], dict[str, Any]], None]


class Attachment:
    """Every change that insertions make to one model, with what was there before. `take_out` works at any moment."""

    joins = True  # whether a linear module may compute with an insertion joined to its weight

    def __init__(self, insertions: list[Insertion]) -> None:
        self._insertions = insertions
        self.handles: list[Any] = []
        self.attention: list[tuple[Any, Any]] = []  # (config, its attention implementation before)
        self._required_grad: dict[str, bool] = {}
        self.recomputation: Recomputation | None = None
        self.read_once: dict[tuple[str, int], ReadOnce] = {}
        self.masks = WideMasks()
        self.originals: dict[str, Tensor] = {}  # values of unfrozen parameters, and of the head's

    def put_in(
        self,
        model: nn.Module,
        unfrozen: Mapping[str, str],
        head: Collection[str],
        entries: Mapping[str, str],
        begin_pass: BeginPass,
        current: CurrentPass,
    ) -> None:
        """Register the hooks, freeze all but the parameters named in `unfrozen`; their values and those of the `head`,
        which a saved adapter replaces, are kept.

        Raises UnipetError where the attention cannot be wrapped, or a stack lacks what an insertion changes around it.
        """
        around = changes(model, self._insertions, entries)
        self.recomputation = Recomputation(model, current)
        self._wrap_attention(model)
        for name, parameter in model.named_parameters():
            if name.startswith(OWN):
                continue  # of another adaptation
            self._required_grad[name] = parameter.requires_grad
            parameter.requires_grad_(name in unfrozen)
            if name in unfrozen or name in head:
                self.originals[name] = parameter.detach().to("cpu", copy=True)
        for insertion in self._insertions:
            self._hook(model, insertion)
        base = base_of(model)
        for entry in dict.fromkeys(entries.values()):
            module = base.get_submodule(entry)
            stacks = [stack for stack, its_entry in entries.items() if its_entry == entry]
            begin = Entry(begin_pass, stacks)
            # With several adaptations, the pass begins for all of them before one makes it longer.
            first = bool(current.beside)
            self.handles.append(module.register_forward_pre_hook(begin, with_kwargs=True, prepend=first))
            self._read_cache(model, module, stacks, current)
        for change in around:
            if (handle := change()) is not None:
                self.handles.append(handle)
        warn_when_saved(model)

    def take_out(self, model: nn.Module, restore: bool) -> None:
        """Take back whatever was changed so far. With `restore`, the values of unfrozen parameters as well."""
        as_before(model)
        for handle in self.handles:
            handle.remove()
        if self.recomputation is not None:
            self.recomputation.forget()
        for insertion in self._insertions:
            if insertion.site.at == "heads":
                module = model.get_submodule(insertion.site.path)
                site: HeadsSite | None = getattr(module, ATTRIBUTE, None)
                if site is not None:
                    site.insertions = [other for other in site.insertions if other is not insertion]
                    if not site.insertions:
                        delattr(module, ATTRIBUTE)
        for config, before in self.attention:
            config._attn_implementation = before
        for name, parameter in model.named_parameters():
            if restore and name in self.originals:
                parameter.data.copy_(self.originals[name])
            parameter.requires_grad_(self._required_grad.get(name, parameter.requires_grad))

    def went_before(self, earlier: Attachment, values: bool = False) -> None:
        """Take over from `earlier`, which this replaces, what trained before it was attached; with `values`, the values too."""
        self._required_grad = earlier._required_grad
        if values:
            self.originals = earlier.originals

    def check_attention(self) -> None:
        """Raise UnipetError where the attention implementation is no longer the one that was wrapped."""
        for config, _ in self.attention:
            if not str(config._attn_implementation or "").startswith(PREFIX):
                raise UnipetError(
                    "The attention implementation was changed after `adapt`, so insertions at attn.heads would do nothing. "
                    "Choose it before: unipet.eject(model), model.set_attn_implementation(...), unipet.adapt(model, ...)."
                )

    def _wrap_attention(self, model: nn.Module) -> None:
        paths = dict.fromkeys(i.site.path for i in self._insertions if i.site.at == "heads")
        modules: list[Any] = [model.get_submodule(path) for path in paths]
        wrapped = [wrap_implementation(module, path) for path, module in zip(paths, modules, strict=True)]
        for module, implementation in zip(modules, wrapped, strict=True):
            if all(module.config is not known for known, _ in self.attention):
                self.attention.append((module.config, module.config._attn_implementation))
                module.config._attn_implementation = implementation

    def _hook(self, model: nn.Module, insertion: Insertion) -> None:
        site = insertion.site
        if insertion.parts.composition.lengthens:
            return  # around its whole stack
        module = module_at(model, site.path)
        if site.expert is not None:
            self._hook_expert(module, insertion)
            return
        if site.at == "heads":
            self._hook_heads(model, module, insertion)
            return
        norm = site.total.norm if site.total is not None else ""
        hook = Hook(insertion, model.get_submodule(norm) if norm else None)
        if site.x_path != site.path and insertion.parts.form == "parallel":
            self._before(model, site.x_path, hook.take_x)
        if site.at == "input":
            self._before(model, site.path, hook.on_input)
        elif site.at == "stream":
            self._before(model, site.path, hook.on_stream)
        elif self.joins and insertion.beside_linear and hook.own and can_join(module) and not module._forward_hooks:
            joined = JoinedWeight(module, hook)
            if (group := group_of(insertion)) is not None:
                joined.read = self.read_once.setdefault(group, ReadOnce())
                joined.read.members += 1
            joined.put_in()
            self.handles.append(joined)
        else:
            self.after(module, hook)

    def after(self, module: nn.Module, hook: Hook) -> None:
        """Let `hook` change what `module` returns."""
        self.handles.append(module.register_forward_hook(hook.on_output, with_kwargs=True))

    def _before(self, model: nn.Module, path: str, hook: Any) -> None:
        self.handles.append(module_at(model, path).register_forward_pre_hook(hook, with_kwargs=True))

    def _read_cache(self, model: nn.Module, entry: nn.Module, stacks: list[str], current: CurrentPass) -> None:
        """Let prefixes know the KV cache that the stacks of `entry` fill."""
        inside = [each.site for each in self._insertions if each.site.stack in stacks and each.site.at == "heads"]
        ahead = [each for each in self._insertions if each.site in inside and each.parts.composition.shares_softmax]
        if not any(each.site.causal for each in ahead):
            return
        reading = CacheReading(current, [getattr(model.get_submodule(site.path), ATTRIBUTE) for site in inside])
        self.handles.append(entry.register_forward_pre_hook(reading.begin, with_kwargs=True))
        self.handles.append(entry.register_forward_hook(reading.end, always_call=True))

    def _hook_expert(self, module: nn.Module, insertion: Insertion) -> None:
        known = [each for each in self.handles if isinstance(each, InsideExperts) and each.module is module]
        if not known:
            known = [InsideExperts(module, insertion.site.path)]
            known[0].put_in()
            self.handles.append(known[0])
        known[0].add(insertion)

    def _hook_heads(self, model: nn.Module, module: nn.Module, insertion: Insertion) -> None:
        site: HeadsSite | None = getattr(module, ATTRIBUTE, None)
        if site is None:
            site = HeadsSite()
            site.reads_cache, site.masks = may_read_cache(module), self.masks
            setattr(module, ATTRIBUTE, site)
        x_path = insertion.site.x_path
        known = {other.site.x_path for other in site.insertions if other.parts.reads_x}
        if insertion.parts.reads_x and x_path not in known:
            self._before(model, x_path, HeadsReader(site, x_path))
        site.insertions.append(insertion)
