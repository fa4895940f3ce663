"""Few-shot training sets, drawn or published; demonstrations; and prompts of causal language models."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tasks import refused, task_of, tokenizer, write_arch
from unipet.config import ModelConfig
from unipet.errors import UnipetError
from unipet.runs.base_model import load_base_model
from unipet.tasks import collate, encode, load_task, readout
from unipet.training.forward import model_inputs


def few(folder: Path, kind: str = "classification", **changes: Any) -> Any:
    return load_task(task_of(kind, folder, **{"selection": "auto", "shots": 3, **changes}))


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def test_a_sample_has_equally_many_of_each_label_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    data, again, other = few(tmp_path / "d"), few(tmp_path / "d"), few(tmp_path / "d", split_seed=1)
    assert Counter(row["label"] for row in data.train) == {0: 3, 1: 3}
    assert ids(data.train) == ids(again.train) != ids(other.train)
    assert set(ids(few(tmp_path / "d", shots=2).train)) < set(ids(data.train))
    assert data.evaluation == other.evaluation and data.fingerprint != other.fingerprint
    record = data.record()
    assert (record["shots"], record["split_seed"], record["train"], record["train_available"]) == (3, 0, 6, 24)
    assert data.pool == other.pool and data.pool is not None


def test_true_few_shot_learning_selects_nothing_unless_asked(tmp_path: Path) -> None:
    assert (few(tmp_path / "d").selection, few(tmp_path / "d").protocol) == ([], "none")
    held = few(tmp_path / "d", selection="shots")
    assert Counter(row["label"] for row in held.selection) == {0: 3, 1: 3} and held.protocol == "shots"
    assert not set(ids(held.train)) & set(ids(held.selection))
    assert load_task(task_of("classification", tmp_path / "d", selection="auto")).protocol == "train_holdout"


def test_published_files(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    task_of("classification", folder)
    (folder / "fewshot").mkdir()
    for part in ("train", "dev"):
        for seed in (13, 21):
            lines = [{"sentence": f"w{seed} {part} {i}", "label": i % 2} for i in range(6)]
            path = folder / "fewshot" / f"k3_seed{seed}_{part}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = few(folder, shots_from="files", split_seed=13, selection="shots")
    assert data.train[0]["text"] == ["w13 train 0"] and data.selection[0]["text"] == ["w13 dev 0"]
    assert data.record()["splits"] == {
        "train": "fewshot/k3_seed13_train",
        "evaluation": "validation",
        "selection": "fewshot/k3_seed13_dev",
    }
    other = few(folder, shots_from="files", split_seed=21, selection="shots")
    assert other.train != data.train and other.pool == data.pool
    with pytest.raises(UnipetError, match=r"no file fewshot/k3_seed14_train\.jsonl"):
        few(folder, shots_from="files", split_seed=14)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("classification", {"shots": 20}, ["task.shots: 20", "'no' has 12 training examples of the 20"]),
        (
            "classification",
            {"shots": 7, "selection": "shots"},
            ["has 12", "14 examples (7 for training and 7 for selection)"],
        ),
        ("classification", {"shots": 0}, ["task.shots: 0"]),
        ("classification", {"shots": None, "selection": "shots"}, ["task.selection=shots: needs task.shots"]),
        ("classification", {"shots": None, "shots_from": "files"}, ["task.shots_from=files: needs task.shots"]),
        ("classification", {"max_train": 4}, ["task.max_train: 4 given beside task.shots=3"]),
        ("seq2seq", {}, ["task.shots: 3 given, but task.kind=seq2seq", "task.max_train"]),
        ("classification", {"demonstrations": 1}, ["task.demonstrations: 1", "only a prompt"]),
        ("masked_prompt", {"demonstrations": 3}, ["label 'no' has 3 training examples"]),
        ("causal_prompt", {"text": ["{mask} {sentence}"]}, ["a causal prompt ends with a space and {mask}"]),
        ("causal_prompt", {"verbalizers": []}, ["task.verbalizers", "causal_prompt"]),
    ],
)
def test_mistakes_are_one_clear_error(kind: str, changes: dict[str, Any], said: list[str], tmp_path: Path) -> None:
    refused(task_of(kind, tmp_path / "d", **{"selection": "none", "shots": 3, **changes}), *said)


@pytest.mark.parametrize("kind", ["masked_prompt", "causal_prompt"])
def test_demonstrations_are_solved_training_examples_and_never_the_row_itself(kind: str, tmp_path: Path) -> None:
    task = task_of(kind, tmp_path / "d", shots=4, demonstrations=1, max_length=60)
    data = load_task(task)
    shown = [tuple(text) for text, _ in data.evaluation[0]["demonstrations"]]
    known = {tuple(row["text"]): row["label"] for row in data.train}
    assert [known[text] for text in shown] == [0, 1]
    assert all(row["demonstrations"] == data.evaluation[0]["demonstrations"] for row in data.evaluation)
    for row in data.train:
        assert [label for _, label in row["demonstrations"]] == [0, 1]
        assert all(text is not row["text"] for text, _ in row["demonstrations"])
    assert load_task(task_of(kind, tmp_path / "d", shots=4)).fingerprint != data.fingerprint
    tokens = tokenizer(add_special=kind == "masked_prompt")
    encoded = encode(data, tokens, task)
    text = tokens.decode(encoded.evaluation[0]["input_ids"])
    for (sentence,), label in data.evaluation[0]["demonstrations"]:
        assert f"{sentence} w50 {task.verbalizers[label]}" in text
    query = data.evaluation[0]["text"][0]
    assert text.endswith(f"{query} w50") if kind == "causal_prompt" else text.startswith(f"<s> {query} w50 <mask>")


@pytest.mark.parametrize("kind", ["masked_prompt", "causal_prompt"])
def test_long_demonstrations_are_shortened_with_the_row(kind: str, tmp_path: Path) -> None:
    task = task_of(kind, tmp_path / "d", demonstrations=1, max_length=16 if kind == "masked_prompt" else 11)
    tokens = tokenizer(add_special=kind == "masked_prompt")
    encoded = encode(load_task(task), tokens, task)
    assert encoded.train.truncated > 0
    for index in range(len(encoded.train)):
        row = encoded.train[index]["input_ids"]
        assert len(row) <= task.max_length and tokens.decode(row).count("w50") == 3


def test_a_causal_prompt_reads_the_words_after_its_last_token_whatever_the_padding(tmp_path: Path) -> None:
    path = write_arch(tmp_path / "model", "gpt2", add_special=False)
    base, tokens = load_base_model(ModelConfig(name="auto", path=str(path)), [], False, "causal_prompt")
    base.eval()
    task = task_of("causal_prompt", tmp_path / "d")
    encoded = encode(load_task(task), tokens, task)
    words = tokens.convert_tokens_to_ids(task.verbalizers)
    batch = collate(tokens)([encoded.train[i] for i in range(4)])
    assert len(set(batch["attention_mask"].sum(1).tolist())) > 1
    inputs, labels = model_inputs(base, batch)
    with torch.no_grad():
        found, answers = readout(task, tokens)(base(**inputs).logits, inputs, labels)
        for i in range(4):
            alone = base(input_ids=torch.tensor([encoded.train[i]["input_ids"]])).logits[0, -1, words]
            torch.testing.assert_close(found[i], alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(answers, labels)


@pytest.mark.parametrize("arch", ["bert", "bart"])
def test_a_causal_prompt_needs_a_decoder(arch: str, tmp_path: Path) -> None:
    path = write_arch(tmp_path / "model", arch)
    with pytest.raises(UnipetError, match=r"task\.kind=causal_prompt: .* a decoder such as GPT-2"):
        load_base_model(ModelConfig(name="auto", path=str(path)), [], False, "causal_prompt")
