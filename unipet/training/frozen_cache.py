"""Whether a training keeps the outputs of frozen layers (`cache_frozen`), and keeping them from its first step on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.output.progress import counted
from unipet.tasks import Collate
from unipet.training.forward import Examples, lengths, longest_first, model_inputs, to_device
from unipet.training.frozen_layers import FrozenStack, NotFrozen, frozen_stacks
from unipet.training.frozen_outputs import FrozenOutputs
from unipet.training.loop import Callback

LIMIT_GIB = 2.0  # with cache_frozen=auto
GIB = 2**30


class FrozenCache(Callback):
    """Keeps the outputs of frozen layers for one training. It fills when training begins, which counts as training time.

    The outputs are computed in batches of similar length that depend on the examples alone. So a resumed training computes the
    same bits again.
    """

    def __init__(self, model: nn.Module, examples: Examples, collate: Collate, config: RunConfig, steps: int) -> None:
        """Decide. Raises UnipetError where `cache_frozen=true` cannot be."""
        self._model, self._examples, self._collate, self._config = model, examples, collate, config
        self._stacks: list[FrozenStack] = []
        self.why_not: str | None = None
        self._outputs: FrozenOutputs | None = None
        if config.cache_frozen == "false":
            self.why_not = "cache_frozen=false"
            return
        if config.model.shard != "none":  # its layers are computed by all processes alike
            self.why_not = f"model.shard={config.model.shard}"
            return
        try:
            self._stacks = self._possible(steps)
        except NotFrozen as reason:
            if config.cache_frozen == "true":
                raise UnipetError(f"cache_frozen=true: {reason}. Or set cache_frozen=auto.") from reason
            self.why_not = str(reason)

    def _possible(self, steps: int) -> list[FrozenStack]:
        """The stacks to keep outputs of. Raises `NotFrozen` where that is impossible, or with `auto` does not pay."""
        auto, device = self._config.cache_frozen == "auto", next(self._model.parameters()).device
        if self._config.compile:
            raise NotFrozen("compile=true makes one graph of all layers")
        if self._config.model.quantization == "8bit":
            raise NotFrozen("model.quantization=8bit rounds the rows of a batch together")
        if device.type == "cpu" and self._config.budget.peak_memory_gib is not None:
            raise NotFrozen("budget.peak_memory_gib limits the memory that kept outputs would take")
        if auto and steps * self._config.optim.batch_size < 2 * len(self._examples):
            raise NotFrozen("training sees most examples fewer than twice")
        stacks = frozen_stacks(self._model, self._inputs([0]), self._config.precision)
        needed = sum(stack.token_bytes * sum(self._sizes(stack)) for stack in stacks)
        if auto and needed > LIMIT_GIB * GIB:
            raise NotFrozen(f"the outputs would take {needed / GIB:.1f} GiB; auto keeps at most {LIMIT_GIB:g}")
        return stacks

    def _sizes(self, stack: FrozenStack) -> list[int]:
        """The number of tokens of each example in this stack."""
        targets: list[int] | None = getattr(self._examples, "target_lengths", None)
        return targets if stack.name == "decoder" and targets else lengths(self._examples)

    def _inputs(self, chosen: list[int]) -> dict[str, Tensor]:
        device = next(self._model.parameters()).device
        batch = self._collate([self._examples[index] for index in chosen])
        return model_inputs(self._model, to_device(batch, device))[0]

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        size = self._config.optim.eval_batch_size
        chosen = longest_first(self._examples, size)
        for each in counted(chosen, len(self._examples), "keeping outputs of frozen layers"):
            yield self._inputs(each)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Training inside skips layers whose outputs are kept."""
        if not self._stacks:
            yield
            return
        limit = LIMIT_GIB * GIB if self._config.cache_frozen == "auto" else float("inf")
        self._outputs = FrozenOutputs(self._model, self._stacks, limit)
        with self._outputs.in_use():
            yield

    def on_train_begin(self, args: Any, state: Any, control: Any) -> None:
        if self._outputs is not None:
            self._outputs.fill(self._batches(), self._config.precision)

    @property
    def layers(self) -> dict[str, int]:
        """How many layers of each stack are kept."""
        return {stack.name: len(stack.layers) for stack in self._stacks}

    def record(self) -> dict[str, Any]:
        """Plain data for a run's record: how many layers of each stack were kept, and their size; or why none were."""
        gib = None if self._outputs is None else self._outputs.bytes / GIB
        return {"layers": self.layers, "gib": gib, "why_not": self.why_not}
