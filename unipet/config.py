"""The resolved configuration of one run as dataclasses: every key with its default and its limits.

Hydra composes YAML into these classes, and `calculus/options.py` parses and checks values by their types and limits. The
method stays a mapping, which `calculus/method.py` validates for the command line and for Python alike.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError

LARGEST = 2**32 - 1  # numpy's largest seed
LONGEST = 2**63 - 1  # the largest number of elements of a tensor
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")  # as transformers names them


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
    later: bool = False,
    numbers: bool = False,
) -> Any:
    """A dataclass field with its default and its limits. The limits of a list hold for each of its elements.

    A number is at least `low` or greater than `above`, and at most `high` or less than `below`. A text is one of `choices`;
    with `filled`, it is not empty; with `pattern`, all of it matches this regular expression; with `path`, it is a path. In
    error messages, `words` describe what is allowed if type and limits do not suffice, and `null` the meaning of null.
    `later` marks a key that came when there were runs already (`plain_values`). With `numbers`, it is a mapping from a text
    to a number, one of `choices`, or null: OmegaConf has no such type, so the field is Any.
    """
    limits: dict[str, Any] = {"low": low, "above": above, "high": high, "below": below, "choices": tuple(choices)}
    limits |= {
        "words": words,
        "null": null,
        "filled": filled,
        "path": path,
        "pattern": pattern,
        "later": later,
        "numbers": numbers,
    }
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata=limits)
    return field(default=default, metadata=limits)


def plain_values(config: Any) -> dict[str, Any]:
    """A configuration as plain values. A key that came later is left out at its default: a configuration that does not use it
    is written, named and compared as it was before there was this key."""
    found = asdict(config)
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            found[each.name] = plain_values(value)
        elif each.name in (later := later_defaults(type(config))) and value == later[each.name]:
            del found[each.name]
    return found


def later_defaults(cls: type) -> dict[str, Any]:
    """The keys of a configuration that came later, with their defaults: what is meant where they are left out."""
    own = [each for each in fields(cls) if each.metadata.get("later")]
    return {each.name: {} if each.default is MISSING else each.default for each in own}


class Paths:
    """Base class of configurations with path fields: `~` and `~user` in a path are replaced by home directories."""

    def __post_init__(self) -> None:
        for key in fields(self):  # type: ignore[arg-type]
            value = getattr(self, key.name)
            if key.metadata.get("path") and isinstance(value, str):
                setattr(self, key.name, os.path.expanduser(value))


@dataclass
class DecodingConfig:
    """Decoding in the evaluation of a generation task: beam search or greedy, never sampling, with the KV cache."""

    num_beams: int = option(1, low=1)
    length_penalty: float = option(1.0, low=-math.inf)  # above 1 favours longer beams
    min_new_tokens: int = option(0, low=0)
    max_new_tokens: int | None = option(None, low=1, null="for task.max_target")
    no_repeat_ngram_size: int = option(0, low=0)  # 0: no limit


@dataclass
class TaskConfig(Paths):
    """The task: where the examples come from, which columns they have, and how answers are scored."""

    name: str = "???"
    kind: str = "classification"  # a row of unipet/tasks/kinds.py
    # One text, or two for a pair. Each is a column, or a template with columns in braces: "{word}: {sentence}".
    text: list[str] = field(default_factory=list)
    label: str = option("label", filled=True, words="a column name")  # the column that holds the answer
    labels: list[str] = field(default_factory=list)  # label names in index order; empty for regression and generation
    # multi_label: each label is a column of its own with 0 or 1, instead of one column with lists of labels
    label_columns: bool = option(False, later=True)
    # classification: the weight of each label in the loss; balanced: such that all labels count alike in the training set
    class_weights: Any = option(
        None,
        above=0,
        numbers=True,
        choices=("balanced",),
        words="balanced, or a mapping from each label to its weight greater than 0",
        null="for the same weight",
        later=True,
    )
    # How the data write labels. auto accepts both, and raises an error if a value could mean two labels.
    label_is: str = option("auto", choices=("auto", "name", "index"))
    # Rows to leave out: empty (a text is missing), unlabelled (no answer: null, empty or -1). The record counts them.
    drop: list[str] = option([], choices=("empty", "unlabelled"))
    choices: list[str] = field(default_factory=list)  # multiple_choice: one column (or template) per choice
    verbalizers: list[str] = field(default_factory=list)  # prompts: one word per label, in the order of labels
    demonstrations: int = option(0, low=0)  # prompts: solved training examples of each label in every context
    target: str = option("target", filled=True, words="a column name")  # generation: the column with the answer
    # generation: the evaluation column with several correct texts; without it, target is used
    references: str = option("references", filled=True, words="a column name")
    group_references: bool = False  # generation: merge evaluation rows with the same source, with all references
    separator: str = "\n"  # causal_generation: the text between source and target
    languages: list[str] = field(default_factory=list)  # translation: source and target code, for tokenizers with codes
    metrics: list[str] = field(default_factory=list)  # the first one is the run's score
    bleu_tokenizer: str = "13a"  # one of sacrebleu's: 13a, intl, zh, ja-mecab, ko-mecab, char, flores200, none, ...
    hub: str | None = option(None, filled=True, words="a name")  # data set on the hub
    subset: str | None = option(None, filled=True, words="a name")
    revision: str | None = option(None, filled=True, words="a name")
    # column on the hub -> column of the task; a.b is the field b of column a
    rename: dict[str, str] = option({}, words="a mapping from a hub column to one of the task's")
    train_split: str = "train"
    evaluation_split: str = "validation"
    # several evaluation sets, each a name and its split, and which of them is the score; without them: evaluation_split
    evaluation_sets: dict[str, str] = option({}, words="a mapping from a name to a split", later=True)
    reported_set: str | None = option(None, filled=True, words="a name in task.evaluation_sets", later=True)
    # The examples that choose the checkpoint (none: the last is kept). auto: train_holdout, but none with shots
    selection: str = option("auto", choices=("auto", "train_holdout", "validation", "shots", "none"))
    selection_split: str = "validation"  # for selection=validation; never the evaluation split
    selection_size: int = option(500, low=1)  # for selection=train_holdout; at most a fifth of the training set
    selection_metric: str | None = None  # null: the first metric; for generation "loss", which needs no decoding
    selection_checkpoints: int = option(5, low=1, later=True)  # how often, at most, a checkpoint is scored
    # training ends once so many scored checkpoints in a row were no better than the best before them
    patience: int | None = option(None, low=1, null="for all of the training", later=True)
    submission: dict[str, str] = option(
        {}, words="a mapping from a file name to a split"
    )  # or to subset/split of the hub
    submission_names: bool = False  # write label names to submission files, instead of indices
    # regression: the range that a submission server accepts
    submission_range: list[float] = option([], low=-math.inf, words="[lowest, highest], or [] for answers as they are")
    generator: str | None = option(None, filled=True, words="a name")  # a synthetic task: the name of its generator
    generator_seed: int = option(0, low=-math.inf)
    generated_train: int = option(4000, low=1)
    generated_evaluation: int = option(1000, low=1)
    data_dir: str | None = option(None, filled=True, words="a name", path=True)  # holds <split>.{jsonl,csv,tsv,parquet}
    max_length: int = option(128, low=1)  # the most tokens of an input, except in generation
    max_source: int = option(512, low=1)  # generation: the most tokens of a source
    max_target: int = option(128, low=2)  # generation: the most tokens of a target
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    shots: int | None = option(None, low=1, null="for all examples")  # training examples of each label
    split_seed: int = option(0, low=0, high=LARGEST)  # with shots: which sample; runs on the same samples are paired
    shots_from: str = option("sample", choices=("sample", "files"))  # files: fewshot/k<shots>_seed<split_seed>_train
    max_train: int | None = option(None, low=1, null="for all")  # the first n of a fixed shuffle, the same in every run
    max_evaluation: int | None = option(None, low=1, null="for all")


@dataclass
class ModelConfig(Paths):
    """The frozen base model: from the hub, a directory, or a Python package that carries the weights."""

    name: str = "???"
    path: str = option("???", path=True)  # a hub name or a directory
    revision: str | None = None
    package: str | None = None  # an installed package to which path is relative; it is never imported
    sha256: str | None = None  # of model.safetensors; checked before loading
    sites: str | None = option(None, words="a file", path=True)  # YAML: the site table of an unknown architecture
    dtype: str = option("fp32", choices=("fp32", "bf16", "fp16"))  # in which frozen weights are stored
    attention: str | None = option(None, choices=ATTENTION, null="for the one that transformers chooses")
    quantization: str | None = option(None, choices=("8bit", "4bit"), null="for none")  # bitsandbytes: LLM.int8(), NF4
    shard: str = option("none", choices=("none", "fsdp"))  # fsdp: each process of budget.gpus keeps a part (FSDP2)
    # every probability of dropout in the base model, while it trains
    dropout: float | None = option(None, low=0, below=1, null="for the checkpoint's own")


@dataclass
class BudgetConfig:
    """The limits of a run; null means no limit. No budget changes the effective batch, `optim.batch_size`."""

    name: str = "none"
    trainable_params: int | None = option(None, low=0, high=LONGEST)  # trained parameters, excluding the head
    trainable_percent: float | None = option(None, low=0)  # the same, in percent of the base model without its head
    peak_memory_gib: float | None = option(None, above=0)  # of one device, in training
    memory_margin: float = option(0.05, low=0, below=1)  # the share of peak_memory_gib that fitting leaves free
    max_steps: int | None = option(None, low=1, high=LARGEST)  # optimiser steps
    max_tokens: int | None = option(None, low=1, high=LONGEST)  # tokens read in training, excluding padding
    gpu_hours: float | None = option(None, above=0)  # gpus x training wall seconds / 3600
    gpus: int = option(1, low=1, high=LARGEST)  # devices that the run holds
    on_exceed: str = option("fit", choices=("fit", "skip", "error"))  # fit sizes and micro-batch, skip the run, or fail


@dataclass
class OptimConfig:
    """Training: AdamW with a warm-up and a decay, the same for every method."""

    name: str = "adamw"
    lr: float = option(5e-4, above=0)
    lr_ratio: float = option(1.0, above=0)  # learning rate of `up` slots divided by that of all other tensors (LoRA+)
    epochs: float = option(3.0, above=0)
    batch_size: int = option(32, low=1, high=LARGEST)  # examples per optimiser step, whatever the micro-batch
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
    """The tracker that gets a copy of the run's metrics."""

    name: str = "none"  # a row of TRACKERS in unipet/runs/tracking.py
    project: str = "unipet"
    mode: str = option("offline", choices=("offline", "online"))
    group: str | None = None


