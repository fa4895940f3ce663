"""How exact merging is: for every shipped method and number format, the merged model's outputs against the unmerged one's.

    python -m benchmarks.merge_errors [--methods lora,dora]

Writes benchmarks/results/merge_errors.json and .csv. The base model is MiniLM with a random classifier; every trained tensor of
a method is moved by N(0, 0.1), so that it changes the outputs (`effect`: by how much, relative to the largest output). The method
is folded in float64 into float32 weights, which are then stored in each format; the unmerged model in float32 is what each is
compared with. `base` is what the format alone does to the base model without a method. `4bit` folds into the weights that the
quantised layers stand for, and compares with the quantised model. Errors are relative to the largest output.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import sys
from typing import Any

import torch

import unipet
from benchmarks import speed_results
from unipet.adaptation.api import parameters
from unipet.adaptation.dequantising import dequantise
from unipet.adaptation.made_up_inputs import made_up_inputs, outputs_of
from unipet.adaptation.proofs import ROUNDING, difference
from unipet.calculus.method_files import method_names
from unipet.compose.composer import composer
from unipet.compose.overrides import plan
from unipet.runs.base_model import load_base_model
from unipet.training.precision import DTYPES

STD, HEAD_STD, SEED = 0.1, 0.2, 0
LABELS = ["no", "yes"]


def main() -> int:
    """Measure, print and write. Exit code 1 where an error in float32 is more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(method_names()))
    asked = parser.parse_args()
    load = os.getloadavg()
    whole, four = base(), base("4bit")
    inputs = made_up_inputs(whole)
    plain = outputs_of(whole, inputs)
    formats = {
        name: relative(plain, outputs_of(copy.deepcopy(whole).to(dtype), inputs)) for name, dtype in DTYPES.items()
    }
    rows = []
    for method in asked.methods.split(","):
        rows.append({"method": method, **measured(method, whole, four, inputs, plain)})
        print(rows[-1], flush=True)
    shipped = asked.methods == ",".join(method_names())
    command = f"python -m benchmarks.merge_errors{'' if shipped else f' --methods {asked.methods}'}"
    limits = {name: ROUNDING[dtype] for name, dtype in DTYPES.items()}
    content = {
        **speed_results.about(command, 0, load),
        "std": STD,
        "head_std": HEAD_STD,
        "seed": SEED,
        "limits": limits,
        "base": formats,
        "rows": rows,
    }
    path = speed_results.RESULTS / "merge_errors.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    with open(path.with_suffix(".csv"), "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["method", "effect", *DTYPES, "4bit", "why_not"], restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return int(any(row.get("fp32", 0.0) > limits["fp32"] for row in rows))


def base(quantization: str | None = None) -> Any:
    """MiniLM with a classifier, the same on every call."""
    with composer(None) as composing:
        model = plan(["model=minilm"], False, composing).config.model
    model.quantization = quantization
    made: Any = load_base_model(model, LABELS, False)[0].eval()
    with torch.no_grad():  # a fresh classifier's outputs are near zero, and so would be all differences
        weight = made.classifier.weight
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(SEED)) * HEAD_STD)
    return made


def measured(method: str, whole: Any, four: Any, inputs: Any, plain: Any) -> dict[str, Any]:
    """The errors of one method, or why it does not fold."""
    model = copy.deepcopy(whole)
    report = unipet.adapt(model, method)
    if stuck := [f"{row.name}: {row.why_not}" for row in report.insertions if not row.foldable]:
        return {"why_not": "; ".join(stuck)}
    move(model)
    before = outputs_of(model, inputs)
    unipet.merge(model)
    found: dict[str, Any] = {"effect": relative(plain, before)}
    for name, dtype in DTYPES.items():
        found[name] = relative(before, outputs_of(copy.deepcopy(model).to(dtype), inputs))
    return found | quantised(method, four, inputs)


def quantised(method: str, four: Any, inputs: Any) -> dict[str, float]:
    """The same over a base model in 4 bits; nothing where the method reads its weights."""
    model = copy.deepcopy(four)
    try:
        unipet.adapt(model, method)
    except unipet.UnipetError:
        return {}
    move(model)
    before = outputs_of(model, inputs)
    dequantise(model)
    model.float()
    try:
        unipet.merge(model)
    except unipet.UnipetError:
        return {}
    return {"4bit": relative(before, outputs_of(model, inputs))}


@torch.no_grad()
def move(model: Any) -> None:
    """Give every trained tensor of a method other values; what starts at zero would hide everything."""
    stream = torch.Generator().manual_seed(SEED)
    for parameter in parameters(model).values():
        parameter.add_(torch.randn(parameter.shape, generator=stream), alpha=STD)


def relative(some: Any, others: Any) -> float:
    """The largest difference of outputs, relative to the largest output."""
    return difference(some, others) / max(float(rows.abs().max()) for rows in some)


if __name__ == "__main__":
    sys.exit(main())
