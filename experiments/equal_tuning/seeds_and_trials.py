"""How many seeds and trials an honest comparison needs: `python experiments/equal_tuning/seeds_and_trials.py HERE`.

Reads HERE/runs.jsonl. HERE/seeds.csv: the five final runs of each method and task are taken as the population; k seeds are drawn
from each with replacement, the same seeds for all methods (runs of one seed share data order), and a verdict is wrong if its sign
is not that of the five-seed means. HERE/trials.csv: n of a method's trials are drawn without replacement, the best on the
selection split is the method's score, and the verdict is wrong if its sign is not that of all trials.

Both are optimistic: the population is what these few runs show of it. A trial that its race stopped counts with its last score.
"""

import csv
import itertools
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

here = Path(sys.argv[1])
DRAWS = 4000
SEEDS = (1, 2, 3, 4, 5, 7, 10)
#: Pairs of methods by the difference of their five-seed means, in points.
GAPS = ((0.0, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 5.0), (5.0, 100.0))

finals: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))  # task, method, seed
Trials = dict[int, tuple[float, float]]  # number: rung, score
trials: dict[str, dict[str, Trials]] = defaultdict(lambda: defaultdict(dict))  # task, method
for line in (here / "runs.jsonl").read_text().splitlines():
    record = json.loads(line)
    task, method, trial = record["task"], record["method"], record["trial"]
    if trial["role"] == "final":
        finals[task][method][record["seed"]] = record["score"]
    else:
        rung, of_method = trial.get("until", 1.0), trials[task][method]
        of_method[trial["number"]] = max(of_method.get(trial["number"], (0.0, 0.0)), (rung, record["score"]))

rng = np.random.default_rng(0)


def share_wrong(drawn_MB: np.ndarray, truth_M: np.ndarray) -> dict[str, list[float]]:
    """For each gap, the shares of wrong verdicts of the pairs in it; `best`: how often another method than the best one leads.

    `drawn_MB`: the score of each method in each resampling; `truth_M`: its true score.
    """
    wrong: dict[str, list[float]] = defaultdict(list)
    for i, j in itertools.combinations(range(len(truth_M)), 2):
        gap, apart_B = truth_M[i] - truth_M[j], drawn_MB[i] - drawn_MB[j]
        if gap != 0:
            low, high = next(pair for pair in GAPS if pair[0] <= abs(gap) < pair[1])
            wrong[f"{low:g} to {high:g} points"].append(
                float(np.mean(apart_B * np.sign(gap) < 0) + np.mean(apart_B == 0) / 2)
            )
    first_B = drawn_MB.argmax(axis=0)
    wrong["best method"].append(float(np.mean(truth_M[first_B] < truth_M.max())))
    wrong["points lost"].append(float(np.mean(truth_M.max() - truth_M[first_B])))
    return wrong


def write(name: str, counted: str, found: dict[int, dict[str, list[float]]]) -> None:
    """One row for each number of seeds or trials and each group of pairs, as CSV and on the screen."""
    rows = []
    for count, groups in found.items():
        for group, values in groups.items():
            rows.append({counted: count, "verdict": group, "mean": f"{np.mean(values):.4f}", "cases": len(values)})
    with (here / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(name, *(" ".join(map(str, row.values())) for row in rows), sep="\n")


def merged(parts: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The values of all tasks, the gaps in their order."""
    order = [*(f"{low:g} to {high:g} points" for low, high in GAPS), "best method", "points lost"]
    return {key: values for key in order if (values := [value for part in parts for value in part.get(key, [])])}


by_seeds, by_trials = {}, {}
for count in SEEDS:
    parts = []
    for methods in finals.values():
        score_MS = np.array(
            [[100 * by_seed[seed] for seed in sorted(by_seed)] for by_seed in methods.values() if len(by_seed) == 5]
        )
        drawn_BK = rng.integers(score_MS.shape[1], size=(DRAWS, count))
        parts.append(share_wrong(score_MS[:, drawn_BK].mean(axis=2), score_MS.mean(axis=1)))
    by_seeds[count] = merged(parts)
most = max(len(each) for methods in trials.values() for each in methods.values())
for count in range(1, most):
    parts = []
    for methods in trials.values():
        score_MT = np.array(
            [[100 * score for _, score in each.values()] for each in methods.values() if len(each) == most]
        )
        drawn_MBN = rng.permuted(np.tile(np.arange(most), (len(score_MT), DRAWS, 1)), axis=2)[:, :, :count]
        drawn_MB = np.stack(
            [score_T[drawn_BN].max(axis=1) for score_T, drawn_BN in zip(score_MT, drawn_MBN, strict=True)]
        )
        parts.append(share_wrong(drawn_MB, score_MT.max(axis=1)))
    by_trials[count] = merged(parts)
write("seeds.csv", "seeds", by_seeds)
write("trials.csv", "trials", by_trials)
