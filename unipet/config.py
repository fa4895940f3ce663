"""The resolved configuration of one run, as plain dataclasses: every key with its default and all that limits it.

Hydra composes YAML into these, and `calculus/options.py` parses and checks them by what stands here. The method stays a
mapping: `calculus/method.py` validates it, so that a method means the same from the command line and from Python.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError

LARGEST = 2**32 - 1  # what numpy takes as a seed
LONGEST = 2**63 - 1  # what a tensor's number of values may be


def option(
    default: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    words: str = "",
    null: str = "",
    filled: bool = False,
    path: bool = False,
    pattern: str = "",
) -> Any:
    """A dataclass field with its default and what limits it; of a list, what limits each of its values.

    A number is at least `low` or greater than `above`, and at most `high` or less than `below`. A text is one of `choices`;
    with `filled` it is not empty; all of it fits the regular expression `pattern`; with `path` it names a file or a directory
    of the user's. `words` say what is allowed
    where type and limits do not, and `null` what null means.
    """
    limits: dict[str, Any] = {"low": low, "above": above, "high": high, "below": below, "choices": tuple(choices)}
    limits |= {"words": words, "null": null, "filled": filled, "path": path, "pattern": pattern}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata=limits)
    return field(default=default, metadata=limits)


class Paths:
    """What a configuration with path fields derives from: `~` and `~user` in them are home directories."""

    def __post_init__(self) -> None:
        for one in fields(self):  # type: ignore[arg-type]
            given = getattr(self, one.name)
            if one.metadata.get("path") and isinstance(given, str):
                setattr(self, one.name, os.path.expanduser(given))


@dataclass
class DecodingConfig:
    """How a generation task's evaluation decodes: beam search or greedy, never sampling, with the KV cache."""

    num_beams: int = option(1, low=1)
    length_penalty: float = option(1.0, low=-math.inf)  # above 1 favours longer beams
    min_new_tokens: int = option(0, low=0)
    max_new_tokens: int | None = option(None, low=1, null="for task.max_target")
    no_repeat_ngram_size: int = option(0, low=0)  # 0: no limit


