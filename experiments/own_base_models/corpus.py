"""The text that our own base models learn from: training splits only, never a validation or test split.

Two tasks are adapted to afterwards: E2E (meaning representation to text) and Multi30k (English to German). The base
models never see those two directions. They see them reversed (text to meaning representation, German to English), a
neighbour of E2E (WebNLG, forwards), and plain text.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

#: stream -> (share of the training tokens, [(data set, source column or None for plain text, target column)])
STREAMS: dict[str, tuple[float, list[tuple[str, str | None, str]]]] = {
    "e2e_reversed": (0.25, [("e2e", "target", "input")]),
    "multi30k_reversed": (0.35, [("multi30k_en_de", "target", "input")]),
    "webnlg": (0.15, [("webnlg", "input", "target")]),
    "plain": (
        0.25,
        [
            ("multi30k_en_de", None, "input"),
            ("multi30k_en_de", None, "target"),
            ("e2e", None, "target"),
            ("dialogsum", None, "target"),
            ("stsb", None, "sentence1"),
            ("mnli", None, "premise"),
            ("sst2", None, "sentence"),
        ],
    ),
}
LONGEST = 160  # tokens of source and target together; longer examples are left out

Pair = tuple[list[int], list[int]]  # source ids (empty for plain text) and target ids, without special tokens


def rows(data: Path, task: str, split: str) -> list[dict[str, object]]:
    with (data / task / f"{split}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def texts(data: Path) -> Iterator[str]:
    """Every training text once or more: what the tokenizer learns from."""
    for _, sources in STREAMS.values():
        for task, source, target in sources:
            for row in rows(data, task, "train"):
                yield from (str(row[name]) for name in (source, target) if name is not None)


def training_streams(data: Path, tokenizer: object) -> dict[str, list[Pair]]:
    """Each stream's examples as token ids."""
    found = {}
    for name, (_, sources) in STREAMS.items():
        pairs: list[Pair] = []
        for task, source, target in sources:
            given = rows(data, task, "train")
            before = encode([str(row[source]) for row in given], tokenizer) if source else [[] for _ in given]
            after = encode([str(row[target]) for row in given], tokenizer)
            pairs += [pair for pair in zip(before, after, strict=True) if len(pair[0]) + len(pair[1]) <= LONGEST]
        found[name] = pairs
    return found


def held_out(data: Path, tokenizer: object, count: int = 500) -> dict[str, list[Pair]]:
    """The first validation rows, in the directions of training: only measured, never learned from."""
    found = {}
    for name, task in (("e2e_reversed", "e2e"), ("multi30k_reversed", "multi30k_en_de"), ("webnlg", "webnlg")):
        given = rows(data, task, "validation")[:count]
        inputs = encode([str(row["input"]) for row in given], tokenizer)
        references = encode([str(row["references"][0]) for row in given], tokenizer)  # type: ignore[index]
        found[name] = list(
            zip(inputs, references, strict=True) if name == "webnlg" else zip(references, inputs, strict=True)
        )
    german = [str(row["references"][0]) for row in rows(data, "multi30k_en_de", "validation")[:count]]  # type: ignore[index]
    found["plain German"] = [([], ids) for ids in encode(german, tokenizer)]
    return found


def encode(given: list[str], tokenizer: object) -> list[list[int]]:
    made: list[list[int]] = tokenizer(given, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    return made


def batches(streams: dict[str, list[Pair]], tokens: int, seed: int) -> Iterator[list[Pair]]:
    """Endless batches of about `tokens` tokens, examples of like length together, the streams in their shares."""
    draw = random.Random(seed)
    orders: dict[str, list[Pair]] = {name: [] for name in streams}
    spent = dict.fromkeys(streams, 0.0)
    while True:
        pool: list[Pair] = []
        size = 0
        while size < 50 * tokens:
            name = min(spent, key=lambda key: spent[key] / STREAMS[key][0])  # the stream that is furthest behind
            if not orders[name]:
                orders[name] = draw.sample(streams[name], len(streams[name]))
            pair = orders[name].pop()
            spent[name] += len(pair[0]) + len(pair[1])
            size += len(pair[0]) + len(pair[1])
            pool.append(pair)
        pool.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
        made: list[list[Pair]] = [[]]
        for pair in pool:
            if made[-1] and (len(made[-1]) + 1) * (len(pair[0]) + len(pair[1])) > tokens:
                made.append([])
            made[-1].append(pair)
        draw.shuffle(made)
        yield from made
