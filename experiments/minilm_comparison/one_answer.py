"""Runs that give every example the same answer: `python one_answer.py RUNS` prints method, budget, runs, and how many do."""

import collections
import json
import sys
from pathlib import Path

runs: collections.Counter[tuple[str, str]] = collections.Counter()
same: collections.Counter[tuple[str, str]] = collections.Counter()
for file in Path(sys.argv[1]).glob("*/result.json"):
    record = json.loads(file.read_text())
    lines = file.with_name("predictions.jsonl").read_text().splitlines()
    answers = {json.loads(line)["prediction"] for line in lines}
    kind = record["method"], record["budget"].split(",")[0]
    runs[kind] += 1
    same[kind] += len(answers) == 1
print("method,budget,runs,one_answer")
for method, budget in sorted(runs):
    print(f"{method},{budget},{runs[method, budget]},{same[method, budget]}")
