"""Where the setting of a published number and that of our runs differ, key by key."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.calculus.yaml_reader import Plain
from unipet.report.collect import Entry
from unipet.report.published.number import MODEL, Published

#: What makes a run of ours smaller than any published one, where the source does not say that it did the same.
LESS = (
    "task.max_train",
    "task.max_evaluation",
    "task.shots",
    "model.quantization",
    "budget.max_steps",
    "budget.gpu_hours",
)


def differences(number: Published, runs: Sequence[Entry]) -> tuple[str, ...]:
    """`optim.lr: 1e-4 there, 0.0005 here`, for every setting that the source states and that all our `runs` have otherwise; and
    the limits of ours that it does not state. The base model is no setting: whoever compares must have the same."""
    said = []
    for key, text in number.settings.items():
        here = list(dict.fromkeys(_shown(entry, key) for entry in runs))
        if key != MODEL and not any(_same(text, entry, key) for entry in runs):
            said.append(f"{key}: {text} there, {' or '.join(here)} here")
    for key in LESS:
        limits = {_shown(entry, key) for entry in runs if entry.setting(key) is not None}
        if limits and key not in number.settings:
            said.append(f"{key}: {' or '.join(sorted(limits))} here")
    return tuple(said)


def _same(text: str, entry: Entry, key: str) -> bool:
    ours, theirs = _ours(entry, key), Plain(text).value
    if isinstance(ours, int | float) and isinstance(theirs, int | float) and not isinstance(ours, bool):
        return float(ours) == float(theirs)
    return str(ours).lower() == text.lower()


def _shown(entry: Entry, key: str) -> str:
    value = _ours(entry, key)
    return "not set" if value is None else str(value)


def _ours(entry: Entry, key: str) -> object:
    return entry.record.seed if key == "seed" else entry.setting(key)
