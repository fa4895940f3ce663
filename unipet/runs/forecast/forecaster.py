"""Forecasts of jobs, one by one, each kind of job measured once: sizes, memory, micro-batch, then time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from unipet.runs import record as records
from unipet.runs.budget_label import budget_label
from unipet.config import BudgetConfig, OptimConfig, RunConfig
from unipet.errors import UnipetError
from unipet.runs.forecast.job import JobForecast
from unipet.runs.forecast.measurement_cache import Kept
from unipet.runs.identity import run_id
from unipet.runs.memory import out_of_memory
from unipet.runs.prepare import Prepared, finished_record, prepare

if TYPE_CHECKING:
    from unipet.runs.forecast.measuring import BaseModel
    from unipet.tasks import Encoded


@dataclass(frozen=True)
class _Known:
    """What jobs that differ in nothing but the seed share."""

    prepared: Prepared
    seconds: float


class Forecaster:
    """Forecasts jobs one by one, and remembers what they share. `say` is called with a short text before each measurement."""

    def __init__(self, kept: Kept, say: Callable[[str], None]) -> None:
        self._kept, self._say = kept, say
        self._prepared: dict[str, _Known] = {}
        self._tokenizers: dict[str, Any] = {}
        self._seen: set[str] = set()
        self.kinds: dict[str, tuple[bool, float | None]] = {}  # was it measured now, and at what load
        self.measuring_s = 0.0

    def forecast(self, number: int, overrides: Sequence[str], config: RunConfig, compose_s: float = 0.0) -> JobForecast:
        """One job; a mistake of the user in it is the forecast that it fails."""
        made = JobForecast(number, list(overrides), seed=config.seed, task=config.task.name)
        made.method = str(config.method.get("name"))
        made.model = records.model_label(config.model)
        made.budget = budget_label(asdict(config.budget))
        made.seconds["composing"] = compose_s
        try:
            self._fill(made, config)
        except UnipetError as error:
            made.status, made.reason = "fails", str(error)
        except Exception as error:  # whatever breaks one job's moments would break the job, and the others go on
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
        known = self._prepare(config)
        prepared = known.prepared
        fit = prepared.fit
        made.seconds["preparing"] = known.seconds
        made.run_id, made.method = prepared.run_id, fit.method.name
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
        """Memory and time of a job that its limit on parameters lets run."""
        from unipet.runs.forecast.measuring import BaseModel, Calibration
        from unipet.runs.forecast.timing import spend
        from unipet.runs.base_model import base_config

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
        spend(made, config, encoded, found, both)

    def _encode(self, made: JobForecast, prepared: Prepared) -> Encoded:
        """The tokenised data; that takes the job time only where there is no cache: a sweep finds what is there now."""
        from unipet.runs.base_model import load_tokenizer
        from unipet.tasks import cache_directory, encode

        config, data = prepared.config, prepared.data
        where = records.canonical_json(asdict(config.model))
        if where not in self._tokenizers:
            self._tokenizers[where] = load_tokenizer(config.model)
        cache, started = cache_directory(config.runs_dir), time.perf_counter()
        encoded = encode(data, self._tokenizers[where], config.task, cache)
        if cache is None:
            made.seconds["encoding"] = time.perf_counter() - started
        return encoded

    def _memory(self, prepared: Prepared, encoded: Encoded, base: BaseModel) -> dict[str, Any]:
        """The fields of `MemoryFit`, the memory it predicts, and the seconds that predicting took."""
        from unipet.training.budget.memory_fit import fit_run
        from unipet.tasks import collate, readout

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
        return self._kept.get(["memory", *kind_of_job(prepared), *limits], trace)[0]

    def _time(self, prepared: Prepared, encoded: Encoded, base: BaseModel, memory: dict[str, Any]) -> dict[str, Any]:
        """The fields of `Calibration`, and when and at what load of the machine it was made."""
        from unipet.training.budget.memory_fit import MemoryFit
        from unipet.runs.forecast.measuring import measure

        how = [memory[name] for name in ("micro_batch", "accumulation", "checkpointing")]

        def calibrate() -> dict[str, Any]:
            self._say("time")
            before = load()
            found = measure(prepared, encoded, MemoryFit(*how), base)
            return {**found.to_dict(), "load": before, "at": records.now()}

        key = ["time", *kind_of_job(prepared), *how]
        kept, measured = self._kept.get(key, calibrate)
        self.kinds.setdefault(records.canonical_json(key), (measured, kept["load"]))
        return kept


def kind_of_job(prepared: Prepared) -> list[Any]:
    """What decides how long a step and a pass take, and what they need: machine, versions, base model, fitted method,
    data, batch sizes. Not the seed, nor for how long it is trained."""
    config = prepared.config
    names = ("batch_size", "eval_batch_size", "clip", "label_smoothing", "lr_ratio")
    optim = OptimConfig(**{name: getattr(config.optim, name) for name in names})
    method = prepared.fit.method.to_dict()
    plain = replace(config, method=method, optim=optim, budget=BudgetConfig(), seed=0)
    return [records.versions(), run_id(asdict(plain), prepared.content)]


def sizes_of(method: Any) -> dict[str, int]:
    """The sizes of a method's insertions, by the option that sets each."""
    found = {}
    for spec in method.insertions:
        value = getattr(spec.function, spec.function.knob, None)
        if isinstance(value, int) and not isinstance(value, bool):
            found[f"method.insertions.{spec.name}.function.{spec.function.knob}"] = value
    return found


def load() -> float | None:
    """The machine's load average over the last minute; None where it does not tell."""
    if not hasattr(os, "getloadavg"):
        return None
    found = os.getloadavg()[0]
    return found if math.isfinite(found) else None


def on_cuda() -> bool:
    """Whether runs use a GPU here."""
    import torch

    return bool(torch.cuda.is_available())
