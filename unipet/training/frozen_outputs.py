"""Outputs of frozen layers, kept per example: a pass over known examples takes them instead of running the layers.

In training, an example is known by its real tokens, so neither padding nor the other examples of its batch matter: a batch is put
together from what `fill` computed. In evaluation, where batches are the same every time, a batch is known as a whole, so its
outputs have the same bits as without this. The outputs are held in the memory of the CPU.

Shapes: B examples of a batch, T tokens, D the width of the hidden states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unipet.adaptation.site_hooks import Entry
from unipet.training.forward import evaluation_mode
from unipet.training.frozen_layers import FrozenStack
from unipet.training.precision import autocast

Batch = Mapping[str, Tensor]
#: Arguments of a decoder about what its encoder read.
_MEMORY = ("encoder_hidden_states", "encoder_attention_mask")


class FrozenOutputs:
    """The kept outputs of some stacks of one model, and the passes that use them (inside `in_use`)."""

    def __init__(self, model: nn.Module, stacks: Sequence[FrozenStack], limit_bytes: float) -> None:
        """Above `limit_bytes`, evaluation keeps nothing more. What training needs is known before; see `frozen_cache.py`."""
        self.model, self.limit_bytes = model, limit_bytes
        self.bytes = 0
        self.filling = False
        self._stacks = {stack.name: _Skipped(stack, self) for stack in stacks}

    def fill(self, batches: Iterator[Batch], precision: str) -> None:
        """Compute the outputs for these inputs of the model. An example that comes twice is kept once.

        The bits depend on how examples are put into batches. So the batches must be the same whenever a run is repeated or
        resumed.
        """
        self.filling = True
        try:
            with evaluation_mode(self.model) as device:
                for inputs in batches:
                    with torch.no_grad(), autocast(device, precision):
                        self._until_known(inputs)
        finally:
            self.filling = False

    def _until_known(self, inputs: Batch) -> None:
        for stack in self._stacks.values():
            stack.waiting = True
        with suppress(_AllKnown):
            self.model(**inputs)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Passes of the model inside skip the frozen layers for known examples."""
        for stack in self._stacks.values():
            stack.begin()
        try:
            yield
        finally:
            for stack in self._stacks.values():
                stack.end()

    @property
    def trains(self) -> bool:
        """Whether a pass belongs to training, or prepares it."""
        return self.filling or self.model.training

    def keys_of_memory(self) -> list[bytes] | None:
        """The keys of what the encoder read in this pass; None if it has none."""
        encoder = self._stacks.get("encoder")
        return None if encoder is None else encoder.keys

    def end_if_all_known(self) -> None:
        """While filling, end the pass where it has been through all the stacks."""
        if self.filling and not any(stack.waiting for stack in self._stacks.values()):
            raise _AllKnown


class _AllKnown(Exception):
    """Ends a forward pass whose rest nobody needs."""