@dataclass
class LauncherConfig:
    """How the jobs of a sweep are run: by which launcher, how many at a time, and what happens if a job fails."""

    name: str = "local"  # a row of LAUNCHERS in unipet/sweeps/launchers.py
    # processes that run jobs; for slurm, tasks of the array
    workers: int | None = option(None, low=1, null="for as many as the machine can take, on SLURM one for each job")
    # packed: the most jobs that train in one process over one base model, and then that many without measuring
    pack: int | None = option(None, low=1, null="for as many as memory allows and a measurement says pay, up to 16")
    timeout: float | None = option(None, above=0, null="for no limit")  # seconds that one job may take
    retries: int = option(0, low=0)  # how often a job is tried again if it failed through no fault of its own
    fail_fast: bool = False  # true: the first failure ends the sweep; jobs that are running are finished
    # local: false runs the jobs in this process, where a crash ends all (for debuggers, and functions of a notebook)
    isolate: bool = True
    # slurm: where the array is submitted; local runs its tasks on this machine, as a trial without a cluster
    cluster: str = option("slurm", choices=("slurm", "local"))
    partition: str | None = option(None, filled=True, words="a name", null="for the cluster's default")
    account: str | None = option(None, filled=True, words="a name", null="for your default account")
    time: int = option(240, low=1)  # slurm: minutes that a task may take before it is queued again
    memory_gib: float | None = option(None, above=0, null="for the partition's default")  # slurm: of one worker
    # slurm: further options of sbatch by their long names; true stands for an option without a value
    sbatch: dict[str, str] = option({}, words="a mapping from an option of sbatch to its value")
    # ray: the address of a cluster
    address: str | None = option(None, filled=True, words="HOST:PORT or auto", null="for one that is started here")
    # slurm, ray: cores and GPUs of one worker
    cpus: int | None = option(None, low=1, null="for one core, on SLURM for the partition's default")
    gpus: int | None = option(None, low=0, null="for what budget.gpus needs")


