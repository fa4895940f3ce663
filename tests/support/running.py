"""What the tests of the run room share: a tiny base model and a tiny task in a directory, and a configuration of them."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tiny import tiny_bert, tiny_tokenizer
from unipet.calculus.library import load_method
from unipet.config import BudgetConfig, ModelConfig, OptimConfig, RunConfig, TaskConfig, plain_values
from unipet.runs import identity
from unipet.runs.identity import NUMERICS
from unipet.runs.record import Identity, Record
from unipet.runs.run import Done, prepare
from unipet.sweeps import jobs, launchers

# Every run collects garbage before it measures memory; what the imports made is none, and looking through it takes long.
gc.collect()
gc.freeze()

LOW_RANK = {
    "name": "tiny_low_rank",
    "insertions": {
        "attention": {
            "function": {"name": "low_rank", "size": 4},
            "position": {"site": ["attn.q", "attn.v"]},
            "scaling": 2.0,
        }
    },
}
MIXTURE = {
    "name": "tiny_mixture",
    "insertions": {
        "ffn": {
            "function": {"name": "bottleneck", "size": 4},
            "position": {"site": "ffn", "form": "sequential"},
            "mixture": {"experts": 3},
        }
    },
    "objective": {"consistency": {"weight": 1.0}},
}
TINY_TASK: dict[str, Any] = {
    "name": "tiny",
    "text": ["sentence"],
    "labels": ["no", "yes"],
    "metrics": ["accuracy"],
    "max_length": 16,
}
HEAD_ONLY: dict[str, Any] = {"name": "tiny_head", "insertions": {}, "unfreeze": ["head"]}


def write_model(directory: Path, head: bool = False) -> Path:
    """A tiny random BERT with its tokeniser: the encoder alone, as most base models come."""
    tiny_bert(head).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def write_task(directory: Path, train: int = 48, evaluation: int = 20) -> Path:
    """Sentences of words w0..w9 (label "no") or w10..w19 (label "yes")."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    for split, count in (("train", train), ("validation", evaluation)):
        lines = []
        for index in range(count):
            label = index % 2
            words = [f"w{10 * label + rng.randrange(10)}" for _ in range(rng.randint(2, 9))]
            lines.append(json.dumps({"id": f"{split}-{index}", "sentence": " ".join(words), "label": label}))
        (directory / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def write_world(root: Path, files: dict[str, Any]) -> Path:
    """A tiny base model, 48 training and 20 evaluation examples, and a user's configuration directory with `files`."""
    write_model(root / "model")
    write_task(root / "data")
    for name, value in files.items():
        path = root / "mine" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {path.stem}: a test's own. And more.\n{yaml.safe_dump(value)}")
    return root


def run_id(config: RunConfig) -> str:
    """The identity of a run whose base model and data are there."""
    return prepare(config).run_id


def run_dir(config: RunConfig) -> Path:
    """The directory of such a run."""
    return prepare(config).directory


def resolved(config: RunConfig) -> dict[str, Any]:
    """What `prepare` makes of a configuration whose base model and data need not be there: plain values, method in full."""
    return {**plain_values(config), "method": load_method(config.method).to_dict()}


def said_id(config: RunConfig) -> str:
    """A run's identity as far as its configuration alone says it; its base model and data need not be there."""
    return identity.run_id(resolved(config), Identity("", {}, None, {}, NUMERICS))


def stand_in(monkeypatch: pytest.MonkeyPatch, train: Callable[[RunConfig, Path], Record]) -> None:
    """Jobs of sweeps go to `train`, in this process and with a directory for each, instead of being run."""

    def done(config: RunConfig, announce: Callable[[Path], None] = lambda directory: None, shared: Any = None) -> Done:
        directory = Path(config.runs_dir) / said_id(config)
        announce(directory)
        return Done(train(config, directory), directory)

    monkeypatch.setattr(jobs, "train", done)
    monkeypatch.setitem(launchers.LAUNCHERS, "local", launchers.in_this_process)


def tiny_config(root: Path, method: dict[str, Any] = LOW_RANK, runs: str = "runs", **changes: Any) -> RunConfig:
    """A run of a few steps in `root`; the model and the task are written there on first use."""
    if not (root / "model").is_dir():
        write_model(root / "model")
        write_task(root / "data")
    config = RunConfig(
        method=method,
        task=TaskConfig(
            name="tiny",
            text=["sentence"],
            labels=["no", "yes"],
            metrics=["accuracy"],
            data_dir=str(root / "data"),
            max_length=16,
            selection="none",  # nothing chosen: these tests compare last steps
        ),
        model=ModelConfig(name="auto", path=str(root / "model")),
        budget=BudgetConfig(),
        optim=OptimConfig(lr=1e-2, epochs=2, batch_size=8, eval_batch_size=8, warmup_ratio=0.0),
        runs_dir=str(root / runs),
    )
    for key, value in changes.items():
        owner: Any = config
        *groups, last = key.split("__")
        for group in groups:
            owner = getattr(owner, group)
        assert hasattr(owner, last), key
        setattr(owner, last, value)
    return config
