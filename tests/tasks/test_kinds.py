"""Every kind of task on the base models that can do it: from files to a record, and the losses and texts in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import unipet
from tests.support.architectures import ARCHS
from tests.support.running import LOW_RANK, run_dir
from tests.support.tasks import FULL, HEADS, config_of, task_of, tokenizer, write_arch
from unipet.config import ModelConfig
from unipet.errors import UnipetError
from unipet.runs.base_model import load_base_model, skeleton
from unipet.runs.run import evaluate, run
from unipet.tasks import KINDS, collate, encode, load_task, readout
from unipet.training.forward import model_inputs, real_tokens
from unipet.training.generation import generate_texts, target_losses

# kind -> (tiny model, the transformers class that its checkpoint holds)
ABLE = {
    "classification-decoder": ("classification", "gpt2", None),
    "multiple_choice": ("multiple_choice", "bert", None),
    "multi_label-encoder": ("multi_label", "bert", None),
    "multi_label-decoder": ("multi_label", "gpt2", None),
    "multi_label-encoder-decoder": ("multi_label", "bart", "BartForSequenceClassification"),
    "token_classification": ("token_classification", "roberta", None),
    "masked_prompt": ("masked_prompt", "bert", "BertForMaskedLM"),
    "causal_prompt": ("causal_prompt", "gpt2", None),
    "seq2seq-bart": ("seq2seq", "bart", None),
    "seq2seq-t5": ("seq2seq", "t5", None),
    "seq2seq-marian": ("seq2seq", "marian", None),
    "causal-gpt2": ("causal_generation", "gpt2", None),
    "causal-llama": ("causal_generation", "llama", None),
}


@pytest.mark.parametrize("case", ABLE)
def test_a_run_of_every_kind(case: str, tmp_path: Path) -> None:
    kind, arch, model = ABLE[case]
    config = config_of(kind, tmp_path, write_arch(tmp_path / "model", arch, model), LOW_RANK)
    record = run(config)
    assert record["memory"]["predicted_gib"], record["data"]["warnings"]
    assert record["status"] == "ok", record["error"]
    assert record["metric"] == config.task.metrics[0] and set(record["metrics"]) == set(config.task.metrics)
    if KINDS[kind].pretrained_head:
        assert record["params"]["head"] == 0, "the language model's output layer belongs to the base model"
    else:
        assert record["params"]["head"] > 0
    lines = [json.loads(line) for line in (run_dir(config) / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"validation-{i}" for i in range(10)]
    again = evaluate(run_dir(config))
    assert again["reproduced"] and again["metrics"] == pytest.approx(record["metrics"])
    scoring = record["data"]["scoring"]
    assert scoring["higher_is_better"] is True and set(scoring["scales"]) == set(config.task.metrics)
    if kind == "seq2seq":
        assert scoring["notes"]["bleu"].startswith("sacrebleu nrefs:") and "version:" in scoring["notes"]["bleu"]


@pytest.mark.parametrize(
    ("arch", "kind", "needed"),
    [
        ("bert", "seq2seq", "encoder-decoder such as BART"),
        ("bert", "causal_generation", "a decoder such as GPT-2"),
        ("roberta", "causal_generation", "a decoder such as GPT-2"),
        ("bart", "causal_generation", "a decoder such as GPT-2"),
        ("t5", "causal_generation", "a decoder such as GPT-2"),
        ("gpt2", "seq2seq", "encoder-decoder such as BART"),
        ("gpt2", "masked_prompt", "masked language model"),
        ("bart", "masked_prompt", "masked language model"),
        ("gpt2", "multiple_choice", "an encoder such as BERT"),
        ("marian", "classification", "a sequence classifier"),
    ],
)
def test_a_kind_that_the_base_model_cannot_do(arch: str, kind: str, needed: str, tmp_path: Path) -> None:
    path = write_arch(tmp_path / "model", arch)
    with pytest.raises(UnipetError, match=f"task.kind={kind}: the base model .* does not support this kind") as error:
        skeleton(ModelConfig(name="auto", path=str(path)), kind)
    assert needed in str(error.value)
    with pytest.raises(UnipetError, match=f"task.kind={kind}"):
        load_base_model(ModelConfig(name="auto", path=str(path)), ["a", "b"], False, kind)
    with pytest.raises(UnipetError, match=f"task.kind={kind}"):
        run(config_of(kind, tmp_path, path, LOW_RANK))
    assert not (tmp_path / "runs").exists()


def test_an_encoder_saved_without_its_output_layer_has_no_masked_prompt(tmp_path: Path) -> None:
    path = write_arch(tmp_path / "model", "bert", "BertModel")
    with pytest.raises(UnipetError, match="saved without the output layer"):
        load_base_model(ModelConfig(name="auto", path=str(path)), [], False, "masked_prompt")


# --- losses -------------------------------------------------------------------------------------------------------


def loaded(tmp_path: Path, kind: str, arch: str, model: str | None = None, **changes: Any) -> tuple[Any, ...]:
    path = write_arch(tmp_path / "model", arch, model)
    task = task_of(kind, tmp_path / "data", **changes)
    data = load_task(task)
    base, tokens = load_base_model(ModelConfig(name="auto", path=str(path)), data.labels, False, kind)
    return task, data, base, tokens, encode(data, tokens, task)


@pytest.mark.parametrize("arch", ["bart", "t5", "mbart", "gpt2", "llama"])
def test_the_loss_is_that_of_transformers(arch: str, tmp_path: Path) -> None:
    kind = "causal_generation" if arch in ("gpt2", "llama") else "seq2seq"
    task, _, base, tokens, encoded = loaded(tmp_path, kind, arch)
    batch = collate(tokens)([encoded.train[i] for i in range(6)])
    theirs = base(**batch).loss
    inputs, labels = model_inputs(base, batch)
    logits, answers = readout(task, tokens)(base(**inputs).logits, inputs, labels)
    assert F.cross_entropy(logits, answers).item() == pytest.approx(theirs.item(), abs=1e-5)
    assert len(answers) == int((batch["labels"] != -100).sum()) and -100 not in answers


def test_causal_examples_learn_the_target_alone(tmp_path: Path) -> None:
    _, data, _, tokens, encoded = loaded(tmp_path, "causal_generation", "llama")
    row, feature = data.train[0], encoded.train[0]
    ids = tokens.convert_tokens_to_ids
    source, target = (ids(text.split()) for text in (row["text"][0], row["target"]))
    assert feature["input_ids"] == [ids("<s>"), *source, ids("w58"), *target, ids("</s>")]
    before = 2 + len(source)
    assert feature["labels"] == [-100] * before + [*target, ids("</s>")]
    assert encoded.train.prompt(0) == feature["input_ids"][:before]


def test_a_tokenizer_that_adds_nothing_begins_with_nothing(tmp_path: Path) -> None:
    data = load_task(task := task_of("causal_generation", tmp_path / "data"))
    assert encode(data, tokenizer(add_special=False), task).train[0]["input_ids"][0] != 1
    end = encode(load_task(other := task_of("seq2seq", tmp_path / "other")), tokenizer(add_special=False), other)
    assert end.train[0]["labels"][-1] == 2, "an end token is added where the tokenizer adds none"


def test_languages_of_a_multilingual_tokenizer(tmp_path: Path) -> None:
    """mBART: a source ends with its language's code, and so does a target; decoding begins with the target's."""
    from transformers import MBartTokenizer

    from unipet.training.generation import generation_config

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *(f"\u2581w{i}" for i in range(59))]
    tokens = MBartTokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)])
    task = task_of("seq2seq", tmp_path / "d", languages=["en_XX", "ro_RO"])
    encoded = encode(load_task(task), tokens, task)
    source, target = (tokens.convert_ids_to_tokens(encoded.train[0][name]) for name in ("input_ids", "labels"))
    assert source[-2:] == ["</s>", "en_XX"] and target[-2:] == ["</s>", "ro_RO"]
    made = generation_config(ARCHS["mbart"].build(), tokens, task)
    assert tokens.convert_ids_to_tokens([made.decoder_start_token_id]) == ["ro_RO"]
    for languages, words in ([], "not given"), (["en_XX", "xx"], "no language 'xx'"):
        wrong = task_of("seq2seq", tmp_path / "d", languages=languages)
        with pytest.raises(UnipetError, match=f"task.languages.*{words}"):
            encode(load_task(wrong), tokens, wrong)


def test_real_tokens_count_both_sides_without_padding(tmp_path: Path) -> None:
    _, _, base, tokens, encoded = loaded(tmp_path, "seq2seq", "bart")
    batch = collate(tokens)([encoded.train[i] for i in range(6)])
    inputs, _ = model_inputs(base, batch)
    assert real_tokens(inputs) == sum(encoded.train.lengths[:6]) + sum(encoded.train.target_lengths[:6])
    assert real_tokens(inputs) < batch["input_ids"].numel() + batch["labels"].numel()


def test_label_smoothing_reaches_the_target_tokens(tmp_path: Path) -> None:
    model = write_arch(tmp_path / "model", "bart")
    losses = []
    for smoothing in (0.0, 0.5):
        config = config_of("seq2seq", tmp_path, model, LOW_RANK, optim_label_smoothing=smoothing)
        run(config)
        first = (run_dir(config) / "metrics.jsonl").read_text().splitlines()[0]
        losses.append(json.loads(first)["loss"])
    assert losses[0] != losses[1]


# --- generation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("kind", "arch"), [("causal_generation", "gpt2"), ("causal_generation", "llama"), ("seq2seq", "bart")]
)
def test_a_batch_writes_what_each_example_writes_alone(kind: str, arch: str, beams: int, tmp_path: Path) -> None:
    """With a method inside attention: left padding, the cache and the beams must not change what an example gets."""
    decoding = {"num_beams": beams, "min_new_tokens": 4, "max_new_tokens": 6, "length_penalty": 0.8}
    task, _, base, tokens, encoded = loaded(tmp_path, kind, arch, decoding=decoding)
    torch.manual_seed(1)
    if kind == "seq2seq":
        base.final_logits_bias[:, :5] = -1e4  # words only, no special tokens
        for name, parameter in base.named_parameters():  # random weights this small would ignore the source
            if parameter.dim() == 2 and "proj" in name:
                parameter.data *= 15
    unipet.adapt(base, HEADS)
    for tensor in unipet.parameters(base).values():
        tensor.data.normal_()
    together, alone = (
        generate_texts(base, encoded.evaluation, tokens, collate(tokens), task, size, "fp32") for size in (10, 1)
    )
    assert together == alone
    assert len(set(together)) > 1 and not base.training


@pytest.mark.parametrize(
    ("kind", "arch"), [("causal_generation", "gpt2"), ("causal_generation", "llama"), ("seq2seq", "bart")]
)
def test_the_cache_changes_nothing_and_is_used(
    kind: str, arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unipet.training import generation

    task, _, base, tokens, encoded = loaded(tmp_path, kind, arch, decoding={"max_new_tokens": 6})
    unipet.adapt(base, HEADS)
    fresh: list[int] = []
    name = "decoder_input_ids" if kind == "seq2seq" else "input_ids"
    base.register_forward_pre_hook(lambda module, args, given: fresh.append(given[name].shape[1]), with_kwargs=True)
    cached = generate_texts(base, encoded.evaluation, tokens, collate(tokens), task, 10, "fp32")
    assert fresh[1:] == [1] * (len(fresh) - 1), "after the first step only the newest token is read"
    original = generation.generation_config

    def without(*args: Any) -> Any:
        made = original(*args)
        made.use_cache = False
        return made

    monkeypatch.setattr(generation, "generation_config", without)
    assert generate_texts(base, encoded.evaluation, tokens, collate(tokens), task, 10, "fp32") == cached


def test_decoding_is_the_tasks_and_not_the_checkpoints(tmp_path: Path) -> None:
    from unipet.training.generation import generation_config

    task, _, base, tokens, _ = loaded(tmp_path, "seq2seq", "bart", decoding={"num_beams": 6, "min_new_tokens": 2})
    base.generation_config.update(num_beams=9, do_sample=True, temperature=0.3, max_length=999, repetition_penalty=2.0)
    made = generation_config(base, tokens, task)
    assert (made.num_beams, made.do_sample, made.min_new_tokens, made.max_new_tokens) == (6, False, 2, 12)
    assert made.repetition_penalty in (None, 1.0) and made.use_cache and made.decoder_start_token_id == 2


@pytest.mark.parametrize(("kind", "arch"), [("causal_generation", "gpt2"), ("seq2seq", "bart"), ("seq2seq", "t5")])
def test_it_learns_to_write(kind: str, arch: str, tmp_path: Path) -> None:
    """Full training on two dozen examples must reproduce them: separator, end, shift and padding all fit together."""
    config = config_of(
        kind,
        tmp_path,
        write_arch(tmp_path / "model", arch),
        FULL,
        optim_epochs=100,
        optim_lr=1e-2 if arch == "t5" else 3e-3,
    )
    folder = Path(str(config.task.data_dir))
    (folder / "validation.jsonl").write_text((folder / "train.jsonl").read_text())
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert record["score"] > 0.8 and record["metrics"]["perplexity"] < 1.5


def test_perplexity_is_the_exponent_of_the_mean_loss(tmp_path: Path) -> None:
    task, _, base, tokens, encoded = loaded(tmp_path, "seq2seq", "bart")
    losses, counts = target_losses(base, encoded.evaluation, collate(tokens), readout(task, tokens), 3, "fp32")
    batch = collate(tokens)([encoded.evaluation[i] for i in range(10)])
    assert sum(losses) / sum(counts) == pytest.approx(base(**batch).loss.item(), abs=1e-5)
    assert counts == encoded.evaluation.target_lengths


def test_too_little_room_for_prompt_and_text(tmp_path: Path) -> None:
    model = write_arch(tmp_path / "model", "gpt2")
    record = run(config_of("causal_generation", tmp_path, model, LOW_RANK, decoding={"max_new_tokens": 39}))
    assert record["status"] == "failed" and "task.decoding.max_new_tokens" in record["error"]["message"]


def test_a_separator_that_is_no_token(tmp_path: Path) -> None:
    record = run(config_of("causal_generation", tmp_path, write_arch(tmp_path / "m", "gpt2"), LOW_RANK, separator="\n"))
    assert record["status"] == "failed" and "task.separator" in record["error"]["message"]


def test_cut_targets_are_a_warning_with_their_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run(config_of("seq2seq", tmp_path, write_arch(tmp_path / "m", "bart"), LOW_RANK, max_target=4))
    assert record["status"] == "ok"
    share = record["data"]["truncated"]["train_targets"]
    assert 0 < share < 1 and record["data"]["warnings"][0].startswith(f"{share:.1%} of the training targets")
    assert "warning: " in capsys.readouterr().err


# --- the other kinds ----------------------------------------------------------------------------------------------


def test_masked_prompts_keep_the_mask_and_read_the_words_at_it(tmp_path: Path) -> None:
    task, data, base, tokens, encoded = loaded(tmp_path, "masked_prompt", "bert", "BertForMaskedLM", max_length=8)
    assert 0 < encoded.train.truncated < 1
    for i in range(len(data.train)):
        ids = encoded.train[i]["input_ids"]
        assert len(ids) <= 8 and ids.count(tokens.mask_token_id) == 1
        assert ids[-3:] == tokens.convert_tokens_to_ids(["<mask>", "w51", "</s>"])
    batch = collate(tokens)([encoded.train[i] for i in range(4)])
    inputs, labels = model_inputs(base, batch)
    logits = base(**inputs).logits
    found, answers = readout(task, tokens)(logits, inputs, labels)
    where = (batch["input_ids"] == tokens.mask_token_id).nonzero()
    words = tokens.convert_tokens_to_ids(["w52", "w53"])
    assert torch.equal(found, torch.stack([logits[row, at, words] for row, at in where.tolist()]))
    assert torch.equal(answers, labels)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["w52", "never"], "unknown"), (["w52", "w1 w2"], "2 tokens"), (["w5", " w5"], "same token")],
)
def test_verbalizers_that_are_no_words(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UnipetError, match=f"task.verbalizers.*{message}"):
        readout(task_of("masked_prompt", tmp_path / "d", verbalizers=words), tokenizer())


def test_tags_stand_at_the_first_token_of_each_word(tmp_path: Path) -> None:
    _, data, base, tokens, encoded = loaded(tmp_path, "token_classification", "bert", max_length=6)
    row, feature = data.train[0], encoded.train[0]
    kept = row["label"][: len(feature["labels"]) - 2]
    assert feature["labels"] == [-100, *kept, -100]
    from unipet.training.evaluation import predict_tags

    tags = predict_tags(base, data.evaluation, encoded.evaluation, collate(tokens), 3, "fp32")
    for index, each in enumerate(tags):
        assert len(each) == len(data.evaluation[index]["text"])
        assert each[4:] == [-1] * len(each[4:]), "words that max_length cut have no prediction"
        one = collate(tokens)([encoded.evaluation[index]])
        own = base(**{name: one[name] for name in ("input_ids", "attention_mask")}).logits[0].argmax(-1)
        assert each[:4] == own[1 : 1 + len(each[:4])].tolist()


def test_choices_are_scored_side_by_side(tmp_path: Path) -> None:
    _, data, _, tokens, encoded = loaded(tmp_path, "multiple_choice", "bert")
    batch = collate(tokens)([encoded.train[i] for i in range(3)])
    assert batch["input_ids"].shape[:2] == (3, 2) and batch["labels"].shape == (3,)
    texts = tokens.batch_decode(batch["input_ids"][0], skip_special_tokens=True)
    assert texts == [f"w5 {choice}" for choice in data.train[0]["choices"]]
