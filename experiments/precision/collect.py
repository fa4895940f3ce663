"""From runs to files: `python collect.py RUNS HERE` writes runs.jsonl and fp16.jsonl (every record, one line each) and scores.csv
to HERE, and prints the table of the README.

For each method and task: scores x 100 in float32 and bfloat16, the spread of the float32 seeds, the largest difference between
the two precisions of one seed, and which share of examples get the same answer from two precisions of one seed, and from two
seeds of one precision.
"""

import csv
import itertools
import json
import statistics
import sys
from pathlib import Path

import yaml

runs, here = map(Path, sys.argv[1:3])


def records_in(place: Path) -> list[tuple[dict, list]]:
    """Every finished run's record, with its precision, and its answers."""
    found = []
    for file in sorted(place.glob("*/result.json")):
        config = yaml.safe_load(file.with_name("config.yaml").read_text())
        record = {**json.loads(file.read_text()), "precision": config["precision"]}
        if record["status"] == "ok":
            predictions = map(json.loads, file.with_name("predictions.jsonl").read_text().splitlines())
            found.append((record, [each["prediction"] for each in predictions]))
    return found


records, answers = {}, {}
finished = records_in(runs)
for record, given in finished:
    key = record["method"], record["task"], record["precision"], record["seed"]
    records[key], answers[key] = record, given
(here / "runs.jsonl").write_text("".join(json.dumps(record) + "\n" for record, _ in finished))


def same(one: tuple, other: tuple) -> float:
    """The share of examples with the same answer, in percent."""
    pairs = list(zip(answers[one], answers[other], strict=True))
    return 100 * sum(a == b for a, b in pairs) / len(pairs)


rows = []
for method, task in sorted({key[:2] for key in records}):
    seeds = sorted(s for m, t, p, s in records if (m, t, p) == (method, task, "fp32") and (m, t, "bf16", s) in records)
    if len(seeds) < 2:
        continue
    scores = {p: [100 * records[method, task, p, seed]["score"] for seed in seeds] for p in ("fp32", "bf16")}
    apart = [b - a for a, b in zip(scores["fp32"], scores["bf16"], strict=True)]
    between = [(method, task, "fp32", seed) for seed in seeds]
    rows.append(
        {
            "method": method,
            "task": task,
            "seeds": len(seeds),
            "fp32": statistics.mean(scores["fp32"]),
            "fp32_sd": statistics.stdev(scores["fp32"]),
            "bf16": statistics.mean(scores["bf16"]),
            "bf16_sd": statistics.stdev(scores["bf16"]),
            "mean_difference": statistics.mean(apart),
            "largest_difference": max(map(abs, apart)),
            "same_answers_precisions": statistics.mean(same(key, (*key[:2], "bf16", key[3])) for key in between),
            "same_answers_seeds": statistics.mean(same(a, b) for a, b in itertools.combinations(between, 2)),
        }
    )
with (here / "scores.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()} for row in rows)
print("| method | task | fp32 | bf16 | largest difference of a seed | same answers: precisions | same answers: seeds |")
print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
for row in rows:
    print(
        f"| {row['method']} | {row['task']} | {row['fp32']:.2f} ± {row['fp32_sd']:.2f} | "
        f"{row['bf16']:.2f} ± {row['bf16_sd']:.2f} | "
        f"{row['largest_difference']:.2f} | {row['same_answers_precisions']:.1f} % | {row['same_answers_seeds']:.1f} % |"
    )


half = records_in(runs / "fp16")
(here / "fp16.jsonl").write_text("".join(json.dumps(record) + "\n" for record, _ in half))
plain = next((given for record, given in half if record["precision"] == "fp32"), [])
for record, given in half:
    alike = sum(a == b for a, b in zip(given, plain, strict=True))
    print(
        f"\n{record['precision']}: {record['method']} on {record['task']}: {100 * record['score']:.2f}, "
        f"{record['time']['train_s']:.1f} s of training, {alike} of {len(given)} answers as in fp32"
    )
