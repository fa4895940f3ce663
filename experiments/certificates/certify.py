"""Every run below RUNS verified from its files (`unipet verify --deep`), into HERE/certificates.csv and a table of counts.

`python experiments/certificates/certify.py RUNS HERE`: RUNS/EXPERIMENT/... The exit code is 1 where a run failed or a certificate
lacks something.
"""

import csv
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

from unipet.adaptation.certificate import CHECKS, NOT_APPLICABLE
from unipet.cli.main import main

runs, here = map(Path, sys.argv[1:3])
rows, counts, lacking = [], defaultdict(Counter), []
for file in sorted(runs.rglob("*/result.json")):
    directory, experiment = file.parent, file.relative_to(runs).parent.parent.as_posix()
    record = json.loads(file.read_text())
    if record["status"] == "ok" and record["certificate"]["by"] != "verify --deep":  # not a second time
        main(["verify", str(directory), "--deep"])
        record = json.loads(file.read_text())
    checks = {name: check["status"] for name, check in (record.get("certificate") or {"checks": {}})["checks"].items()}
    keys = ("method", "task", "model", "precision", "seed", "metric", "score", "run_id", "status")
    row = (
        {"experiment": experiment}
        | {key: record.get(key) for key in keys}
        | {"steps": (record.get("time") or {}).get("steps")}
    )
    rows.append(row | {f"check {name}": checks.get(name, "") for name in CHECKS})
    whole = record["status"] == "ok" and all(checks.get(name) in ("passed", NOT_APPLICABLE) for name in CHECKS)
    counts[experiment].update(runs=1, certified=whole, of_a_cache=checks.get("generation_cache") == "passed")
    if not whole:
        lacking.append(
            f"{directory}: {record['status']}, {[name for name in CHECKS if checks.get(name) not in ('passed', NOT_APPLICABLE)]}"
        )
with (here / "certificates.csv").open("w", newline="") as target:
    writer = csv.DictWriter(target, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
print("| experiment | runs | certified | generation with and without a cache checked |\n| --- | ---: | ---: | ---: |")
for experiment, count in counts.items():
    print(f"| {experiment} | {count['runs']} | {count['certified']} | {count['of_a_cache']} |")
print(*lacking, sep="\n")
sys.exit(1 if lacking else 0)
