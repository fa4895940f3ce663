"""The resolved configuration of one run, as plain dataclasses.

Hydra composes YAML into these (`cli.py` registers them as the schema), and `run.py` reads them. The method stays a
mapping here: `method.py` validates it, so that a method means the same from the command line and from Python.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError

PATH = {"path": True}  # metadata of a field that names a file or a directory of the user's


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

    num_beams: int = 1
    length_penalty: float = 1.0  # above 1 favours longer beams
    min_new_tokens: int = 0
    max_new_tokens: int | None = None  # null: task.max_target
    no_repeat_ngram_size: int = 0  # 0: no limit


@dataclass
class TaskConfig(Paths):
    """What is learned: where the examples come from, which columns they have and how an answer is scored."""

    name: str = "???"
    kind: str = "classification"  # a row of unipet/tasks/kinds.py
    # One text, or two for a pair: each a column, or a template of columns in braces: "{word}: {sentence}".
    text: list[str] = field(default_factory=list)
    label: str = "label"  # the column that holds the answer
    labels: list[str] = field(default_factory=list)  # label names in index order; empty for regression and generation
    # How labels are written in the data: auto | name | index. auto reads both, and stops where one could mean two labels.
    label_is: str = "auto"
    # Rows to leave out, counted in the record: empty (a text is missing), unlabelled (no answer: null, empty or -1).
    drop: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)  # multiple_choice: one column (or template) per choice
    verbalizers: list[str] = field(default_factory=list)  # masked_prompt: one word per label, in the order of labels
    target: str = "target"  # generation: the column with the text to produce
    references: str = "references"  # generation: the evaluation column with several right texts; target where absent
    group_references: bool = False  # generation: evaluation rows of one source become one row with all their references
    separator: str = "\n"  # causal_generation: what stands between source and target
    languages: list[str] = field(default_factory=list)  # translation: source and target code, for tokenizers with codes
    metrics: list[str] = field(default_factory=list)  # the first is the run's score
    bleu_tokenizer: str = "13a"  # one of sacrebleu's: 13a, intl, zh, ja-mecab, ko-mecab, char, flores200, none, ...
    hub: str | None = None  # data set on the hub
    subset: str | None = None
    revision: str | None = None
    rename: dict[str, str] = field(default_factory=dict)  # hub column -> our column; a.b reaches into a
    train_split: str = "train"
    evaluation_split: str = "validation"
    selection: str = "train_holdout"  # what chooses the checkpoint: train_holdout | validation | none (the last one)
    selection_split: str = "validation"  # of selection=validation; never the evaluation split
    selection_size: int = 500  # examples of selection=train_holdout, at most a fifth of the training set
    selection_metric: str | None = None  # null: the first metric; of generated text "loss", which decodes nothing
    submission: dict[str, str] = field(default_factory=dict)  # file name -> hidden split, or subset/split of the hub
    submission_names: bool = False  # submission files hold label names; else indices
    submission_range: list[float] = field(default_factory=list)  # regression: [lowest, highest] that a server takes
    generator: str | None = None  # a synthetic task: the name of its generator
    generator_seed: int = 0
    generated_train: int = 4000
    generated_evaluation: int = 1000
    # <data_dir>/<split>.{jsonl,csv,tsv,parquet} take the place of hub and generator
    data_dir: str | None = field(default=None, metadata=PATH)
    max_length: int = 128  # tokens; of what is classified
    max_source: int = 512  # tokens; generation
    max_target: int = 128  # tokens; generation
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    max_train: int | None = None  # the first n of a fixed shuffle: the same examples for every method and seed
    max_evaluation: int | None = None


@dataclass
class ModelConfig(Paths):
    """The frozen base model: a hub name, a directory, or weights that a Python package carries."""

    name: str = "???"
    path: str = field(default="???", metadata=PATH)  # a hub name or a directory
    revision: str | None = None
    package: str | None = None  # path is then relative to this installed package; it is found and never imported
    sha256: str | None = None  # of model.safetensors; checked before loading
    # a YAML file: the site table of an architecture that the package does not know
    sites: str | None = field(default=None, metadata=PATH)


@dataclass
class BudgetConfig:
    """What a run may spend; null is no limit. The effective batch is `optim.batch_size`, which no budget changes."""

    name: str = "none"
    trainable_params: int | None = None  # parameters that train, the head excluded
    trainable_percent: float | None = None  # the same, in percent of the base model without its head
    peak_memory_gib: float | None = None  # of one device, in training
    memory_margin: float = 0.05  # share of peak_memory_gib that fitting leaves free: a prediction may be wrong by that
    max_steps: int | None = None  # optimiser steps
    max_tokens: int | None = None  # tokens that training reads, padding excluded
    gpu_hours: float | None = None  # gpus x training wall seconds / 3600
    gpus: int = 1  # devices that the run holds
    on_exceed: str = "fit"  # fit | skip | error: solve sizes and micro-batch, leave the run out, or stop


@dataclass
class OptimConfig:
    """How it is trained: AdamW with a warm-up and a decay, the same for every method."""

    name: str = "adamw"
    lr: float = 5e-4
    lr_ratio: float = 1.0  # the learning rate of `up` slots over that of all others (LoRA+)
    epochs: float = 3.0
    batch_size: int = 32  # the effective batch: examples of one optimiser step, whatever micro-batch fits in memory
    eval_batch_size: int = 64
    weight_decay: float = 0.01
    warmup_ratio: float = 0.06
    schedule: str = "linear"  # linear | cosine | constant
    clip: float = 1.0
    label_smoothing: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


@dataclass
class TrackingConfig:
    """Where metrics are mirrored besides the run's own record."""

    name: str = "none"  # none | wandb | trackio
    project: str = "unipet"
    mode: str = "offline"  # offline | online
    group: str | None = None


@dataclass
class RunConfig(Paths):
    """One run: method x task x model x budget x optimiser x seed."""

    method: dict[str, Any] = field(default_factory=dict)
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = 0
    precision: str = "fp32"  # fp32 | bf16
    runs_dir: str = field(default="runs", metadata=PATH)
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
