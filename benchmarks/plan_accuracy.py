"""Predicted against real time of a sweep: `python benchmarks/plan_accuracy.py` writes benchmarks/results/plan_accuracy.json.

`unipet plan` predicts a sweep of 4 methods and 2 tasks with nothing measured before; then `unipet train -m` runs it, in a
process of its own as a user would. Nothing else should run on the machine: the load average stands in the result.

With `--clock cpu` both processes count the CPU seconds that they get instead of wall seconds: on a machine that others use
at the same time that tells the error of the method from the change of the load.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from unipet.runs.record_files import write_json_atomic
from unipet.runs.versions import now, versions

RESULT = Path(__file__).parent / "results" / "plan_accuracy.json"


def sweep(steps: int, seeds: str) -> list[str]:
    """The overrides of the sweep."""
    chosen = ["method=lora,adapter,mam,adamix", "task=synthetic_verdicts,synthetic_duels", f"seed={seeds}"]
    return ["-m", *chosen, "model=minilm", "optim.batch_size=16", f"budget.max_steps={steps}"]


_START = {"wall": "", "cpu": "import time; time.perf_counter = time.process_time; "}


def call(directory: Path, clock: str, *arguments: str) -> tuple[str, float]:
    """What `unipet ...` prints, run in `directory`, and its seconds by this clock."""
    started, spent = time.perf_counter(), _children_s()
    line = [
        sys.executable,
        "-c",
        f"{_START[clock]}import sys; from unipet.cli.main import main; sys.exit(main())",
        *arguments,
    ]
    done = subprocess.run(line, cwd=directory, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout, time.perf_counter() - started if clock == "wall" else _children_s() - spent


def _children_s() -> float:
    """CPU seconds of the processes that were started here and have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def compare(plan: dict[str, Any], directory: Path) -> list[dict[str, Any]]:
    """One row per job: seconds predicted and taken, of the run (after it was composed) and of training."""
    rows = []
    for job in plan["jobs"]:
        (file,) = directory.glob(f"runs/sweeps/*/jobs/{job['job']}.json")
        written = json.loads(file.read_text())
        record = json.loads((file.parent.parent / written["run_dir"] / "result.json").read_text())
        assert record["run_id"] == job["run_id"] and record["status"] == "ok", record["error"]
        before = job["seconds"]["composing"]  # which no record holds; and imports are no job's
        run = (job["total_s"] - before, record["time"]["total_s"] - record["time"]["phases_s"]["import"])
        train = (job["train_s"], record["time"]["train_s"])
        rows.append(
            {
                **{name: job[name] for name in ("method", "task", "seed", "steps")},
                "predicted_run_s": run[0],
                "run_s": run[1],
                "run_error_percent": error(*run),
                "predicted_train_s": train[0],
                "train_s": train[1],
                "train_error_percent": error(*train),
            }
        )
    return rows


def error(predicted: float, taken: float) -> float:
    """In percent of what was taken; positive: too much was predicted."""
    return 100 * (predicted / taken - 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--clock", choices=tuple(_START), default="wall")
    asked = parser.parse_args()
    line = sweep(asked.steps, asked.seeds)
    loads = {"before the plan": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        printed, plan_s = call(directory, asked.clock, "plan", *line, "--json")
        plan = json.loads(printed)
        loads["between"] = os.getloadavg()[0]
        _, taken_s = call(directory, asked.clock, "train", *line)
        loads["after the sweep"] = os.getloadavg()[0]
        rows = compare(plan, directory)
    total = {"predicted_s": plan["total"]["wall_s"], "taken_s": taken_s}
    total["error_percent"] = error(*total.values())
    content = {
        "command": f"python benchmarks/plan_accuracy.py --steps {asked.steps} --seeds {asked.seeds} --clock {asked.clock}",
        "sweep": f"unipet train {' '.join(line)}",
        "finished": now(),
        "versions": versions().to_dict(),
        "clock": asked.clock,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_average": loads,
        "plan_took_s": plan_s,
        "total": total,
        "jobs": rows,
        "stages_predicted_s": [job["seconds"] for job in plan["jobs"]],
    }
    write_json_atomic(RESULT, content)
    for row in rows:
        print(
            f"{row['method']:10} {row['task']:22} {row['seed']}  run {row['predicted_run_s']:6.1f} predicted "
            f"{row['run_s']:6.1f} s {row['run_error_percent']:+6.1f} %   training {row['predicted_train_s']:6.1f} "
            f"{row['train_s']:6.1f} s {row['train_error_percent']:+6.1f} %"
        )
    print(f"sweep: {total['predicted_s']:.1f} s predicted, {taken_s:.1f} s taken, {total['error_percent']:+.1f} %")


if __name__ == "__main__":
    main()
