"""Prompts: classification by the word that a language model predicts in the place of `{mask}` (LM-BFF, Gao et al. 2021).

A masked language model predicts it at its mask token, a causal one after the text before it, at whose end `{mask}` stands.
"""

from __future__ import annotations

from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks.columns import MASK, render, text_columns
from unipet.tasks.encode_text import begins
from unipet.tasks.encoded import EncodedRows
from unipet.tasks.rows import Row
from unipet.tasks.word_ids import plain_ids, word_ids

Columns = dict[str, list[list[int]]]
Values = list[dict[str, str]]  # the columns of an example, then those of each of its demonstrations


def encode_prompts(rows: list[Row], tokenizer: Any, task: TaskConfig) -> EncodedRows:
    """Encode the template, filled with each row's columns and the mask token, and followed by the row's demonstrations.

    A prompt longer than max_length is truncated at the end of its longest column, of the row or of a demonstration, so that
    every template and its mask always stay. Raises UnipetError where they do not fit.
    """
    mask = mask_token(tokenizer)
    between = tokenizer.sep_token or " "

    def prompts(chosen: list[tuple[Row, Values]]) -> Columns:
        texts = []
        for row, (own, *shown) in chosen:
            query = render(task.text[0], {**own, MASK: mask})
            texts.append(between.join([query, *_demonstrated(row, shown, task)]))
        made = tokenizer(texts, padding=False, truncation=False, return_attention_mask=False, verbose=False)
        return {name: made[name] for name in ("input_ids", "token_type_ids") if name in made}

    columns, cut = _fitted(rows, task, prompts)
    for row, ids in zip(rows, columns["input_ids"], strict=True):
        if ids.count(tokenizer.mask_token_id) != 1:
            raise UnipetError(f"example {row['id']}: its text contains the mask token {mask!r}. Remove it.")
    return EncodedRows(columns, [row.get("label", 0) for row in rows], cut / len(rows))


def encode_causal_prompts(rows: list[Row], tokenizer: Any, task: TaskConfig) -> EncodedRows:
    """Encode the text of the template before `{mask}`, after the row's demonstrations, without an end token. Truncated as
    `encode_prompts`."""
    begin = [tokenizer.bos_token_id] if begins(tokenizer) else []

    def prompts(chosen: list[tuple[Row, Values]]) -> Columns:
        texts = []
        for row, (own, *shown) in chosen:
            query = render(task.text[0], {**own, MASK: ""}).rstrip(
                " "
            )  # a word's token begins with the space before it
            texts.append("\n".join([*_demonstrated(row, shown, task), query]))
        return {"input_ids": [[*begin, *ids] for ids in plain_ids(tokenizer, texts)]}

    columns, cut = _fitted(rows, task, prompts)
    return EncodedRows(columns, [row.get("label", 0) for row in rows], cut / len(rows))


def _demonstrated(row: Row, shown: Values, task: TaskConfig) -> list[str]:
    """The row's demonstrations: the template with each one's columns and its label's word."""
    labels = [label for _, label in row.get("demonstrations", [])]
    return [
        render(task.text[0], {**values, MASK: task.verbalizers[label]})
        for values, label in zip(shown, labels, strict=True)
    ]


def _fitted(rows: list[Row], task: TaskConfig, prompts: Any) -> tuple[Columns, int]:
    """The ids of all prompts within max_length, and how many were truncated."""
    names = text_columns(task)
    values: list[Values] = [
        [
            dict(zip(names, texts, strict=True))
            for texts in (row["text"], *(text for text, _ in row.get("demonstrations", [])))
        ]
        for row in rows
    ]
    columns: Columns = prompts(list(zip(rows, values, strict=True)))
    long = [i for i, ids in enumerate(columns["input_ids"]) if len(ids) > task.max_length]
    for i in long:
        shortened = prompts([(rows[i], values[i])])
        while (excess := len(shortened["input_ids"][0]) - task.max_length) > 0:
            for _ in range(
                max(1, excess // 3)
            ):  # several words before the next look, as few words have over three tokens
                _shorten(values[i], task)
            shortened = prompts([(rows[i], values[i])])
        for name, found in shortened.items():
            columns[name][i] = found[0]
    return columns, len(long)


def _shorten(values: Values, task: TaskConfig) -> None:
    """Take the last word off the longest text, or half of it where it is one word."""
    at, name = max(
        ((at, name) for at, each in enumerate(values) for name in each), key=lambda it: len(values[it[0]][it[1]])
    )
    words = values[at][name].split(" ")
    if len(words) == 1 and len(words[0]) < 2:
        what = " with its demonstrations" if len(values) > 1 else ""
        raise UnipetError(
            f"task.max_length: {task.max_length} given; the template of task.text alone{what} is longer. Raise it."
        )
    values[at][name] = " ".join(words[:-1]) if len(words) > 1 else words[0][: len(words[0]) // 2]


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
