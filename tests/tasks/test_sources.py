"""Files of every format, generation rows and their mistakes, the split that selects, and the cache on disk."""

from __future__ import annotations

import json
import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import LOW_RANK, run_dir
from tests.support.tasks import config_of, refused, rows_of, task_of, tokenizer, write_arch
from tests.support.tiny import tiny_bert
from unipet.config import TaskConfig
from unipet.output.cache_place import cache_directory
from unipet.runs.run import prepare, run
from unipet.tasks import encode, load_task

ENCODING: Any = sys.modules["unipet.tasks.encode"]  # the module; the function stands for it in the package


def pairs(folder: Path, **changes: Any) -> TaskConfig:
    base = {"name": "mine", "text": ["sentence"], "labels": ["no", "yes"], "metrics": ["accuracy"]}
    return TaskConfig(**{**base, "data_dir": str(folder), "selection": "none", **changes})


def save(folder: Path, name: str, content: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


# --- formats ------------------------------------------------------------------------------------------------------


def test_a_table_gives_names_indices_and_numbers(tmp_path: Path) -> None:
    save(tmp_path, "train.csv", "sentence,label\na,yes\nb,no\n")
    save(tmp_path, "validation.csv", "\ufeffsentence,label\r\na,1\r\n\r\nb,0\r\n")
    data = load_task(pairs(tmp_path))
    assert [row["label"] for row in data.train] == [1, 0] and [row["label"] for row in data.evaluation] == [1, 0]
    save(tmp_path, "train.csv", "sentence,label\na,2.5\n")
    assert load_task(pairs(tmp_path, kind="regression", labels=[], metrics=["pearson"])).train[0]["label"] == 2.5


BAD_TABLES = {
    "mixed": ("sentence,label\na,yes\nb,1\n", ["line 3", "line 2", "not both"]),
    "unknown": ('sentence,label\n"a\nb",yes\nc,yess\n', ["line 4", "'label'", "Did you mean 'yes'"]),
    "short row": ("sentence,label\na\n", ["line 2", "1 values", "2 columns"]),
    "missing column": ("sentense,label\na,1\n", ["line 2", "'sentence'", "Did you mean 'sentense'"]),
    "empty text": ("sentence,label\n,1\n", ["line 2", "'sentence'", "empty text"]),
    "column twice": ("sentence,label,label\na,1,0\n", ["line 1", "'label' twice"]),
    "open quote": ('sentence,label\n"a,1\n', ["line 2", "malformed"]),
    "same id": ("id,sentence,label\n1,a,1\n1,b,0\n", ["line 3", "'id'", "line 2"]),
    "latin-1": ("sentence,label\na,1\ncaf\u00e9,1\n".encode("latin-1"), ["line 3, field 'sentence'", "UTF-8"]),
    "only a header": ("sentence,label\n", ["no rows", "'train'"]),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_one_error_with_file_line_and_field(case: str, tmp_path: Path) -> None:
    content, parts = BAD_TABLES[case]
    save(tmp_path, "validation.csv", "sentence,label\na,1\n")
    refused(pairs(save(tmp_path, "train.csv", content)), "train.csv", *parts)


def test_a_directory_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").mkdir(parents=True)
    refused(pairs(tmp_path), "task.data_dir", "train.jsonl is a directory", "a file of this name is needed")


def test_two_files_of_one_split_and_a_broken_parquet_file(tmp_path: Path) -> None:
    save(tmp_path, "train.csv", "sentence,label\na,1\n")
    save(tmp_path, "train.jsonl", "{}")
    refused(pairs(tmp_path), "train.jsonl, train.csv", "Keep one")
    refused(pairs(save(tmp_path / "p", "train.parquet", b"PAR1 no")), "train.parquet", "not a readable parquet")


# --- generation rows ----------------------------------------------------------------------------------------------

GOOD = json.dumps({"input": "a", "target": "b"}) + "\n"
BAD_TEXTS = {
    "no target": ("train", GOOD + '{"input": "a"}\n', ["train.jsonl, line 2", "'target'", "task.target"]),
    "empty target": ("train", '{"input": "a", "target": " "}\n', ["line 1", "'target'", "empty text"]),
    "references missing": (
        "validation",
        '{"input": "a"}\n',
        ["validation.jsonl, line 1", "references missing", "task.references"],
    ),
    "no references": ("validation", '{"input": "a", "references": []}\n', ["line 1", "'references'", "no references"]),
    "reference a number": (
        "validation",
        '{"input": "a", "references": ["b", 3]}\n',
        ["line 1", "'references'", "3 given"],
    ),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_bad_text_row(case: str, tmp_path: Path) -> None:
    split, content, parts = BAD_TEXTS[case]
    for name in ("train", "validation"):
        save(tmp_path / "d", f"{name}.jsonl", content if name == split else GOOD)
    refused(
        TaskConfig(name="t", kind="seq2seq", text=["input"], metrics=["bleu"], data_dir=str(tmp_path / "d")), *parts
    )


def test_references_targets_and_grouping(tmp_path: Path) -> None:
    save(tmp_path, "train.jsonl", GOOD)
    save(tmp_path, "validation.jsonl", GOOD + json.dumps({"input": "a", "target": "c"}) + "\n" + GOOD)
    base = {"name": "t", "kind": "seq2seq", "text": ["say: {input}"], "metrics": ["bleu"], "data_dir": str(tmp_path)}
    task = TaskConfig(**base, selection="none")
    data = load_task(task)
    assert data.train == [{"id": "train-0", "text": ["say: a"], "target": "b"}]
    assert [row["references"] for row in data.evaluation] == [["b"], ["c"], ["b"]]
    together = load_task(replace(task, group_references=True)).evaluation
    assert together == [{"id": "validation-0", "text": ["say: a"], "references": ["b", "c"]}]
    save(tmp_path, "validation.jsonl", '{"input": "a", "references": ["b"]}\n' * 2)
    assert len(load_task(replace(task, group_references=True)).evaluation) == 2, (
        "lists of references are grouped already"
    )


def test_templates_fill_in_columns_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, "train.jsonl", '{"word": "{s}", "s": "a {b}", "label": 1}\n')
    save(tmp_path, "validation.jsonl", '{"word": "w", "s": "a", "label": 1}\n')
    task = pairs(tmp_path, text=["{word}: {s} {{x}}", "s"])
    assert load_task(task).train[0]["text"] == ["{s}: a {b} {x}", "a {b}"]
    refused(replace(task, text=["{word"]), "task.text", "not a valid template")
    refused(replace(task, text=["{}"]), "task.text", "column name")
    refused(replace(task, text=["{wrod}"]), "line 1", "'wrod'", "Did you mean 'word'")


BAD_KINDS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "labels of a text": ("seq2seq", {"labels": ["a", "b"]}, ["task.labels", "seq2seq has none"]),
    "two sources": ("seq2seq", {"text": ["a", "b"]}, ["task.text", "2 columns"]),
    "metric of a label": ("seq2seq", {"metrics": ["accuracy"]}, ["task.metrics", "bleu"]),
    "no mask": ("masked_prompt", {"text": ["{sentence}"]}, ["task.text", "{mask}"]),
    "a verbalizer short": ("masked_prompt", {"verbalizers": ["w1"]}, ["task.verbalizers", "one word per label"]),
    "no choices": ("multiple_choice", {"choices": []}, ["task.choices"]),
    "labels and choices": ("multiple_choice", {"labels": ["a", "b", "c"]}, ["task.labels", "one name per choice"]),
    "beams": ("seq2seq", {"decoding": {"num_beams": 0}}, ["task.decoding.num_beams", "from 1"]),
    "least above most": ("seq2seq", {"decoding": {"min_new_tokens": 99}}, ["task.decoding.min_new_tokens", "12"]),
    "penalty": ("seq2seq", {"decoding": {"length_penalty": float("nan")}}, ["task.decoding.length_penalty"]),
    "separator": ("causal_generation", {"separator": ""}, ["task.separator"]),
    "languages": ("seq2seq", {"languages": ["en"]}, ["task.languages"]),
    "selection": ("seq2seq", {"selection": "dev"}, ["task.selection", "train_holdout"]),
    "selecting by another answer's metric": (
        "seq2seq",
        {"selection_metric": "accuracy"},
        ["task.selection_metric", "loss", "bleu"],
    ),
    "selecting a class by loss": (
        "classification",
        {"selection_metric": "loss"},
        ["task.selection_metric", "accuracy"],
    ),
    "selecting on the score": ("seq2seq", {"selection": "validation"}, ["task.selection", "by the reported score"]),
    "max_target": ("seq2seq", {"max_target": 1}, ["task.max_target", "from 2"]),
    "tags": ("token_classification", {"text": ["{tokens}"]}, ["task.text", "list of words"]),
}


@pytest.mark.parametrize("case", BAD_KINDS)
def test_a_task_that_its_kind_does_not_allow(case: str, tmp_path: Path) -> None:
    kind, changes, parts = BAD_KINDS[case]
    refused(task_of(kind, tmp_path / "d", **changes), *parts)


def test_tags_and_words_must_match(tmp_path: Path) -> None:
    task = task_of("token_classification", tmp_path / "d")
    save(tmp_path / "d", "train.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n')
    refused(task, "train.jsonl, line 1", "'tags'", "1 labels for 2 words")
    save(tmp_path / "d", "train.jsonl", '{"tokens": ["a", "b"], "tags": ["O", "B-Y"]}\n')
    refused(task, "line 1", "word 2", "unknown label 'B-Y'")
    save(tmp_path / "d", "train.jsonl", '{"tokens": "a b", "tags": ["O"]}\n')
    refused(task, "line 1", "'tokens'", "a list of words")


# --- what selects -------------------------------------------------------------------------------------------------


def test_a_holdout_is_fixed_disjoint_and_not_the_reported_set(tmp_path: Path) -> None:
    task = task_of("seq2seq", tmp_path / "d", selection="train_holdout", selection_size=3)
    twice = "".join(json.dumps(row) + "\n" for row in rows_of("seq2seq", 24, 5) + rows_of("seq2seq", 24, 5))
    (tmp_path / "d" / "train.jsonl").write_text(twice)
    data, again = load_task(task), load_task(task)
    assert data == again and data.selection
    assert not {tuple(row["text"]) for row in data.train} & {tuple(row["text"]) for row in data.selection}
    assert all(row["references"] and "target" not in row for row in data.selection)
    assert len({tuple(row["text"]) for row in data.selection}) == len(data.selection), "one row per source"
    assert load_task(replace(task, selection="none")).evaluation == data.evaluation
    assert load_task(replace(task, max_train=4)).selection == data.selection
    assert data.fingerprint != load_task(replace(task, selection="none")).fingerprint


@pytest.mark.parametrize("kind", ["classification", "seq2seq"])
def test_by_default_rows_of_the_training_set_choose_the_checkpoint(kind: str, tmp_path: Path) -> None:
    """Nothing said of selection: a holdout chooses, generated text by its loss, and the record says so."""
    config = config_of(kind, tmp_path, write_arch(tmp_path / "m", {"seq2seq": "bart"}.get(kind, "bert")), LOW_RANK)
    config.task.selection = TaskConfig().selection
    data = load_task(config.task)
    assert data.protocol == "train_holdout" and len(data.selection) == 24 // 5
    seen = {tuple(row["text"]) for row in data.selection}
    assert not seen & {tuple(row["text"]) for row in data.train}
    record = run(config)
    chosen = record["data"]["selection"]
    assert record["status"] == "ok" and chosen["by"] == "train_holdout" and chosen["examples"] == len(data.selection)
    assert chosen["metric"] == {"seq2seq": "loss"}.get(kind, "accuracy")
    assert chosen["scores"][str(chosen["step"])] == max(chosen["scores"].values())
    assert record["data"]["evaluation"] == len(data.evaluation) == 10
    assert record["data"]["splits"] == {"train": "train", "evaluation": "validation", "selection": "train"}


def test_the_loss_that_chooses_is_that_of_the_target_tokens(tmp_path: Path) -> None:
    """By hand: the model's own mean loss over all labels of the selection split at once, with its sign turned."""
    import torch

    from unipet.runs.base_model import load_base_model
    from unipet.tasks import collate
    from unipet.training.evaluation import selection_score

    config = config_of(
        "seq2seq", tmp_path, write_arch(tmp_path / "m", "bart"), LOW_RANK, selection="train_holdout", metrics=["bleu"]
    )
    model, own = load_base_model(config.model, [], False, "seq2seq")
    data = load_task(config.task)
    encoded = encode(data, own, config.task)
    assert encoded.selection is not None
    whole = collate(own)([encoded.selection[i] for i in range(len(encoded.selection))])
    with torch.no_grad():
        expected = -float(model.eval()(**whole).loss)
    assert selection_score(config, model, data, encoded, own)() == pytest.approx(expected, rel=1e-5)
    by_bleu = replace(config, task=replace(config.task, selection_metric="exact_match"))
    assert 0.0 <= selection_score(by_bleu, model, data, encoded, own)() <= 1.0


def test_of_equal_checkpoints_the_later_one_stays_and_none_is_of_the_warm_up() -> None:
    from types import SimpleNamespace

    import torch

    import unipet
    from unipet.training.best import Best

    model = tiny_bert()
    unipet.adapt(model, LOW_RANK)
    name, tensor = next(iter(unipet.parameters(model).items()))
    scores = iter([0.5, 0.7, 0.7, 0.2])
    best = Best(model, lambda: next(scores))
    for step in range(1, 11):
        with torch.no_grad():
            tensor.fill_(step)
        state, going_on = SimpleNamespace(global_step=step, max_steps=10), SimpleNamespace(should_training_stop=False)
        best.on_step_end(SimpleNamespace(warmup_steps=2), state, going_on)
    assert best.scores == {4: 0.5, 6: 0.7, 8: 0.7, 10: 0.2}, "step 2 is in the warm-up"
    assert best.restore() == 8 and unipet.parameters(model)[name].eq(8).all()


@pytest.mark.parametrize("by", ["train_holdout", "validation"])
def test_the_checkpoint_is_chosen_without_the_reported_set(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best checkpoint on the selection split is what is scored; scores are planted, so that it is the third."""
    from unipet.training import evaluation

    split = {"evaluation_split": "test"} if by == "validation" else {}
    config = config_of(
        "classification", tmp_path, write_arch(tmp_path / "m", "bert"), LOW_RANK, selection=by, optim_epochs=4, **split
    )
    saved: list[dict[str, Any]] = []
    data = prepare(config).data
    original = evaluation.score_split

    def planted(config: Any, model: Any, rows: Any, *rest: Any) -> Any:
        scores, lines = original(config, model, rows, *rest)
        if rows == data.selection:
            import unipet

            saved.append({name: tensor.clone() for name, tensor in unipet.parameters(model).items()})
            scores = replace(scores, score=1.0 if len(saved) == 3 else 0.1)
        return scores, lines

    monkeypatch.setattr(evaluation, "score_split", planted)
    record = run(config)
    chosen = record["data"]["selection"]
    assert chosen["by"] == by and chosen["examples"] == len(data.selection) > 0
    parts = record["data"]["splits"]
    assert parts["selection"] == {"train_holdout": "train"}.get(by, "validation") != parts["evaluation"]
    steps = list(chosen["scores"])
    assert len(steps) >= 3 and str(chosen["step"]) == str(steps[2])
    from safetensors.torch import load_file

    kept = load_file(run_dir(config) / "adapter" / "adapter.safetensors")
    third = {name: tensor for name, tensor in saved[2].items() if name in kept}
    assert third and all(tensor.equal(kept[name]) for name, tensor in third.items())
    assert any(not tensor.equal(saved[-1][name]) for name, tensor in third.items())


def test_selection_does_not_change_training(tmp_path: Path) -> None:
    """Looking at the selection split uses no random numbers: the losses are those of the same data without looking."""
    model = write_arch(tmp_path / "m", "bert")
    looks = config_of("classification", tmp_path, model, LOW_RANK, selection="validation", evaluation_split="test")
    blind = config_of("classification", tmp_path, model, LOW_RANK, evaluation_split="test")
    run(looks), run(blind)
    one, two = ((run_dir(config) / "metrics.jsonl").read_text().splitlines() for config in (looks, blind))
    scored = [line for line in one if "selection/" in line]
    assert scored and [line for line in one if line not in scored] == two


# --- the cache ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["classification", "multiple_choice", "token_classification", "seq2seq", "causal_generation"]
)
def test_a_second_process_tokenises_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(kind, tmp_path / "d")
    data, cache = load_task(task), tmp_path / "cache"
    monkeypatch.setattr(ENCODING, "_ENCODED", {})
    first = encode(data, tokenizer(), task, cache)
    assert len(list((cache / "tokenised").iterdir())) == 2
    monkeypatch.setattr(ENCODING, "_ENCODED", {})  # as a new process begins

    def never(*_: Any) -> Any:
        raise AssertionError("tokenised again")

    monkeypatch.setitem(ENCODING.ENCODERS, kind, never)
    second = encode(data, tokenizer(), task, cache)
    for split in ("train", "evaluation"):
        one, two = getattr(first, split), getattr(second, split)
        assert [one[i] for i in range(len(one))] == [two[i] for i in range(len(two))]
        assert (one.truncated, one.truncated_targets, one.lengths) == (
            two.truncated,
            two.truncated_targets,
            two.lengths,
        )
    with pytest.raises(AssertionError, match="tokenised again"):
        encode(data, tokenizer(add_special=False), task, cache)
    longer = replace(task, max_length=19, max_source=15)
    with pytest.raises(AssertionError, match="tokenised again"):
        encode(data, tokenizer(), longer, cache)


def test_a_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("classification", tmp_path / "d")
    data = load_task(task)
    for content in (None, b"", b"damaged"):
        monkeypatch.setattr(ENCODING, "_ENCODED", {})
        if content is not None:
            for path in (tmp_path / "c" / "tokenised").iterdir():
                path.write_bytes(content)
        assert len(encode(data, tokenizer(), task, tmp_path / "c").train) == 24
    assert all(path.stat().st_size > 100 for path in (tmp_path / "c" / "tokenised").iterdir())


def test_concurrent_jobs_share_one_cache(tmp_path: Path) -> None:
    task = task_of("seq2seq", tmp_path / "d")
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        found = pool.starmap(_encode_there, [(task, tmp_path / "c")] * 4)
    assert len(set(found)) == 1
    assert sorted(path.suffix for path in (tmp_path / "c" / "tokenised").iterdir()) == [".safetensors"] * 2


def _encode_there(task: TaskConfig, cache: Path) -> str:
    encoded = encode(load_task(task), tokenizer(), task, cache)
    return repr([encoded.train[i] for i in range(len(encoded.train))])


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIPET_CACHE", raising=False)
    assert cache_directory("runs") == Path("runs") / ".cache"
    monkeypatch.setenv("UNIPET_CACHE", str(tmp_path))
    assert cache_directory("runs") == tmp_path
    monkeypatch.setenv("UNIPET_CACHE", "off")
    assert cache_directory("runs") is None
    file = tmp_path / "file"
    file.write_text("")
    task = task_of("classification", tmp_path / "d")
    assert encode(load_task(task), tokenizer(), task, file).train, "a cache that cannot be written costs nothing else"
