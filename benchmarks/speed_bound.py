"""What a method's own kernels take on this machine, when nothing else is done: `python -m benchmarks.speed_bound`.

Writes benchmarks/results/speed_bound.json and its table in docs/performance.md: MiniLM, 16 x 64 tokens, as in `make bench`. In
turn with the floor's step it times the kernels that a method cannot do without, forward and backward, on tensors of its shapes:
for LoRA two narrow products beside each linear module and the four of their gradients; for DoRA these, the norms of W + BA, and
a scaled output with its gradients; for a prefix the attention with its columns less the attention without; for UniPELT the
narrow products of adapter and LoRA, a gate at each of the three that reads x, a prefix, the network behind it, and AdamW over
what all of this trains. A step of the floor with these kernels and nothing else takes `bound` times the floor.

A step also has to call them, and to look up, cut and view what they work on, which costs the same however small they are. That
is measured too: how much longer the method's step takes than the floor's on a model of as many layers, but 64 wide, with 16
tokens. `with calls` is the bound with that added.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks import speed_results
from benchmarks.speed_measuring import SEED, columns, take_turns
from benchmarks.speed_models import Workload, bert, on_cpu, tiny
from benchmarks.speed_pairs import PAIRS, Pair
from benchmarks.speed_profile import TARGETS
from benchmarks.speed_variants import Variant, floor, ours
from unipet.adaptation.adapted import adaptation

NAME = "speed_bound"
LOW_RANK = ("LoRA, q and v", "LoRA, all linears")
DORA, PREFIX, UNIPELT = "DoRA", "prefix, 30 tokens", "UniPELT"


def low_rank(variant: Variant, sizes: Mapping[str, int]) -> Callable[[], None]:
    """The two products at every site of the insertions named in `sizes`, their outputs added in the products' own kernels,
    and the four of the gradients."""
    tokens = variant.workload.batch * variant.workload.length
    made = []
    for width, out, size in _linears(variant, sizes):
        x_ND, h_NE, g_NE = (torch.randn(tokens, each) for each in (width, out, out))
        made.append((x_ND, h_NE, g_NE, torch.randn(size, width), torch.randn(out, size)))

    def run() -> None:
        for x_ND, h_NE, g_NE, A_RD, B_ER in made:
            z_NR = x_ND @ A_RD.T
            torch.addmm(h_NE, z_NR, B_ER.T)
            dz_NR = g_NE @ B_ER
            g_NE.T @ z_NR
            dz_NR.T @ x_ND
            torch.addmm(x_ND, dz_NR, A_RD)

    return run


def rescaling(variant: Variant, sizes: Mapping[str, int]) -> Callable[[], None]:
    """Row norms of W + BA, outputs scaled by them, and the gradients of outputs and of magnitudes, at every site."""
    tokens = variant.workload.batch * variant.workload.length
    made = []
    for width, out, size in _linears(variant, sizes):
        h_NE, g_NE = torch.randn(tokens, out), torch.randn(tokens, out)
        made.append((h_NE, g_NE, torch.randn(out, width), torch.randn(out, size), torch.randn(size, width)))

    def run() -> None:
        for h_NE, g_NE, W_ED, B_ER, A_RD in made:
            gain_E = torch.addmm(W_ED, B_ER, A_RD).norm(dim=1)
            h_NE * gain_E
            g_NE * gain_E
            (g_NE * h_NE).sum(0)

    return run


def gates(variant: Variant) -> Callable[[], None]:
    """At every site a product of x with one vector, its logistic function's mean, and the gradients of vector and x."""
    tokens = variant.workload.batch * variant.workload.length
    width = variant.model.config.hidden_size
    count = len(adaptation(variant.model).items)
    x_ND, w_D1, g_N1 = torch.randn(tokens, width), torch.randn(width, 1), torch.randn(tokens, 1)

    def run() -> None:
        for _ in range(count):
            (x_ND @ w_D1).view(variant.workload.batch, -1).sigmoid().mean(dim=1)
            x_ND.T @ g_N1
            torch.addmm(x_ND, g_N1, w_D1.T)

    return run


def network(variant: Variant, rows: int, narrow: int) -> Callable[[], None]:
    """What rows of a prefix need of every trained matrix that is no bottleneck's (both sides wider than `narrow`): the product,
    and the gradients of matrix and rows. Then AdamW over all that the method trains."""
    trained = [one for one in adaptation(variant.model).parameters() if one.requires_grad]
    tensors = [torch.randn_like(one, requires_grad=True) for one in trained]
    for one in tensors:
        one.grad = torch.zeros_like(one)
    wide = [one for one in tensors if one.dim() == 2 and min(one.shape) > narrow]
    made = [(one, torch.randn(rows, one.shape[1]), torch.randn(rows, one.shape[0])) for one in wide]
    optimiser = torch.optim.AdamW(tensors, fused=True)

    @torch.no_grad()
    def run() -> None:
        for W_EH, z_RH, g_RE in made:
            z_RH @ W_EH.T
            W_EH.grad = g_RE.T @ z_RH
            g_RE @ W_EH
        optimiser.step()

    return run


def _linears(variant: Variant, sizes: Mapping[str, int]) -> list[tuple[int, int, int]]:
    """(width in, width out, bottleneck) at every site of the insertions named in `sizes`. What is put behind a module maps its
    output to its output."""
    found = []
    for item in adaptation(variant.model).items:
        if item.name in sizes:
            module = variant.model.get_submodule(item.site.path)
            out = variant.model.config.hidden_size if not isinstance(module, nn.Linear) else module.out_features
            width = module.in_features if isinstance(module, nn.Linear) and item.reads_x else out
            found.append((width, out, sizes[item.name]))
    return found