@dataclass
class CheckpointConfig:
    """How often a run in training writes a resume point, from which it continues after an interruption."""

    every: str | None = option(
        "2 minutes",
        pattern=r"[1-9]\d* ?steps?|(?=.*[1-9])\d+(\.\d+)? ?minutes?",
        words="a number and its unit, '100 steps' or '2 minutes'",
        null="for never",
    )


@dataclass
class SearchConfig:
    """Which jobs of a sweep come next: the trials of every study, the choice among them, and the runs of the chosen one."""

    name: str = "none"  # a row of STRATEGIES in unipet/sweeps/search/strategies.py
    # key -> its values in Hydra's grammar, besides those of the command line: {optim.lr: "tag(log, interval(1e-4, 1e-1))"}
    space: dict[str, str] = option({}, words="a mapping from a key to interval(...), choice(...) or range(...)")
    # method -> keys that are searched for it alone, or otherwise than in the space of all: {NAME: {optim.lr: ...}}
    space_of: dict[str, dict[str, str]] = option({}, words="a mapping from a method to a mapping like space")
    trials: int | None = option(None, low=1, null="for every combination (search=grid)")  # of each study
    # of each study: no further trial begins once its trials have spent this much
    budget: str | None = option(
        None,
        pattern=r"[1-9]\d* ?steps?|(?=.*[1-9])\d+(\.\d+)? ?gpu_hours?",
        words="a number and its unit, '5000 steps' or '2 gpu_hours'",
        null="for no limit but trials",
    )
    batch: int | None = option(None, low=1, null="for all trials at once")  # trials of a study that begin together
    seed: int = option(0, low=0, high=LARGEST)  # of the draws from the space
    seeds: list[int] = option([0], low=0, high=LARGEST)  # of every trial
    final_seeds: list[int] = option([1001, 1002, 1003], low=0, high=LARGEST)  # of the runs that are reported
    # what is best, the score first; of several, every trial that no other one dominates is run again
    objectives: list[str] = option(
        ["score"], choices=("score", "params", "merged", "memory", "predicted_memory", "time")
    )
    rungs: int = option(3, low=2)  # halving, racing: how often trials are compared
    eta: float = option(3.0, above=1)  # halving, racing: a rung's steps divided by those of the rung before
    confidence: float = option(0.95, above=0.5, below=1)  # racing: of all verdicts of one study together
    sampler: str = option("tpe", choices=("tpe", "nsga2", "gp"))  # optuna
    startup: int = option(4, low=1)  # optuna: trials of a study that are drawn at random first


