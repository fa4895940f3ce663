"""The searched designs against their rivals, paired over seeds with tasks as blocks: `python .../contrasts.py HERE`.

Reads HERE/searched.jsonl (final runs on the tasks that were searched) and HERE/transferred.jsonl (the same choices on the tasks
that took no part). HERE/scores.csv: mean and spread of every arm. HERE/contrasts.csv: differences with 95 % limits, and p
corrected by Holm.
"""

import csv
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from unipet.report.statistics import SEEDS, Stratum, holm, stratified

here = Path(sys.argv[1])
ARMS = ("optuna", "random", "mam", "adamix")
scores: dict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(
    lambda: defaultdict(dict)
)  # (searched, on): arm: seed


def read(name: str) -> list[dict]:
    """The records of a file."""
    return [json.loads(line) for line in (here / name).read_text().splitlines()]


for record in read("searched.jsonl"):
    if record["trial"]["role"] == "final":
        own = record["method"] != "unified_view"
        arm = record["method"] if own else "random" if record["trial"].get("beside") else "optuna"
        scores[record["task"], record["task"]][arm][record["seed"]] = 100 * record["score"]
for record in read("transferred.jsonl"):
    arm, searched = record["method"].rsplit("_", 1)
    scores[searched, record["task"]][arm][record["seed"]] = 100 * record["score"]


def write(name: str, rows: list[dict]) -> None:
    """As CSV and on the screen."""
    with (here / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(name, *(" ".join(map(str, row.values())) for row in rows), sep="\n")


rows = []
for (searched, task), arms in sorted(scores.items()):
    for arm in ARMS:
        if arm not in arms:  # random search was not run elsewhere
            continue
        values = list(arms[arm].values())
        row = {"searched_on": searched, "task": task, "arm": arm, "mean": f"{statistics.mean(values):.2f}"}
        rows.append(row | {"sd": f"{statistics.stdev(values):.2f}", "seeds": len(values)})
write("scores.csv", rows)

rows = []
for where, chosen in (
    ("searched tasks", lambda pair: pair[0] == pair[1]),
    ("other tasks", lambda pair: pair[0] != pair[1]),
):
    rivals = [("optuna", other) for other in ARMS[1:]] + [("random", other) for other in ARMS[2:]]
    for arm, rival in [pair for pair in rivals if where == "searched tasks" or "random" not in pair]:
        strata = []
        for arms in (arms for pair, arms in sorted(scores.items()) if chosen(pair)):
            seeds = sorted(arms[arm].keys() & arms[rival].keys())
            strata.append(Stratum(np.array([arms[arm][seed] - arms[rival][seed] for seed in seeds])))
        found = stratified(strata, SEEDS)
        row = {"contrast": f"{arm} - {rival}", "on": where, "blocks": len(strata)}
        rows.append(row | {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p})
for row, corrected in zip(rows, holm([float(row["p"]) for row in rows]), strict=True):
    row["p_holm"] = corrected
for row in rows:
    row |= {key: f"{float(row[key]):.4f}" for key in ("difference", "low", "high", "p", "p_holm")}
write("contrasts.csv", rows)