def attention(config: Any, workload: Workload, columns_before: int) -> Callable[[], None]:
    """All layers' attention in training, with so many columns before the keys: forward and backward, dropout included."""
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    shape = (workload.batch, heads, workload.length, width)
    q_BHTD, g_BHTD = torch.randn(shape, requires_grad=True), torch.randn(shape)
    k_BHSD, v_BHSD = (torch.randn(*shape[:2], columns_before + shape[2], width, requires_grad=True) for _ in "kv")
    dropout = config.attention_probs_dropout_prob

    def run() -> None:
        for _ in range(config.num_hidden_layers):
            out_BHTD = functional.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, dropout_p=dropout)
            torch.autograd.grad(out_BHTD, (q_BHTD, k_BHSD, v_BHSD), g_BHTD)

    return run


def small(config: Any) -> Workload:
    """A model of as many layers where hardly anything is to be computed."""
    return Workload("64 wide", "encoder", bert(64, config.num_hidden_layers, 4, 96, 200), 2, 8, ("bert.embeddings",))


def bounds(base: nn.Module, workload: Workload, pairs: Mapping[str, Pair], seconds: float) -> list[dict[str, Any]]:
    """One row for each method, all jobs taking turns."""
    at_floor = floor(base, workload, "cpu", False)
    jobs: dict[str, Callable[[], None]] = {"floor": at_floor.step}
    for name in LOW_RANK:
        jobs[name] = low_rank(ours(base, pairs[name], workload, "cpu", False), _sizes(pairs[name]))
    dora = ours(base, pairs[DORA], workload, "cpu", False)
    products, norms = low_rank(dora, _sizes(pairs[DORA])), rescaling(dora, _sizes(pairs[DORA]))
    jobs[DORA] = lambda: (products(), norms())[-1]
    unipelt, sizes = ours(base, pairs[UNIPELT], workload, "cpu", False), _sizes(pairs[UNIPELT])
    short = sizes.pop("prefix")
    narrow, gated, behind = low_rank(unipelt, sizes), gates(unipelt), network(unipelt, short, max(sizes.values()))
    jobs["narrow"] = lambda: (narrow(), gated(), behind())[-1]
    (long,) = _sizes(pairs[PREFIX]).values()
    for count in (0, short, long):
        jobs[f"{count} columns"] = attention(base.config, workload, count)
    methods, work = (*LOW_RANK, DORA, PREFIX, UNIPELT), small(base.config)
    built = work.build()
    bare = floor(built, work, "cpu", False)
    calls = {"floor": bare.step} | {name: ours(built, pairs[name], work, "cpu", False).step for name in methods}
    jobs |= {f"{name} calls": step for name, step in calls.items()}
    times = take_turns(jobs, seconds, 5, 1000, "cpu")
    nothing = times.pop("floor calls")
    for name in methods:
        own = times.pop(f"{name} calls")
        times[f"{name} calls"] = [step - least for step, least in zip(own, nothing, strict=True)]
    plain = times.pop("0 columns")
    times[PREFIX] = [with_it - without for with_it, without in zip(times.pop(f"{long} columns"), plain, strict=True)]
    parts = zip(times.pop("narrow"), times.pop(f"{short} columns"), plain, strict=True)
    times[UNIPELT] = [rest + with_it - without for rest, with_it, without in parts]
    found = columns(times)
    return [
        {"method": name, "target": TARGETS[name], "rounds": found["rounds"], "floor_ms": found["floor_ms"]}
        | {f"own{end}_ms": found[f"{name}_ms{end}"] for end in ("", "_low", "_high")}
        | {f"bound{end}": 1 + found[f"{name}_ratio{end}"] for end in ("", "_low", "_high")}
        | {"calls_ms": found[f"{name} calls_ms"]}
        | {"with_calls": 1 + found[f"{name}_ratio"] + found[f"{name} calls_ratio"]}
        for name in methods
    ]


def _sizes(pair: Pair) -> dict[str, int]:
    """Rank, length or bottleneck of the pair's insertions."""
    return {name: insertion["function"]["size"] for name, insertion in pair.spec()["insertions"].items()}


def table(content: Mapping[str, Any]) -> str:
    """The rows as Markdown."""
    machine = content["versions"]["machine"]
    lines = [
        f"Made by `{content['command']}` on {content['measured'][:10]}: {machine['device']}, {machine['threads']} threads, "
        f"load average {content['load_average_before'][0]:.1f} before, {content['load_average_after'][0]:.1f} after.",
        "",
        "| method | target | floor, ms | its own kernels, ms | bound | its calls, ms | with calls | rounds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        bound = f"{row['bound']:.2f} ({row['bound_low']:.2f}-{row['bound_high']:.2f})"
        cells = [
            row["method"],
            f"{row['target']}",
            f"{row['floor_ms']:.1f}",
            f"{row['own_ms']:.1f}",
            bound,
            f"{row['calls_ms']:.1f}",
            f"{row['with_calls']:.2f}",
            f"{row['rounds']}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tiny", action="store_true", help="a tiny random model; nothing is written")
    asked = parser.parse_args(arguments)
    load = os.getloadavg()
    torch.manual_seed(SEED)
    work = tiny()[0] if asked.tiny else on_cpu(16)[0]
    rows = bounds(work.build(), work, {pair.name: pair for pair in PAIRS}, asked.seconds)
    content = {**speed_results.about("python -m benchmarks.speed_bound", SEED, load), "rows": rows}
    print(table(content))
    if not asked.tiny:
        file = speed_results.RESULTS / f"{NAME}.json"
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        speed_results.put_into(speed_results.PAGE, NAME, table(content))


if __name__ == "__main__":
    sys.exit(main())