@dataclass
class TrialConfig:
    """What a run is in a search. A trial is scored on the selection split; what is reported never knows of it."""

    scored_on: str = option("evaluation", choices=("evaluation", "selection"))  # the split that the score is of
    # the share of the training's steps after which it ends; the learning rate follows the whole training
    until: float = option(1.0, above=0, high=1)
    after: float = option(0.0, low=0, below=1)  # the share after which an earlier rung ended, from which it goes on
    role: str = option("", choices=("", "trial", "final"))
    search: str = ""  # the strategy
    study: str = ""  # what the trials of a study have in common, as overrides
    number: int | None = option(None, low=0)  # of the trial in its study
    trials: int | None = option(None, low=1)  # of the study; so is the rest
    seeds: int | None = option(None, low=1)
    budget: str | None = None
    beside: str = ""  # of random search beside another one: the strategy of that
    discarded: int | None = option(None, low=0)  # candidates of its design space that did not become trials


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
    search: SearchConfig = field(default_factory=SearchConfig)
    trial: TrialConfig = field(default_factory=TrialConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    seed: int = option(0, low=0, high=LARGEST)
    precision: str = option("fp32", choices=("fp32", "bf16", "fp16", "auto"))  # training/precision.py
    compile: bool = False  # training steps through torch.compile
    checkpointing: bool | None = option(None, null="for only where budget.peak_memory_gib needs it")
    # keep the outputs of layers below all that trains, instead of computing them in every epoch; auto: where it pays
    cache_frozen: str = option("auto", choices=("auto", "true", "false"))
    runs_dir: str = option("runs", filled=True, words="the name of a directory", path=True)
    rerun: bool = False  # run again, although a finished run with the same run_id exists
    # Your own modules that register functions. They are imported before the method is read, never when a run is loaded.
    imports: list[str] = field(default_factory=list)


def conf_dir() -> Path:
    """The directory of the shipped groups (method, task, model, ...). Raises UnipetError if it is missing."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise UnipetError(f"unipet's configuration is missing (looked in {package / 'conf'}). Reinstall unipet.")
