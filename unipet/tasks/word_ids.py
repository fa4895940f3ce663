"""The ids of single words as they are tokenised within a sentence, for tags, verbalizers and pre-split words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_PROBED = 1000  # words that are tried; the result depends on the tokenizer, so that any ordinary word shows it


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special tokens and without truncation."""
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
    """The text, " " or "", that must precede a single word so that it has the same ids as within a sentence.

    A byte-level tokenizer (GPT-2, RoBERTa, Llama 3) treats a space as part of the following word, so a word at the start of
    a text has other ids. WordPiece and most SentencePiece tokenizers handle the start of a text themselves.
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
    """For each word, its ids within a sentence, and the index of the first id that belongs to the word itself, because the
    space before it may be a token of its own. A word that the tokenizer turns into no tokens has no ids."""
    bare = [word.strip() for word in words]
    space = leading_space(tokenizer, bare)
    own = plain_ids(tokenizer, bare)
    found = plain_ids(tokenizer, [space + word for word in bare]) if space else own
    firsts = {ids[0] for ids in found if ids}
    blank = {i for i in firsts if not tokenizer.decode([i], skip_special_tokens=False).strip()}
    return [
        (ids, int(len(ids) > 1 and ids[0] in blank))
        if alone
        else ([], 0)  # otherwise the token of the space would remain
        for ids, alone in zip(found, own, strict=True)
    ]
