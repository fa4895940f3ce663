"""The summary of a task's data: examples as the model will see them, labels, lengths, and the truncated share."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from unipet.config import TaskConfig
from unipet.tasks.encode_text import IGNORED
from unipet.tasks.encoded import Encoded, EncodedRows
from unipet.tasks.kinds import KINDS
from unipet.tasks.load import TaskData
from unipet.tasks.prompt import verbalizer_ids
from unipet.tasks.rows import Row

BINS = 12
BAR = 40  # characters of the longest bar
SHOWN = 3
Bins = list[tuple[int, int, int]]  # (from, to, count), with both ends included


def histogram(lengths: Sequence[int], bins: int = BINS) -> Bins:
    """Counts of lengths in at most `bins` ranges of equal width."""
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // bins))
    counts = Counter((length - low) // width for length in lengths)
    return [(low + i * width, low + (i + 1) * width - 1, counts[i]) for i in range((high - low) // width + 1)]


def summary(task: TaskConfig, data: TaskData, encoded: Encoded, tokenizer: Any) -> dict[str, Any]:
    """Everything that `unipet describe task=...` shows, as plain data."""
    found: dict[str, Any] = {
        "task": task.name,
        "kind": task.kind,
        "data": data.record(),
        "metrics": list(task.metrics),
        "examples": [_example(task, data, encoded.train, i, tokenizer) for i in range(min(SHOWN, len(data.train)))],
        "labels": {"train": _labels(data.train, data), "evaluation": _labels(data.evaluation, data)},
        "values": _values(data.train) if data.regression else [],
        "lengths": {"train": histogram(encoded.train.lengths), "evaluation": histogram(encoded.evaluation.lengths)},
        "truncated": encoded.truncated,
        "warnings": encoded.warnings(task.max_target),
    }
    if KINDS[task.kind].generates:
        found["target_lengths"] = {"train": histogram(encoded.train.target_lengths)}
    return found


def text(summary: dict[str, Any]) -> str:
    """The summary for a terminal."""
    data = summary["data"]
    lines = [
        f"task: {summary['task']} ({summary['kind']})   source: {data['source']}   fingerprint: {data['fingerprint']}",
        f"training {data['train']}, evaluation {data['evaluation']}; selection: {data['selection']['by']} "
        f"({data['selection']['examples']} examples); metrics: {', '.join(summary['metrics'])}",
    ]
    for part, counts in data["dropped"].items():
        shown = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        lines.append(f"left out of {part} by task.drop: {shown}")
    for number, example in enumerate(summary["examples"], start=1):
        lines += ["", f"example {number} ({example['id']})"]
        lines += [f"  {name}: {_line(value)}" for name, value in example.items() if name != "id"]
    for split, counts in summary["labels"].items():
        if counts:
            total = sum(counts.values())
            shares = ", ".join(f"{name} {count} ({count / total:.1%})" for name, count in counts.items())
            lines += ["", f"labels, {split}: {shares}"]
    if summary["values"]:
        low, mean, high = summary["values"]
        lines += ["", f"answers, train: from {low:g} to {high:g}, mean {mean:.3f}"]
    for split, bins in summary["lengths"].items():
        lines += ["", f"tokens, {split}:", *bars(bins)]
    for split, bins in summary.get("target_lengths", {}).items():
        lines += ["", f"tokens of targets, {split}:", *bars(bins)]
    shares = ", ".join(f"{name} {share:.2%}" for name, share in summary["truncated"].items())
    lines += ["", f"truncated: {shares}", *(f"warning: {each}" for each in summary["warnings"])]
    return "\n".join(lines)


def bars(bins: Bins) -> list[str]:
    """One line per range, with a bar whose length is proportional to its count."""
    most = max(count for _, _, count in bins)
    size = len(str(bins[-1][1]))
    return [
        f"  {low:>{size}}-{high:<{size}} {'#' * -(-BAR * count // most):<{BAR}} {count}" for low, high, count in bins
    ]


def _example(task: TaskConfig, data: TaskData, encoded: EncodedRows, index: int, tokenizer: Any) -> dict[str, Any]:
    """One training row as the model reads it: its ids decoded, including special tokens, and the answer that the loss
    uses, with labels by name."""
    row, feature = data.train[index], encoded[index]
    ids, labels = feature["input_ids"], feature["labels"]
    shown: dict[str, Any] = {"id": row["id"]}
    if isinstance(ids[0], list):
        shown["input"] = " | ".join(_decoded(tokenizer, each) for each in ids)
    else:
        shown["input"] = _decoded(tokenizer, ids)
    if KINDS[task.kind].generates:
        shown["target"] = _decoded(tokenizer, [i for i in labels if i != IGNORED])
    elif data.several:
        shown["label"] = [data.labels[i] for i in row["label"]]
    elif isinstance(labels, list):
        shown["label"] = [data.labels[i] for i in labels if i != IGNORED]
        shown["tokens"] = [
            [_decoded(tokenizer, [token]), None if label == IGNORED else data.labels[label]]
            for token, label in zip(ids, labels, strict=True)
        ]
        missing = [word for at, word in enumerate(row["text"]) if at not in encoded.labelled(index)]
        if missing:
            shown["words without a label"] = missing
    else:
        shown["label"] = data.labels[labels] if data.labels else labels
        if KINDS[task.kind].prompted:
            shown["word at the mask"] = _decoded(tokenizer, [verbalizer_ids(tokenizer, task)[labels]])
    return shown


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of exactly these ids, with special tokens and without cleaning up spaces."""
    found: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return found


def _line(value: Any) -> str:
    """A value of an example on one line: a tagged token as `token/TAG`; line breaks and control characters escaped as in
    Python."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = " | ".join(token if tag is None else f"{token}/{tag}" for token, tag in value)
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in hidden else c for c in str(value))


def _labels(rows: Sequence[Row], data: TaskData) -> dict[str, int]:
    """How often each label is the answer, counted over words if every word has a label."""
    answers = [label for row in rows for label in _as_list(row.get("label"))]
    counts = Counter(label for label in answers if isinstance(label, int))
    return {name: counts[i] for i, name in enumerate(data.labels)} if counts else {}


def _as_list(label: Any) -> list[Any]:
    return label if isinstance(label, list) else [label]


def _values(rows: Sequence[Row]) -> list[float]:
    """The answers of a regression."""
    found = [row["label"] for row in rows]
    return [min(found), sum(found) / len(found), max(found)]
