"""The ids of single words, as they stand within a sentence: what tags, verbalizers and pre-split words are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_PROBED = 1000  # words that are asked; the answer is the tokenizer's own, so any ordinary word gives it


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special tokens and uncut."""
    if not texts:
        return []
    found: list[list[int]] = tokenizer(
        list(texts),
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        verbose=False,
    )["input_ids"]
    return found


def leading_space(tokenizer: Any, words: Sequence[str]) -> str:
    """What must stand before a word alone so that it has the ids that it has within a sentence: " " or nothing.

    A byte-level tokenizer (GPT-2, RoBERTa, Llama 3) reads a space as part of the word behind it, so a word at the start
    of a text is another one; word-piece and most sentence-piece tokenizers mark the start of a text by themselves.
    """
    some = [word.strip() for word in words[:_PROBED]]
    alone, twice = plain_ids(tokenizer, some), plain_ids(tokenizer, [f"{word} {word}" for word in some])
    behind = plain_ids(tokenizer, [f" {word}" for word in some])
    behind_twice = plain_ids(tokenizer, [f" {word} {word}" for word in some])
    differs = any(
        two != one + one and two_behind == one_behind + one_behind
        for one, two, one_behind, two_behind in zip(alone, twice, behind, behind_twice, strict=True)
    )
    return " " if differs else ""


def word_ids(tokenizer: Any, words: Sequence[str]) -> list[tuple[list[int], int]]:
    """The ids of each word within a sentence, and the place among them of the first that shows something of the word:
    the mark of the space before it may be a token of its own. No ids for a word that the tokenizer makes nothing of."""
    bare = [word.strip() for word in words]
    space = leading_space(tokenizer, bare)
    own = plain_ids(tokenizer, bare)
    found = plain_ids(tokenizer, [space + word for word in bare]) if space else own
    firsts = {ids[0] for ids in found if ids}
    blank = {i for i in firsts if not tokenizer.decode([i], skip_special_tokens=False).strip()}
    return [
        (ids, int(len(ids) > 1 and ids[0] in blank)) if alone else ([], 0)  # of nothing, the space would be left
        for ids, alone in zip(found, own, strict=True)
    ]
