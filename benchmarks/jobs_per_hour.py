"""How many jobs an hour a machine does, and what a job costs beside its training: writes benchmarks/results/jobs_per_hour.json.

    python benchmarks/jobs_per_hour.py [--jobs 40] [--steps 60]

Forty jobs of a few steps on MiniLM are run in three ways: by a sweep with `launcher=local`, by one with `launcher=slots
launcher.workers=2`, and by as many separate `unipet train` calls. For comparison, a bare loop does the same training with the
library alone: one process, one base model, no files. The additional time of a job of `local` is the overhead of a job, and the
records say what it went into. Nothing else should run on the machine: the result contains the load average.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from unipet.runs.record_files import write_json_atomic
from unipet.runs.versions import now, versions

RESULT = Path(__file__).parent / "results" / "jobs_per_hour.json"
METHODS = ("lora", "adapter", "mam", "bitfit")


def main() -> int:
    """Measure, write the result, print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--bare", action="store_true", help="do the bare loop here and print its seconds")
    asked = parser.parse_args()
    seeds = asked.jobs // len(METHODS)
    if asked.bare:
        print(bare(seeds, asked.steps))
        return 0
    fixed = ["model=minilm", "task=synthetic_verdicts", "optim.batch_size=16", f"budget.max_steps={asked.steps}"]
    fixed += ["task.selection=none", "task.max_evaluation=100"]
    swept = [f"method={','.join(METHODS)}", f"seed={','.join(map(str, range(seeds)))}"]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        took = {
            "local": call(place, "train", "-m", *fixed, *swept, "runs_dir=local"),
            "slots, 2 workers": call(
                place, "train", "-m", *fixed, *swept, "runs_dir=slots", "launcher=slots", "launcher.workers=2"
            ),
            "separate calls": sum(
                call(place, "train", *fixed, f"method={method}", f"seed={seed}", "runs_dir=separate")
                for method in METHODS
                for seed in range(seeds)
            ),
        }
        profile = profile_of(Path(place) / "local", took["local"])
        line = [sys.executable, __file__, "--bare", "--jobs", str(asked.jobs), "--steps", str(asked.steps)]
        loop = subprocess.run(line, cwd=place, capture_output=True, encoding="utf-8", check=True)
    jobs = seeds * len(METHODS)
    bare_s = float(loop.stdout.split()[-1])
    result: dict[str, Any] = {
        "command": f"python benchmarks/jobs_per_hour.py --jobs {asked.jobs} --steps {asked.steps}",
        "jobs": jobs,
        "seconds": {name: round(seconds, 1) for name, seconds in took.items()},
        "jobs_per_hour": {name: round(3600 * jobs / seconds) for name, seconds in took.items()},
        "bare_loop_s": round(bare_s, 1),
        "overhead_s_per_job_of_local": round((took["local"] - bare_s) / jobs, 3),
        "profile_of_local": profile,
        "load_before": load,
        "measured": now(),
        "versions": versions().to_dict(),
    }
    write_json_atomic(RESULT, result)
    print(result)
    return 0


def call(place: str, *arguments: str) -> float:
    """The seconds of one `unipet ...`."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "unipet", *arguments], cwd=place, env=environment, check=True, capture_output=True
    )
    return time.perf_counter() - started


def profile_of(runs: Path, seconds: float) -> dict[str, Any]:
    """What the seconds of a sweep went into: the median of each phase of a job, what its first job took beyond its fellows (the
    imports), and what is in no job: the start of the command and its worker, claims and outcomes, the table."""
    times = sorted(
        (json.loads(file.read_text(encoding="utf-8"))["time"] for file in runs.glob("*/result.json")),
        key=lambda time: float(time["total_s"]),
    )
    phases = {name: [time["phases_s"].get(name, 0.0) for time in times] for name in sorted(times[0]["phases_s"])}
    totals = [time["total_s"] for time in times]
    return {
        "phases_s_median": {name: round(statistics.median(values), 3) for name, values in phases.items()},
        "job_s_median": round(statistics.median(totals), 3),
        "first_job_more_s": round(totals[-1] - statistics.median(totals), 2),
        "in_no_job_s": round(seconds - sum(totals), 2),
    }


def bare(seeds: int, steps: int) -> float:
    """The same training without runs: seconds from the first import to the last score."""
    started = time.perf_counter()
    import torch

    import unipet
    from unipet.compose.composer import composer
    from unipet.compose.overrides import plan
    from unipet.config import OptimConfig, RunConfig, TaskConfig
    from unipet.runs.base_model import load_base_model
    from unipet.tasks import collate, encode, load_task
    from unipet.training.sampler import GroupedOrder

    texts = ["model=minilm", "task=synthetic_verdicts", "optim.batch_size=16", "task.selection=none"]
    with composer(None) as composing:
        config: RunConfig = plan([*texts, "task.max_evaluation=100"], False, composing).config
    task: TaskConfig = config.task
    optim: OptimConfig = config.optim
    data = load_task(task)
    model, tokenizer = load_base_model(config.model, data.labels, data.regression, task.kind)
    encoded, batches = encode(data, tokenizer, task), collate(tokenizer)
    for method in METHODS:
        for seed in range(seeds):
            torch.manual_seed(seed)
            unipet.adapt(model, method)
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimiser = torch.optim.AdamW(trained, lr=optim.lr)
            order = GroupedOrder(encoded.train.lengths, optim.batch_size, seed).batches()
            model.train()
            for _, batch in zip(range(steps), order, strict=False):
                inputs = batches([encoded.train[index] for index in batch])
                model(**inputs).loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, optim.clip)
                optimiser.step()
                optimiser.zero_grad()
            model.eval()
            with torch.no_grad():
                rows = [encoded.evaluation[index] for index in range(len(encoded.evaluation))]
                for at in range(0, len(rows), optim.eval_batch_size):
                    model(**batches(rows[at : at + optim.eval_batch_size]))
            unipet.eject(model)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
