"""Results of the comparison that comes with peft (`method_comparison/*/results/*.json`), as records.

Such a file has `run_info` (configuration of training and of the adapter), `train_info` (parameters, memory, seconds, and a list
of metrics whose last element has those of the test set) and `meta_info` (checksums of model and data, versions).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from unipet.runs.record import ErrorOf, Params, Record
from unipet.runs.record_costs import Memory, Time
from unipet.runs.versions import Machine, Versions

TEST = "test "  # what the names of the reported metrics begin with
BESIDE = ("forgetting", "drift")  # what training did to other texts and images
SCALES = {"accuracy": "0 to 1"}
SUCCESS = "success"
PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
GIB = 2**30


def is_peft_result(content: Any) -> bool:
    """Whether parsed JSON is a result of that comparison."""
    parts = ("run_info", "train_info", "meta_info")
    return isinstance(content, Mapping) and all(isinstance(content.get(part), Mapping) for part in parts)


def from_peft(content: Mapping[str, Any]) -> tuple[Record, dict[str, Any]]:
    """The record of a result, and its configuration by our keys as far as it has any. Raises KeyError, TypeError and ValueError
    where the file lacks what a result has."""
    run, trained, meta = content["run_info"], content["train_info"], content["meta_info"]
    training, data = run["train_config"], meta["dataset_info"]
    method, _, experiment = str(run["experiment_name"]).partition("/")
    trainable, total = int(trained["num_trainable_params"]), int(trained["num_total_params"])
    if not 0 <= trainable <= total or not total:
        raise ValueError(f"{trainable} of {total} parameters are trained")
    base = total if trainable == total else total - trainable
    metrics = _metrics(trained["metrics"])
    record = Record(
        status="ok" if trained["status"] == SUCCESS and metrics else "failed",
        method=f"peft:{method}",
        task=_task(training, data),
        model=str(training["model_id"]),
        seed=int(training["seed"]),
        metrics=metrics,
        metric=("accuracy" if "accuracy" in metrics else next(iter(metrics), None)),
        params=Params(base=base, trainable=trainable, stored=trainable, percent=100.0 * trainable / base),
        time=Time(total_s=_number(run, "total_time"), train_s=_number(trained, "train_time"), steps=_steps(trained)),
        memory=Memory(peak_gib=_peak(trained), measured_by="reserved, of the whole process with its evaluation"),
        precision=PRECISIONS.get(str(training["dtype"])),
        versions=_versions(meta),
        started=str(run["created_at"]),
        finished=str(run["created_at"]),
    )
    record.score = metrics[record.metric] if record.metric else None
    record.data.source = "imported:peft"
    record.data.fingerprint = hashlib.sha256(repr(sorted(data.items())).encode()).hexdigest()[:16]
    record.data.scoring.scales = {name: scale for name, scale in SCALES.items() if name in metrics}
    if record.status == "failed":
        record.error = ErrorOf(str(trained["status"]), str(run["error_msg"]) or "the file has no test metric")
    optimiser = training["optimizer_kwargs"]
    config = {
        "method": {"name": record.method, "experiment": experiment},
        "task": {"name": record.task, "max_length": training.get("max_seq_length")},
        "model": {"name": record.model, "path": record.model},
        "budget": {"name": "none", "max_steps": training["max_steps"]},
        "optim": {
            "lr": optimiser["lr"],
            "weight_decay": optimiser.get("weight_decay"),
            "batch_size": training["batch_size"],
            "schedule": training["lr_scheduler"],
            "clip": training.get("grad_norm_clip"),
        },
        "seed": record.seed,
        "precision": record.precision,
    }
    return record, config


def _metrics(listed: Any) -> dict[str, float]:
    """Those of the test set, from the last element that has any: `test accuracy` is accuracy."""
    for entry in reversed(listed):
        tested = {
            name.removeprefix(TEST).replace(" ", "_"): value for name, value in entry.items() if name.startswith(TEST)
        }
        if tested:
            tested |= {name: value for name, value in entry.items() if name in BESIDE}
            return {name: float(value) for name, value in tested.items() if isinstance(value, int | float)}
    return {}


def _task(training: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The data sets' names together; that of text questions is `metamathqa`, whose answers are tested on gsm8k."""
    names = sorted(name for name, content in data.items() if isinstance(content, Mapping))
    if names == ["gsm8k", "metamath"]:
        return "metamathqa"
    return "+".join(names) or PurePath(str(training["dataset_id"])).name


def _steps(trained: Mapping[str, Any]) -> int | None:
    return max((int(entry["step"]) for entry in trained["metrics"] if "step" in entry), default=None)


def _peak(trained: Mapping[str, Any]) -> float | None:
    """Files of 2025 have `cuda_` where later ones have `accelerator_`."""
    found = next((trained[name] for name in ("accelerator_memory_max", "cuda_memory_max") if name in trained), None)
    return None if not found else float(found) / GIB


def _number(content: Mapping[str, Any], key: str) -> float | None:
    value = content.get(key)
    return float(value) if isinstance(value, int | float) else None


def _versions(meta: Mapping[str, Any]) -> Versions:
    packages, system = meta["package_info"], meta["system_info"]
    device = next((str(system[name]) for name in ("accelerator", "gpu") if name in system), None)
    return Versions(
        torch=packages.get("torch-version"),
        transformers=packages.get("transformers-version"),
        machine=Machine(device=device),
    )
