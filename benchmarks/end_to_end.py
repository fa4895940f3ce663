"""From the command to the score: `unipet train` beside peft and transformers' Trainer (`make bench-end-to-end`).

LoRA on MiniLM, 1,600 sentences of SST-2, one epoch in batches of 16, all 872 validation sentences scored. Each repetition starts
both commands in turn, each in a process of its own with an empty directory and nothing cached.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import speed_results
from benchmarks.speed_measuring import spread

NAME = "end_to_end"
PEER = Path(__file__).resolve().parent / "peft_trainer.py"
UNIPET = "unipet train"
TRAINER = "peft + Trainer"
#: The phases of a record whose sums the table shows.
SHOWN = (("import", "base_model"), ("training", "evaluation"))


def compare(data: Path, place: Path, quick: bool) -> None:
    """Measure, write end_to_end.json to `place`, and the page where `place` has the committed results."""
    if not (data / "sst2" / "train.jsonl").is_file():
        raise SystemExit(f"--data: {data} has no sst2/train.jsonl. The files are those of GLUE, as JSON lines.")
    sizes, repetitions = ((64, 64), 1) if quick else ((1600, 872), 5)
    load = os.getloadavg()
    seconds: dict[str, list[float]] = {UNIPET: [], "unipet train, bf16": [], TRAINER: []}
    scores: dict[str, list[float]] = {name: [] for name in seconds}
    phases: dict[str, dict[str, list[float]]] = {name: {} for name in seconds if name != TRAINER}
    with tempfile.TemporaryDirectory() as directory:
        prepare(data / "sst2", Path(directory) / "data", sizes)
        for number in range(repetitions):
            names = list(seconds)
            for name in names[number % 3 :] + names[: number % 3]:
                took, score, parts = once(name, Path(directory) / "data", Path(directory) / f"{number} {name}")
                seconds[name].append(took)
                scores[name].append(score)
                for phase, spent in parts.items():
                    phases[name].setdefault(phase, []).append(spent)
                print(f"{name}: {took:.1f} s, accuracy {score:.3f}", flush=True)
    content = {
        **speed_results.about("python -m benchmarks.speed --end-to-end" + " --quick" * quick, 0, load),
        "sentences": {"train": sizes[0], "validation": sizes[1]},
        "seconds": seconds,
        "accuracy": scores,
        "phases": phases,
    }
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{NAME}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if place == speed_results.RESULTS:
        speed_results.put_into(speed_results.PAGE, NAME, table(content))


def prepare(source: Path, data: Path, sizes: Sequence[int]) -> None:
    """The same examples for both: a fixed sample of each split."""
    data.mkdir(parents=True)
    for split, size in zip(("train", "validation"), sizes, strict=True):
        lines = (source / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        chosen = random.Random(0).sample(lines, min(size, len(lines)))
        (data / f"{split}.jsonl").write_text("\n".join(chosen) + "\n", encoding="utf-8")


def once(name: str, data: Path, out: Path) -> tuple[float, float, dict[str, float]]:
    """(seconds from the start of the process to its end, accuracy, the seconds of each phase that our record says)."""
    out.mkdir()
    if name == TRAINER:
        command = [sys.executable, str(PEER), str(data), str(out)]
    else:
        words = ["method=lora", "model=minilm", "task=sst2", f"task.data_dir={data}", "task.selection=none"]
        words += ["optim.batch_size=16", "optim.epochs=1", "runs_dir=runs", "seed=0"]
        words += ["precision=bf16"] if name.endswith("bf16") else []
        command = [sys.executable, "-m", "unipet", "train", *words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "UNIPET_CACHE": str(out / "cache")}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=out, env=environment, capture_output=True, encoding="utf-8", check=False)
    took = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    if name == TRAINER:
        return took, float(done.stdout.split()[-1]), {}
    (file,) = (out / "runs").rglob("result.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    return took, float(record["score"]), record["time"]["phases_s"]


def table(content: dict[str, Any]) -> str:
    """The measurement as Markdown."""
    loads = f"{content['load_average_before'][0]:.1f} before, {content['load_average_after'][0]:.1f} after"
    lines = [
        f"Made by `{content['command']}` on {content['measured'][:10]}: {content['versions']['machine']['device']}, "
        f"load average {loads}; {content['sentences']['train']} sentences, medians of "
        f"{len(content['seconds'][UNIPET])} with quartiles.",
        "",
        "| command | seconds | of these imports, base model | training, scoring | beside peft + Trainer | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for name, values in content["seconds"].items():
        middle, low, high = spread(values)
        accuracy = spread(content["accuracy"][name])[0]
        parts = {phase: spread(spent)[0] for phase, spent in content["phases"].get(name, {}).items()}
        shown = [f"{sum(parts[phase] for phase in pair):.1f}" if parts else "-" for pair in SHOWN]
        beside = spread([own / other for own, other in zip(values, content["seconds"][TRAINER], strict=True)])[0]
        cells = [name, f"{middle:.1f} ({low:.1f}-{high:.1f})", *shown, f"{beside:.2f}", f"{accuracy:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
