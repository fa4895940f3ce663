"""Calibrating the memory prediction on a GPU: `python benchmarks/gpu.py` writes benchmarks/results/gpu_memory.json.

The prediction counts what a training step allocates. A GPU's budget also pays for what the prediction cannot see, so each
part is measured as a term of its own over a table of cases: the workspace of libraries (allocated beyond the prediction),
fragmentation (reserved beyond allocated), and the driver's context (outside the allocator). It closes with the
`budget.memory_margin` that covers the first two on this device. Needs torch with CUDA, transformers and unipet only.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from memory import Case, measure, summary

RESULT = Path(__file__).resolve().parent / "results" / "gpu_memory.json"


def cases() -> Iterator[Case]:
    """Batches that fill a part of a GPU, small to large, with what changes how a step is taken."""
    for model in ("minilm", "gpt2", "bart", "llama", "t5"):
        for method in ("lora", "mam", "adamix", "full"):
            yield Case(method, model, 16, 128)
        yield Case("lora", model, 64, 256)
        yield Case("lora", model, 64, 256, checkpointing=True)
        yield Case("lora", model, 64, 256, precision="bf16")
        yield Case("lora", model, 64, 256, micro_batch=16)


def calibration(table: list[dict[str, Any]]) -> dict[str, float]:
    """The terms beside the prediction; sizes in MiB."""
    beyond = [row["allocated_mib"] - row["predicted_mib"] for row in table]
    fragmentation = [row["reserved_mib"] / row["allocated_mib"] - 1 for row in table]
    margins = [1 - row["predicted_mib"] / row["reserved_mib"] for row in table]
    return {
        "context_mib": max(row["context_mib"] for row in table),
        "workspace_mib_median": statistics.median(beyond),
        "workspace_mib_highest": max(beyond),
        "fragmentation_median": statistics.median(fragmentation),
        "fragmentation_highest": max(fragmentation),
        "memory_margin": max(0.0, *margins),
    }


def main() -> str | None:
    """Measure everything; a message where there is nothing to measure on."""
    import torch

    if not torch.cuda.is_available():
        return "benchmarks/gpu.py: this machine has no CUDA device that torch can use; nothing was measured or written."
    from unipet.runs.record_files import write_json_atomic
    from unipet.runs.versions import versions

    torch.zeros(1, device="cuda:0")  # the context, before anything is measured
    table = []
    for case in cases():
        row = measure(case, "cuda:0")
        table.append(row)
        print(
            f"{case.model:7} {case.method:7} {case.batch:3} x {case.length:3}: predicted {row['predicted_mib']:9.1f}, allocated "
            f"{row['allocated_mib']:9.1f}, reserved {row['reserved_mib']:9.1f} MiB ({row['error_percent']:+.2f} %)",
            flush=True,
        )
    terms = calibration(table)
    print(json.dumps({**summary(table), **terms}, indent=2))
    print(f"\nOn this device: budget.memory_margin={terms['memory_margin']:.2f}")
    content = {"command": "python benchmarks/gpu.py", "seed": 0, "versions": versions().to_dict(), "calibration": terms}
    write_json_atomic(RESULT, {**content, "summary": summary(table), "cases": table})
    return None


if __name__ == "__main__":
    sys.exit(main())
