"""torch.compile of adapted models: one graph, no breaks, the same numbers; and the one exception, mixtures in training.

Every insertion of every shipped method is in one method here, because compiling takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS, Arch
from tests.support.matrix import METHODS, close, randomise
from unipet.adaptation.adapted import adaptation
from unipet.calculus.library import load_method

ONE_LAYER = {"num_hidden_layers": 1, "num_layers": 1, "encoder_layers": 1, "decoder_layers": 1, "n_layer": 1}
Backend = Callable[[torch.fx.GraphModule, list[Tensor]], Callable[..., Any]]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def small(arch: str, attention: str = "sdpa") -> Arch:
    options = {**ARCHS[arch].options}
    options |= {key: 1 for key in ONE_LAYER if key in options}
    return replace(ARCHS[arch], options=options, attentions=(attention,))


def everything(*stacks: str) -> dict[str, Any]:
    """The insertions of every shipped method, mixtures included; once where two differ in numbers only.

    `stacks` take turns. Prompts lengthen the sequence outside the stack: they are not among them.
    """
    insertions: dict[str, Any] = {}
    seen: set[str] = set()
    for name in METHODS:
        for key, insertion in METHODS[name].to_dict()["insertions"].items():
            if insertion["composition"]["name"] == "concat":
                continue
            if "size" in insertion.get("function", {}):
                insertion["function"]["size"] = 4
            kind = repr({**insertion, "scaling": insertion["scaling"]["name"]}).replace("'lora'", "'bert'")
            if kind not in seen:
                insertion["position"]["stack"] = stacks[len(insertions) % len(stacks)]
                insertions[f"{name}_{key}"] = insertion
            seen.add(kind)
    return {"name": "everything", "insertions": insertions}


def counted(backend: str) -> tuple[list[int], Backend]:
    """A backend that counts the graphs it is given."""
    graphs: list[int] = []
    inner = torch._dynamo.lookup_backend(backend)

    def compile_graph(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(len(graph.graph.nodes))
        return inner(graph, inputs)

    return graphs, compile_graph


def adapted(arch: Arch, method: Any, std: float = 0.1) -> nn.Module:
    model = arch.build()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unipet.adapt(model, method)
    randomise(model, std)
    return model


@pytest.mark.parametrize(("arch", "stacks"), [("bert", ["all"]), ("gpt2", ["all"]), ("t5", ["encoder", "decoder"])])
def test_an_adapted_model_is_one_graph(arch: str, stacks: list[str]) -> None:
    """GPT-2 with eager attention, the others with sdpa."""
    tiny = small(arch, attention="eager" if arch == "gpt2" else "sdpa")
    model, batch, other = adapted(tiny, everything(*stacks)), tiny.batch(2, 6), tiny.batch(2, 6, seed=1)
    graphs, backend = counted("eager")
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad():
        for given in (batch, other, batch):
            found = compiled(**given).logits
            assert close(found, model(**given).logits)
    assert len(graphs) == 1, "the same shapes compile once"


def test_a_training_step_of_a_compiled_model() -> None:
    """Forward and backward graphs of gates, prefixes, their shared network, low-rank maps and bottlenecks."""
    tiny, spec = small("llama"), load_method("unipelt").to_dict()
    model, batch = adapted(tiny, spec), tiny.batch(2, 6)
    model.train()
    graphs, backend = counted("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    found: list[dict[str, Tensor]] = []
    for run in (model, compiled, compiled):
        model.zero_grad()
        tiny.real(batch, run(**batch, use_cache=False).logits).logsumexp(-1).sum().backward()
        found.append({name: p.grad.clone() for name, p in unipet.parameters(model).items() if p.grad is not None})
    assert found[0].keys() == unipet.parameters(model).keys() and len(graphs) == 1
    for name, expected in found[0].items():
        assert close(found[1][name], expected, 1e-4) and torch.equal(found[1][name], found[2][name]), name


def test_a_mixture_in_training_compiles_once_per_route() -> None:
    """The exception that docs/architecture.md names: routes are Python choices, and each makes a graph of its own."""
    tiny = small("bert")
    model, batch = adapted(tiny, "adamix"), tiny.batch(2, 6)
    model.train()
    inserted, (graphs, backend) = adaptation(model), counted("eager")
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    seen = set()
    for step in (0, 1, 0, 1):
        inserted.draw(step, seed=0)
        seen.add(repr(inserted.context.routes[0]))
        gradients = []
        for run in (model, compiled):
            model.zero_grad()
            run(**batch).logits.sum().backward()
            gradients.append({n: p.grad.clone() for n, p in unipet.parameters(model).items() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys(), "experts that were not picked have no gradient"
        assert all(close(gradients[1][name], gradients[0][name]) for name in gradients[0])
    assert len(graphs) == len(seen) == 2
