"""Predicted against measured memory of training: `python benchmarks/memory.py` writes benchmarks/results/memory.json.

Every case trains two optimiser steps for real, with the Trainer, under PyTorch's profiler, which reports every
allocation of the CPU allocator; the measured peak is the highest sum of what is alive, the base model's weights included.
The prediction sees the model and one batch, and runs nothing. Models have random weights: memory does not depend on them.
"""

from __future__ import annotations

import gc
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import nn

import unipet
from unipet.calculus.library import load_method
from unipet.config import BudgetConfig, OptimConfig, RunConfig
from unipet.runs.memory import PeakMemory
from unipet.runs.record_files import write_json_atomic
from unipet.runs.versions import versions
from unipet.tasks.collate import collate
from unipet.tasks.readout import next_tokens, rows, tokens
from unipet.training.budget.trace import GIB, StepSettings, trace_step
from unipet.training.step import Loss
from unipet.training.trainer import train

RESULT = Path(__file__).parent / "results" / "memory.json"
MIB = 2**20
_WORDS = {"vocab_size": 16000, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _minilm() -> nn.Module:
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes))


def _gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=384, n_layer=6, n_head=6, **_WORDS))


def _llama() -> nn.Module:
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, intermediate_size=1024, **_WORDS))


def _bart() -> nn.Module:
    sizes = {"d_model": 384, "encoder_layers": 4, "decoder_layers": 4, **_WORDS}
    heads = {"encoder_attention_heads": 6, "decoder_attention_heads": 6}
    config = transformers.BartConfig(**sizes, **heads, encoder_ffn_dim=1536, decoder_ffn_dim=1536)
    return transformers.BartForConditionalGeneration(config)


def _t5() -> nn.Module:
    sizes = {"d_model": 384, "d_kv": 64, "num_heads": 6, "num_layers": 4, "d_ff": 1536, **_WORDS}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "minilm": _minilm,
    "gpt2": _gpt2,
    "llama": _llama,
    "bart": _bart,
    "t5": _t5,
}


@dataclass(frozen=True)
class Case:
    """One line of the table. `length`: tokens of an input; a decoder's target is half as long."""

    method: str
    model: str
    batch: int
    length: int
    micro_batch: int = 0  # 0: the whole batch
    checkpointing: bool = False
    precision: str = "fp32"
    padding: bool = True  # half of the examples are two tokens shorter


def cases() -> Iterator[Case]:
    """The table, in order: 32 plain cases, then what changes how a step is taken."""
    some = ("lora", "mam", "adapter", "prefix_flat", "adamix", "full", "bitfit")
    for model, shape in {"minilm": (8, 64), "gpt2": (4, 64), "bart": (4, 64), "llama": (4, 64), "t5": (4, 64)}.items():
        for method in some[: 7 if model in ("minilm", "gpt2", "bart") else 4]:
            yield Case(method, model, *shape)
    for method in ("dora", "ia3", "prompt_tuning", "compacter", "unipelt", "boft"):
        yield Case(method, "minilm", 16, 32)
    for batch, length in ((4, 128), (32, 32), (2, 256)):
        yield Case("lora", "minilm", batch, length)
    yield Case("lora", "minilm", 8, 64, padding=False)
    yield Case("lora", "gpt2", 4, 64, padding=False)
    for model in ("minilm", "gpt2", "bart"):
        yield Case("lora", model, 8, 64, checkpointing=True)
        yield Case("lora", model, 8, 64, precision="bf16")
        yield Case("mam", model, 8, 64, micro_batch=2)
        yield Case("full", model, 8, 64, micro_batch=2, checkpointing=True)


