"""What every arm of the search chose on every task, as method files and their rates: `python .../chosen.py RUNS DESIGNS`."""

import json
import sys
from pathlib import Path

import yaml

runs, designs = map(Path, sys.argv[1:3])
designs.mkdir(parents=True, exist_ok=True)
rates = {}
for file in sorted(runs.glob("*/result.json")):
    record = json.loads(file.read_text())
    trial = record["trial"]
    if trial["role"] != "final" or record["status"] != "ok":
        continue
    arm = record["method"] if record["method"] != "unified_view" else "random" if trial.get("beside") else "optuna"
    name = f"{arm}_{record['task']}"
    if name not in rates:
        config = yaml.safe_load((file.parent / "config.yaml").read_text())
        text = yaml.safe_dump({**record["composition"], "name": name}, sort_keys=False)
        said = f"# What {arm} chose on {record['task']} at 0.5 % of MiniLM's parameters, with rate {config['optim']['lr']}.\n"
        (designs / f"{name}.yaml").write_text(said + text)
        rates[name] = config["optim"]["lr"]
(designs / "rates.txt").write_text("".join(f"{name} {rate}\n" for name, rate in sorted(rates.items())))
