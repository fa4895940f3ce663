"""Encoding sources and targets for generation, for encoder-decoders and for decoders."""

from __future__ import annotations

from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks.encoded import EncodedRows
from unipet.tasks.rows import Row
from unipet.tasks.word_ids import plain_ids

IGNORED = -100  # the label of tokens that the loss ignores


def target_of(row: Row) -> str:
    """The text for the loss and for perplexity: the target, or an evaluation row's first reference."""
    found: str = row["target"] if "target" in row else row["references"][0]
    return found


def encode_seq2seq(rows: list[Row], tokenizer: Any, task: TaskConfig) -> EncodedRows:
    """Encode the source as the encoder's input, and the target with an end token as labels, each within its limit."""
    set_languages(tokenizer, task)
    sources, cut = _limited(tokenizer, [row["text"][0] for row in rows], task.max_source)
    targets, cut_targets = _limited(tokenizer, [target_of(row) for row in rows], task.max_target, target=True)
    end = tokenizer.eos_token_id
    if end is not None:
        # mBART's targets end with the end token and a language code. If the tokenizer adds no end token, add one.
        targets = [ids if end in ids[-2:] else [*ids[: task.max_target - 1], end] for ids in targets]
    return EncodedRows(
        {"input_ids": sources, "labels": targets}, None, sum(cut) / len(rows), sum(cut_targets) / len(rows)
    )


def encode_causal(rows: list[Row], tokenizer: Any, task: TaskConfig) -> EncodedRows:
    """Encode `[begin] source separator target end` as one sequence. Only the target and the end token have labels.

    The parts are tokenised separately, so that a prompt in evaluation has exactly the same ids as in training. Each part
    is tokenised as it follows the part before it: the space that ends a separator belongs to the target's first word, and
    no part is tokenised like the start of a text. Raises UnipetError for a tokenizer without an end token, and for a
    separator that gives no token.
    """
    if tokenizer.eos_token_id is None:
        raise UnipetError("model: its tokenizer has no end token, so a decoder cannot learn where a text ends.")
    begin = [tokenizer.bos_token_id] if begins(tokenizer) else []
    separator = task.separator.rstrip(" ") or task.separator
    between = _following(tokenizer, "a", [separator])[0]
    if not between:
        raise UnipetError(
            f"task.separator: {task.separator!r} gives no token with this base model's tokenizer, so the model could not "
            "tell where the source ends. Choose another, for example task.separator=' = '."
        )
    room = task.max_source - len(begin) - len(between)
    if room < 1:
        raise UnipetError(
            f"task.max_source: {task.max_source} given, which leaves no room beside the separator. Raise task.max_source."
        )
    sources = plain_ids(tokenizer, [row["text"][0] for row in rows])
    space = task.separator[len(separator) :]
    targets = _following(tokenizer, separator, [target_of(row) for row in rows], space)
    ids, labels, cut, cut_targets = [], [], 0, 0
    for source, target in zip(sources, targets, strict=True):
        cut += len(source) > room
        cut_targets += len(target) > task.max_target - 1
        prompt = [*begin, *source[:room], *between]
        answer = [*target[: task.max_target - 1], tokenizer.eos_token_id]
        ids.append(prompt + answer)
        labels.append([IGNORED] * len(prompt) + answer)
    return EncodedRows({"input_ids": ids, "labels": labels}, None, cut / len(rows), cut_targets / len(rows))


def _following(tokenizer: Any, before: str, texts: list[str], space: str = "") -> list[list[int]]:
    """The ids of each text as a continuation of `before` and `space`. If the combined text has no token boundary between
    them, or if a letter would directly follow a letter, the ids of the text alone."""
    start, alone = plain_ids(tokenizer, [before])[0], plain_ids(tokenizer, texts)
    found = []
    for text, own, both in zip(texts, alone, plain_ids(tokenizer, [before + space + t for t in texts]), strict=True):
        touching = not space and (before[-1:] + text[:1]).isalnum()
        apart = touching or both[: len(start)] != start or len(both) == len(start)
        found.append(own if apart else both[len(start) :])
    return found


def begins(tokenizer: Any) -> bool:
    """Whether this tokenizer starts every text with its begin token (Llama does, GPT-2 does not)."""
    begin = tokenizer.bos_token_id
    return begin is not None and list(tokenizer("a")["input_ids"][:1]) == [begin]


def set_languages(tokenizer: Any, task: TaskConfig) -> None:
    """Set the source and target language of a multilingual tokenizer. Raises UnipetError for a missing or unknown code. For
    a tokenizer without language codes, `task.languages` has no effect."""
    if not hasattr(tokenizer, "src_lang"):
        return
    known = getattr(tokenizer, "lang_code_to_id", None) or tokenizer.get_vocab()
    for code in task.languages:
        if code not in known:
            raise UnipetError(f"task.languages: this base model's tokenizer has no language {code!r}.")
    if len(task.languages) != 2:
        raise UnipetError(
            "task.languages: not given, but this base model needs codes, for example task.languages=[en_XX,ro_RO]."
        )
    tokenizer.src_lang, tokenizer.tgt_lang = task.languages


def _limited(tokenizer: Any, texts: list[str], limit: int, target: bool = False) -> tuple[list[list[int]], list[bool]]:
    """Ids with the tokenizer's own special tokens, and which texts were truncated."""
    options: dict[str, Any] = {"padding": False, "return_attention_mask": False, "verbose": False}
    made = tokenizer(**{"text_target" if target else "text": texts}, truncation=True, max_length=limit, **options)
    cut = [len(ids) >= limit for ids in made["input_ids"]]
    full = [i for i, filled in enumerate(cut) if filled]
    if full:
        some = {"text_target" if target else "text": [texts[i] for i in full]}
        for i, ids in zip(full, tokenizer(**some, truncation=False, **options)["input_ids"], strict=True):
            cut[i] = len(ids) > limit
    return made["input_ids"], cut
