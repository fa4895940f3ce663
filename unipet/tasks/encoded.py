"""Tokenised examples in memory: flat arrays, from which the features of single examples are built on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Feature = dict[str, Any]  # {"input_ids": [int], "attention_mask": [int], "token_type_ids": [int] if used, "labels"}
Ragged = Mapping[str, Sequence[Sequence[int]]]
#: Columns about the words of a sentence and their labels. Models do not read them.
_ABOUT_WORDS = ("labelled", "wordless")


class EncodedRows:
    """A data set for torch's DataLoader: `len(rows)`, and `rows[i]` is a Feature. `lengths[i]` is its number of tokens.

    `columns` hold one list of ids per sequence. `group` consecutive sequences make one example (its choices). `labels` has
    one value (or a list of values) per example, or is None if `columns["labels"]` has one per token. For words,
    `columns["labelled"]` has the word of each label, and `columns["wordless"]` the words without tokens. `truncated` and
    `truncated_targets` are the shares of examples whose input or target was truncated.
    """

    def __init__(
        self,
        columns: Ragged,
        labels: Sequence[int | float] | Sequence[list[float]] | None,
        truncated: float,
        truncated_targets: float | None = None,
        group: int = 1,
    ) -> None:
        # One flat array per column, because lists of Python numbers need eight times the memory.
        arrays = {}
        for name, rows in columns.items():
            ends = np.cumsum([0, *(len(row) for row in rows)])
            flat = np.fromiter((i for row in rows for i in row), dtype=np.int32, count=int(ends[-1]))
            arrays[name] = (flat, ends)
        first: Any = labels[0] if labels is not None and len(labels) else None
        kind = np.float64 if isinstance(first[0] if isinstance(first, list) else first, float) else np.int64
        self._set(arrays, None if labels is None else np.asarray(labels, kind), truncated, truncated_targets, group)

    def _set(
        self,
        arrays: dict[str, tuple[np.ndarray, np.ndarray]],
        labels: np.ndarray | None,
        truncated: float,
        truncated_targets: float | None,
        group: int,
    ) -> None:
        self.arrays, self.labels, self.group = arrays, labels, group
        self.truncated, self.truncated_targets = truncated, truncated_targets
        sizes = np.diff(arrays["input_ids"][1])
        self.lengths: list[int] = sizes.reshape(-1, group).max(axis=1).tolist()
        self.target_lengths: list[int] = []
        if labels is None:
            self.target_lengths = [sum(i != -100 for i in self._row("labels", k)) for k in range(len(self))]

    @classmethod
    def restored(cls, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> EncodedRows:
        """The rows that `stored` wrote."""
        made = cls.__new__(cls)
        arrays = {name: (tensors[f"{name}.ids"], tensors[f"{name}.ends"]) for name in facts["columns"]}
        labels = tensors.get("answers")
        made._set(arrays, labels, facts["truncated"], facts["truncated_targets"], facts["group"])
        return made

    def stored(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays, and all other values as a mapping for JSON."""
        tensors = {} if self.labels is None else {"answers": self.labels}
        for name, (flat, ends) in self.arrays.items():
            tensors |= {f"{name}.ids": flat, f"{name}.ends": ends}
        facts = {"columns": list(self.arrays), "truncated": self.truncated, "group": self.group}
        return tensors, {**facts, "truncated_targets": self.truncated_targets}

    def __len__(self) -> int:
        return (len(self.arrays["input_ids"][1]) - 1) // self.group

    def __getitem__(self, index: int) -> Feature:
        index = range(len(self))[index]
        if self.group > 1:
            rows = range(index * self.group, (index + 1) * self.group)
            feature: Feature = {name: [self._row(name, row) for row in rows] for name in self._read_by_models()}
            feature["attention_mask"] = [[1] * len(ids) for ids in feature["input_ids"]]
        else:
            feature = {name: self._row(name, index) for name in self._read_by_models()}
            feature["attention_mask"] = [1] * len(feature["input_ids"])
        if self.labels is not None:
            feature["labels"] = self.labels[index].tolist()
        return feature

    def prompt(self, index: int) -> list[int]:
        """The ids before the target of a causal example, which have no label."""
        labels = self._row("labels", index)
        before = next((at for at, label in enumerate(labels) if label != -100), len(labels))
        return self._row("input_ids", index)[:before]

    def labelled(self, index: int) -> list[int]:
        """For each label of a sentence, in the order of tokens, the word to which it belongs."""
        return self._row("labelled", index)

    def wordless(self, index: int) -> list[int]:
        """The words of a sentence without tokens, for which nothing can be predicted."""
        return self._row("wordless", index)

    def words_without_tokens(self) -> int:
        """The number of words without tokens in all sentences."""
        return len(self.arrays["wordless"][0]) if "wordless" in self.arrays else 0

    def _read_by_models(self) -> list[str]:
        return [name for name in self.arrays if name not in _ABOUT_WORDS]

    def _row(self, name: str, index: int) -> list[int]:
        flat, ends = self.arrays[name]
        found: list[int] = flat[ends[index] : ends[index + 1]].tolist()
        return found


@dataclass(frozen=True)
class Encoded:
    """The splits, tokenised."""

    train: EncodedRows
    evaluation: EncodedRows
    selection: EncodedRows | None = None
    others: Mapping[str, EncodedRows] = field(
        default_factory=dict
    )  # name -> a set that is evaluated beside `evaluation`

    @property
    def truncated(self) -> dict[str, float]:
        """Split -> the share of examples that max_length or max_source truncated; targets are at `<split>_targets`."""
        found: dict[str, float] = {}
        for name in ("train", "evaluation"):
            rows: EncodedRows = getattr(self, name)
            found[name] = rows.truncated
            if rows.truncated_targets is not None:
                found[f"{name}_targets"] = rows.truncated_targets
        return found

    def warnings(self, max_target: int) -> list[str]:
        """Warnings about the share of truncated targets, and about words that cannot be scored."""
        found = []
        share = self.train.truncated_targets
        if share:
            shown = f"{share:.1%}" if share >= 0.0005 else "under 0.1%"  # never "0.0%" if there are any
            found.append(
                f"{shown} of the training targets are longer than task.max_target={max_target} tokens and were truncated, "
                "so the model learns to stop there. Raise task.max_target."
            )
        for name, rows in (("training", self.train), ("evaluation", self.evaluation)):
            words = rows.words_without_tokens()
            if words:
                found.append(
                    f"words of the {name} split without any token in this base model's tokenizer: {words} (for example "
                    "zero-width or control characters). They have no prediction and are left out of every score."
                )
        return found
