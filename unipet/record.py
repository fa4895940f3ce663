"""A run's identity and its record on disk: `run_id`, the run directory, `result.json`, strict JSON, atomic writes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

from unipet.budget_label import budget_label, set_limits
from unipet.config import ModelConfig, RunConfig
from unipet.errors import UnipetError
from unipet.schema import config_values
from unipet.writing import write_bytes_atomic
from unipet.yaml_reader import read_written

RESULT = "result.json"
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.jsonl"
ADAPTER = "adapter/"  # a directory
ERROR = "error.txt"

_NOT_IDENTITY = ("tracking", "runs_dir", "rerun", "imports")  # where and how a run is watched, not what it computes


def resolved(config: RunConfig) -> dict[str, Any]:
    """The whole configuration as plain values, the method spelled out in full, so that shorthands mean one thing."""
    from unipet.library import load_method

    return {**asdict(config), "method": load_method(config.method).to_dict()}


def run_id(config: RunConfig) -> str:
    """16 hex characters over everything that decides a run's result, and nothing else.

    Paths stay out: `task.data_dir` is dropped (the record holds the data's own fingerprint), and a base model in a
    local directory enters by its content. Raises `UnipetError` for an invalid method.
    """
    content = {key: value for key, value in resolved(config).items() if key not in _NOT_IDENTITY}
    content["task"].pop("data_dir")
    content["model"] = _model_identity(config.model)
    insertions = content["method"]["insertions"]
    content["method"]["insertions"] = [[name, insertions[name]] for name in insertions]  # their order matters
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:16]


def _model_identity(model: ModelConfig) -> dict[str, Any]:
    identity = asdict(model)
    if identity.pop("sites") is not None:  # a table of the user's own enters by what it says
        from unipet.site_files import load_sites
        from unipet.sites import table_data

        table = load_sites(model.sites)
        identity["sites"] = None if table is None else table_data(table)
    directory = Path(model.path)
    if model.package is None and directory.is_dir():
        # config.json in full and the sizes of the weight files: reading gigabytes for a name is not worth it.
        config = directory / "config.json"
        digest = hashlib.sha256(config.read_bytes() if config.is_file() else b"")
        weights = sorted((file.name, file.stat().st_size) for file in directory.glob("*.safetensors"))
        digest.update(canonical_json(weights).encode())
        identity["path"] = "content:" + digest.hexdigest()[:16]
    return identity


def run_dir(config: RunConfig) -> Path:
    """`<runs_dir>/<method>-<task>-s<seed>-<first 8 of run_id>`. Raises `UnipetError` for an invalid method."""
    from unipet.library import load_method

    name = f"{load_method(config.method).name}-{config.task.name}-s{config.seed}-{run_id(config)[:8]}"
    return Path(config.runs_dir) / re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def model_label(model: ModelConfig) -> str:
    """What reports call the base model: its configuration's name, or for `model=auto` the hub or directory name."""
    if model.name != "auto":
        return model.name
    return Path(model.path).resolve().name if Path(model.path).is_dir() else model.path


def blank_record(config: RunConfig, method: str, identity: str) -> dict[str, Any]:
    """A record with every key present: what is known before a run starts, and null for the rest."""
    return {
        "status": "running",  # then ok | failed | exceeded | skipped
        "run_id": identity,
        "method": method,
        "task": config.task.name,
        "model": model_label(config.model),
        "budget": budget_label(asdict(config.budget)),
        "limits": set_limits(asdict(config.budget)),
        "seed": config.seed,
        "score": None,
        "metric": None,
        "metrics": {},
        "params": dict.fromkeys(("base", "trainable", "head", "stored", "merged", "formula", "percent")),
        "fitted": {},  # what was solved for the budget: {parameter_limit, requested, sizes, ...}
        "time": dict.fromkeys(("total_s", "train_s", "step_ms", "steps", "tokens_per_s")),
        "memory": dict.fromkeys(("peak_gib", "predicted_gib", "measured_by", "allocated_gib", "context_gib")),
        "insertions": [],
        "stopped_by": None,
        "reason": None,  # why a run was skipped, or exceeded its budget
        "error": None,  # {type, message} of a failed run
        "versions": versions(),
        "git_commit": git_commit(),
        "data": dict.fromkeys(("source", "fingerprint", "train", "evaluation")),
        "started": now(),
        "finished": None,
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, Any]:
    """What a result depends on besides the configuration: software versions and the machine."""
    import torch

    import unipet

    found: dict[str, Any] = {"python": platform.python_version()}
    for name, distribution in (("torch", "torch"), ("transformers", "transformers"), ("hydra", "hydra-core")):
        found[name] = _version(distribution)
    found["unipet"] = unipet.__version__
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    found["machine"] = {"device": device, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    return found


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    except OSError:
        match = None
    return match.group(1).strip() if match else platform.machine()


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from; None where it is installed or nothing is committed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_text_atomic(path: Path, text: str) -> None:
    """Write all of `text` as UTF-8 or leave `path` as it was."""
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as strict, indented JSON, atomically. Raises ValueError for NaN and infinities: JSON has none."""
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_jsonl_atomic(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one strict JSON object per line, atomically."""
    write_text_atomic(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_record(path: Path) -> dict[str, Any]:
    """One `result.json`. Raises `UnipetError`, naming the file, when it cannot be read or is not a record."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnipetError(
            f"{path}: not a readable record ({error}). Delete it or run its configuration again."
        ) from None
    if not isinstance(record, dict) or not {"status", "run_id"} <= record.keys():
        raise UnipetError(f"{path}: not the record of a run (no status or run_id). Delete it or move it elsewhere.")
    return record


def read_records(root: Path) -> list[dict[str, Any]]:
    """Every record below `root`, in order of path. Raises `UnipetError`, naming the file, for a corrupt one."""
    return [read_record(path) for path in sorted(Path(root).rglob(RESULT))]


def read_config(path: Path) -> RunConfig:
    """A run's `config.yaml` as dataclasses again. Raises `UnipetError`, naming the file, when it is not one."""
    try:
        content = config_values(read_written(path))
        config = _build(RunConfig, content)
    except (TypeError, AttributeError) as error:
        raise UnipetError(f"{path}: not the configuration of a run ({error}).") from None
    assert isinstance(config, RunConfig)
    return config


def _build(kind: type[Any], content: dict[str, Any]) -> Any:
    types = get_type_hints(kind)
    values = {
        key: _build(types[key], value) if is_dataclass(types.get(key)) else value for key, value in content.items()
    }
    missing = {field.name for field in fields(kind)} - values.keys()
    if missing:
        raise TypeError(f"{kind.__name__} lacks {', '.join(sorted(missing))}")
    return kind(**values)
