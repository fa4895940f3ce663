"""Tokenising splits, once per content, tokenizer and settings. Results are cached in this process and on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.output.progress import waiting
from unipet.output.stopwatch import phase
from unipet.tasks.cache import read_cached, write_cached
from unipet.tasks.encode_text import encode_causal, encode_seq2seq
from unipet.tasks.encode_words import encode_words
from unipet.tasks.encoded import Encoded, EncodedRows
from unipet.tasks.label_sets import many_hot
from unipet.tasks.load import TaskData
from unipet.tasks.prompt import encode_causal_prompts, encode_prompts
from unipet.tasks.rows import Row

FORMAT = 3  # the version of cached data; increase it with every change of an encoder

_ENCODED: dict[str, EncodedRows] = {}


@phase("data")
def encode(data: TaskData, tokenizer: Any, task: TaskConfig, cache: Path | None = None) -> Encoded:
    """Tokenise the splits, once per rows, tokenizer and settings that determine the ids. A pair that is too long is
    truncated from its longer text.

    With a `cache` directory, other processes reuse the result. Raises UnipetError for a length limit that is larger than
    the tokenizer allows, or that leaves no room for text.
    """
    _check_lengths(data, tokenizer, task)
    identity = tokenizer_identity(tokenizer)

    def split(rows: list[Row]) -> EncodedRows:
        key = _key(rows, identity, task)
        if key not in _ENCODED:
            found = read_cached(cache, key)
            if found is None:
                with waiting(f"tokenising {len(rows):,} examples"):
                    found = ENCODERS[task.kind](rows, tokenizer, task)
                _check_nothing_is_empty(rows, found)
                write_cached(cache, key, found)
            _ENCODED[key] = found
        return _ENCODED[key]

    others = {name: split(rows) for name, rows in data.others.items()}
    return Encoded(split(data.train), split(data.evaluation), split(data.selection) if data.selection else None, others)


def tokenizer_identity(tokenizer: Any) -> str:
    """A hash of everything that determines the ids. Two tokenizers loaded from the same files have the same hash."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        state.pop("truncation", None)  # truncation and padding are settings of the last call
        state.pop("padding", None)
    else:
        state = [sorted(tokenizer.get_vocab().items()), _files(tokenizer)]
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.mask_token_id]
    given = [type(tokenizer).__name__, list(tokenizer.model_input_names), tokenizer.truncation_side, special, state]
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def _files(tokenizer: Any) -> dict[str, str]:
    """File name -> hash, of the vocabulary files that a tokenizer written in Python saves, because `get_vocab` lacks merges
    and scores. Empty for a tokenizer without files."""
    with TemporaryDirectory() as directory:
        with contextlib.suppress(NotImplementedError):
            tokenizer.save_vocabulary(directory)
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(directory).iterdir())}


def _key(rows: list[Row], identity: str, task: TaskConfig) -> str:
    settings: dict[str, Any] = {"format": FORMAT, "kind": task.kind, "tokenizer": identity}
    names = {
        "seq2seq": ("max_source", "max_target", "languages"),
        "causal_generation": ("max_source", "max_target", "separator"),
        "masked_prompt": ("max_length", "text", "verbalizers"),  # the words of demonstrations
        "causal_prompt": ("max_length", "text", "verbalizers"),
    }.get(task.kind, ("max_length",))
    for name in names:
        value = getattr(task, name)
        settings[name] = value if isinstance(value, int | str) else list(value)
    if task.kind == "multi_label":
        settings["labels"] = len(task.labels)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for row in rows:
        content = [
            row[name] for name in ("text", "choices", "label", "target", "references", "demonstrations") if name in row
        ]
        digest.update(json.dumps(content).encode())
    return digest.hexdigest()