@dataclass
class TaskConfig(Paths):
    """What is learned: where the examples come from, which columns they have and how an answer is scored."""

    name: str = "???"
    kind: str = "classification"  # a row of unipet/tasks/kinds.py
    # One text, or two for a pair: each a column, or a template of columns in braces: "{word}: {sentence}".
    text: list[str] = field(default_factory=list)
    label: str = option("label", filled=True, words="a column name")  # the column that holds the answer
    labels: list[str] = field(default_factory=list)  # label names in index order; empty for regression and generation
    # How labels are written in the data. auto reads both, and stops where one could mean two labels.
    label_is: str = option("auto", choices=("auto", "name", "index"))
    # Rows to leave out, counted in the record: empty (a text is missing), unlabelled (no answer: null, empty or -1).
    drop: list[str] = option([], choices=("empty", "unlabelled"))
    choices: list[str] = field(default_factory=list)  # multiple_choice: one column (or template) per choice
    verbalizers: list[str] = field(default_factory=list)  # masked_prompt: one word per label, in the order of labels
    # generation: the column with the text to produce
    target: str = option("target", filled=True, words="a column name")
    # generation: the evaluation column with several right texts; target where absent
    references: str = option("references", filled=True, words="a column name")
    group_references: bool = False  # generation: evaluation rows of one source become one row with all their references
    separator: str = "\n"  # causal_generation: what stands between source and target
    languages: list[str] = field(default_factory=list)  # translation: source and target code, for tokenizers with codes
    metrics: list[str] = field(default_factory=list)  # the first is the run's score
    bleu_tokenizer: str = "13a"  # one of sacrebleu's: 13a, intl, zh, ja-mecab, ko-mecab, char, flores200, none, ...
    hub: str | None = option(None, filled=True, words="a name")  # data set on the hub
    subset: str | None = option(None, filled=True, words="a name")
    revision: str | None = option(None, filled=True, words="a name")
    # hub column -> our column; a.b reaches into a
    rename: dict[str, str] = option({}, words="a mapping from a hub column to one of the task's")
    train_split: str = "train"
    evaluation_split: str = "validation"
    # what chooses the checkpoint; with none it is the last one
    selection: str = option("train_holdout", choices=("train_holdout", "validation", "none"))
    selection_split: str = "validation"  # of selection=validation; never the evaluation split
    # examples of selection=train_holdout, at most a fifth of the training set
    selection_size: int = option(500, low=1)
    selection_metric: str | None = None  # null: the first metric; of generated text "loss", which decodes nothing
    # file name -> hidden split, or subset/split of the hub
    submission: dict[str, str] = option({}, words="a mapping from a file name to a split")
    submission_names: bool = False  # submission files hold label names; else indices
    # regression: what a server takes
    submission_range: list[float] = option([], low=-math.inf, words="[lowest, highest], or [] for answers as they are")
    # a synthetic task: the name of its generator
    generator: str | None = option(None, filled=True, words="a name")
    generator_seed: int = option(0, low=-math.inf)
    generated_train: int = option(4000, low=1)
    generated_evaluation: int = option(1000, low=1)
    # <data_dir>/<split>.{jsonl,csv,tsv,parquet} take the place of hub and generator
    data_dir: str | None = option(None, filled=True, words="a name", path=True)
    max_length: int = option(128, low=1)  # tokens; of what is classified
    max_source: int = option(512, low=1)  # tokens; generation
    max_target: int = option(128, low=2)  # tokens; generation
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    # the first n of a fixed shuffle: the same examples for every method and seed
    max_train: int | None = option(None, low=1, null="for all")
    max_evaluation: int | None = option(None, low=1, null="for all")


@dataclass
class ModelConfig(Paths):
    """The frozen base model: a hub name, a directory, or weights that a Python package carries."""

    name: str = "???"
    path: str = option("???", path=True)  # a hub name or a directory
    revision: str | None = None
    package: str | None = None  # path is then relative to this installed package; it is found and never imported
    sha256: str | None = None  # of model.safetensors; checked before loading
    # a YAML file: the site table of an architecture that the package does not know
    sites: str | None = option(None, words="a file", path=True)


@dataclass
class BudgetConfig:
    """What a run may spend; null is no limit. The effective batch is `optim.batch_size`, which no budget changes."""

    name: str = "none"
    trainable_params: int | None = option(None, low=0, high=LONGEST)  # parameters that train, the head excluded
    # the same, in percent of the base model without its head
    trainable_percent: float | None = option(None, low=0)
    peak_memory_gib: float | None = option(None, above=0)  # of one device, in training
    # share of peak_memory_gib that fitting leaves free: a prediction may be wrong by that
    memory_margin: float = option(0.05, low=0, below=1)
    max_steps: int | None = option(None, low=1, high=LARGEST)  # optimiser steps
    max_tokens: int | None = option(None, low=1, high=LONGEST)  # tokens that training reads, padding excluded
    gpu_hours: float | None = option(None, above=0)  # gpus x training wall seconds / 3600
    gpus: int = option(1, low=1, high=LARGEST)  # devices that the run holds
    # what a run does that exceeds it: solve sizes and micro-batch, be left out, or stop
    on_exceed: str = option("fit", choices=("fit", "skip", "error"))


