"""How many operators a training step of each method runs on a tiny BERT: `python -m tests.support.operators --write` pins them.

Counted are the calls that PyTorch dispatches below autograd, forward and backward, without views. Neither the machine nor the
number of threads nor the sizes of the model change them. The optimiser's step is left out: it follows from what trains.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import unipet
from benchmarks.operators import Operators
from tests.support.architectures import ARCHS
from unipet.calculus.library import load_method
from unipet.calculus.method_files import method_names
from unipet.errors import UnipetError
from unipet.training.step import Loss

PINNED = Path(__file__).resolve().parent.parent / "training" / "operators.json"
#: The row of the frozen base model, whose head alone trains while the gradient flows to the embeddings.
FLOOR = "floor"
#: What a row says beside the number of all operators: products of matrices, and values that the host waits for.
PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "mv", "addmv", "dot")
WAITS = ("_local_scalar_dense", "nonzero", "equal")


def rows() -> list[str]:
    """The floor, and every shipped method that a tiny BERT can carry."""
    return [FLOOR, *sorted(name for name in method_names() if _fits(name))]


def _fits(method: str) -> bool:
    try:
        unipet.adapt(ARCHS["bert"].build(), method)
    except UnipetError:
        return False
    return True


def step_operators(row: str) -> Counter[str]:
    """The operators of a training step, by name."""
    arch = ARCHS["bert"]
    model, batch = arch.build(), arch.batch()
    batch["labels"] = arch.labels(batch)
    method = load_method("head_only" if row == FLOOR else row)
    unipet.adapt(model, method)
    if row == FLOOR:
        model.get_submodule("bert.embeddings").register_forward_hook(_wants_gradient)
    loss = Loss(method.objective)
    model.train()
    _one_step(loss, model, batch)  # the first step may make what later ones keep
    return _one_step(loss, model, batch)


def _wants_gradient(module: object, inputs: object, output: Tensor) -> Tensor:
    return output.detach().requires_grad_()


def _one_step(loss: Loss, model: Any, batch: dict[str, Tensor]) -> Counter[str]:
    torch.manual_seed(0)
    model.zero_grad(set_to_none=True)
    with Operators() as operators:
        loss(model, batch).backward()
    return operators.counts


def pinned_of(counts: Counter[str]) -> dict[str, int]:
    """What the file has of a row."""
    return {
        "operators": counts.total(),
        "products": sum(counts[name] for name in PRODUCTS),
        "waits": sum(counts[name] for name in WAITS),
    }


def versions() -> dict[str, str]:
    """The libraries that the counts depend on."""
    return {"torch": torch.__version__.partition("+")[0], "transformers": transformers.__version__}


def main() -> None:
    """Print every row that differs from the file; with `--write`, renew the file."""
    before = json.loads(PINNED.read_text(encoding="utf-8"))["rows"] if PINNED.is_file() else {}
    now = {row: pinned_of(step_operators(row)) for row in rows()}
    for row in sorted(before.keys() | now.keys()):
        if before.get(row) != now.get(row):
            print(f"{row}: {before.get(row)} -> {now.get(row)}")
    if "--write" in sys.argv[1:]:
        lines = ",\n".join(f'    "{row}": {json.dumps(counts)}' for row, counts in now.items())
        text = f'{{\n  "versions": {json.dumps(versions())},\n  "rows": {{\n{lines}\n  }}\n}}\n'
        PINNED.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
