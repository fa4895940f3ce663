"""Tiny real tokenizers of every kind, trained here on a few sentences: no hub, no downloaded vocabulary."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

SENTENCES = [
    "we saw John Smith today",
    "Visit John Smith in Berlin today, we saw 12 of them",
    "it was great = bad\nwe saw terrible things",
]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _made(backend: Tokenizer, begin: bool = True, end: bool = True, **options: Any) -> PreTrainedTokenizerFast:
    single = " ".join(["<s>"] * begin + ["$A"] + ["</s>"] * end)
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B:0", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=64,
        **{**special, **options},
    )


def byte_level(regex: str | None = None, **options: Any) -> PreTrainedTokenizerFast:
    """As GPT-2's and RoBERTa's; with `regex` as Llama 3's."""
    backend = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None)
    parts = [level] if regex is None else [pre_tokenizers.Split(Regex(regex), "isolated"), level]
    backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES * 3, trainer)
    return _made(backend, **options)


def sentence_piece(unigram: bool = True) -> PreTrainedTokenizerFast:
    """As T5's; without `unigram` as Llama 2's, which puts its marks by a normaliser and falls back to bytes."""
    if unigram:
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        )
        backend.train_from_iterator(SENTENCES * 3, trainer)
        return _made(backend)
    letters = sorted({letter for text in SENTENCES for letter in text if letter not in " \n"} | {"▁"})
    merges: list[tuple[str, str]] = []
    vocabulary = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    for word in ("▁we", "▁saw", "▁John", "▁Smith", "▁today", "we", "saw", "▁="):
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.append(word[:end])
    ids = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    backend = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _made(backend, end=False)


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT's: its normaliser drops control characters."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(
        SENTENCES * 3, trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    )
    return _made(backend)


TOKENIZERS = {
    "gpt2": byte_level,
    "gpt2-plain": lambda: byte_level(begin=False, end=False),
    "llama3": lambda: byte_level(LLAMA_3, end=False),
    "t5": sentence_piece,
    "llama2": lambda: sentence_piece(unigram=False),
    "bert": word_piece,
    "byt5": ByT5Tokenizer,
}