class _Skipped:
    """The frozen layers of one stack: run, or skipped because the pass is known."""

    def __init__(self, stack: FrozenStack, outputs: FrozenOutputs) -> None:
        self.stack, self.outputs = stack, outputs
        self.examples: dict[bytes, Tensor] = {}  # of training: (real tokens, D)
        self.batches: dict[bytes, Tensor] = {}  # of evaluation: (B, T, D)
        self.keys: list[bytes] | None = None  # of this pass's examples; in evaluation, one of the batch
        self.sizes: list[int] = []  # real tokens of this pass's examples
        self.known_BTD: Tensor | None = None  # the outputs for this pass
        self.waiting = False
        self._handle: Any = None

    def begin(self) -> None:
        entry = Entry(self._enter, [self.stack.name])
        self._handle = self.stack.entry.register_forward_pre_hook(entry, with_kwargs=True)
        for layer in self.stack.layers:
            layer.forward = self._around(layer.forward, layer is self.stack.layers[-1])

    def end(self) -> None:
        self._handle.remove()
        for layer in self.stack.layers:
            del layer.forward  # the instance's own, behind which is the class's

    def _around(self, forward: Callable[..., Any], last: bool) -> Callable[..., Any]:
        def run_or_skip(hidden_BTD: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.known_BTD is None:
                output = forward(hidden_BTD, *args, **kwargs)
                if last:
                    self._keep(output[0] if isinstance(output, tuple) else output)
                return output
            hidden_BTD = self.known_BTD if last else hidden_BTD
            returned = self.stack.returned
            return hidden_BTD if returned is None else (hidden_BTD, *[None] * (returned - 1))

        return run_or_skip

    def _enter(self, _: list[str], inputs: dict[str, Any]) -> None:
        """Before a pass through the stack: what is known of it."""
        self.known_BTD, self.keys = None, self._keys(inputs)
        if self.keys is None or self.outputs.filling:
            return
        tokens_BT = inputs["input_ids"]
        if not self.outputs.trains:
            if (known := self.batches.get(self.keys[0])) is not None:
                self.known_BTD = known.to(tokens_BT.device, copy=True)  # insertions may write into the stream
        elif all(key in self.examples for key in self.keys):
            rows = [self.examples[key] for key in self.keys]
            padded_BTD = pad_sequence(rows, batch_first=True)
            lacking = tokens_BT.shape[1] - padded_BTD.shape[1]  # a micro-batch is padded as its whole batch
            self.known_BTD = nn.functional.pad(padded_BTD, (0, 0, 0, lacking)).to(tokens_BT.device)

    def _keys(self, inputs: dict[str, Any]) -> list[bytes] | None:
        """The keys of a pass with these arguments; None for one that must run as it is."""
        tensors = {name: value.cpu() for name, value in sorted(inputs.items()) if isinstance(value, Tensor)}
        memory = [tensors.pop(name) for name in _MEMORY if name in tensors]
        above = self.outputs.keys_of_memory() if memory else None
        if "input_ids" not in tensors or (memory and above is None):
            return None
        if inputs.get("past_key_values") is not None:  # generation needs every layer's keys and values
            return None
        if any(value.shape != tensors["input_ids"].shape for value in tensors.values()):
            return None
        mask_BT = tensors.get("attention_mask", torch.ones_like(tensors["input_ids"]))
        if not self.outputs.trains:
            return [_digest([*tensors, *mask_BT.shape], *tensors.values(), *(above or ()))]
        self.sizes = [int(size) for size in mask_BT.sum(1)]
        if not torch.equal(mask_BT != 0, torch.arange(mask_BT.shape[1]) < torch.tensor(self.sizes)[:, None]):
            return None  # padded on the left, or with gaps
        keys = [
            _digest(list(tensors), *(value[row, :size] for value in tensors.values()))
            for row, size in enumerate(self.sizes)
        ]
        return keys if above is None else [own + theirs for own, theirs in zip(keys, above, strict=True)]

    def _keep(self, states_BTD: Tensor) -> None:
        """What the layers have computed in this pass."""
        self.waiting = False
        outputs, keys = self.outputs, self.keys
        if keys is not None and outputs.filling:
            for key, size, states_TD in zip(keys, self.sizes, states_BTD, strict=True):
                if key not in self.examples:
                    self.examples[key] = states_TD[:size].detach().to("cpu", copy=True)
                    outputs.bytes += self.examples[key].nbytes
        elif keys is not None and not outputs.trains and outputs.bytes + states_BTD.nbytes <= outputs.limit_bytes:
            self.batches[keys[0]] = states_BTD.detach().to("cpu", copy=True)
            outputs.bytes += states_BTD.nbytes
        outputs.end_if_all_known()


def _digest(*parts: Any) -> bytes:
    """A short name for these tensors, bytes and texts."""
    found = hashlib.sha256()
    for part in parts:
        content = part.contiguous().numpy().tobytes() if isinstance(part, Tensor) else part
        found.update(content if isinstance(content, bytes) else str(content).encode())
    return found.digest()
