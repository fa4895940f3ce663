"""Tiny random base models and a tokeniser, built offline and the same on every call with the same seed."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)

VOCABULARY = 64
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]  # <pad> is 0 for both architectures
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
}


def _build(cls: type[PreTrainedModel], config: Any, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = cls(config).eval()
        torch.manual_seed(seed)  # again, so that the head's size changes nothing below it
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zeros would hide what a method does to a bias
                torch.nn.init.normal_(parameter, 0.0, 0.02)
        return model


def tiny_bert(head: bool = True, *, seed: int = 0, attention: str = "sdpa", num_labels: int = 2) -> PreTrainedModel:
    """A random BERT in evaluation mode: with a classification head, or the encoder alone."""
    config = BertConfig(**SIZES, num_labels=num_labels, attn_implementation=attention)
    return _build(BertForSequenceClassification if head else BertModel, config, seed)


def tiny_roberta(head: bool = True, *, seed: int = 0, attention: str = "sdpa", num_labels: int = 2) -> PreTrainedModel:
    """A random RoBERTa in evaluation mode: with a classification head, or the encoder alone."""
    config = RobertaConfig(**SIZES, num_labels=num_labels, attn_implementation=attention)
    return _build(RobertaForSequenceClassification if head else RobertaModel, config, seed)


TINY = {"bert": tiny_bert, "roberta": tiny_roberta}


def tiny_batch(rows: int = 4, length: int = 9, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tokens with right padding: row i has length - i real tokens (at least 3)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(len(SPECIAL), VOCABULARY, (rows, length), generator=generator)
    real = torch.arange(length) < torch.clamp(length - torch.arange(rows), min=3)[:, None]
    return {"input_ids": ids.masked_fill(~real, 0), "attention_mask": real.long()}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokeniser over w0..w58 with pair templates; any other word is <unk>."""
    words = SPECIAL + [f"w{index}" for index in range(VOCABULARY - len(SPECIAL))]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=40,
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
