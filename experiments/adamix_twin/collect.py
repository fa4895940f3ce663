"""What `unipet report` does not say of these runs: `python experiments/adamix_twin/collect.py HERE`.

It reads the parts that have run, HERE/<part>/runs.jsonl, every record in a compact form. HERE/over_tasks.csv: the contrasts
over all tasks, each with steps of its own (a report averages over tasks of one budget alone), paired over seeds, with Holm's
correction over the contrasts. HERE/compute.csv: AdaMix against the twin of twice the steps, likewise, and what a step of each
arm takes beside the twin's. HERE/ways.csv: how the merged module compares with other ways of evaluating the same trained
experts, from the records' key `mixture`.
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
OVER = "over tasks"
WAYS = ("random", "mean_of_outputs", "ensemble_logits", "best_expert")

PARTS = {
    "trec": "single",
    "sst2": "single",
    "mrpc": "mrpc",
    "rte": "rte",
}  # task -> the parts that train it, by their beginning
CONTRASTS = (
    ("adamix", "twin"),
    ("adamix", "twin_wide"),
    ("mixture_only", "twin"),
    ("consistency_only", "twin"),
    ("adamix", "mixture_only"),
    ("adamix", "consistency_only"),
    ("adamix", "adamix_unshared"),
)

finals: dict[tuple[str, str, str], dict[int, dict]] = defaultdict(dict)  # (task, method, budget) -> seed -> record
for file in sorted(here.glob("*/runs.jsonl")):
    for record in map(json.loads, file.read_text().splitlines()):
        if record["trial"]["role"] == "final" and PARTS[record["task"]] == file.parent.name.partition("_")[0]:
            finals[record["task"], record["method"], record["budget"]][record["seed"]] = record
budgets: dict[str, list[str]] = defaultdict(list)  # task -> the budget of the study, and that of twice the steps
for task, _, budget in sorted(finals, key=lambda key: int(key[2].partition("=")[2])):
    if budget not in budgets[task]:
        budgets[task].append(budget)


def differences(first: dict[int, float], second: dict[int, float]) -> np.ndarray:
    """By seed."""
    return np.array([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])


def rows_of(name: str, by_task: dict[str, np.ndarray]) -> list[dict]:
    """The mean difference on each task, and over the tasks, with 95 % limits, paired over seeds."""
    known = {task: values for task, values in by_task.items() if len(values) > 1}
    asked = [(task, [values]) for task, values in known.items()]
    asked += [(OVER, list(known.values()))] if len(known) > 1 else []
    rows = []
    for on, parts in asked:
        found = stratified([Stratum(values) for values in parts], SEEDS)
        said = {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}
        rows.append({"comparison": name, "on": on} | {key: f"{float(value):.4f}" for key, value in said.items()})
        rows[-1]["seeds"] = min(map(len, parts))
    return rows


def write(name: str, rows: list[dict]) -> None:
    """As CSV and on the screen."""
    with (here / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{name}\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    print("\n".join(f"| {' | '.join(str(value) for value in row.values())} |" for row in rows))


def scores(task: str, method: str, budget: str) -> dict[int, float]:
    """Score by seed."""
    return {seed: record["score"] for seed, record in finals.get((task, method, budget), {}).items()}


rows = []
for first, second in CONTRASTS:
    both = {
        task: differences(*(scores(task, method, known[0]) for method in (first, second)))
        for task, known in budgets.items()
    }
    rows += rows_of(f"{first} - {second}", both)
for on in (OVER, *budgets):
    family = [row for row in rows if row["on"] == on]
    for row, adjusted in zip(family, holm([float(row["p"]) for row in family]), strict=True):
        row["p_adjusted"] = f"{adjusted:.4f}"
write("over_tasks.csv", rows)

against = {
    task: differences(scores(task, "adamix", known[0]), scores(task, "twin", known[1]))
    for task, known in budgets.items()
    if len(known) == 2
}
rows = rows_of("adamix - twin of twice the steps", against)
for task, known in budgets.items():
    took = {
        method: statistics.median(r["time"]["step_ms"] for r in finals[task, method, known[0]].values())
        for t, method, budget in finals
        if (t, budget) == (task, known[0])
    }
    for method in sorted(took.keys() - {"twin"}) if "twin" in took else ():
        ratio = {
            "comparison": f"step of {method} / step of twin",
            "on": task,
            "difference": f"{took[method] / took['twin']:.2f}",
        }
        rows.append(ratio | {"low": "", "high": "", "p": "", "seeds": len(finals[task, method, known[0]])})
write("compute.csv", rows)

rows = []
for method in sorted({method for _, method, _ in finals}):
    for way in WAYS:
        by_task = {}
        for (task, name, _), group in finals.items():
            ways = {seed: record["mixture"]["ways"] for seed, record in group.items() if record.get("mixture")}
            if name == method and ways:
                merged, other = ({seed: each[key]["score"] for seed, each in ways.items()} for key in ("merged", way))
                by_task[task] = differences(merged, other)
        rows += rows_of(f"{method}: merged - {way}", by_task) if by_task else []
write("ways.csv", rows)
