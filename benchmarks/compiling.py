"""What `compile=true` costs and gains (`make bench-compile`): training steps of LoRA on MiniLM, compiled and not, in turn.

Batches have several lengths, so a graph that holds for one length alone would be compiled again and again. Writes
benchmarks/results/compiling.json: seconds of the first step, seconds of the others (median and quartiles), the ratio of the two
within each round, graphs and breaks, and after how many steps the first one is paid back.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

import unipet
from benchmarks.speed_models import minilm
from benchmarks.speed_results import RESULTS, about
from unipet.calculus.library import load_method
from unipet.training.compiling import Compiled
from unipet.training.step import Loss

LENGTHS = (24, 40, 64, 32, 56, 48)  # of the batches of one round
NAME = "compiling"


def measure(
    method: str, precision: str, rows: int, rounds: int, backend: str, base: nn.Module | None = None
) -> dict[str, Any]:
    """Both ways on one model with one optimiser each; a round has a step of every length."""
    torch.manual_seed(0)
    model = (minilm() if base is None else base).train()
    unipet.adapt(model, method)
    compiled = Compiled(model, backend)
    plain = Loss(load_method(method).objective, precision=precision)
    losses = {"eager": plain, "compiled": Loss(plain.objective, precision=precision, call=compiled)}
    batches = [batch(rows, length) for length in LENGTHS]
    learning = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-6)  # the two ways must not part

    def step(loss: Loss, given: dict[str, Tensor]) -> tuple[float, float]:
        torch.manual_seed(1)  # the same dropout
        began = time.perf_counter()
        value = loss.gradients(model, given, rows)
        optimiser.step()
        optimiser.zero_grad()
        return time.perf_counter() - began, float(value)

    step(plain, batches[0])
    first = step(losses["compiled"], batches[0])[0]
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    apart = 0.0
    for _ in range(rounds):
        taken = {name: [step(loss, given) for given in batches] for name, loss in losses.items()}
        for name, steps in taken.items():
            seconds[name].append(sum(each for each, _ in steps) / len(batches))
        pairs = zip(taken["eager"], taken["compiled"], strict=True)
        apart = max(apart, *(abs(one - other) / abs(one) for (_, one), (_, other) in pairs))
    report = compiled.report()
    ratios = [fast / slow for slow, fast in zip(seconds["eager"], seconds["compiled"], strict=True)]
    gain = median(seconds["eager"]) - median(seconds["compiled"])
    return {
        "method": method,
        "precision": precision,
        "rows": rows,
        "lengths": list(LENGTHS),
        "rounds": rounds,
        "graphs": report.graphs,
        "graph_breaks": report.graph_breaks,
        "first_step_s": first,
        "step_s": {name: spread(values) for name, values in seconds.items()},
        "compiled_over_eager": spread(ratios),
        "paid_back_after_steps": round(first / gain) if gain > 0 else None,
        "largest_relative_difference_of_losses": apart,
    }


def batch(rows: int, length: int) -> dict[str, Tensor]:
    """Random words, of which a third of the rows have padding."""
    ids = torch.randint(1000, 20000, (rows, length))
    mask = torch.ones_like(ids)
    mask[: rows // 3, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(rows) % 2}


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    load, found = os.getloadavg(), []
    for precision in asked.precision:
        found.append(measure(asked.method, precision, asked.rows, asked.rounds, "inductor"))
        print(json.dumps(found[-1], indent=2), flush=True)
        torch.compiler.reset()
    content = {**about("python -m benchmarks.compiling", 0, load), "threads": torch.get_num_threads(), "rows": found}
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"{NAME}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
