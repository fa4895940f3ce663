"""What an adapted model carries: its insertions, the hooks that feed them, and all that taking them out again needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from torch import Tensor, nn

from unipet.attention import ATTRIBUTE, PREFIX, HeadsSite, wrap_implementation
from unipet.errors import UnipetError
from unipet.hooks import Entry, HeadsReader, Hook
from unipet.insertion import Insertion
from unipet.method import Method
from unipet.mixture import Bank
from unipet.parts import Call
from unipet.routing import Routing
from unipet.sites import Architecture, base_of, module_at
from unipet.surroundings import changes
from unipet.weights import passes_gradients, quantised

CONTAINER = "_unipet"
_INPUTS = ("input_ids", "inputs_embeds", "pixel_values")  # what a stack may be called with, batch first


class Adaptation(nn.Module):
    """The insertions of one method on one base model (registered on it as `_unipet`).

    `attach` puts them to work and freezes the base; `detach` takes them out and puts every changed value back.
    """

    def __init__(self, method: Method, insertions: list[Insertion], shared: dict[str, Bank], entries: dict[str, str]):
        super().__init__()
        self.method = method
        self.insertions = nn.ModuleList(insertions)
        self.shared = nn.ModuleDict(shared)
        self.entries = entries  # stack -> the module, below the base model, whose forward takes its attention mask
        # Every key is there from the start, or torch.compile would see another record on the second call.
        self.call_record = Call(dict.fromkeys(entries, 0), dict.fromkeys(entries), dict.fromkeys(entries, 0))
        self.table: Architecture | None = None  # the user's own site table, where there is one; saved with the method
        self.unsavable: str | None = None  # why a saved adapter could not be loaded again
        self.unfrozen: dict[str, str] = {}  # base parameter name -> the part of `unfreeze` that named it
        self.head: frozenset[str] = frozenset()  # the head's parameters, drawn ones included: stored, trained or not
        self._handles: list[Any] = []
        self._attention: list[tuple[Any, Any]] = []  # (config, its attention implementation before)
        self._required_grad: dict[str, bool] = {}
        self._originals: dict[str, Tensor] = {}
        self._unproved: list[tuple[str, nn.Module]] = []  # quantised modules, until a training mode asks for gradients
        self._views = 1
        self._driven = False  # a training loop draws the routes; otherwise every forward pass does
        self._routing = Routing(insertions)
        for number, insertion in enumerate(insertions):
            insertion.number = number
            insertion.call_record = self.call_record
            insertion.__dict__["shared"] = shared.get(insertion.name)  # owned here, only read there

    @property
    def items(self) -> list[Insertion]:
        return list(self.insertions)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> Self:
        """Raises UnipetError where a quantised module below would keep gradients from the insertions."""
        if mode:
            self._prove_gradients()
        return super().train(mode)

    def _prove_gradients(self) -> None:
        while self._unproved:
            path, module = self._unproved[-1]
            if not passes_gradients(module):
                raise UnipetError(
                    f"{path} ({quantised(module.weight)}) passes no gradients on, so insertions below it would not train. "  # type: ignore[arg-type]
                    "Quantise weights only, not activations, or train on the unquantised base model."
                )
            self._unproved.pop()

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
            self._routing.restart((seed * 1_000_003 + step) % 2**63, step)
            self.call_record.routes = self._routing.draw(views=2)

    @contextmanager
    def views(self, count: int) -> Iterator[None]:
        """Calls of the model inside see a batch of `count` stacked views, each with routes of its own."""
        self._views = count
        try:
            yield
        finally:
            self._views = 1

    def on_call(self, stacks: list[str], given: dict[str, Any]) -> None:
        """Before every forward pass through some stacks: note the real tokens, the KV cache, the views and the routes.

        The record stays until the next pass, because gradient checkpointing runs layers again during backward.
        """
        if any(not str(config._attn_implementation or "").startswith(PREFIX) for config, _ in self._attention):
            raise UnipetError(
                "The attention implementation was changed after `adapt`, so insertions at attn.heads would do nothing. "
                "Choose it before: unipet.eject(model), model.set_attn_implementation(...), unipet.adapt(model, ...)."
            )
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        first = next((tensors[name] for name in (*_INPUTS, *tensors) if name in tensors), None)
        for stack in stacks:
            self._note(stack, first, given.get("attention_mask"), given.get("past_key_values"))
        if isinstance(memory := given.get("encoder_hidden_states"), Tensor) and "encoder" in self.entries:
            # Keys and values of cross-attention: the encoder may have run long ago, and for fewer rows (beam search).
            self._note("encoder", memory, given.get("encoder_attention_mask"), None)
        self.call_record.views = self._views
        first_stack = next(iter(self.entries), None)
        if self.mixed and self.training and not self._driven and first_stack in stacks:
            self.call_record.routes = self._routing.next(self._views)
        if self.mixed and first is not None:
            self._routing.draw_rows(self.call_record, stacks, self.training, *first.shape[:2])

    def _note(self, stack: str, tokens: Tensor | None, mask: Any, cache: Any) -> None:
        """Record the batch size, and where it matters the real tokens and the KV cache, of one stack."""
        record = self.call_record
        if tokens is not None:
            record.rows[stack] = tokens.shape[0]
        if not any(i.needs_mask and i.site.tokens_of == stack for i in self.items):
            return
        if mask is not None and not (isinstance(mask, Tensor) and mask.dim() == 2):
            shown = f"one of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
            raise UnipetError(
                f"Pooled gates and `tokens` need to know the real tokens: give a 2-D attention_mask, not {shown}. "
                "generate() makes such masks for a static cache; use its default cache."
            )
        record.masks_BS[stack] = None if mask is None else mask.bool()
        record.past[stack] = int(cache.get_seq_length()) if cache is not None else 0

    # -- attaching and detaching -----------------------------------------------------------------------------------

    def attach(self, model: nn.Module) -> None:
        """Register the hooks, freeze the base model and train the parts that the method unfreezes.

        Raises UnipetError, before any change, where the base model's attention cannot be wrapped or keeps gradients back.
        """
        around = changes(model, self.items, self.entries)
        self._unproved = [(p, m) for p, m in model.named_modules() if isinstance(m, nn.Linear) and quantised(m.weight)]
        if model.training:
            self._prove_gradients()
        self._wrap_attention(model)
        for name, parameter in model.named_parameters():
            self._required_grad[name] = parameter.requires_grad
            parameter.requires_grad_(name in self.unfrozen)
            if name in self.unfrozen or name in self.head:
                self._originals[name] = parameter.detach().to("cpu", copy=True)
        for insertion in self.items:
            self._hook(model, insertion)
        base = base_of(model)
        for entry in dict.fromkeys(self.entries.values()):
            module = base.get_submodule(entry)
            stacks = [stack for stack, its_entry in self.entries.items() if its_entry == entry]
            self._handles.append(
                module.register_forward_pre_hook(Entry(self.on_call, stacks, module), with_kwargs=True)
            )
        self._handles += [handle for change in around if (handle := change()) is not None]
        self.train(model.training)
        model.add_module(CONTAINER, self)

    def _wrap_attention(self, model: nn.Module) -> None:
        paths = dict.fromkeys(i.site.path for i in self.items if i.site.at == "heads")
        modules: list[Any] = [model.get_submodule(path) for path in paths]
        wrapped = [wrap_implementation(module, path) for path, module in zip(paths, modules, strict=True)]
        for module, implementation in zip(modules, wrapped, strict=True):
            if all(module.config is not known for known, _ in self._attention):
                self._attention.append((module.config, module.config._attn_implementation))
                module.config._attn_implementation = implementation

    def _hook(self, model: nn.Module, insertion: Insertion) -> None:
        site = insertion.site
        if insertion.parts.rule.lengthens:
            return  # around its whole stack
        module = module_at(model, site.path)
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
        else:
            self._handles.append(module.register_forward_hook(hook.on_output, with_kwargs=True))

    def _before(self, model: nn.Module, path: str, hook: Any) -> None:
        self._handles.append(module_at(model, path).register_forward_pre_hook(hook, with_kwargs=True))

    def _hook_heads(self, model: nn.Module, module: nn.Module, insertion: Insertion) -> None:
        site: HeadsSite | None = getattr(module, ATTRIBUTE, None)
        if site is None:
            site = HeadsSite()
            setattr(module, ATTRIBUTE, site)
        x_path = insertion.site.x_path
        if all(other.site.x_path != x_path for other in site.insertions):
            self._before(model, x_path, HeadsReader(site, x_path))
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
