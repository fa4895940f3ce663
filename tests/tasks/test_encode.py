"""Tokenising and batching, with a tokenizer built here: no hub, no downloaded vocabulary."""

from __future__ import annotations

import os
from typing import Any

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks import collate, encode
from unipet.tasks.load import TaskData

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"a b c d e f g h i j".split()]


def build(lower: bool = True, types: bool = True, **options: Any) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    if lower:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if types else ["input_ids", "attention_mask"]
    special: dict[str, Any] = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names, **{**special, **options})


class Counted(PreTrainedTokenizerFast):
    """Counts how often it is asked to tokenise."""

    calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        type(self).calls += 1
        return super().__call__(*args, **options)


def data(
    train: list[list[str]], evaluation: list[list[str]], labels: tuple[Any, ...] = (0, 1), print_: str = ""
) -> TaskData:
    def rows(texts: list[list[str]]) -> list[dict[str, Any]]:
        return [{"id": str(i), "text": text, "label": labels[i % 2]} for i, text in enumerate(texts)]

    regression = isinstance(labels[0], float)
    names = [] if regression else ["x", "y"]
    return TaskData(
        rows(train), rows(evaluation), names, regression, "here", False, print_ or repr((train, evaluation))
    )


def task(max_length: int) -> TaskConfig:
    return TaskConfig(name="t", text=["a"], max_length=max_length)


SINGLE = data([["a b c"], ["A"], ["d e f g h i j"]], [["b"]])
PAIR = data([["a b", "c"], ["d e f g h i", "j j"]], [["a", "b"]], labels=(0.5, 5.0))


def test_single_texts_and_their_batch() -> None:
    tokenizer = build()
    encoded = encode(SINGLE, tokenizer, task(16))
    assert len(encoded.train) == 3 and len(encoded.evaluation) == 1
    assert encoded.train[1] == {
        "input_ids": [2, 4, 3],
        "token_type_ids": [0, 0, 0],
        "attention_mask": [1, 1, 1],
        "labels": 1,
    }
    assert encoded.train[-1]["labels"] == 0
    assert encoded.train.lengths == [5, 3, 9] and encoded.truncated == {"train": 0.0, "evaluation": 0.0}
    batch = collate(tokenizer)([encoded.train[0], encoded.train[1]])
    assert batch["input_ids"].tolist() == [[2, 4, 5, 6, 3], [2, 4, 3, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert {name: tensor.dtype for name, tensor in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids", "labels"), torch.int64
    )
    assert batch["labels"].tolist() == [0, 1]
    with pytest.raises(IndexError):
        encoded.train[3]


def test_it_is_a_data_set_for_torch() -> None:
    tokenizer = build()
    loader = torch.utils.data.DataLoader(
        encode(SINGLE, tokenizer, task(16)).train, batch_size=2, collate_fn=collate(tokenizer)
    )  # type: ignore[arg-type]
    assert [tuple(batch["input_ids"].shape) for batch in loader] == [(2, 5), (1, 9)]


def test_pairs_lose_from_the_longer_text_and_the_loss_is_reported() -> None:
    encoded = encode(PAIR, build(), task(8))
    assert encoded.train[1]["input_ids"] == [2, 7, 8, 9, 3, 13, 13, 3]
    assert encoded.train[1]["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert encoded.truncated == {"train": 0.5, "evaluation": 0.0}


def test_a_text_that_just_fits_is_not_truncated() -> None:
    assert encode(SINGLE, build(), task(9)).truncated == {"train": 0.0, "evaluation": 0.0}
    assert encode(SINGLE, build(), task(8)).truncated["train"] == pytest.approx(1 / 3)


def test_regression_labels_are_floats() -> None:
    tokenizer = build()
    batch = collate(tokenizer)([encode(PAIR, tokenizer, task(16)).train[i] for i in range(2)])
    assert batch["labels"].dtype == torch.float32 and batch["labels"].tolist() == [0.5, 5.0]


def test_a_tokenizer_without_types_makes_none() -> None:
    tokenizer = build(types=False)
    encoded = encode(SINGLE, tokenizer, task(16))
    assert set(encoded.train[0]) == {"input_ids", "attention_mask", "labels"}
    assert set(collate(tokenizer)([encoded.train[0]])) == {"input_ids", "attention_mask", "labels"}


def test_padding_uses_the_padding_token_on_the_right_whatever_the_tokenizer_prefers() -> None:
    tokenizer = build(padding_side="left", pad_token="j")
    encoded = encode(SINGLE, tokenizer, task(16))
    assert collate(tokenizer)([encoded.train[0], encoded.train[1]])["input_ids"][1].tolist() == [2, 4, 3, 13, 13]


def test_tokenised_once_per_data_tokenizer_and_length() -> None:
    def counted() -> Counted:
        return Counted(tokenizer_object=build().backend_tokenizer, pad_token="[PAD]", unk_token="[UNK]")

    here = data([["a b"], ["c"]], [["d"]], print_="tokenised once")
    first = encode(here, counted(), task(10))
    calls = Counted.calls
    assert calls == 2, "one call per split"
    assert encode(here, counted(), task(10)).train is first.train, (
        "another tokenizer of the same content is the same tokenizer"
    )
    assert Counted.calls == calls
    assert encode(here, counted(), task(11)).train is not first.train and Counted.calls == 2 * calls
    assert encode(data([["a b"], ["d"]], [["d"]]), counted(), task(10)).train is not first.train
    assert encode(data([["a b"], ["c"]], [["e"]]), counted(), task(10)).train is first.train, "a split is its rows"


def test_tokenizers_that_differ_do_not_share() -> None:
    assert encode(SINGLE, build(), task(16)).train[1]["input_ids"] == [2, 4, 3]
    assert encode(SINGLE, build(lower=False), task(16)).train[1]["input_ids"] == [2, 1, 3]
    assert "token_type_ids" not in encode(SINGLE, build(types=False), task(16)).train[0]


@pytest.mark.parametrize(("length", "limit"), [(2, 512), (513, 512)])
def test_a_length_that_cannot_be(length: int, limit: int) -> None:
    with pytest.raises(UnipetError, match=r"task\.max_length: .* allows 3 to 512"):
        encode(SINGLE, build(model_max_length=limit), task(length))


def test_no_padding_token() -> None:
    with pytest.raises(UnipetError, match="no padding token"):
        collate(build(pad_token=None))
