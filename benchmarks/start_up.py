"""How long `unipet train` takes until its first step: writes benchmarks/results/start_up.json and its table in the docs.

    python -m benchmarks.start_up [--repetitions 5] [--before CHECKOUT]

LoRA on MiniLM and 1,600 synthetic sentences. Processor seconds of the process until the first step begins, in processes of
their own: once with an empty cache, then with tokens, checksums and predictions of memory kept from before. `imports` are the
processor seconds of a process that imports the same modules in the same order, and does nothing else. Processor seconds depend
less on what else the machine does than wall seconds, which are recorded as well. `--before` measures another checkout beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WORDS = ["method=lora", "model=minilm", "task=synthetic_verdicts", "task.generated_train=1600", "optim.batch_size=16"]
WORDS += ["task.selection=none", "budget.max_steps=1", "rerun=true"]
#: Runs the command, and ends it where its first step begins.
COMMAND = """
import json, os, sys, time
import unipet.output.stopwatch as stopwatch
def at_first_step(*_, **__):
    age = stopwatch._process_age()
    sys.__stdout__.write(json.dumps({"cpu_s": time.process_time(), "wall_s": age, "modules": list(sys.modules)}))
    sys.__stdout__.flush()
    os._exit(0)
import unipet.runs.run as run
begin = run.execute
def watched(*args, **options):
    import unipet.training.objective_trainer as trainer
    trainer.ObjectiveTrainer.training_step = at_first_step
    return begin(*args, **options)
run.execute = watched
from unipet.cli.main import main
sys.argv = ["unipet", *sys.argv[1:]]
main()
"""
IMPORTS = """
import gc, json, sys, time
gc.disable()
for name in json.load(sys.stdin):
    try:
        __import__(name)
    except Exception:
        pass
print(json.dumps({"cpu_s": time.process_time()}))
"""


def main() -> int:
    """Measure, write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--before", type=Path, help="a checkout to compare with; it needs a link unipet/conf to its conf"
    )
    asked = parser.parse_args()
    places = {"now": ROOT} | ({"before": asked.before.resolve()} if asked.before else {})
    content: dict[str, Any] = {"load_average_before": os.getloadavg()[0]}
    found = {name: [measure(place) for _ in range(asked.repetitions)] for name, place in places.items()}
    for name, rows in found.items():
        content[name] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    from benchmarks import speed_results

    command = f"python -m benchmarks.start_up --repetitions {asked.repetitions}" + " --before CHECKOUT" * bool(
        asked.before
    )
    content = {**speed_results.about(command, 0, os.getloadavg()), **content}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "start_up.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    speed_results.put_into(speed_results.PAGE, "start_up", table(content))
    print(table(content))
    return 0


def measure(checkout: Path) -> dict[str, float]:
    """Seconds of one start with an empty cache, of one with a full one, and of the imports of the latter alone."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        words = [*WORDS, f"runs_dir={directory}/runs"]

        def call(code: str, *line: str, given: str = "") -> dict[str, Any]:
            done = subprocess.run(
                [sys.executable, "-c", code, *line],
                cwd=directory,
                env=environment,
                input=given,
                capture_output=True,
                encoding="utf-8",
                check=True,
            )
            answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            return answer

        first, again = (call(COMMAND, "train", *words, f"seed={seed}") for seed in (0, 1))
        imports = call(IMPORTS, given=json.dumps(again["modules"]))
        return {
            "first_cpu_s": first["cpu_s"],
            "again_cpu_s": again["cpu_s"],
            "imports_cpu_s": imports["cpu_s"],
            "beside_imports_cpu_s": again["cpu_s"] - imports["cpu_s"],
            "again_wall_s": again["wall_s"],
            "modules": len(again["modules"]),
        }


def table(content: dict[str, Any]) -> str:
    """The measurement as Markdown."""
    rows = [name for name in ("before", "now") if name in content]
    lines = [
        f"Made by `{content['command']}` on {content['measured'][:10]}: {content['versions']['machine']['device']}, load "
        f"average {content['load_average_before']:.1f}.",
        "",
        "| processor seconds until the first step | nothing cached | cached | of these imports | beside imports |",
        "|---|---|---|---|---|",
    ]
    keys = ("first_cpu_s", "again_cpu_s", "imports_cpu_s", "beside_imports_cpu_s")
    return "\n".join(
        [*lines, *(f"| {row} | " + " | ".join(f"{content[row][key]:.1f}" for key in keys) + " |" for row in rows)]
    )


if __name__ == "__main__":
    sys.exit(main())