def examples(case: Case, model: Any, count: int) -> list[dict[str, Any]]:
    """Random tokens of the case's length, with labels as the model's kind of task has them."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(count):
        length = case.length - (2 * (index % 2) if case.padding else 0)
        ids = torch.randint(5, 10000, (length,), generator=generator).tolist()
        if case.model == "minilm":
            labels: Any = index % 2
        elif model.config.is_encoder_decoder:
            labels = ids[: length // 2]
        else:
            labels = [-100] * (length // 2) + ids[length // 2 :]
        found.append({"input_ids": ids, "attention_mask": [1] * length, "labels": labels})
    return found


def measure(case: Case, device: str = "cpu") -> dict[str, Any]:
    """Predict and measure one case; sizes in MiB."""
    torch.manual_seed(0)
    model, method = MODELS[case.model](), load_method(case.method)
    if device != "cpu":
        model.to(device)
    data = examples(case, model, 2 * case.batch)
    batches = collate(SimpleNamespace(pad_token_id=0, pad_token_type_id=0))
    read = {"minilm": rows, "bart": tokens, "t5": tokens}.get(case.model, next_tokens)
    loss = Loss(method.objective, precision=case.precision, read=read)
    size = case.micro_batch or case.batch
    plan = StepSettings(size < case.batch, case.checkpointing)
    started = time.process_time()
    traced = trace_step(model, method, loss, batches(data[:size]), plan, device=device)
    seconds = time.process_time() - started

    optim = OptimConfig(batch_size=case.batch, epochs=2)
    config = RunConfig(optim=optim, budget=BudgetConfig(max_steps=2), precision=case.precision)

    def run() -> None:
        unipet.adapt(model, method)
        with tempfile.TemporaryDirectory() as directory:
            train(
                *(model, method.objective, data, batches, False, config, Path(directory), io.StringIO()),
                lambda values, step: None,
                read=read,
                micro_batch=size,
                checkpointing=case.checkpointing,
            )

    measured = _profiled(model, run) if device == "cpu" else _on_cuda(model, run, device)
    error = traced.peak_bytes / MIB / measured["allocated_mib"] - 1
    return {
        **asdict(case),
        "predicted_mib": traced.peak_bytes / MIB,
        **measured,
        "error_percent": 100 * error,
        "trace_cpu_s": seconds,
    }


def _profiled(model: nn.Module, run: Callable[[], None]) -> dict[str, float]:
    """The peak of the CPU allocator while `run` goes on, from its own reports of every allocation and release."""
    gc.collect()
    base = sum({p.untyped_storage()._cdata: p.untyped_storage().nbytes() for p in _tensors(model)}.values())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return {"allocated_mib": (base + peak) / MIB}


def _on_cuda(model: nn.Module, run: Callable[[], None], device: str) -> dict[str, float]:
    """The CUDA allocator's own peaks, allocated and reserved, and the context's bytes, while `run` goes on."""
    memory = PeakMemory(device)
    base = sum(p.untyped_storage().nbytes() for p in _tensors(model)) / MIB
    run()
    found = {name: float(value or 0) * GIB / MIB for name, value in memory.read().items() if name != "measured_by"}
    return {
        "allocated_mib": base + found["allocated_gib"],
        "reserved_mib": base + found["peak_gib"],
        "context_mib": found["context_gib"],
    }


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def summary(table: list[dict[str, Any]]) -> dict[str, Any]:
    """Median of the absolute errors, and the worst on both sides, in percent."""
    errors = [row["error_percent"] for row in table]
    return {
        "cases": len(table),
        "median_absolute_error_percent": statistics.median(map(abs, errors)),
        "lowest_error_percent": min(errors),
        "highest_error_percent": max(errors),
        "slowest_trace_cpu_s": max(row["trace_cpu_s"] for row in table),
    }


def main() -> None:
    torch.set_num_threads(1)
    table = []
    for case in cases():
        row = measure(case)
        table.append(row)
        shown = " ".join(f"{name}={value}" for name, value in asdict(case).items() if name not in ("method", "model"))
        print(
            f"{case.model:7} {case.method:14} {row['predicted_mib']:9.1f} {row['allocated_mib']:9.1f} MiB "
            f"{row['error_percent']:+6.2f} %  {row['trace_cpu_s']:.1f} s  {shown}",
            flush=True,
        )
    found = summary(table)
    print(json.dumps(found, indent=2))
    content = {"command": "python benchmarks/memory.py", "seed": 0, "versions": versions().to_dict()}
    write_json_atomic(RESULT, {**content, "summary": found, "cases": table})


if __name__ == "__main__":
    sys.exit(main())
