"""What a method's own kernels take on this machine, when nothing else is done: `python -m benchmarks.speed_bound`.

Writes benchmarks/results/speed_bound.json and its table in docs/performance.md: MiniLM, 16 x 64 tokens, as in `make bench`. In
turn with the floor's step it times the kernels that a method cannot do without, forward and backward, on tensors of its shapes:
for LoRA two narrow products beside each linear module and the four of their gradients; for DoRA these, the norms of W + BA, and
a scaled output with its gradients; for a prefix the attention with its columns less the attention without; for UniPELT the
narrow products of adapter and LoRA, a gate at each of the three that reads x and what it scales, a prefix, the network behind
it, and AdamW over what all of this trains; for (IA)³ scaled outputs with their gradients; for VeRA its two products, of which
query and value share the first, and its vectors; for Compacter the products of its adapters and the sums of Kronecker products
that its matrices are, less what of the floor's step lies before the first adapter. A step of the floor with these kernels and
nothing else takes `bound` times the floor.

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
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks import speed_kernels as kernels
from benchmarks import speed_results
from benchmarks.speed_measuring import SEED, columns, keep_freed_memory, take_turns
from benchmarks.speed_models import Workload, bert, on_cpu, tiny
from benchmarks.speed_pairs import PAIRS, Pair
from benchmarks.speed_profile import TARGETS
from benchmarks.speed_variants import Variant, floor, ours
from unipet.adaptation.adapted import adaptation

NAME = "speed_bound"
LOW_RANK = ("LoRA, q and v", "LoRA, all linears")
DORA, PREFIX, UNIPELT, COMPACTER = "DoRA", "prefix, 30 tokens", "UniPELT", "Compacter"
#: The kernels of a method besides its prefix's.
KERNELS: dict[str, Callable[[Variant, Mapping[str, int]], list[Callable[[], None]]]] = {
    **dict.fromkeys(LOW_RANK, lambda variant, sizes: [kernels.low_rank(variant, sizes)]),
    DORA: lambda variant, sizes: [kernels.low_rank(variant, sizes), kernels.rescaling(variant, sizes)],
    "(IA)³": lambda variant, sizes: [kernels.scaled_outputs(variant)],
    "VeRA": lambda variant, sizes: [kernels.random_products(variant)],
    UNIPELT: lambda variant, sizes: [
        kernels.low_rank(variant, sizes),
        kernels.gates(variant),
        kernels.network(variant, _prefix(variant), max(sizes.values())),
    ],
    COMPACTER: lambda variant, sizes: [kernels.made_bottlenecks(variant)],
}
METHODS = (*LOW_RANK, DORA, "(IA)³", "VeRA", PREFIX, UNIPELT, COMPACTER)


def small(config: Any) -> Workload:
    """A model of as many layers where hardly anything is to be computed."""
    return Workload("64 wide", "encoder", bert(64, config.num_hidden_layers, 4, 96, 200), 2, 8, ("bert.embeddings",))


def bounds(base: nn.Module, workload: Workload, pairs: Mapping[str, Pair], seconds: float) -> list[dict[str, Any]]:
    """One row for each method, all jobs taking turns."""
    variants = {name: ours(base, pairs[name], workload, "cpu", False) for name in METHODS}
    sizes = {name: _sizes(pairs[name]) for name in METHODS}
    work = small(base.config)
    built = work.build()
    # A method whose first insertion is behind the first attention needs no gradient before it.
    begins = (adaptation(variants[COMPACTER].model).items[0].site.path,)
    jobs: dict[str, Callable[[], None]] = {
        "floor": floor(base, workload, "cpu", False).step,
        "later floor": floor(base, replace(workload, embedded=begins), "cpu", False).step,
        "floor calls": floor(built, work, "cpu", False).step,
        "later floor calls": floor(built, replace(work, embedded=begins), "cpu", False).step,
    }
    short, (long,) = sizes[UNIPELT].pop("prefix"), sizes[PREFIX].values()
    for count in (0, short, long):
        jobs[f"{count} columns"] = kernels.attention(base.config, workload, count)
    for name, variant in variants.items():
        jobs |= {name: _together(KERNELS[name](variant, sizes[name]))} if name in KERNELS else {}
        jobs[f"{name} calls"] = ours(built, pairs[name], work, "cpu", False).step
    times = take_turns(jobs, seconds, 5, 1000, "cpu")

    def of(*names: str) -> list[float]:
        """Round by round, the time of the first less that of the second, plus that of the third less that of the fourth, ..."""
        return [sum(each[0::2]) - sum(each[1::2]) for each in zip(*(times[name] for name in names), strict=True)]

    columns_of = {UNIPELT: (f"{short} columns", "0 columns"), PREFIX: (f"{long} columns", "0 columns")}
    own: dict[str, list[float]] = {"floor": times["floor"]}
    for name in METHODS:
        least = ("later floor", "floor") if name == COMPACTER else ()
        alone = (name,) if name in KERNELS else ()
        parts = (*columns_of.get(name, ()), *least, *alone)
        own[name] = of(*parts)
        own[f"{name} calls"] = of(f"{name} calls", "later floor calls" if name == COMPACTER else "floor calls")
    found = columns(own)
    return [
        {"method": name, "target": TARGETS[name], "rounds": found["rounds"], "floor_ms": found["floor_ms"]}
        | {f"own{end}_ms": found[f"{name}_ms{end}"] for end in ("", "_low", "_high")}
        | {f"bound{end}": 1 + found[f"{name}_ratio{end}"] for end in ("", "_low", "_high")}
        | {"calls_ms": found[f"{name} calls_ms"]}
        | {"with_calls": 1 + found[f"{name}_ratio"] + found[f"{name} calls_ratio"]}
        for name in METHODS
    ]


def _together(jobs: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def run() -> None:
        for job in jobs:
            job()

    return run


def _prefix(variant: Variant) -> int:
    """How many columns the method puts before the keys."""
    found = (item.parts.function for item in adaptation(variant.model).items if item.name == "prefix")
    size: int = next(found).size  # type: ignore[attr-defined]
    return size


def _sizes(pair: Pair) -> dict[str, int]:
    """Rank, length or bottleneck of the pair's insertions."""
    functions = {name: insertion["function"] for name, insertion in pair.spec()["insertions"].items()}
    return {name: function["size"] for name, function in functions.items() if "size" in function}


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
    kept = keep_freed_memory()
    torch.manual_seed(SEED)
    work = tiny()[0] if asked.tiny else on_cpu(16)[0]
    rows = bounds(work.build(), work, {pair.name: pair for pair in PAIRS}, asked.seconds)
    about = speed_results.about("python -m benchmarks.speed_bound", SEED, load) | {"freed_memory_kept": kept}
    content = {**about, "rows": rows}
    print(table(content))
    if not asked.tiny:
        file = speed_results.RESULTS / f"{NAME}.json"
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        speed_results.put_into(speed_results.PAGE, NAME, table(content))


if __name__ == "__main__":
    sys.exit(main())
