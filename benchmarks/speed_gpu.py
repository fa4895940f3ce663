"""The speed and memory of methods beside the floor and beside peft, on a GPU: `make bench-gpu`, less than eight minutes.

    python -m benchmarks.speed_gpu [--minutes 4.5] [--tiny] [--no-calibration] [--render]

Random weights in bfloat16 under autocast, what trains in float32. Writes speed_gpu.csv, .json, .png and .pdf to
benchmarks/results and the table of docs/performance.md, and calibrates `budget.memory_margin` (benchmarks/gpu.py). Needs
torch, transformers and peft; without matplotlib there is no figure until `--render` makes it elsewhere from the JSON.
`--tiny` runs tiny models on the CPU and writes to runs/bench: that is how the script is tested without a GPU.
It has not run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import speed_results

NAME = "speed_gpu"
#: What is measured there, by the names of benchmarks/speed_pairs.py: time is short.
METHODS = (
    *("LoRA, q and v", "LoRA, all linears", "DoRA", "(IA)³", "prefix, 30 tokens", "VeRA", "LoHa", "OFT", "HRA"),
    *("Houlsby adapter", "parallel adapter", "MAM", "full fine-tuning"),
)
#: By base model, what is left out: the optimiser of all its parameters alone would take 24 GB.
LEFT_OUT = {"Llama 3B": ("full fine-tuning",)}


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Calibrate, measure, write; a message where there is nothing to measure on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.5, help="for the comparison; the calibration comes on top")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-calibration", action="store_true")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--out", type=Path, help="another directory for the results; docs/performance.md stays")
    asked = parser.parse_args(arguments)
    place = asked.out or (Path("runs") / "bench" if asked.tiny else speed_results.RESULTS)
    if not asked.render:
        import torch

        if not asked.tiny and not torch.cuda.is_available():
            return "benchmarks/speed_gpu.py: this machine has no CUDA device that torch can use; nothing was measured."
        _measure(asked, place)
        if not asked.no_calibration and not asked.tiny:
            from benchmarks import gpu

            if message := gpu.main():
                return message
    content = json.loads((place / f"{NAME}.json").read_text(encoding="utf-8"))
    if not speed_results.figure(place, NAME, content["rows"]):
        print("matplotlib is not installed: no figure. Make it elsewhere with --render.")
    if place == speed_results.RESULTS:
        speed_results.put_into(speed_results.PAGE, NAME, speed_results.table(content))
    return None


def _measure(asked: argparse.Namespace, place: Path) -> None:
    from benchmarks.speed_measuring import SEED, measure_all
    from benchmarks.speed_models import on_gpu, tiny
    from benchmarks.speed_pairs import PAIRS

    load = os.getloadavg()
    chosen = [pair for pair in PAIRS if pair.name in METHODS]
    device, works, least = ("cpu", tiny(), 2) if asked.tiny else ("cuda:0", on_gpu(), 3)
    ends = 0.0 if asked.tiny else 60 * asked.minutes
    rows, failures = measure_all(
        works, chosen, ends, device=device, autocast=True, least=least, most=20, without=LEFT_OUT
    )
    command = f"python -m benchmarks.speed_gpu --minutes {asked.minutes:g}" + " --tiny" * asked.tiny
    speed_results.write(place, NAME, {**speed_results.about(command, SEED, load), "failures": failures, "rows": rows})
    print(*failures, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
