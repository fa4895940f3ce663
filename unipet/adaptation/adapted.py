"""What an adapted model carries: its insertions, the hooks that feed them, and all that taking them out again needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from unipet.adaptation.attaching import Attachment
from unipet.adaptation.ensembling import Ensemble
from unipet.adaptation.pass_inputs import MaskedStacks, batch_of, note
from unipet.adaptation.routing import Routing
from unipet.adaptation.unwrapping import bare, forget_compiled
from unipet.calculus.bank import Bank
from unipet.calculus.forward_context import CurrentPass, ForwardContext
from unipet.calculus.insertion import Insertion
from unipet.calculus.method import Method
from unipet.calculus.named_tensors import NamedTensors
from unipet.calculus.own_rows import OwnRows
from unipet.calculus.sites import Architecture
from unipet.calculus.weights import check_passes_gradients, quantised
from unipet.errors import UnipetError

CONTAINER = "_unipet"


class Adaptation(NamedTensors):
    """The insertions of one method on one base model (registered on it as `_unipet`).

    `attach` puts them to work and freezes the base; `detach` takes them out and puts every changed value back.
    """

    def __init__(self, method: Method, insertions: list[Insertion], shared: dict[str, Bank], entries: dict[str, str]):
        super().__init__()
        self.method, self.items, self.shared = method, insertions, shared
        self.entries = entries  # stack -> the module, below the base model, whose forward takes its attention mask
        self._first_stack = next(iter(entries), None)
        self._masked = MaskedStacks()
        self.current = CurrentPass(ForwardContext.of_stacks(entries))
        self.table: Architecture | None = None  # the user's own site table, where there is one; saved with the method
        self.base_fingerprint: Any = None  # a `Fingerprint`, from before no process had all values of the base model
        self.unsavable: str | None = None  # why a saved adapter could not be loaded again
        self.unfrozen: dict[str, str] = {}  # base parameter name -> the part of `unfreeze` that named it
        self.head: frozenset[str] = frozenset()  # the head's parameters, drawn ones included: stored, trained or not
        self.attached = Attachment([])
        self._unproved: list[tuple[str, nn.Module]] = []  # quantised modules, until a training mode asks for gradients
        self.name = method.name  # among the adaptations of one model
        self.own: OwnRows | None = None  # the rows that it works on (`unipet.rows`); None: all
        self.kept: dict[str, tuple[Tensor, Tensor | None]] = {}  # what it made of base parameters, while not in use
        self._views = 1
        self.routing = Routing(insertions)
        self._take_over()

    def _take_over(self) -> None:
        """Give every insertion its number, the current pass, and the tensors that all its sites share."""
        for number, insertion in enumerate(self.items):
            insertion.number = number
            insertion.current = self.current
            insertion.share(self.shared.get(insertion.name))
        self.name_tensors()

    def name_tensors(self) -> None:
        """Put every tensor where its name in the model is what `unipet.parameters` calls it, with dots for slashes."""
        homes = [([i.name, *i.site.name.split(".")], i.tensors) for i in self.items]
        homes += [([name, "shared"], bank.home) for name, bank in self.shared.items()]
        for node in (self, *(home for _, home in homes)):
            node.unmount()
        for path, home in sorted(homes, key=lambda each: len(each[0])):
            self.mount(path, home)

    @property
    def own_now(self) -> OwnRows | None:
        """The rows that it works on of a batch with as many views as there are now; None: all."""
        return None if self.own is None else self.own.stacked(self._views)

    @property
    def context(self) -> ForwardContext:
        """What the current forward pass tells its insertions; between passes, what the last one told them."""
        return self.current.context

    def train(self, mode: bool = True) -> Self:
        """Raises UnipetError where a quantised module below would keep gradients from the insertions."""
        if mode:
            self._prove_gradients()
        for insertion in self.items:  # only their tensors are registered below this module
            insertion.train(mode)
        return super().train(mode)

    def _prove_gradients(self) -> None:
        while self._unproved:
            path, module = self._unproved[-1]
            check_passes_gradients(path, module)
            self._unproved.pop()

    # -- routes and views ------------------------------------------------------------------------------------------

    def draw(self, step: int, seed: int) -> None:
        """Fix every mixture's routes for one optimiser step, a function of (seed, step) alone.

        From then on a training loop is in charge: the routes stay until the next call, however many micro-batches the
        step has.
        """
        self.routing.driven = True
        if self.routing.mixed:
            self.routing.restart(seed, step)
            self.current.context = context = self.context.copy()
            self.routing.draw(context, max(2, self.method.objective.views))

    @contextmanager
    def views(self, count: int) -> Iterator[None]:
        """Calls of the model inside see a batch of `count` stacked views, each with routes of its own."""
        self._views = count
        try:
            yield
        finally:
            self._views = 1

    def begin_pass(self, stacks: list[str], inputs: dict[str, Any]) -> None:
        """Before every forward pass through some stacks: note the real tokens, the KV cache, the views and the routes.

        A pass that goes on through another stack (a decoder after its encoder) starts from what is known so far.
        """
        self.attached.check_attention()
        first_stack, before = self._first_stack, self.current.context
        context = ForwardContext.of_stacks(self.entries) if first_stack in stacks else before.copy()
        context.own = None if self.own is None else self.own_now
        compiling = torch.compiler.is_compiling()
        context.masked = self._masked.of(self.items, compiling)
        self.current.context = context
        if self.training and self.attached.recomputation is not None and not compiling:
            self.attached.recomputation.keep_passes_apart()
        first = batch_of(inputs)
        for stack in stacks:
            note(context, stack, first, inputs.get("attention_mask"), inputs.get("past_key_values"), compiling)
        if isinstance(memory := inputs.get("encoder_hidden_states"), Tensor) and "encoder" in self.entries:
            # Keys and values of cross-attention: the encoder may have run long ago, and for fewer rows (beam search).
            note(context, "encoder", memory, inputs.get("encoder_attention_mask"), None, compiling)
        context.views = self._views
        if not self.routing.mixed:
            return
        if isinstance(ids := inputs.get("input_ids"), Tensor):
            context.ids |= dict.fromkeys(stacks, ids if context.own is None else context.own.pick(ids))
        if first_stack in stacks:
            mine = first if first is None or context.own is None else context.own.pick(first)
            self.routing.begin_pass(context, before, self.training, 0 if mine is None else len(mine))

    # -- attaching and detaching -----------------------------------------------------------------------------------

    def attach(self, model: nn.Module, own: OwnRows | None = None) -> None:
        """Register the hooks, freeze the base model and train the parts that the method unfreezes. With `own`, act on these
        rows alone beside other adaptations: it is then not the one in use, and unfreezes nothing.

        Whatever fails, the model is as it was. Raises UnipetError where its attention cannot be wrapped or keeps
        gradients back.
        """
        self._unproved = [(p, m) for p, m in model.named_modules() if isinstance(m, nn.Linear) and quantised(m.weight)]
        if model.training:
            self._prove_gradients()
        self._take_over()
        self.own, self.attached = own, Attachment(self.items)
        unfrozen, head = (self.unfrozen, self.head) if own is None else ({}, frozenset[str]())
        with ExitStack() as undoing:
            undoing.callback(self.undo, model)
            self.attached.put_in(model, unfrozen, head, self.entries, self.begin_pass, self.current)
            if any(i.parts.mixture is not None and i.parts.mixture.reducer == "ensemble_logits" for i in self.items):
                ensemble = Ensemble(self.items, self.routing)
                self.attached.handles.append(model.register_forward_hook(ensemble, with_kwargs=True))
            self.train(model.training)
            if own is None:
                model.add_module(CONTAINER, self)
            undoing.pop_all()
        forget_compiled()

    def undo(self, model: nn.Module, restore: bool = True) -> None:
        """Take out what `attach` has put in, if only in part: the model is as it was, its gradients untouched. Without
        `restore` unfrozen parameters keep their values."""
        self.attached.take_out(model, restore)
        if getattr(model, CONTAINER, None) is self:
            delattr(model, CONTAINER)
        forget_compiled()

    def detach(self, model: nn.Module, restore: bool) -> None:
        """Take everything out, gradients included. With `restore`, put the values of unfrozen parameters back as they
        were."""
        self.undo(model, restore)
        for parameter in model.parameters():
            parameter.grad = None

    @contextmanager
    def detached(self, model: nn.Module) -> Iterator[None]:
        """Detach, with values kept. Where detaching or the block fails, everything is attached again as it was."""
        attached, gradients = self.attached, [(parameter, parameter.grad) for parameter in model.parameters()]

        def put_back() -> None:
            getattr(model, CONTAINER, self).undo(model, restore=False)
            self.attach(model)
            self.attached.went_before(attached, values=True)
            for parameter, gradient in gradients:
                parameter.grad = gradient

        with ExitStack() as undoing:
            undoing.callback(put_back)
            self.detach(model, restore=False)
            yield
            undoing.pop_all()

    def keeping(self, insertions: list[Insertion]) -> Adaptation:
        """A new adaptation, not attached, of only these insertions as they now are. All else that this one carries goes along."""
        now = {insertion.name: insertion.parts for insertion in insertions}
        specs = tuple(
            replace(spec, function=now[spec.name].function, mixture=now[spec.name].mixture)
            for spec in self.method.insertions
            if spec.name in now
        )
        shared = {i.name: i.shared for i in insertions if i.shared is not None}
        left = Adaptation(replace(self.method, insertions=specs), insertions, shared, self.entries)
        left.name, left.table, left.unsavable = self.name, self.table, self.unsavable
        left.unfrozen, left.head = self.unfrozen, self.head
        left._views = self._views
        left.routing.go_on_from(self.routing)
        return left

    def replaces(self, earlier: Adaptation) -> None:
        """Take over what the base model was like before `earlier`, in whose place this adaptation is attached."""
        self.attached.went_before(earlier.attached)

    def original(self, name: str, parameter: Tensor) -> Tensor:
        """A base parameter's value before adaptation."""
        return self.attached.originals.get(name, parameter)


def adaptation(model: nn.Module) -> Adaptation:
    """The adaptation of a model. Raises UnipetError if it carries none."""
    found = getattr(bare(model), CONTAINER, None)
    if not isinstance(found, Adaptation):
        raise UnipetError(
            "This model carries no method. Call unipet.adapt(model, method) or unipet.load(model, DIR) first."
        )
    return found
