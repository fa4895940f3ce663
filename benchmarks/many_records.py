"""How long `unipet runs` and `unipet report` take on many records: `python benchmarks/many_records.py`.

It writes 10 methods x 10 tasks x 100 seeds = 10,000 finished runs, as a sweep leaves them: the configuration that the command
line composes, the record with every insertion of the method on MiniLM, predictions on 200 examples, metrics. Scores are drawn
at random, no model is trained. Then each command is timed in a process of its own: first with no index, then with the one
that it left. The figures go to benchmarks/results/many_records.json. `--keep DIR` leaves the runs in DIR and uses them again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unipet.runs.record_files import write_json_atomic
from unipet.runs.versions import now, versions

RESULT = Path(__file__).parent / "results" / "many_records.json"
METHODS = (
    "adapter", "adapter_pfeiffer", "prefix", "lora", "mam", "parallel_adapter", "ia3", "bitfit", "adamix", "compacter",
)  # fmt: skip
TASKS = ("sst2", "cola", "mrpc", "rte", "cr", "mr", "mpqa", "subj", "trec", "boolq")
STEPS = 300


def composed(methods: int, tasks: int) -> Iterator[tuple[Any, Any]]:
    """The configuration of every method on every task, and the record that its runs share."""
    from dataclasses import replace

    from unipet.adaptation.describing import describe
    from unipet.calculus.library import load_method
    from unipet.compose.composer import composer
    from unipet.compose.overrides import plan
    from unipet.runs.base_model import skeleton
    from unipet.runs.record import InsertionRow, Params, blank_record

    with composer(None) as composing:
        for task in TASKS[:tasks]:
            for method in METHODS[:methods]:
                chosen = [f"method={method}", f"task={task}", "model=minilm", f"budget.max_steps={STEPS}"]
                config = plan(chosen, False, composing).config
                config = replace(config, method=load_method(config.method).to_dict())
                report = describe(config.method, skeleton(config.model, "classification")).to_dict()
                record = blank_record(config, method, "")
                record.params = Params.from_dict(report["params"])
                record.insertions = [InsertionRow.from_dict(row) for row in report["insertions"]]
                record.composition = dict(config.method)
                yield config, record


def write_runs(root: Path, methods: int, tasks: int, seeds: int, examples: int) -> None:
    """Every run below `root`."""
    from dataclasses import asdict

    from unipet.calculus.yaml_reader import write_yaml

    hard = np.random.default_rng(7).random(examples)  # the same examples are hard for every method
    truth = np.arange(examples) % 2
    for number, (config, shared) in enumerate(composed(methods, tasks)):
        config.seed = 0
        text, base = write_yaml(asdict(config)), shared.to_dict()
        if "\nseed: 0\n" not in text:
            raise SystemExit("a configuration without a line for the seed")
        rate = 0.70 + 0.02 * (number % methods)
        for seed in range(seeds):
            rng = np.random.default_rng([number, seed])
            right = 0.8 * hard + 0.2 * rng.random(examples) < rate
            write_run(root, text.replace("\nseed: 0\n", f"\nseed: {seed}\n"), base, seed, right, truth)


def write_run(root: Path, config: str, base: dict[str, Any], seed: int, right: Any, truth: Any) -> None:
    """One finished run."""
    run_id = hashlib.sha256(config.encode()).hexdigest()[:16]
    directory = root / f"{base['method']}-{base['task']}-s{seed}-{run_id[:8]}"
    (directory / "adapter").mkdir(parents=True)
    score, lines = float(right.mean()), []
    guess = np.where(right, truth, 1 - truth)
    for at in range(len(right)):
        line = {"id": str(at), "prediction": int(guess[at]), "label": int(truth[at]), "score": float(right[at])}
        lines.append(json.dumps(line) + "\n")
    steps = [{"step": step, "loss": 1 / step, "lr": 1e-4, "grad_norm": 1.5} for step in range(10, STEPS + 1, 10)]
    sums = {name: hashlib.sha256(f"{run_id}{name}".encode()).hexdigest() for name in ("metrics.jsonl", "config.yaml")}
    record = base | {
        "status": "ok",
        "run_id": run_id,
        "seed": seed,
        "score": score,
        "metric": "accuracy",
        "metrics": {"accuracy": score},
        "stopped_by": "max_steps",
        "time": {"total_s": 40.0 + seed / 7, "train_s": 30.0 + seed / 7, "step_ms": 100.0, "steps": STEPS},
        "memory": {"peak_gib": 0.9 + seed / 1000, "predicted_gib": 0.8, "measured_by": "process_rss"},
        "files": sums,
        "data": {
            "source": f"files:{base['task']}",
            "fingerprint": hashlib.sha256(base["task"].encode()).hexdigest()[:16],
            "train": 4000,
            "evaluation": len(right),
            "selection": {"by": "none", "examples": 0},
            "scoring": {"higher_is_better": True, "scales": {"accuracy": "0 to 1"}, "notes": {}},
        },
        "finished": now(),
    }
    (directory / "result.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    (directory / "config.yaml").write_text(config, encoding="utf-8")
    (directory / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    (directory / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps), encoding="utf-8")
    (directory / "adapter" / "method.yaml").write_text(config.split("\ntask:")[0], encoding="utf-8")


def timed(*arguments: str) -> dict[str, float]:
    """Seconds of `unipet ...` in a process of its own, by the clock and of the processor, and its largest memory."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "unipet", *arguments], stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_mib": round(after.ru_maxrss / 1024)}


def measure(root: Path) -> dict[str, Any]:
    """The commands, with no index and with the one that the first of them left."""
    page = root.parent / "report.html"
    shutil.rmtree(root / ".cache", ignore_errors=True)
    return {
        "runs, no index": timed("runs", f"runs_dir={root}"),
        "runs": timed("runs", f"runs_dir={root}"),
        "runs, filtered": timed("runs", f"runs_dir={root}", "method=lora", "task=sst2", "score>0.7"),
        "report": timed("report", str(root)),
        "report --html": timed("report", str(root), "--html", str(page)),
        "page_bytes": page.stat().st_size,
        "index_bytes": sum(path.stat().st_size for path in root.rglob(".cache/*") if path.is_file()),
    }


def main() -> None:
    """Write, measure, state."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", type=int, default=len(METHODS))
    parser.add_argument("--tasks", type=int, default=len(TASKS))
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="a directory for the runs, used again where it has them")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = (asked.keep or Path(scratch)) / "runs"
        if not root.is_dir():
            write_runs(root, asked.methods, asked.tasks, asked.seeds, asked.examples)
        figures = measure(root)
    runs = asked.methods * asked.tasks * asked.seeds
    facts = {"records": runs, "examples": asked.examples, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    write_json_atomic(asked.out, {**facts, "made": now(), "versions": versions().to_dict(), "figures": figures})
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
