"""What a second view costs: writes benchmarks/results/two_views.json.

    python -m benchmarks.two_views [--repetitions 40] [--warm 4]

Training steps (forward, backward, AdamW) of AdaMix, AdaMix for LoRA and R-Drop on LoRA, each with its objective of two views
and with the same method without it, on the embedded base model: one random batch of 16 sentences of 32 tokens, float32, one
thread. The two kinds of step take turns, in an order that alternates. Figures are medians of the process's CPU seconds, which
depend less on what else the machine does than wall seconds. `ratio` is that of the medians, `pairs` the quartiles of the ratios
of neighbouring steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import unipet
from benchmarks.speed_models import minilm
from benchmarks.speed_results import about
from unipet.adaptation.adapted import adaptation
from unipet.calculus.library import load_method
from unipet.training.step import Loss

RESULTS = Path(__file__).resolve().parent / "results" / "two_views.json"
#: What is measured: method, and the objective of two views.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "adamix": ("adamix", {"consistency": {}}),
    "adamix_lora": ("adamix_lora", {"consistency": {}}),
    "lora with r_drop": ("lora", {"r_drop": {}}),
}
ROWS, LENGTH, LABELS = 16, 32, 2
LIMIT = 2.05


def stepper(method: str, objective: dict[str, Any]) -> Callable[[int], None]:
    """A training step of this method with this objective on a model of its own."""
    torch.manual_seed(0)
    model = minilm().train()
    spec = load_method({**load_method(method).to_dict(), "objective": objective})
    unipet.adapt(model, spec)
    owned = list(unipet.parameters(model, head=True).values())
    optimiser, loss = torch.optim.AdamW(owned, lr=1e-4, fused=True), Loss(spec.objective)
    inserted = adaptation(model)
    batch = {
        "input_ids": torch.randint(1000, 20000, (ROWS, LENGTH)),
        "attention_mask": torch.ones(ROWS, LENGTH, dtype=torch.long),
        "labels": torch.randint(LABELS, (ROWS,)),
    }

    def step(number: int) -> None:
        inserted.draw(number, seed=0)
        loss.gradients(model, batch, ROWS)
        optimiser.step()
        optimiser.zero_grad()

    return step


def measured(method: str, objective: dict[str, Any], repetitions: int, warm: int) -> dict[str, Any]:
    """CPU milliseconds of a step with one view and with two, and their ratio."""
    steps = {"one_view": stepper(method, {}), "two_views": stepper(method, objective)}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(warm + repetitions):
        for name in sorted(steps, reverse=bool(number % 2)):
            begun = time.process_time()
            steps[name](number)
            if number >= warm:
                taken[name].append(1000 * (time.process_time() - begun))
    medians = {name: statistics.median(each) for name, each in taken.items()}
    pairs = [two / one for one, two in zip(taken["one_view"], taken["two_views"], strict=True)]
    quartiles = statistics.quantiles(pairs, n=4)
    return {
        **{f"{name}_ms": round(each, 2) for name, each in medians.items()},
        "ratio": round(medians["two_views"] / medians["one_view"], 3),
        "pairs": {name: round(each, 3) for name, each in zip(("q1", "median", "q3"), quartiles, strict=True)},
    }


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--warm", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()
    cases = {name: measured(*case, asked.repetitions, asked.warm) for name, case in CASES.items()}
    command = f"python -m benchmarks.two_views --repetitions {asked.repetitions} --warm {asked.warm}"
    content = {
        **about(command, 0, load),
        "what": f"CPU milliseconds of a training step, {ROWS} x {LENGTH} tokens, MiniLM, float32, one thread; limit {LIMIT}",
        "cases": cases,
    }
    asked.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name, case in cases.items():
        print(f"{name}: {case['one_view_ms']} -> {case['two_views_ms']} ms, {case['ratio']} times")
    return 0 if all(case["ratio"] <= LIMIT for case in cases.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
