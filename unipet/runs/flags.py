"""Flags of a finished run: reasons to distrust its score. Each flag has a short name and a sentence of explanation.

- `one_answer`: every example gets the same answer, although the right answers differ. For tags: every word; for numbers:
  the answers vary by less than a thousandth of the labels' standard deviation; for texts: one text.
- `below_majority`: fewer answers are right than if the most frequent label of the evaluation examples (for tags: of their
  words) were always given.
- `at_majority`: exactly as many are right, though not all answers are that label: nothing was learned that the label's frequency
  does not tell.
- `below_mean`, for numbers: the squared error is larger than if the mean of the evaluation labels were always given.
- `empty_texts`: a tenth or more of the generated texts are empty.
- `unmoved`: training changed no tensor of an insertion, so that other parts of the model made the score.
- `router_collapsed`: a learned router sends nearly all tokens to as few experts as it may; see `collapse`.
- `diverged`: training lost more than half of what it had gained, or ended far above its start; see `diverged`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, pvariance
from typing import Any

from unipet.runs.record import Flag, Record

Rows = Sequence[Mapping[str, Any]]  # of predictions.jsonl: prediction, and label or references
#: Name -> its meaning in a few words.
NAMES = {
    "one_answer": "one answer for every example",
    "below_majority": "fewer right answers than the most frequent label gives",
    "at_majority": "as many right answers as the most frequent label gives",
    "below_mean": "a larger squared error than the mean of the labels gives",
    "empty_texts": "empty texts",
    "unmoved": "an insertion that training did not change",
    "router_collapsed": "a learned router that uses few of its experts",
    "diverged": "the training loss rose again",
}
CONSTANT = 1e-3  # answers that vary by less than this share of the labels' standard deviation count as one answer
EMPTY = 0.1  # share of empty texts
GAINED, LOST, SPOILED = 0.25, 0.5, 2.0  # see `diverged`
FEWEST = 5  # logged losses needed to judge whether training diverged


def raised(rows: Rows, regression: bool, steps: Sequence[Mapping[str, Any]]) -> list[Flag]:
    """The flags of a run. `rows` are its predictions, `regression` says whether answers are numbers, and `steps` are the
    lines of its metrics.jsonl."""
    flags = _answers(rows, regression) if rows else {}
    losses = [step["loss"] for step in steps if "loss" in step]
    if text := diverged(losses):
        flags["diverged"] = text
    return [Flag(name, text) for name, text in flags.items()]


def of_parts(record: Record) -> list[Flag]:
    """Flags of single insertions: one that training did not change, and learned routers that have collapsed."""
    still = [
        repr(row.name)
        for row in record.insertions
        if row.untrained and len(row.untrained) >= len(row.modules) * len(row.shapes) > 0
    ]
    if not still:
        return _collapse(record)
    text = f"training changed no tensor of {', '.join(still)}, so other parts of the model made the score"
    return [Flag("unmoved", text), *_collapse(record)]


def _collapse(record: Record) -> list[Flag]:
    """A flag where learned routers have collapsed."""
    places = [
        f"{len(record.mixture.collapsed[row.name])} of {len(row.modules)} sites of {row.name!r}"
        for row in record.insertions
        if record.mixture is not None and row.name in record.mixture.collapsed
    ]
    text = f"a learned router ended up sending nearly all tokens to as few experts as it may, at {', '.join(places)}"
    return [Flag("router_collapsed", text)] if places else []


def _answers(rows: Rows, regression: bool) -> dict[str, str]:
    if "references" in rows[0]:
        return _texts([str(row.get("prediction", "")) for row in rows], [row.get("references") for row in rows])
    pairs = [(row.get("prediction"), row.get("label")) for row in rows]
    if regression:
        return _numbers(pairs)
    if isinstance(pairs[0][0], list) and "logits" in rows[0]:  # a set of labels
        return _labels([(str(answer), str(label)) for answer, label in pairs], "examples")
    if isinstance(pairs[0][0], list):  # -1 or null: a word without a prediction
        words = [pair for answer, label in pairs for pair in zip(answer or (), label or (), strict=False)]
        return _labels([pair for pair in words if pair[0] not in (-1, None)], "words")
    return _labels(pairs, "examples")


def _labels(pairs: Sequence[tuple[Any, Any]], unit: str) -> dict[str, str]:
    flags: dict[str, str] = {}
    answers, right = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    if not pairs:
        return flags
    if len(answers) == 1 and len(right) > 1:
        flags["one_answer"] = f"all {len(pairs)} {unit} got the same answer ({next(iter(answers))})"
    label, most = right.most_common(1)[0]
    hits = sum(answer == truth for answer, truth in pairs)
    if hits < most:
        flags["below_majority"] = (
            f"{hits} of {len(pairs)} {unit} are right, fewer than the {most} that always answering {label} would get"
        )
    elif hits == most < len(pairs) and not flags:
        flags["at_majority"] = f"{hits} of {len(pairs)} {unit} are right, as many as always answering {label} would get"
    return flags


def _numbers(pairs: Sequence[tuple[Any, Any]]) -> dict[str, str]:
    flags: dict[str, str] = {}
    known = [(float(answer), float(label)) for answer, label in pairs if answer is not None and label is not None]
    if len(known) < 2:
        return flags
    answers, labels = ([pair[side] for pair in known] for side in (0, 1))
    spread, error = pvariance(labels), fmean((answer - label) ** 2 for answer, label in known)
    if spread > 0 and pvariance(answers) <= CONSTANT**2 * spread:
        flags["one_answer"] = f"all {len(known)} examples got about the same answer ({fmean(answers):.4g})"
    if error > spread * (1 + 1e-9):
        flags["below_mean"] = (
            f"mean squared error {error:.4g}, more than the {spread:.4g} of always answering the mean {fmean(labels):.4g}"
        )
    return flags


def _texts(texts: Sequence[str], references: Sequence[Any]) -> dict[str, str]:
    flags: dict[str, str] = {}
    stripped = [text.strip() for text in texts]
    if len(texts) > 1 and len(set(stripped)) == 1 and len({json.dumps(reference) for reference in references}) > 1:
        shown = stripped[0] if len(stripped[0]) <= 40 else f"{stripped[0][:40]}..."
        flags["one_answer"] = f"all {len(texts)} texts are the same ({shown!r})"
    empty = stripped.count("")
    if empty >= max(1, EMPTY * len(texts)):
        flags["empty_texts"] = f"{empty} of {len(texts)} texts are empty"
    return flags


def diverged(losses: Sequence[float | None]) -> str:
    """How the training loss went wrong, in words; "" if training did not diverge.

    `losses` are the logged losses in order; one that is None or not finite means divergence. Otherwise, means over a
    window (a tenth of the losses, at least three) give the start and the lowest point. Training diverged if *every* loss of
    the last window is above the lowest point by more than half of the gain, where the gain was at least a quarter of the
    start. It also diverged if every loss of the last window is more than twice the start.
    """
    if not losses:
        return ""
    if not all(loss is not None and abs(loss) < float("inf") for loss in losses):  # a comparison with nan is false
        return "a logged training loss is not a finite number"
    known = [float(loss) for loss in losses if loss is not None]
    if len(known) < FEWEST:
        return ""
    window = min(max(3, len(known) // 10), len(known) // 2)
    sums = [0.0]
    for loss in known:
        sums.append(sums[-1] + loss)
    means = [(sums[at + window] - sums[at]) / window for at in range(len(known) - window + 1)]
    start, lowest, end = means[0], min(means), min(known[-window:])
    course = f"the training loss began at {start:.3g}, fell to {lowest:.3g} and ended at {end:.3g} or more"
    if start - lowest >= GAINED * abs(start) and end - lowest > LOST * (start - lowest):
        return course
    if start > 0 and end > SPOILED * start:
        return f"the training loss began at {start:.3g} and ended at {end:.3g} or more"
    return ""
