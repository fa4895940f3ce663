"""How much training saves where frozen layers are skipped: writes benchmarks/results/frozen_cache.json, and a table.

    python -m benchmarks.frozen_cache [--sentences 400] [--epochs 4]

MiniLM (6 layers), synthetic sentences, batches of 16, `model.dropout=0`. Processor seconds of training with `cache_frozen=true`
(filling included) and with `false`, in turn in one process, after one unmeasured run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from typing import Any

from benchmarks import speed_results
from unipet.cli.main import main as unipet
from unipet.training import trainer

METHODS = {
    "head alone": ["method=head_only"],
    "LoRA, last layer": ["method=lora", "method.insertions.attention.position.layers=last:1"],
    "LoRA, last 2 layers": ["method=lora", "method.insertions.attention.position.layers=last:2"],
    "LoRA, last 3 layers": ["method=lora", "method.insertions.attention.position.layers=last:3"],
}


def main() -> int:
    """Measure, write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=4)
    asked = parser.parse_args()
    load = os.getloadavg()
    fixed = ["model=minilm", "model.dropout=0", "task=synthetic_verdicts", "task.selection=none", "optim.batch_size=16"]
    fixed += [f"task.generated_train={asked.sentences}", "task.generated_evaluation=64", f"optim.epochs={asked.epochs}"]
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        fixed.append(f"runs_dir={directory}/runs")
        cost([*fixed, *METHODS["head alone"], "cache_frozen=true", "seed=7"])
        for name, words in METHODS.items():
            row: dict[str, Any] = {"method": name}
            for cached in ("false", "true"):
                row[cached] = cost([*fixed, *words, f"cache_frozen={cached}"])
            rows.append({**row, "ratio": row["false"] / row["true"]})
            print(rows[-1], flush=True)
    command = f"python -m benchmarks.frozen_cache --sentences {asked.sentences} --epochs {asked.epochs}"
    content = {**speed_results.about(command, 0, load), "rows": rows}
    path = speed_results.RESULTS / "frozen_cache.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    speed_results.put_into(speed_results.PAGE, "frozen_cache", table(content))
    return 0


def cost(words: list[str]) -> float:
    """The processor seconds of training in one run."""
    train, seconds = trainer.train, list[float]()

    def timed(*args: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return train(*args, **options)
        finally:
            seconds.append(time.process_time() - began)

    trainer.train = timed
    try:
        if unipet(["train", *words]):
            raise SystemExit("the run failed")
    finally:
        trainer.train = train
    return seconds[0]


def table(content: dict[str, Any]) -> str:
    """The measurement as Markdown."""
    lines = [
        f"Made by `{content['command']}` on {content['measured'][:10]}: {content['versions']['machine']['device']}, load "
        f"average {content['load_average_before'][0]:.1f} before, {content['load_average_after'][0]:.1f} after.",
        "",
        "| method | processor seconds of training | with kept outputs | ratio |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['method']} | {row['false']:.1f} | {row['true']:.1f} | {row['ratio']:.1f} |" for row in content["rows"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
