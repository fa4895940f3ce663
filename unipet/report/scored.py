"""The scores of a row's runs by seed, and their scores on resampled examples, which every test reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unipet.errors import UnipetError
from unipet.report.aggregate import Row, score_of
from unipet.report.collect import Entry
from unipet.report.identity import Block, block_of
from unipet.report.resampling import Answers, answers, rescore_all
from unipet.report.statistics import Stratum, by_split
from unipet.tasks.bleu_tokenizers import DEFAULT


@dataclass
class Scored:
    """The scores of a row by block, and the answers of those runs whose predictions can be used."""

    row: Row
    label: str  # with the budget where there are several
    runs: Sequence[Entry]
    scores: dict[Block, float] = field(default_factory=dict)
    answers: dict[Block, Answers] = field(default_factory=dict)
    replicates: dict[Block, np.ndarray] = field(default_factory=dict)  # the score on each resample of the examples (B,)

    @property
    def goodness(self) -> float:
        """The mean score, turned so that more is better."""
        return self.row.sign * float(np.mean(list(self.scores.values())))


def scored_runs(row: Row, label: str, runs: Sequence[Entry], warnings: list[str]) -> Scored:
    """The runs with a score, by block; why examples cannot be compared is added to `warnings`."""
    line = Scored(row, label, runs)
    why = Counter[str]()
    for entry in runs:
        score, block = score_of(entry.record), block_of(entry)
        if score is None:
            continue
        line.scores[block] = score
        names, tokenizer = entry.setting("task.labels") or [], entry.setting("task.bleu_tokenizer") or DEFAULT
        try:
            usable = answers(entry.directory, str(entry.record.metric), score, names, tokenizer)
        except UnipetError as error:  # a damaged file: the scores of the record are compared all the same
            usable = str(error)
        if isinstance(usable, Answers):
            line.answers[block] = usable
        else:
            why[usable] += 1
    for reason, count in why.items():
        warnings.append(f"{label}: examples are not compared in {count} of {len(line.scores)} runs: {reason}")
    return line


def resample(scored: Sequence[Scored], warnings: list[str]) -> int:
    """Fill `replicates` of every run that has answers and has them not yet, from the same resamples for all. Returns the number
    of examples; 0 where the runs were not scored on the same ones."""
    runs = [(line, block) for line in scored for block in line.answers]
    usable = [line.answers[block] for line, block in runs]
    if not usable:
        return 0
    if any(known.ids != usable[0].ids for known in usable):
        warnings.append("the runs were not scored on the same examples: they are compared over seeds alone")
        return 0
    new = [(line, block) for line, block in runs if block not in line.replicates]
    if new:
        drawn = rescore_all([line.answers[block] for line, block in new])
        for (line, block), scores in zip(new, drawn, strict=True):
            line.replicates[block] = scores
    return len(usable[0].ids)


def paired(a: Scored, b: Scored, blocks: Sequence[Block], examples: int) -> Stratum:
    """The differences a - b over these blocks, which both have, turned so that more is better; of several few-shot splits, the
    mean of each split."""
    splits = [split for split, _ in blocks]
    differences = by_split(np.array([difference(a, b, block) for block in blocks]), splits)
    resampled = [resampled_difference(a, b, block) for block in blocks]
    answered = [each for each in resampled if each is not None]
    if len(answered) < len(blocks):
        return Stratum(differences)
    return Stratum(differences, by_split(np.stack(answered), splits), examples)


def difference(a: Scored, b: Scored, block: Block) -> float:
    """a - b in one block, turned so that more is better."""
    return a.row.sign * (a.scores[block] - b.scores[block])


def resampled_difference(a: Scored, b: Scored, block: Block) -> np.ndarray | None:
    """The same on each resample of the examples (B,); None where one of the two has no answers."""
    if block not in a.replicates or block not in b.replicates:
        return None
    return a.row.sign * (a.replicates[block] - b.replicates[block])
