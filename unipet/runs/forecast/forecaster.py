"""Forecasting jobs one by one: sizes, memory, micro-batch and time. Each kind of job is measured once."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from unipet.config import BudgetConfig, OptimConfig, RunConfig, plain_values
from unipet.errors import UnipetError
from unipet.runs import record_files as records
from unipet.runs.budget_label import budget_label
from unipet.runs.forecast.job import JobForecast
from unipet.runs.forecast.measurement_cache import MeasurementCache
from unipet.runs.identity import run_id
from unipet.runs.memory import out_of_memory
from unipet.runs.prepare import Prepared, finished_record, prepare
from unipet.runs.record import model_label
from unipet.runs.versions import now, versions

if TYPE_CHECKING:
    from unipet.runs.forecast.measuring import BaseModel
    from unipet.tasks import Encoded


@dataclass(frozen=True)
class _Known:
    """What is prepared once for all jobs that differ only in their seed."""

    prepared: Prepared
    seconds: float


class Forecaster:
    """Forecasts jobs one by one, and shares work between them. `say` is called with a short text before each measurement."""

    def __init__(self, measurements: MeasurementCache, say: Callable[[str], None]) -> None:
        self._measurements, self._say = measurements, say
        self._prepared: dict[str, _Known] = {}
        self._tokenizers: dict[str, Any] = {}
        self._seen: set[str] = set()
        self.kinds: dict[
            str, tuple[bool, float | None]
        ] = {}  # whether it was measured now, and the machine's load then
        self.measuring_s = 0.0

    def forecast(self, number: int, overrides: Sequence[str], config: RunConfig, compose_s: float = 0.0) -> JobForecast:
        """The forecast of one job. A mistake of the user in its configuration gives the forecast that it fails."""
        made = JobForecast(number, list(overrides), seed=config.seed, task=config.task.name)
        made.method = str(config.method.get("name"))
        made.model = model_label(config.model)
        made.budget = budget_label(asdict(config.budget))
        made.seconds["composing"] = compose_s
        try:
            self._fill(made, config)
        except UnipetError as error:
            made.status, made.reason = "fails", str(error)
        except Exception as error:  # an error while measuring would also break the job; the other jobs are not affected
            reason = out_of_memory(error)
            made.status = "fails" if reason is None else "exceeded"
            made.reason = reason or f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        made.train_s = made.seconds.get("training", 0.0)
        made.total_s = sum(made.seconds.values())
        made.hours = config.budget.gpus * made.total_s / 3600
        made.train_hours = config.budget.gpus * made.train_s / 3600
        return made

    def mistaken(self, number: int, overrides: Sequence[str], mistake: str) -> JobForecast:
        """The forecast of a job whose configuration is invalid: it fails."""
        return JobForecast(number, list(overrides), status="fails", reason=mistake)

    def _fill(self, made: JobForecast, config: RunConfig) -> None:
        from unipet.training.budget.size_places import sizes_of

        known = self._prepare(config)
        prepared = known.prepared
        fit = prepared.fit
        made.seconds["preparing"] = known.seconds
        made.run_id, made.method = prepared.run_id, fit.method.name
        made.precision = prepared.config.precision
        made.params = fit.report.to_dict()["params"]
        made.sizes, made.requested = sizes_of(fit.method), fit.requested or {}
        if not config.rerun and (prepared.run_id in self._seen or finished_record(prepared) is not None):
            made.status, made.reason = "finished", "finished before, not run again (rerun=true repeats it)"
            if prepared.run_id in self._seen:
                made.reason = "the same run as an earlier job"
            return
        self._seen.add(prepared.run_id)
        if fit.why_not is not None:
            made.status, made.reason = "skipped", fit.why_not
            return
        self._cost(made, prepared)

    def _prepare(self, config: RunConfig) -> _Known:
        key = records.canonical_json({**asdict(config), "seed": 0})
        if key not in self._prepared:
            started = time.perf_counter()
            prepared = prepare(config)
            self._prepared[key] = _Known(prepared, time.perf_counter() - started)
        known = self._prepared[key]
        if known.prepared.config.seed == config.seed:
            return known
        return replace(known, prepared=known.prepared.with_seed(config.seed))

    def _cost(self, made: JobForecast, prepared: Prepared) -> None:
        """Memory and time of a job that its parameter limit allows."""
        from unipet.runs.base_model import base_config
        from unipet.runs.forecast.measuring import BaseModel, Calibration
        from unipet.runs.forecast.timing import add_times

        config = prepared.config
        encoded = self._encode(made, prepared)
        base, began = BaseModel(config, prepared.data), time.perf_counter()
        memory = self._memory(prepared, encoded, base)
        made.micro_batch, made.accumulation = memory["micro_batch"], memory["accumulation"]
        made.checkpointing, made.predicted_gib = memory["checkpointing"], memory["predicted_gib"]
        made.warnings = [*([memory["warning"]] if memory["warning"] else []), *encoded.warnings(config.task.max_target)]
        made.seconds["predicting memory"] = memory["seconds"]
        if memory["why_not"] is not None:
            made.status, made.reason = "skipped", memory["why_not"]
            return
        timed = self._time(prepared, encoded, base, memory)
        self.measuring_s += time.perf_counter() - began
        found = Calibration(**{name: timed[name] for name in ("fixed_s", "steps", "passes", "flops")})
        both = bool(getattr(base_config(config.model), "is_encoder_decoder", False))
        add_times(made, config, encoded, found, both)

    def _encode(self, made: JobForecast, prepared: Prepared) -> Encoded:
        """The tokenised data. Tokenising counts as the job's time only without a cache: the sweep will read the cache."""
        from unipet.runs.base_model import load_tokenizer
        from unipet.tasks import cache_directory, encode

        config, data = prepared.config, prepared.data
        key = records.canonical_json(asdict(config.model))
        if key not in self._tokenizers:
            self._tokenizers[key] = load_tokenizer(config.model)
        cache, started = cache_directory(config.runs_dir), time.perf_counter()
        encoded = encode(data, self._tokenizers[key], config.task, cache)
        if cache is None:
            made.seconds["encoding"] = time.perf_counter() - started
        return encoded

    def _memory(self, prepared: Prepared, encoded: Encoded, base: BaseModel) -> dict[str, Any]:
        """The fields of `MemoryFit`, the predicted memory, and the seconds that the prediction took."""
        from unipet.tasks import collate, readout
        from unipet.training.budget.memory_fit import fit_run

        config, budget = prepared.config, prepared.config.budget

        def trace() -> dict[str, Any]:
            self._say("memory")
            model, tokenizer = base.load()
            batch, read = collate(tokenizer), readout(config.task, tokenizer)
            regression, began = prepared.data.regression, time.perf_counter()
            device = "cuda:0" if on_cuda() else "cpu"
            fit = fit_run(config, model, prepared.fit.draft, encoded.train, batch, read, regression, device)
            names = ("micro_batch", "accumulation", "checkpointing", "why_not", "warning", "predicted_gib")
            return {**{name: getattr(fit, name) for name in names}, "seconds": time.perf_counter() - began}

        limits = [budget.peak_memory_gib, budget.memory_margin, budget.on_exceed]
        return self._measurements.get(["memory", *kind_of_job(prepared), *limits], trace)[0]

    def _time(self, prepared: Prepared, encoded: Encoded, base: BaseModel, memory: dict[str, Any]) -> dict[str, Any]:
        """The fields of `Calibration`, the machine's load during it, and its time."""
        from unipet.runs.forecast.measuring import measure
        from unipet.training.budget.memory_fit import MemoryFit

        how = [memory[name] for name in ("micro_batch", "accumulation", "checkpointing")]

        def calibrate() -> dict[str, Any]:
            self._say("time")
            before = load()
            found = measure(prepared, encoded, MemoryFit(*how), base)
            return {**found.to_dict(), "load": before, "at": now()}

        key = ["time", *kind_of_job(prepared), *how]
        calibration, measured = self._measurements.get(key, calibrate)
        self.kinds.setdefault(records.canonical_json(key), (measured, calibration["load"]))
        return calibration


def kind_of_job(prepared: Prepared) -> list[Any]:
    """Everything that determines the time and memory of a training step and an evaluation batch: machine, versions, base
    model, fitted method, data, batch sizes. Seed and number of steps are not among them."""
    config = prepared.config
    names = ("batch_size", "eval_batch_size", "clip", "label_smoothing", "lr_ratio")
    optim = OptimConfig(**{name: getattr(config.optim, name) for name in names})
    method = prepared.fit.method.to_dict()
    plain = replace(config, method=method, optim=optim, budget=BudgetConfig(), seed=0)
    return [versions().to_dict(), run_id(plain_values(plain), prepared.content)]


def load() -> float | None:
    """The machine's load average over the last minute; None if the system does not report one."""
    if not hasattr(os, "getloadavg"):
        return None
    found = os.getloadavg()[0]
    return found if math.isfinite(found) else None


def on_cuda() -> bool:
    """Whether runs on this machine use a GPU."""
    import torch

    return bool(torch.cuda.is_available())
