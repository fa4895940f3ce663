"""The choice among the trials of a study: the best score, or every trial that no other one dominates."""

from __future__ import annotations

from unipet.sweeps.search.stage_files import Verdict
from unipet.sweeps.search.study import SCORE, Study


def choose(study: Study) -> list[Verdict]:
    """The chosen trials. With the score alone it is one: the highest mean over the seeds, of equal ones the first. With
    several objectives they are the Pareto set: those to which no other trial is equal or better in all, and better in one."""
    search = study.search
    values = {
        trial.number: [trial.objective(name, search.seeds) for name in search.objectives] for trial in study.trials
    }
    known = {
        number: tuple(each for each in own if each is not None) for number, own in values.items() if None not in own
    }
    if search.objectives == [SCORE]:
        best = sorted(known, key=lambda number: (-known[number][0], number))[:1]
        said = f"best of {len(study.begun)} trials"
        equal = [number for number in known if best and known[number] == known[best[0]]]
        if len(equal) > 1:
            said += f", the first of {len(equal)} equal ones: {', '.join(map(str, sorted(equal)))}"
    else:
        best = [number for number in known if not any(_dominates(other, known[number]) for other in known.values())]
        said = f"not dominated in {', '.join(search.objectives)} by any of {len(study.begun)} trials"
    score = {trial.number: trial.score(1.0, search.seeds) for trial in study.trials}
    return [Verdict(study.number, number, "chosen", said, 1.0, score[number]) for number in best]


def _dominates(other: tuple[float, ...], own: tuple[float, ...]) -> bool:
    return other != own and all(a >= b for a, b in zip(other, own, strict=True))
