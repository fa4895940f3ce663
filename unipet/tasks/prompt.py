"""Masked prompts: classification by the word that a masked language model predicts at the mask (LM-BFF, Gao et al. 2021)."""

from __future__ import annotations

from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks.columns import MASK, render, text_columns
from unipet.tasks.encoded import EncodedRows
from unipet.tasks.rows import Row
from unipet.tasks.word_ids import word_ids


def encode_prompts(rows: list[Row], tokenizer: Any, task: TaskConfig) -> EncodedRows:
    """Encode the template, filled with each row's columns and the mask token. A prompt longer than max_length is truncated
    at the end of its longest column, so that the template and its mask always stay."""
    mask = mask_token(tokenizer)
    names = text_columns(task)
    values = [dict(zip(names, row["text"], strict=True)) for row in rows]

    def prompts(chosen: list[dict[str, str]]) -> dict[str, list[list[int]]]:
        texts = [render(task.text[0], {**each, MASK: mask}) for each in chosen]
        made = tokenizer(texts, padding=False, truncation=False, return_attention_mask=False, verbose=False)
        return {name: made[name] for name in ("input_ids", "token_type_ids") if name in made}

    columns = prompts(values)
    long = [i for i, ids in enumerate(columns["input_ids"]) if len(ids) > task.max_length]
    for i in long:
        shortened = prompts([values[i]])
        while len(shortened["input_ids"][0]) > task.max_length:
            longest = max(values[i], key=lambda name: len(values[i][name]))
            words = values[i][longest].split(" ")
            if len(words) == 1 and len(words[0]) < 2:
                raise UnipetError(
                    f"task.max_length: {task.max_length} given; the template of task.text alone is longer. Raise it."
                )
            values[i][longest] = " ".join(words[:-1]) if len(words) > 1 else words[0][: len(words[0]) // 2]
            shortened = prompts([values[i]])
        for name, found in shortened.items():
            columns[name][i] = found[0]
    for row, ids in zip(rows, columns["input_ids"], strict=True):
        if ids.count(tokenizer.mask_token_id) != 1:
            raise UnipetError(f"example {row['id']}: its text contains the mask token {mask!r}. Remove it.")
    return EncodedRows(columns, [row.get("label", 0) for row in rows], len(long) / len(rows))


def mask_token(tokenizer: Any) -> str:
    """The tokenizer's mask token. Raises UnipetError if it has none."""
    if tokenizer.mask_token_id is None:
        raise UnipetError("task.kind=masked_prompt: this base model's tokenizer has no mask token. Choose an encoder.")
    found: str = tokenizer.mask_token
    return found


def verbalizer_ids(tokenizer: Any, task: TaskConfig) -> list[int]:
    """The token of each label's word, as it is tokenised after a space within a sentence. Raises UnipetError for an unknown
    word, a word of several tokens, and two words with the same token."""
    found: list[int] = []
    for word, (ids, _) in zip(task.verbalizers, word_ids(tokenizer, task.verbalizers), strict=True):
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            raise UnipetError(
                f"task.verbalizers: {word!r} is {len(ids)} tokens or unknown to this base model; a known word of one "
                "token is needed."
            )
        if ids[0] in found:
            raise UnipetError(f"task.verbalizers: {word!r} has the same token as another label's word.")
        found.append(ids[0])
    return found
