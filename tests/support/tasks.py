"""What the tests of the kinds of tasks share: a tiny base model of any architecture in a directory, and tiny tasks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.support.architectures import ARCHS
from tests.support.tiny import tiny_tokenizer
from unipet.config import DecodingConfig, ModelConfig, OptimConfig, RunConfig, TaskConfig
from unipet.errors import UnipetError
from unipet.tasks import load_task

FULL: dict[str, Any] = {"name": "tiny_full", "insertions": {}, "unfreeze": ["all"]}
HEADS: dict[str, Any] = {
    "name": "tiny_heads",
    "insertions": {
        "attention": {
            "function": {"name": "prefix", "size": 3},
            "position": {"site": "attn.heads"},
            "composition": "gated",
        }
    },
}


def tokenizer(add_special: bool = True) -> Any:
    """The word-level tokeniser with begin and end tokens; without `add_special` it adds none, as GPT-2's."""
    made = tiny_tokenizer()
    made.bos_token, made.eos_token = "<s>", "</s>"
    made.model_input_names = ["input_ids", "attention_mask"]
    if not add_special:
        from tokenizers import processors

        made.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B")
    made.model_max_length = 200
    return made


def write_arch(directory: Path, arch: str, model: str | None = None, add_special: bool = True) -> Path:
    """A tiny random model of `ARCHS[arch]`, or of the transformers class `model` with its configuration."""
    made = ARCHS[arch].build()
    if model is not None:
        made = getattr(transformers, model)(made.config)
    if made.can_generate():
        made.generation_config.pad_token_id = 0
    made.save_pretrained(directory)
    tokenizer(add_special).save_pretrained(directory)
    return directory


def words(rng: random.Random, low: int = 0, high: int = 10, most: int = 5) -> str:
    return " ".join(f"w{rng.randrange(low, high)}" for _ in range(rng.randint(1, most)))


def rows_of(kind: str, count: int, seed: int = 0, evaluation: bool = False) -> list[dict[str, Any]]:
    """Tiny examples: the target says each source word ten higher; the label says which words there are."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for index in range(count):
        label = index % 2
        text = words(rng, 20 * label, 20 * label + 10)
        if kind in ("seq2seq", "causal_generation"):
            target = " ".join(f"w{int(word[1:]) + 10}" for word in text.split())
            rows.append(
                {"input": text, "references": [target, "w50"]} if evaluation else {"input": text, "target": target}
            )
        elif kind == "multiple_choice":
            both = [text, words(rng, 20 * (1 - label), 20 * (1 - label) + 10)]
            rows.append({"context": "w5", "a": both[label], "b": both[1 - label], "label": label})
        elif kind == "token_classification":
            parts = [*text.split(), *words(rng, 20, 30).split()]
            rows.append({"tokens": parts, "tags": ["O" if int(part[1:]) < 20 else "B-X" for part in parts]})
        elif kind == "multi_label":
            others = words(rng, 40, 45, most=2) if index % 3 == 0 else ""
            moods = (["calm"] if label else []) + (["loud"] if others else [])
            rows.append({"sentence": f"{text} {others}".strip(), "label": moods})
        else:
            rows.append({"sentence": text, "label": label})
    return rows


TASKS: dict[str, dict[str, Any]] = {
    "classification": {"text": ["sentence"], "labels": ["no", "yes"], "metrics": ["accuracy"]},
    "multi_label": {
        "text": ["sentence"],
        "labels": ["calm", "loud"],
        "metrics": ["f1_micro", "f1_macro", "subset_accuracy"],
    },
    "multiple_choice": {
        "text": ["context"],
        "choices": ["a", "b"],
        "labels": ["first", "second"],
        "metrics": ["accuracy"],
    },
    "token_classification": {
        "text": ["tokens"],
        "label": "tags",
        "labels": ["O", "B-X"],
        "metrics": ["f1", "accuracy"],
    },
    "masked_prompt": {
        "text": ["{sentence} w50 {mask} w51"],
        "labels": ["no", "yes"],
        "verbalizers": ["w52", "w53"],
        "metrics": ["accuracy"],
    },
    "causal_prompt": {
        "text": ["{sentence} w50 {mask}"],
        "labels": ["no", "yes"],
        "verbalizers": ["w52", "w53"],
        "metrics": ["accuracy"],
    },
    "seq2seq": {
        "text": ["input"],
        "metrics": ["exact_match", "bleu", "perplexity"],
        "max_source": 16,
        "max_target": 12,
    },
    "causal_generation": {
        "text": ["input"],
        "separator": "w58",
        "metrics": ["exact_match", "rougeL", "perplexity"],
        "max_source": 16,
        "max_target": 12,
    },
}


def task_of(kind: str, folder: Path, **changes: Any) -> TaskConfig:
    """The tiny task of a kind, with its files in `folder`."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for split, count in (("train", 24), ("validation", 10), ("test", 8)):
            lines = rows_of(kind, count, seed=len(split), evaluation=split != "train")
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    values = {
        "name": "tiny",
        "kind": kind,
        "data_dir": str(folder),
        "max_length": 20,
        "selection": "none",
        **TASKS[kind],
        **changes,
    }
    if isinstance(values.get("decoding"), dict):
        values["decoding"] = DecodingConfig(**values["decoding"])
    return TaskConfig(**values)


def config_of(kind: str, root: Path, model: Path, method: dict[str, Any], **changes: Any) -> RunConfig:
    """A run of a few steps; `changes` are those of the task, `optim_*` those of the optimiser."""
    optim = {key.removeprefix("optim_"): changes.pop(key) for key in list(changes) if key.startswith("optim_")}
    return RunConfig(
        method=method,
        task=task_of(kind, root / f"data_{kind}", **changes),
        model=ModelConfig(name="auto", path=str(model)),
        optim=OptimConfig(
            **{"lr": 1e-2, "epochs": 1, "batch_size": 8, "eval_batch_size": 4, "warmup_ratio": 0.0, **optim}
        ),
        runs_dir=str(root / "runs"),
    )


def refused(task: TaskConfig, *parts: str) -> None:
    """Reading this task ends in one error that says all of `parts`."""
    with pytest.raises(UnipetError) as error:
        load_task(task)
    for part in parts:
        assert part in str(error.value), f"{part!r} not in: {error.value}"
