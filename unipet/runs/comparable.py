"""What runs must have in common to be ranked against each other, in named parts, each with a short hash.

Two kinds of parts: what changes *what is measured* (the metric, the template, the splits, what was spent on training and tuning)
must agree; what may change *numbers in their last digits* (versions, precision, the evaluation batch, which decides on
padding) is only named. The learning rate and the method itself are in no part: they are what is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from unipet.config import TaskConfig, later_defaults
from unipet.runs.labels import leaves
from unipet.runs.record import Comparable, Record
from unipet.runs.record_files import canonical_json

#: Part -> keys of the configuration; a key that ends with a dot stands for all below it. The first parts must agree.
MEASURED: dict[str, tuple[str, ...]] = {
    "metric": ("task.bleu_tokenizer",),
    "template": ("task.kind", "task.text", "task.separator", "task.choices", "task.demonstrations", "task.languages"),
    "label words": ("task.labels", "task.verbalizers"),
    "loss mask": (),
    "truncation": ("task.max_length", "task.max_source", "task.max_target"),
    "decoding": ("task.decoding.",),
    "splits": (
        *("task.train_split", "task.evaluation_split", "task.evaluation_sets", "task.reported_set"),
        *("task.shots", "task.shots_from", "task.group_references"),
    ),
    "selection": (
        *("task.selection", "task.selection_split", "task.selection_size", "task.selection_metric"),
        *("task.selection_checkpoints", "task.patience"),
    ),
    "training": ("optim.epochs", "optim.batch_size", "budget.", "task.class_weights"),
    "tuning effort": (),
}
#: What may change a score by rounding: these differences are named, and do not prevent a ranking.
NUMERICAL: dict[str, tuple[str, ...]] = {
    "evaluation batch": ("optim.eval_batch_size",),
    "numerics": ("model.dtype", "model.quantization", "model.attention", "compile"),
    "versions": (),
}
#: Keys of the task that the fingerprint of the data covers: which examples there are, and where they come from.
BY_FINGERPRINT = (
    *("task.label", "task.label_is", "task.label_columns", "task.target", "task.references", "task.drop"),
    *("task.hub", "task.subset", "task.revision", "task.rename", "task.generator", "task.generator_seed"),
    *("task.generated_train", "task.generated_evaluation", "task.max_train", "task.max_evaluation"),
)
#: What may differ: names, places, metrics beside the first, and which few-shot split.
FREE = (
    *("task.name", "task.data_dir", "task.split_seed", "task.metrics", "task.submission", "task.submission_names"),
    *("task.submission_range", "budget.name"),
)


#: Part -> the keys that runs of an earlier version, and runs that do not use them, do not have, with what is meant then.
UNSAID: dict[str, dict[str, Any]] = {
    part: {key: value for name, value in later_defaults(TaskConfig).items() if (key := f"task.{name}") in keys}
    for part, keys in MEASURED.items()
}


def comparable(config: Mapping[str, Any], record: Record) -> dict[str, Comparable]:
    """The parts of a run with this resolved configuration; a value that is not known is None."""
    from unipet.tasks.kinds import KINDS

    task = config.get("task")
    flat = leaves(config)
    if isinstance(task, Mapping):  # a mapping of these is one value: one of them may hold others than the next
        flat |= {f"task.{name}": task[name] for name in later_defaults(TaskConfig) if name in task}
    measured = {part: _settings(keys, flat) for part, keys in MEASURED.items()}
    numerical = {part: _settings(keys, flat) for part, keys in NUMERICAL.items()}
    data, seen, made = record.data, record.versions, record.precision or flat.get("precision")
    few = data.shots is not None
    kind = KINDS.get(str(flat.get("task.kind")))
    measured["metric"] = {"metric": record.metric, **measured["metric"]}
    measured["loss mask"] = {"loss mask": kind.supervised if kind else None}
    measured["splits"] = {
        "data fingerprint": data.pool or data.fingerprint,
        "train examples": f"{data.shots} of each label" if few else data.train,
        "evaluation examples": data.evaluation,
        **({} if data.fingerprint else _settings(BY_FINGERPRINT, flat)),
        **measured["splits"],
    }
    measured["selection"] = {
        "selection": data.selection.by,
        "selection examples": None if few else data.selection.examples,
        **measured["selection"],
    }
    measured["tuning effort"] = {"tuning effort": record.trial.effort or "no search"}
    numerical["numerics"] = {"numerics": record.identity.numerics, "precision": made, **numerical["numerics"]}
    numerical["versions"] = {"torch": seen.torch, "transformers": seen.transformers, "unipet": seen.unipet}
    return {part: Comparable(_hash(values), values) for part, values in {**measured, **numerical}.items()}


def _settings(keys: tuple[str, ...], flat: Mapping[str, Any]) -> dict[str, Any]:
    whole = [key for key in keys if not key.endswith(".")]
    below = tuple(key for key in keys if key.endswith("."))
    settings = {key: flat[key] for key in whole if key in flat}
    return settings | {key: value for key, value in flat.items() if below and key.startswith(below) and key not in FREE}


def _hash(values: Mapping[str, Any]) -> str:
    """Eight hex characters."""
    return hashlib.sha256(canonical_json(dict(values)).encode()).hexdigest()[:8]
