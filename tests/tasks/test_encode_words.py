"""Sentences that come as words, under real tokenizers of every kind: the sentence's own ids, and labels that do not shift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from tests.support.running import run_dir
from tests.support.tasks import config_of
from tests.support.tiny import SIZES
from tests.support.tokenizers import SENTENCES, TOKENIZERS, byte_level, word_piece
from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.report.resampling import Answers, answers
from unipet.runs.run import evaluate, run
from unipet.tasks import Encoded, EncodedRows, collate, encode, score_tags
from unipet.tasks.cache import read_cached
from unipet.tasks.encode_text import encode_causal
from unipet.tasks.encode_words import encode_words
from unipet.tasks.load import TaskData
from unipet.tasks.prompt import verbalizer_ids
from unipet.tasks.word_ids import leading_space, plain_ids
from unipet.training.evaluation import predict_tags

WORDS = "we saw John Smith today".split()
LABELS = ["O", "B-PER", "I-PER"]


def task(**changes: Any) -> TaskConfig:
    values = {"name": "t", "kind": "token_classification", "text": ["words"], "labels": LABELS, "max_length": 60}
    return TaskConfig(**{**values, "metrics": ["f1", "accuracy"], **changes})


def rows(*sentences: tuple[list[str], list[int]]) -> list[dict[str, Any]]:
    return [{"id": str(i), "text": words, "label": tags} for i, (words, tags) in enumerate(sentences)]


class Oracle(torch.nn.Module):
    """A model that is right on every token: it answers with the labels of the batch, and with `other` elsewhere."""

    def __init__(self, encoded: EncodedRows, other: int = 1) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.config = type("Config", (), {"is_encoder_decoder": False})()
        self.known = {tuple(e["input_ids"]): e["labels"] for e in (encoded[i] for i in range(len(encoded)))}
        self.other = other

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        logits = torch.zeros(*input_ids.shape, len(LABELS))
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            for at, label in enumerate(self.known[tuple(ids[mask.bool()].tolist())]):
                logits[row, at, self.other if label == -100 else label] = 1.0
        return type("Output", (), {"logits": logits})()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_words_have_the_ids_of_the_sentence(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    encoded = encode_words(rows((WORDS, [0, 0, 1, 2, 0])), tokenizer, task())
    ids = encoded[0]["input_ids"]
    sentence = " ".join(WORDS)
    spaced = leading_space(tokenizer, WORDS) + sentence
    assert ids == tokenizer(spaced)["input_ids"]
    assert sentence in tokenizer.decode(ids).replace("john smith", "John Smith")
    begun = plain_ids(tokenizer, [sentence])[0]
    last = len(plain_ids(tokenizer, [spaced])[0]) - 3
    assert begun[-last:] == plain_ids(tokenizer, [spaced])[0][-last:], "but for the first word it is the plain sentence"
    named = [ids[at] for at, label in enumerate(encoded[0]["labels"]) if label == 1]
    assert len(named) == 1 and tokenizer.decode(named).strip()[:1] in ("J", "j"), "the label stands at a letter"
    assert encoded.labelled(0) == [0, 1, 2, 3, 4] and encoded.wordless(0) == []


def test_a_byte_level_sentence_reads_as_it_is_written() -> None:
    encoded = encode_words(rows((WORDS, [0] * 5)), byte_level(), task())
    assert byte_level().decode(encoded[0]["input_ids"]) == "<s> we saw John Smith today</s>"


def test_the_space_is_asked_of_the_tokenizer() -> None:
    spaces = {name: leading_space(make(), WORDS) for name, make in TOKENIZERS.items()}
    assert spaces == {"gpt2": " ", "gpt2-plain": " ", "llama3": " ", "t5": "", "llama2": "", "bert": "", "byt5": " "}


NASTY = [
    (["Visit", "\u200b", "John", "Smith", "today"], [0, 0, 1, 2, 0]),
    (["\u200b", "\x07", "John"], [1, 2, 1]),
    (["Jo\u200bhn", "Sm\x00ith", "\ufeff"], [1, 2, 2]),
    (["today"], [0]),
    (["\u200b"], [1]),
    (["we", "saw", "John", "\u200d", "Smith"], [0, 0, 1, 2, 2]),
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_words_without_a_token_shift_nothing(name: str) -> None:
    tokenizer, examples = TOKENIZERS[name](), rows(*NASTY)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if name == "gpt2-plain":
        examples = [row for row in examples if row["text"] != ["\u200b"]]
    encoded = encode_words(examples, tokenizer, task())
    found = predict_tags(Oracle(encoded), examples, encoded, collate(tokenizer), 2, "fp32")
    for row, tags in zip(examples, found, strict=True):
        assert [tag for tag in tags if tag is not None] == [
            label for tag, label in zip(tags, row["label"], strict=True) if tag is not None
        ]
    if name == "bert":
        assert found[0] == [0, None, 1, 2, 0] and found[1] == [None, None, 1] and found[4] == [None]
        assert encoded.words_without_tokens() == 6
    scores = score_tags(task(), found, [row["label"] for row in examples])
    assert scores.metrics == {"f1": 1.0, "accuracy": 1.0} and set(scores.per_example) == {1.0}


def test_a_token_that_is_wrong_is_wrong_at_its_own_word() -> None:
    tokenizer, examples = word_piece(), rows(*NASTY[:1])
    encoded = encode_words(examples, tokenizer, task())
    model = Oracle(encoded)
    (labels,) = model.known.values()
    labels[labels.index(2)] = 0  # Smith
    found = predict_tags(model, examples, encoded, collate(tokenizer), 1, "fp32")
    scores = score_tags(task(), found, [NASTY[0][1]])
    assert found == [[0, None, 1, 0, 0]] and scores.metrics == {"f1": 0.0, "accuracy": 0.75}
    assert (
        scores.notes["accuracy"] == "over the 4 words that have tokens; 1 have none, words that were cut count as wrong"
    )


@pytest.mark.parametrize("side", ["right", "left"])
def test_words_that_are_cut_are_wrong_and_the_others_keep_their_places(side: str) -> None:
    tokenizer = word_piece()
    tokenizer.truncation_side = side
    examples = rows((["\u200b", *WORDS, "\u200b"], [0, 0, 0, 1, 2, 0, 0]))
    cut = "today" if side == "right" else "we"
    whole = len(encode_words(examples, tokenizer, task())[0]["input_ids"])
    longest = whole - len(plain_ids(tokenizer, [cut])[0])
    encoded = encode_words(examples, tokenizer, task(max_length=longest))
    (found,) = predict_tags(Oracle(encoded), examples, encoded, collate(tokenizer), 1, "fp32")
    assert encoded.truncated == 1.0 and len(encoded[0]["input_ids"]) == longest
    assert found == [
        None,
        *(-1 if word == cut else tag for word, tag in zip(WORDS, [0, 0, 1, 2, 0], strict=True)),
        None,
    ]


def test_where_no_word_has_a_token() -> None:
    with pytest.raises(UnipetError, match="no word has a token"):
        score_tags(task(), [[None]], [[1]])
    empty = rows((["\u200b"], [0]))
    tokenizer = word_piece()
    tokenizer.backend_tokenizer.post_processor = byte_level(begin=False, end=False).backend_tokenizer.post_processor
    data = TaskData(empty, empty, LABELS, False, "here", False, "f")
    with pytest.raises(UnipetError, match=r"example 0: .* turns its text into no tokens"):
        encode(data, tokenizer, task())


def test_words_without_tokens_are_a_warning_and_survive_the_cache(tmp_path: Path) -> None:
    examples = rows(*NASTY)
    data = TaskData(examples, examples[:1], LABELS, False, "here", False, "f")
    encoded = encode(data, word_piece(), task(max_length=59), tmp_path)
    first, second = encoded.warnings(0)
    assert "words of the training split without any token" in first and "tokenizer: 6 (" in first
    assert "words of the evaluation split without any token" in second and "tokenizer: 1 (" in second
    (path,) = (p for p in (tmp_path / "tokenised").iterdir() if len(read_cached(tmp_path, p.stem) or []) == 6)
    again = read_cached(tmp_path, path.stem)
    assert again is not None and again.wordless(1) == [0, 1] and again.labelled(1) == [2]
    assert Encoded(again, again).train[0].keys() == {"input_ids", "attention_mask", "labels"}


def test_types_and_specials_are_the_tokenizers_own(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "we", "saw", "jo", "##hn"])
    )
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    words = ["We", "saw", "John"]
    made = tokenizer(words, is_split_into_words=True)
    feature = encode_words(rows((words, [0, 0, 1])), tokenizer, task())[0]
    assert feature["input_ids"] == made["input_ids"] and feature["token_type_ids"] == made["token_type_ids"]
    assert feature["labels"] == [-100, 0, 0, 1, -100, -100]


def test_a_run_over_words_without_tokens_says_so(tmp_path: Path) -> None:
    BertModel(BertConfig(**{**SIZES, "vocab_size": 200})).save_pretrained(tmp_path / "m")
    word_piece().save_pretrained(tmp_path / "m")
    head: dict[str, Any] = {"name": "tiny_head", "insertions": {}, "unfreeze": ["head"]}
    config = config_of("token_classification", tmp_path, tmp_path / "m", head)
    line = json.dumps({"tokens": ["we", "\u200b", "saw"], "tags": ["O", "O", "B-X"]}) + "\n"
    for split in ("train", "validation"):
        (tmp_path / "data_token_classification" / f"{split}.jsonl").write_text(line * 4)
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert "tokenizer: 4 (" in record["data"]["warnings"][0]
    assert record["data"]["scoring"]["notes"]["accuracy"].startswith("over the 8 words that have tokens; 4 have none")
    assert evaluate(run_dir(config))["reproduced"]
    lines = [json.loads(each) for each in (run_dir(config) / "predictions.jsonl").read_text().splitlines()]
    assert all(each["prediction"][1] is None and None not in each["prediction"][::2] for each in lines)
    for metric, value in record["metrics"].items():
        found = answers(run_dir(config), metric, value, ["O", "B-X"])
        assert isinstance(found, Answers), found


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name != "bert"])
@pytest.mark.parametrize("separator", ["\n", " = ", ": "])
def test_a_target_goes_on_where_the_separator_ends(name: str, separator: str) -> None:
    tokenizer = TOKENIZERS[name]()
    row = {"id": "0", "text": ["we saw"], "target": "John today"}
    encoded = encode_causal([row], tokenizer, task(kind="causal_generation", separator=separator))
    ids, prompt = encoded[0]["input_ids"], encoded.prompt(0)
    begin = len(ids) - 1 - len(plain_ids(tokenizer, [f"we saw{separator}John today"])[0])
    assert ids[begin:-1] == plain_ids(tokenizer, [f"we saw{separator}John today"])[0]
    assert prompt[begin:] == plain_ids(tokenizer, [f"we saw{separator}".rstrip(" ")])[0]


@pytest.mark.parametrize("name", ["gpt2", "llama3", "llama2", "t5", "bert"])
def test_a_verbalizer_is_the_word_within_a_sentence(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    start = plain_ids(tokenizer, ["bad"])[0]
    within = {word: plain_ids(tokenizer, [f"bad {word}"])[0][len(start) :] for word in " ".join(SENTENCES).split()}
    words = [word for word, ids in within.items() if len(ids) == 1 and ids[0] != tokenizer.unk_token_id][:2]
    assert words
    found = verbalizer_ids(tokenizer, task(kind="masked_prompt", verbalizers=words))
    assert found == [within[word][0] for word in words]