@dataclass
class OptimConfig:
    """How it is trained: AdamW with a warm-up and a decay, the same for every method."""

    name: str = "adamw"
    lr: float = option(5e-4, above=0)
    lr_ratio: float = option(1.0, above=0)  # the learning rate of `up` slots over that of all others (LoRA+)
    epochs: float = option(3.0, above=0)
    # the effective batch: examples of one optimiser step, whatever micro-batch fits in memory
    batch_size: int = option(32, low=1, high=LARGEST)
    eval_batch_size: int = option(64, low=1, high=LARGEST)
    weight_decay: float = option(0.01, low=0)
    warmup_ratio: float = option(0.06, low=0, high=1)
    schedule: str = option("linear", choices=("linear", "cosine", "constant"))  # training/schedule.py
    clip: float = option(1.0, low=0)
    label_smoothing: float = option(0.0, low=0, below=1)
    beta1: float = option(0.9, low=0, below=1)
    beta2: float = option(0.999, low=0, below=1)
    epsilon: float = option(1e-8, above=0)


@dataclass
class TrackingConfig:
    """Where metrics are mirrored besides the run's own record."""

    name: str = "none"  # a row of TRACKERS in unipet/runs/tracking.py
    project: str = "unipet"
    mode: str = option("offline", choices=("offline", "online"))
    group: str | None = None


@dataclass
class LauncherConfig:
    """How the jobs of a sweep are run: by whom, how many at a time, and what becomes of one that fails."""

    name: str = "local"  # a row of LAUNCHERS in unipet/sweeps/launchers.py
    # processes that run jobs; of slurm, tasks of the array
    workers: int | None = option(None, low=1, null="for as many as the machine can take, on SLURM one for each job")
    timeout: float | None = option(None, above=0, null="for no limit")  # seconds that one job may take
    retries: int = option(0, low=0)  # how often a job is tried again that failed by no fault of its own
    fail_fast: bool = False  # true: the first failure ends the sweep; the jobs at work are finished
    # local: false runs the jobs in this very process, where a crash ends all (for debuggers, and functions of a notebook)
    isolate: bool = True
    # slurm: where the array goes; local runs its tasks on this machine, to try it without a cluster
    cluster: str = option("slurm", choices=("slurm", "local"))
    partition: str | None = option(None, filled=True, words="a name", null="for the cluster's default")
    account: str | None = option(None, filled=True, words="a name", null="for your default account")
    time: int = option(240, low=1)  # slurm: minutes that a task may take before it is queued again
    memory_gib: float | None = option(None, above=0, null="for the partition's default")  # slurm: of one worker
    # slurm: further options of sbatch, under their long names; true stands for an option without a value
    sbatch: dict[str, str] = option({}, words="a mapping from an option of sbatch to its value")
    # ray: of a cluster
    address: str | None = option(None, filled=True, words="HOST:PORT or auto", null="for one that is started here")
    # slurm, ray: cores and GPUs of one worker
    cpus: int | None = option(None, low=1, null="for one core, on SLURM for the partition's default")
    gpus: int | None = option(
        None, low=0, null="for one where the cluster has any, on SLURM for the partition's default"
    )


@dataclass
class CheckpointConfig:
    """How often a run in training writes a resume point, from which it goes on after an interruption."""

    # A number and its unit; minutes may have decimals.
    every: str | None = option(
        "2 minutes",
        pattern=r"[1-9]\d* ?steps?|(?=.*[1-9])\d+(\.\d+)? ?minutes?",
        words="a number and its unit, '100 steps' or '2 minutes'",
        null="for never",
    )


@dataclass
class RunConfig(Paths):
    """One run: method x task x model x budget x optimiser x seed."""

    method: dict[str, Any] = field(default_factory=dict)
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    seed: int = option(0, low=0, high=LARGEST)
    precision: str = option("fp32", choices=("fp32", "bf16"))
    runs_dir: str = option("runs", filled=True, words="the name of a directory", path=True)
    rerun: bool = False  # run again although a finished record of the same run_id exists
    # Modules of your own that register functions, imported before the method is read; never by what loads a finished run.
    imports: list[str] = field(default_factory=list)


def conf_dir() -> Path:
    """The directory of the shipped groups (method, task, model, ...). Raises UnipetError if it is not there."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise UnipetError(f"unipet's configuration is missing (looked in {package / 'conf'}). Reinstall unipet.")
