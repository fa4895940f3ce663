"""The speed and memory of every method beside the floor and beside peft, on the CPU: `make bench`, ten minutes.

    python -m benchmarks.speed [--minutes 10] [--batch 16] [--quick] [--models MiniLM] [--methods LoRA] [--end-to-end] [--render]

Writes speed_cpu.csv, .json, .png and .pdf to benchmarks/results, and the tables of docs/performance.md and README.md.
`--quick` takes the fewest steps on two methods and writes to runs/bench instead: it shows that the script works. `--render`
makes figure and tables again from the JSON. `--end-to-end` compares `unipet train` with peft and transformers' Trainer
(benchmarks/end_to_end.py).
Nothing else should run on the machine: the result contains the load average.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import speed_results

NAME = "speed_cpu"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=16, help="examples in a batch of MiniLM; the others get a quarter")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="tiny random models, for a test of this script")
    parser.add_argument("--models", default="", help="only base models whose name contains this")
    parser.add_argument("--methods", nargs="+", default=[], help="only methods whose name contains one of these")
    parser.add_argument("--out", type=Path, help="another directory for the results; the tables stay")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--end-to-end", action="store_true")
    parser.add_argument("--data", type=Path, default=speed_results.ROOT.parent / "shared" / "data", help="has sst2/")
    asked = parser.parse_args(arguments)
    aside = asked.quick or asked.tiny or bool(asked.models or asked.methods)
    place = asked.out or (Path("runs") / "bench" if aside else speed_results.RESULTS)
    if asked.end_to_end:
        from benchmarks import end_to_end

        end_to_end.compare(asked.data, place, quick=asked.quick)
        return
    if not asked.render:
        _measure(asked, place)
    content = json.loads((place / f"{NAME}.json").read_text(encoding="utf-8"))
    if not speed_results.figure(place, NAME, content["rows"]):
        print("matplotlib is not installed: no figure.")
    if place == speed_results.RESULTS:
        speed_results.put_into(speed_results.PAGE, NAME, speed_results.table(content))
        speed_results.put_into(speed_results.README, NAME, speed_results.summary(content))


def _measure(asked: argparse.Namespace, place: Path) -> None:
    from benchmarks.speed_measuring import SEED, keep_freed_memory, measure_all
    from benchmarks.speed_models import on_cpu, tiny
    from benchmarks.speed_pairs import PAIRS

    load = os.getloadavg()
    if load[0] > 0.5 * (os.cpu_count() or 1):
        print(f"The load average is {load[0]:.1f}: these numbers are not for publication.")
    pairs = [pair for pair in PAIRS if not asked.methods or any(name in pair.name for name in asked.methods)]
    pairs = pairs[:2] if asked.quick and not asked.methods else pairs
    works = [work for work in (tiny() if asked.tiny else on_cpu(asked.batch)) if asked.models in work.name]
    least, seconds = (2, 0.0) if asked.quick else (6, 60 * asked.minutes)
    kept = keep_freed_memory()
    rows, failures = measure_all(works, pairs, seconds, least=least)
    command = shlex.join(["python", "-m", "benchmarks.speed", *arguments_of(asked)])
    about = speed_results.about(command, SEED, load) | {"freed_memory_kept": kept}
    speed_results.write(place, NAME, {**about, "failures": failures, "rows": rows})
    print(*failures, sep="\n")


def arguments_of(asked: argparse.Namespace) -> list[str]:
    """What changes the numbers, as on the command line."""
    words = ["--quick"] if asked.quick else ["--minutes", f"{asked.minutes:g}", "--batch", str(asked.batch)]
    words += ["--tiny"] if asked.tiny else []
    words += ["--models", asked.models] if asked.models else []
    return words + (["--methods", *asked.methods] if asked.methods else [])


if __name__ == "__main__":
    sys.exit(main())
