"""Every finished run below RUNS as a line of JSON, without what is long and follows from the configuration.

`python experiments/compact_records.py RUNS OUT.jsonl`: trials of a search are included. Of `mixture`, what its tables
need stays; of `certificate`, what each check came to. `lr` is the learning rate, which a search may have chosen.
"""

import json
import sys
from pathlib import Path

import yaml

LONG = (
    "insertions",
    "composition",
    "fitted",
    "memory",
    "identity",
    "files",
    "versions",
    "comparable",
    "frozen",
    "folder",
)
MIXTURE = ("ways", "experts", "barrier", "best_by")

runs, out = map(Path, sys.argv[1:3])
lines = []
for file in sorted(runs.glob("*/result.json")):
    record = json.loads(file.read_text())
    if record["status"] == "ok":
        kept = {key: value for key, value in record.items() if key not in LONG}
        if kept.get("mixture"):
            kept["mixture"] = {key: kept["mixture"].get(key) for key in MIXTURE}
        if kept.get("certificate"):
            checks = kept["certificate"]["checks"]
            kept["certificate"] = {"checks": {name: {"status": check["status"]} for name, check in checks.items()}}
        kept["lr"] = yaml.safe_load((file.parent / "config.yaml").read_text())["optim"]["lr"]
        lines.append(json.dumps(kept, separators=(",", ":")) + "\n")
out.write_text("".join(lines))
