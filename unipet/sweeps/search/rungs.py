"""Searches that compare trials at rungs, after a share of their training: successive halving, and racing.

A trial that goes on does so from where it stopped. The learning rate follows the whole training, so at a rung a trial is where
it would be without one.
"""

from __future__ import annotations

import math
import random
from itertools import permutations
from statistics import mean

from unipet.config import RunConfig, SearchConfig
from unipet.errors import UnipetError
from unipet.runs.prediction_lines import read_lines
from unipet.runs.record_files import PREDICTIONS
from unipet.sweeps.search.confidence import worse_p
from unipet.sweeps.search.stage_files import Verdict
from unipet.sweeps.search.study import Asked, Run, Study, Trial

PERCENT = "0 to 100"  # the scale of some metrics
RACED = (
    "exact_match",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "meteor",
)  # metrics of texts that are means over examples
PLACES = 4  # digits of a share
ORDER_SEED = 20240301  # of the order in which a race sees the examples: fixed, so that it cannot be chosen


def check_race(config: RunConfig) -> None:
    """Raise `UnipetError` for a metric without a bounded score of every example."""
    from unipet.tasks.kinds import KINDS

    answer, metric = KINDS[config.task.kind].answer, (config.task.metrics or [""])[0]
    if answer == "number" or (answer == "text" and metric not in RACED):
        allowed = f"labels, tags, or {', '.join(RACED)}"
        raise UnipetError(
            f"search=racing: {metric} has no score of every example between two limits, by which a race compares. "
            f"Allowed: {allowed}. Use search=halving."
        )


def shares(search: SearchConfig) -> list[float]:
    """The shares of the training at which trials are compared; the last one is all of it."""
    return [max(round(search.eta ** -(search.rungs - 1 - rung), PLACES), 10**-PLACES) for rung in range(search.rungs)]


def halving(study: Study) -> Asked:
    """The trials of the next rung: of those of this one the best 1/eta, at least one (Jamieson & Talwalkar 2016)."""
    rung, going = _where(study)
    if rung is None:
        return _all(study)
    at, following = _next(study, rung)
    scores = {trial.number: trial.score(at, study.search.seeds) for trial in going}
    asked = Asked(verdicts=[_scoreless(study, number, at) for number, score in scores.items() if score is None])
    ranked = sorted((number for number in scores if scores[number] is not None), key=lambda n: (-(scores[n] or 0.0), n))
    kept = ranked[: max(1, math.floor(len(going) / study.search.eta))] if following is not None else ranked
    for place, number in enumerate(ranked, 1):
        if number not in kept:
            said = f"stopped after {at:g} of its training: {place} of {len(ranked)} there, the best {len(kept)} went on"
            asked.verdicts.append(Verdict(study.number, number, "stopped", said, at, scores[number]))
    if following is not None:
        asked.runs = [Run(number, following, at) for number in sorted(kept)]
    return asked


def racing(study: Study) -> Asked:
    """The trials of the next rung: all but those that are worse than another one at `search.confidence`.

    Two trials are compared by the mean over seeds of every selection example's score, example by example. The verdict speaks
    of their trained models as they are at the rung, and of the examples that the selection split is a sample of. There are
    rungs x ordered pairs of trials of which one could be a mistake; the level is divided by that number (Bonferroni), so all
    verdicts of the study are right together with `search.confidence`.
    """
    rung, going = _where(study)
    if rung is None:
        return _all(study)
    at, following = _next(study, rung)
    scores = {trial.number: trial.score(at, study.search.seeds) for trial in going}
    asked = Asked(verdicts=[_scoreless(study, trial.number, at) for trial in going if scores[trial.number] is None])
    scored = [trial for trial in going if scores[trial.number] is not None]
    comparisons = study.search.rungs * len(study.trials) * max(len(study.trials) - 1, 1)
    level = (1 - study.search.confidence) / comparisons
    answers = {trial.number: _by_example(trial, at, study.search.seeds) for trial in scored}
    worst: dict[int, tuple[float, int]] = {}  # trial -> the smallest p-value, and the trial that is better
    for better, worse in permutations(answers, 2):
        if (scores[better] or 0.0) > (scores[worse] or 0.0):
            p = worse_p([a - b for a, b in zip(answers[better], answers[worse], strict=True)], level)
            worst[worse] = min(worst.get(worse, (1.0, better)), (p, better))
    for number, (p, better) in sorted(worst.items()):
        if p <= level:
            sure = 1 - p * comparisons
            said = f"worse than trial {better} at confidence {math.floor(sure * 10**4) / 10**4:.4f}, after {at:g} of its training"
            asked.verdicts.append(Verdict(study.number, number, "stopped", said, at, scores[number], sure))
    stopped = {verdict.trial for verdict in asked.verdicts}
    if following is not None:
        asked.runs = [Run(trial.number, following, at) for trial in scored if trial.number not in stopped]
    return asked


def _by_example(trial: Trial, at: float, seeds: list[int]) -> list[float]:
    """The score of every selection example between 0 and 1, the mean over seeds, in the fixed order of a race."""
    by_id: dict[str, list[float]] = {}
    for seed in seeds:
        done = trial.runs[at][seed]
        assert done.directory is not None
        scale = 100.0 if done.record.data.scoring.scales[str(done.record.metric)] == PERCENT else 1.0
        for line in read_lines(done.directory / PREDICTIONS):
            by_id.setdefault(str(line["id"]), []).append(float(line["score"]) / scale)
    order = sorted(by_id)
    random.Random(ORDER_SEED).shuffle(order)
    return [mean(by_id[each]) for each in order]


def _where(study: Study) -> tuple[int | None, list[Trial]]:
    """The last rung that trials have reached, and those that reached it; None before the first."""
    for rung, share in reversed(list(enumerate(shares(study.search)))):
        if there := [trial for trial in study.trials if share in trial.runs and trial.number not in study.stopped]:
            return rung, there
    return None, []


def _all(study: Study) -> Asked:
    return Asked(
        [Run(trial.number, shares(study.search)[0]) for trial in study.trials if trial.number not in study.stopped]
    )


def _next(study: Study, rung: int) -> tuple[float, float | None]:
    every = shares(study.search)
    return every[rung], every[rung + 1] if rung + 1 < len(every) else None


def _scoreless(study: Study, number: int, at: float) -> Verdict:
    return Verdict(
        study.number, number, "no score", f"stopped after {at:g} of its training: a run of it has no score", at
    )
