"""From runs to files: `python experiments/adamix/collect.py RUNS HERE` writes HERE/runs.jsonl (every record, without what is long
and follows from the configuration) and HERE/scores.csv, and prints both tables of the README as Markdown.

The first has the score of every row on every task and base model: mean and standard deviation over seeds (and splits). The
second has, of rows with a mixture, how ways of evaluating one trained run compare: what the records have under `mixture`.
"""

import csv
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import yaml

runs, here = map(Path, sys.argv[1:3])
LONG = ("insertions", "composition", "fitted", "memory", "identity")
WAYS = ("merged", "random", "ensemble_logits", "mean_of_outputs")


def records() -> list[dict]:
    """Every finished run's record, in the order of its directory's name."""
    found = []
    for file in sorted(runs.rglob("result.json")):
        record = json.loads(file.read_text())
        if record["status"] == "ok":
            task = yaml.safe_load(file.with_name("config.yaml").read_text())["task"]
            mixture = {
                key: value for key, value in record.get("mixture", {}).items() if key not in ("use", "similarity")
            }
            kept = {key: value for key, value in record.items() if key not in LONG}
            found.append({**kept, "split_seed": task["split_seed"], **({"mixture": mixture} if mixture else {})})
    return found


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


def table(heads: list[str], rows: list[list[str]]) -> None:
    """As Markdown; texts to the left, numbers to the right."""
    print(f"| {' | '.join(heads)} |\n| {' | '.join(['---'] * 3 + ['---:'] * (len(heads) - 3))} |")
    print("".join(f"| {' | '.join(row)} |\n" for row in rows))


groups: dict[tuple, list[dict]] = defaultdict(list)
for each in records():
    groups[each["model"], each["task"], each["method"]].append(each)
if not groups:
    sys.exit(f"{runs}: no finished run.")
here.mkdir(parents=True, exist_ok=True)
ordered = sorted(groups.items())
lines = [json.dumps(record, separators=(",", ":")) + "\n" for _, group in ordered for record in group]
(here / "runs.jsonl").write_text("".join(lines))
rows, compared = [], []
for (model, task, method), group in ordered:
    first, scores = group[0], [record["score"] for record in group]
    seconds = statistics.mean(record["time"]["train_s"] for record in group)
    sizes = [f"{first['params'][key]:,}" for key in ("trainable", "merged")]
    rows.append([model, task, method, str(len(group)), first["metric"], spread(scores), *sizes, f"{seconds:.0f}"])
    mixed = [record["mixture"] for record in group if record.get("mixture", {}).get("ways")]
    if mixed:
        ways = [spread([one["ways"][way]["score"] for one in mixed if way in one["ways"]]) for way in WAYS]
        compared.append([model, task, method, *ways, spread([one["experts"][0]["score"] for one in mixed])])
heads = ["base model", "task", "method", "runs", "metric", "score", "trained", "merged", "training, s"]
with (here / "scores.csv").open("w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([heads, *rows])
table(heads, rows)
if compared:
    table(
        ["base model", "task", "method", "merged", "random routing", "ensemble", "mean of outputs", "first expert"],
        compared,
    )
