"""What a certificate costs: processor seconds of its checks beside those of the run. Writes benchmarks/results/certificate.json.

    python -m benchmarks.certificate [--steps 300] [--measured 300] [--methods lora,adapter,adamix]

Runs on MiniLM, as `unipet train` makes them: the seconds of all that only the certificate needs (marks of what is frozen before
training, the checks at the end, and writing them), and of the whole command beside the imports. Processor seconds, which depend
little on what else the machine does. The share is of a run of `--steps` steps; where fewer are `--measured`, the seconds of
training are those of the measured steps, scaled, and everything else is as measured.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import speed_results
from unipet.cli.main import main as unipet
from unipet.runs import run as running
from unipet.training import trainer

FIXED = ["model=minilm", "task=synthetic_verdicts", "optim.batch_size=16", "task.selection=none"]
TRAIN = "train"  # what grows with the steps
PARTS = ("frozen_marks", "certify", "put_beside")  # functions that nothing but the certificate calls
LIMIT = 0.05  # of the run


def main() -> int:
    """Measure, print and write. Exit code 1 where a certificate costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--measured", type=int, default=None)
    parser.add_argument("--methods", default="lora,adapter,adamix,full")
    asked = parser.parse_args()
    load, count = os.getloadavg(), asked.measured or asked.steps
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        fixed = [*FIXED, f"runs_dir={directory}/runs"]
        measured([*fixed, "method=lora", "budget.max_steps=1", "seed=7"])  # imports and tokens are of neither
        for method in asked.methods.split(","):
            found = measured([*fixed, f"method={method}", f"budget.max_steps={count}"])
            whole = found["run_cpu_s"] + found["train_cpu_s"] * (asked.steps / count - 1)
            rows.append(
                {"method": method, "measured_steps": count, **found, "share": found["certificate_cpu_s"] / whole}
            )
            print(rows[-1], flush=True)
    command = f"python -m benchmarks.certificate --steps {asked.steps} --measured {count} --methods {asked.methods}"
    content = {**speed_results.about(command, 0, load), "limit": LIMIT, "rows": rows}
    path = speed_results.RESULTS / "certificate.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return int(any(row["share"] > LIMIT for row in rows))


def measured(words: list[str]) -> dict[str, Any]:
    """Processor seconds of one run, of the certificate in it, and of training."""
    seconds = dict.fromkeys((*PARTS, TRAIN), 0.0)
    places = {**dict.fromkeys(PARTS, running), TRAIN: trainer}
    originals: dict[str, Callable[..., Any]] = {name: getattr(place, name) for name, place in places.items()}

    def timed(name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return originals[name](*given, **named)
            finally:
                seconds[name] += time.process_time() - began

        return call

    for name, place in places.items():
        setattr(place, name, timed(name))
    began = time.process_time()
    try:
        if unipet(["train", *words]):
            raise SystemExit("the run failed")
    finally:
        for name, function in originals.items():
            setattr(places[name], name, function)
    whole = time.process_time() - began
    own = sum(seconds[name] for name in PARTS)
    return {"run_cpu_s": whole, "certificate_cpu_s": own, **{f"{name}_cpu_s": each for name, each in seconds.items()}}


if __name__ == "__main__":
    raise SystemExit(main())