def _check_lengths(data: TaskData, tokenizer: Any, task: TaskConfig) -> None:
    limit = tokenizer.model_max_length  # a huge number when the tokenizer does not know
    if task.kind in ("seq2seq", "causal_generation"):
        both = task.kind == "causal_generation"
        longest = task.max_source + task.max_target if both else max(task.max_source, task.max_target)
        if longest > limit:
            what = "task.max_source + task.max_target" if both else "task.max_source and task.max_target"
            raise UnipetError(
                f"{what}: {longest} tokens asked for; this base model's tokenizer allows {limit}. Lower them."
            )
        return
    pair = task.kind == "multiple_choice" or (task.kind != "token_classification" and len(data.train[0]["text"]) == 2)
    room = tokenizer.num_special_tokens_to_add(pair=pair) + (2 if pair else 1)
    if not room <= task.max_length <= limit:
        raise UnipetError(
            f"task.max_length: {task.max_length} given; this base model's tokenizer allows {room} to {limit} tokens here."
        )


def _check_nothing_is_empty(rows: list[Row], encoded: EncodedRows) -> None:
    """Raise UnipetError for a row without any token, not even a special one: a model cannot read it."""
    empty = next((i for i, length in enumerate(encoded.lengths) if length == 0), None)
    if empty is not None:
        raise UnipetError(
            f"example {rows[empty]['id']}: this base model's tokenizer turns its text into no tokens. Remove the example, or "
            "choose another model=..."
        )


def _texts(rows: list[Row], tokenizer: Any, task: TaskConfig) -> EncodedRows:
    """Encode one text or a pair per row, with one label."""
    texts = [list(column) for column in zip(*(row["text"] for row in rows), strict=True)]
    columns, cut = _call(tokenizer, texts, task.max_length)
    return EncodedRows(columns, [row.get("label", 0) for row in rows], sum(cut) / len(rows))


def _label_sets(rows: list[Row], tokenizer: Any, task: TaskConfig) -> EncodedRows:
    """Encode one text or a pair per row, with 1.0 for each label that it has and 0.0 for the others."""
    texts = [list(column) for column in zip(*(row["text"] for row in rows), strict=True)]
    columns, cut = _call(tokenizer, texts, task.max_length)
    sets = many_hot([row.get("label", []) for row in rows], len(task.labels))
    return EncodedRows(columns, sets.tolist(), sum(cut) / len(rows))


def _choices(rows: list[Row], tokenizer: Any, task: TaskConfig) -> EncodedRows:
    """Encode the context with each choice, as pairs."""
    first = [row["text"][0] for row in rows for _ in row["choices"]]
    second = [choice for row in rows for choice in row["choices"]]
    columns, cut = _call(tokenizer, [first, second], task.max_length)
    count = len(task.choices)
    any_cut = sum(any(cut[i : i + count]) for i in range(0, len(cut), count))
    return EncodedRows(columns, [row.get("label", 0) for row in rows], any_cut / len(rows), group=count)


def _call(tokenizer: Any, texts: list[list[str]], max_length: int) -> tuple[dict[str, list[list[int]]], list[bool]]:
    """Token ids (and types), and which rows were truncated. Only rows of length max_length can be truncated, so only these
    are tokenised again, without a limit, to find out."""
    options = {"padding": False, "return_attention_mask": False, "verbose": False}
    made = tokenizer(*texts, truncation=True, max_length=max_length, **options)
    cut = [len(ids) >= max_length for ids in made["input_ids"]]
    full = [i for i, filled in enumerate(cut) if filled]
    if full:
        whole = tokenizer(*([column[i] for i in full] for column in texts), truncation=False, **options)["input_ids"]
        for i, ids in zip(full, whole, strict=True):
            cut[i] = len(ids) > max_length
    return {name: made[name] for name in ("input_ids", "token_type_ids") if name in made}, cut


ENCODERS: dict[str, Callable[[list[Row], Any, TaskConfig], EncodedRows]] = {
    "classification": _texts,
    "multi_label": _label_sets,
    "regression": _texts,
    "multiple_choice": _choices,
    "token_classification": encode_words,
    "masked_prompt": encode_prompts,
    "causal_prompt": encode_causal_prompts,
    "seq2seq": encode_seq2seq,
    "causal_generation": encode_causal,
}
