"""Training steps through torch.compile: one graph of the adapted model for all lengths of batches, with its gradient.

Evaluation and generation are not compiled: they would need graphs of their own, which a short run does not pay back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from unipet.calculus.method import Method
from unipet.config import RunConfig
from unipet.errors import UnipetError

#: Dropout draws from torch's own stream, as without compiling: the losses of a run stay comparable.
_OPTIONS = {"fallback_random": True}
_SAME_ROUTES = ("soft", "fixed")  # routers whose choice is the same in every step
_COMPILERS = ("g++", "clang++", "c++")


def check_compile(config: RunConfig, method: Method) -> None:
    """Raises `UnipetError` for a run that `compile=true` cannot serve: where each step would be compiled again, where the base
    model's layers are no operators that can be compiled, and where there is no compiler."""
    if not config.compile:
        return
    for spec in method.insertions:
        if inside := [role for role in spec.position.site if role.startswith("experts.")]:
            raise UnipetError(
                f"compile: method.insertions.{spec.name} is at {inside[0]}, inside of experts, which take other tokens in each "
                "step. Set compile=false, or use the site experts or ffn."
            )
        if spec.mixture is not None and spec.mixture.router not in _SAME_ROUTES:
            raise UnipetError(
                f"compile: method.insertions.{spec.name}.mixture draws other experts in each step, and each draw would be "
                "compiled again. Set compile=false, or router: soft or fixed."
            )
    if config.model.quantization is not None:
        raise UnipetError(
            f"compile: layers that are stored in {config.model.quantization} (model.quantization) are not compiled. Set "
            "compile=false or model.quantization=null."
        )
    if torch.cuda.is_available():
        missing = None if find_spec("triton") else "triton, which is not installed. Run: pip install triton"
    else:
        names = [os.environ["CXX"]] if os.environ.get("CXX") else list(_COMPILERS)
        missing = None if any(map(shutil.which, names)) else f"a C++ compiler ({' or '.join(names)}) on the PATH"
    if missing:
        raise UnipetError(f"compile: torch.compile needs {missing}, or set compile=false.")


@dataclass(frozen=True)
class CompileReport:
    """`graphs` that were compiled, `graph_breaks` between them (places where Python went on by itself), and the seconds that
    compiling took."""

    graphs: int
    graph_breaks: int
    seconds: float


class Compiled:
    """Forward passes of `model` through its compiled graph."""

    def __init__(self, model: nn.Module, backend: str = "inductor") -> None:
        options: Any = _OPTIONS if backend == "inductor" else None
        self._call: Any = torch.compile(model, backend=backend, options=options)
        self._before = _counts()

    def __call__(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
        """The model's output. Rows and length of a batch are no constants of the graph: else each length would be compiled
        again, until torch gives up."""
        for tensor in inputs.values():
            torch._dynamo.maybe_mark_dynamic(tensor, list(range(min(tensor.dim(), 2))))
        return self._call(**inputs)

    def report(self) -> CompileReport:
        """What has been compiled since."""
        graphs, breaks, seconds = (now - then for now, then in zip(_counts(), self._before, strict=True))
        return CompileReport(int(graphs), int(breaks), seconds)


def _counts() -> tuple[float, float, float]:
    from torch._dynamo.utils import calculate_time_spent, counters

    seconds = calculate_time_spent().get("total_wall_time", 0.0)
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()), seconds
