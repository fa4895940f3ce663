"""A run's record on disk: the run directory, `result.json`, strict JSON, atomic writes."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from unipet.runs.budget_label import budget_label, set_limits
from unipet.config import ModelConfig, RunConfig
from unipet.errors import UnipetError
from unipet.compose import parse_run_config
from unipet.compose.schema import config_values
from unipet.output.files import utf8, write_bytes_atomic
from unipet.calculus.yaml_reader import read_written

RESULT = "result.json"
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.jsonl"
ADAPTER = "adapter/"  # a directory
ERROR = "error.txt"
ATTEMPT = "attempt"  # a directory: where a finished run is repeated, until the repetition is whole


def model_label(model: ModelConfig) -> str:
    """What reports call the base model: its configuration's name, or for `model=auto` the hub or directory name."""
    if model.name != "auto":
        return model.name
    return Path(model.path).resolve().name if Path(model.path).is_dir() else model.path


def blank_record(config: RunConfig, method: str, run_id: str) -> dict[str, Any]:
    """A record with every key present: what is known before a run starts, and null for the rest."""
    return {
        "status": "running",  # then ok | failed | exceeded | skipped | interrupted
        "phase": None,  # of a run that has not ended well: what it was doing
        "run_id": run_id,
        "identity": {},  # the contents that run_id covers: data, base model, functions, numerics
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
        "composition": None,  # the method as it is trained, with the sizes that the budget solved
        "fitted": {},  # what was solved for the budget: {parameter_limit, requested, sizes, ...}
        "flags": [],  # what makes the score worth less than it looks: [{name, text}], see unipet/runs/flags.py
        "time": dict.fromkeys(("total_s", "train_s", "step_ms", "steps", "tokens_per_s", "phases_s")),
        "memory": dict.fromkeys(("peak_gib", "predicted_gib", "measured_by", "allocated_gib", "context_gib")),
        "insertions": [],
        "stopped_by": None,
        "resumed": [],  # the steps after which it went on, once for each interruption
        "reason": None,  # why a run was skipped, exceeded its budget or was interrupted
        "error": None,  # {type, message} of a failed run
        "files": {},  # of a finished run: the checksum of every file that belongs to it
        "folder": None,  # what relative paths of the configuration begin at, as seen from the run's directory
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
    """Software versions and the machine: what a result depends on besides the configuration."""
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
        match = re.search(
            r"^model name\s*:\s*(.+)$",
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"),
            flags=re.MULTILINE,
        )
    except OSError:
        match = None
    return match.group(1).strip() if match else platform.machine()


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from; None where it is installed or nothing is committed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--verify", "HEAD"], capture_output=True, encoding="ascii", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_text_atomic(path: Path, text: str) -> None:
    """Write all of `text` as UTF-8 or leave `path` as it was."""
    write_bytes_atomic(path, utf8(text))


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


def record_files(root: Path) -> list[Path]:
    """Every `result.json` below `root`, in order of path; not those of repetitions, beside the result that counts."""
    found = sorted(Path(root).rglob(RESULT))
    return [path for path in found if path.parent.name != ATTEMPT or not (path.parent.parent / RESULT).is_file()]


def run_config(directory: Path, record: Mapping[str, Any]) -> RunConfig:
    """The configuration of the run in `directory`, with its relative paths made to begin where they began: whoever reads
    it may be elsewhere. What it writes goes beside the run. Raises `UnipetError` as `read_config`."""
    config = read_config(directory / CONFIG)
    folder = directory / str(record.get("folder") or "")
    config.task.data_dir = _found(folder, config.task.data_dir)
    config.model.sites = _found(folder, config.model.sites)
    if config.model.package is None:
        config.model.path = str(_found(folder, config.model.path))
    config.runs_dir = str(directory.parent)
    return config


def _found(folder: Path, path: str | None) -> str | None:
    """`path` as it was meant from `folder`, where it is there; else as it stands, which may be a name on the hub."""
    if path is None or not (folder / path).exists():
        return path
    return os.path.abspath(folder / path)


def read_config(path: Path) -> RunConfig:
    """A run's `config.yaml` as dataclasses again. What an earlier version did not know has its default, which is what that
    version did. Raises `UnipetError`, naming the file, when it is not one."""
    content = config_values(read_written(path))
    missing = {"method", "task", "model", "optim", "seed"}.difference(content if isinstance(content, Mapping) else ())
    if missing:
        raise UnipetError(f"{path}: not the configuration of a run (it lacks {', '.join(sorted(missing))}).")
    try:
        return parse_run_config.run_config(content)
    except UnipetError as error:
        raise UnipetError(f"{path}: not the configuration of a run: {error}") from None
