"""What the runs of one process have in common, kept for the next run that needs the same: the base model, and predictions of
memory. A run with it gives the bytes of a run without it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unipet.output.cache_place import cache_directory
from unipet.output.stopwatch import phase
from unipet.runs.kept_traces import read_traces, write_traces
from unipet.runs.prepare import Prepared
from unipet.runs.record_files import canonical_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unipet.training.budget.memory_fit import MemoryFit
    from unipet.training.budget.trace import Trace
    from unipet.training.company import Company


@dataclass
class KeptBase:
    """A base model as it was loaded: its weights, and all else that is needed to have it again without its files.

    The weights are shared with the models that `again` makes. They are what a frozen base model keeps frozen.
    """

    key: str  # what was loaded, by content
    kind: type[Any]
    config: Any
    generation: Any  # its settings for generating text; None where it generates none
    weights: Mapping[str, Tensor]  # without those that loading draws at random: each run draws its own
    tokenizer: Any
    dtype: str  # `model.dtype`
    digest: tuple[int, ...]

    def again(self) -> nn.Module:
        """The model as loading it once more would give it: what is drawn is drawn from torch's current random state."""
        from unipet.runs.base_model import quiet_loading
        from unipet.runs.storage import settle
        from unipet.training.precision import DTYPES

        with phase("base_model"), quiet_loading():
            model: nn.Module = self.kind.from_pretrained(
                None, config=copy.deepcopy(self.config), state_dict=dict(self.weights), dtype=DTYPES[self.dtype]
            )
            settle(model, self.dtype)
            # Loading notes in the configuration that there was no directory.
            model.config._name_or_path = model.name_or_path = self.config._name_or_path  # type: ignore[union-attr]
            if self.generation is not None:
                model.generation_config = copy.deepcopy(self.generation)
        return model


@dataclass
class Kept:
    """The base model that was loaded last, for all runs of a process."""

    base: KeptBase | None = None


@dataclass
class Shared:
    """What is kept. One process has one of it; each run of a pack has its own view of it."""

    kept: Kept = field(default_factory=lambda: Kept())
    traces: dict[str, dict[str, Trace]] = field(default_factory=dict)  # predicted steps, by what takes them
    _on_disk: dict[str, int] = field(default_factory=dict)  # how many of them are kept on disk
    #: Called with the predicted memory (GiB) before a run puts anything on its device; it may wait for others to end.
    admit: Callable[[float | None], None] = lambda gib: None
    company: Company | None = None  # the other runs of a pack
    alone: str | None = None  # why a run of a packed sweep is in none

    @property
    def base(self) -> KeptBase | None:
        """The base model that was loaded last."""
        return self.kept.base

    @base.setter
    def base(self, base: KeptBase | None) -> None:
        self.kept.base = base

    def beside(self, company: Company) -> Shared:
        """The same for one run of a pack."""
        return replace(self, company=company, admit=lambda gib: None, alone=None)

    def join(self, prepared: Prepared) -> None:
        """Tell the company of a run what it is. May raise `StandsAside`."""
        if self.company is not None:
            self.company.join(prepared)

    def enter(self, fit: MemoryFit) -> Company:
        """Wait until a run may put something on its device; its company there. May raise `StandsAside`."""
        from unipet.training.company import Company

        self.admit(fit.predicted_gib)
        company = self.company or Company()
        company.admit(fit)
        return company

    def load(self, prepared: Prepared) -> tuple[nn.Module, Any]:
        """Base model and tokenizer of a run, as `load_base_model` gives them."""
        from unipet.runs.base_model import load_with_drawn

        config, data = prepared.config, prepared.data
        wanted = [prepared.content.base_model, asdict(config.model), data.labels, data.regression, config.task.kind]
        key = canonical_json(wanted)
        if self.base is not None and self.base.key == key and digest(self.base.weights) == self.base.digest:
            return self.base.again(), self.base.tokenizer
        self.base = None  # before another one takes memory
        model, tokenizer, drawn = load_with_drawn(config.model, data.labels, data.regression, config.task.kind)
        if config.model.quantization is not None:  # integers without their scales are no weights
            return model, tokenizer
        if config.model.shard != "none":  # no process shall keep the whole
            return model, tokenizer
        weights = {name: tensor for name, tensor in model.state_dict().items() if name not in drawn}
        settings = copy.deepcopy((model.config, getattr(model, "generation_config", None)))
        self.base = KeptBase(key, type(model), *settings, weights, tokenizer, config.model.dtype, digest(weights))
        return model, tokenizer

    def traces_of(self, prepared: Prepared, device: str) -> dict[str, Trace]:
        """The predicted steps of runs that differ from this one at most in data, seed, rates and lengths of training."""
        settings = self._traced_with(prepared, device)
        key = canonical_json(settings)
        if key not in self.traces:
            self.traces[key] = read_traces(cache_directory(prepared.config.runs_dir), settings)
            self._on_disk[key] = len(self.traces[key])
        return self.traces[key]

    def keep_traces(self, prepared: Prepared, device: str) -> None:
        """Keep them on disk as well, where there are new ones."""
        settings = self._traced_with(prepared, device)
        key = canonical_json(settings)
        if len(self.traces[key]) > self._on_disk[key]:
            write_traces(cache_directory(prepared.config.runs_dir), settings, self.traces[key])
            self._on_disk[key] = len(self.traces[key])

    def _traced_with(self, prepared: Prepared, device: str) -> list[Any]:
        config, content = prepared.config, prepared.content
        stored = [config.model.dtype, config.model.attention, config.model.quantization, config.model.dropout]
        data = [config.task.kind, prepared.data.labels, prepared.data.regression]
        same = [content.base_model, content.sites, content.functions, *stored, *data]
        how = [prepared.fit.method.to_dict(), config.optim.label_smoothing, config.precision, device]
        return [same, how]

    def check(self, model: nn.Module) -> None:
        """Keep the base model only if the run with `model`, which has ended, left it as it was."""
        base = self.base
        if base is None:
            return
        trained = {name for name, tensor in model.named_parameters() if tensor.requires_grad}
        if not trained.isdisjoint(base.weights) or digest(base.weights) != base.digest:
            self.base = None

    def forget(self) -> None:
        """Keep no base model: who knows what became of it. The other runs of a pack still use it, and the next one checks it."""
        if self.company is None:
            self.base = None


def digest(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    """One number for each tensor, over its bits: it differs where a run has written into one."""
    import numpy
    import torch

    numbers = []
    for tensor in weights.values():
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        whole = content[: len(content) // 8 * 8].view(numpy.uint64)
        numbers.append(int(numpy.bitwise_xor.reduce(whole)) if len(whole) else int(content.sum()))
    return tuple(numbers)
