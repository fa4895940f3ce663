"""Memory before training: the traced step against the allocator, the micro-batch that fits, and what it may not change."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS, Arch
from tests.support.checkout import ROOT
from tests.support.running import LOW_RANK, MIXTURE, tiny_config
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.describing import draft
from unipet.calculus.library import load_method
from unipet.config import BudgetConfig
from unipet.errors import UnipetError
from unipet.runs.run import run
from unipet.sweeps import jobs
from unipet.sweeps.launch import close
from unipet.tasks.readout import next_tokens, rows, tokens
from unipet.training.budget.fake_model import on_meta
from unipet.training.budget.memory_fit import MemoryFit, fit_memory, widest
from unipet.training.budget.trace import GIB, StepSettings, Trace, Untraceable, trace_step
from unipet.training.step import Loss

METHODS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
READ = {"encoder": rows, "decoder": next_tokens, "encoder-decoder": tokens}
SHALLOW = {
    "bert": {"num_hidden_layers": 1},
    "gpt2": {"n_layer": 1},
    "bart": {"encoder_layers": 1, "decoder_layers": 1},
}


def batch_of(arch: Arch, count: int = 6, length: int = 8) -> dict[str, Tensor]:
    """A batch as the tasks collate it; rows of a language model have different numbers of answers."""
    batch = arch.batch(count, length)
    if arch.kind == "encoder":
        return {**batch, "labels": torch.arange(count) % 2}
    ids, mask = batch["input_ids"], batch["attention_mask"]
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


@pytest.mark.parametrize("number", range(len(METHODS)), ids=METHODS)
def test_every_method_can_be_traced(number: int) -> None:
    """On an encoder, a decoder or an encoder-decoder, in turn; and what was built before needs the same, however often."""
    method = load_method(METHODS[number])
    name = [*SHALLOW][number % 3] if METHODS[number] != "head_only" else "bert"
    arch = dataclasses.replace(ARCHS[name], options={**ARCHS[name].options, **SHALLOW[name]})
    loss = Loss(method.objective, read=READ[arch.kind])
    model = arch.build()
    found = trace_step(model, method, loss, batch_of(arch))
    assert found.peak_bytes > found.weights_bytes + found.optimiser_bytes
    assert found.optimiser_bytes > 0
    built = draft(method, on_meta(model))
    assert [trace_step(model, method, loss, batch_of(arch), draft=built) for _ in range(2)] == [found, found]


def benchmark(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[f"{name}_benchmark"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:.*Profiler clears events:UserWarning")
@pytest.mark.parametrize(
    ("method", "model", "options"),
    [("lora", "minilm", {"checkpointing": True}), ("mam", "bart", {"micro_batch": 1})],
)
def test_the_prediction_is_what_the_allocator_reports(method: str, model: str, options: dict[str, Any]) -> None:
    made = benchmark("memory")
    row = made.measure(made.Case(method, model, 2, 32, **options))
    assert -5 < row["error_percent"] < 5, row


@pytest.mark.filterwarnings("ignore:.*Profiler clears events:UserWarning")
@pytest.mark.parametrize("pool", ["token", "sequence"])
def test_where_tokens_choose_experts_the_prediction_is_of_all_of_them(
    pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which ones a batch takes is not known before; with hundreds of tokens, all are taken."""
    made = benchmark("memory")
    mixture = {"experts": 4, "router": "learned", "top_k": 2, "pool": pool}
    insertion = {"function": {"name": "bottleneck", "size": 16}, "position": {"site": "ffn", "form": "sequential"}}
    spec = {"name": "x", "insertions": {"one": {**insertion, "mixture": mixture}}}
    monkeypatch.setattr(made, "load_method", lambda name: unipet.calculus.library.load_method(spec))
    row = made.measure(made.Case("x", "minilm", 8, 32))
    assert -5 < row["error_percent"] < 5, row


def test_calibrating_needs_a_gpu_and_covers_every_case(monkeypatch: pytest.MonkeyPatch) -> None:
    made = benchmark("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in made.main()
    rows = [
        {"predicted_mib": 100.0, "allocated_mib": 108.0, "reserved_mib": 120.0, "context_mib": 400.0},
        {"predicted_mib": 1000.0, "allocated_mib": 1010.0, "reserved_mib": 1060.0, "context_mib": 410.0},
    ]
    found = made.calibration(rows)
    assert found["context_mib"] == 410 and found["workspace_mib_highest"] == 10 and found["workspace_mib_median"] == 9
    assert found["fragmentation_highest"] == pytest.approx(120 / 108 - 1)
    assert found["memory_margin"] == pytest.approx(1 - 100 / 120)
    assert len(list(made.cases())) >= 30


def test_the_committed_table_keeps_the_promise() -> None:
    import json

    content = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text())
    table = content["cases"]
    errors = sorted(abs(100 * (row["predicted_mib"] / row["allocated_mib"] - 1)) for row in table)
    assert len(table) >= 40
    assert errors[len(errors) // 2] < 3
    assert min(row["predicted_mib"] / row["allocated_mib"] for row in table) > 0.95


def test_a_trace_touches_neither_the_model_nor_random_numbers() -> None:
    arch = ARCHS["bert"]
    model = arch.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    use_cache, state = model.config.use_cache, torch.get_rng_state()
    trace_step(model, load_method("mam"), Loss(load_method("mam").objective), batch_of(arch), StepSettings(True, True))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not hasattr(model, "_unipet")
    assert model.config.use_cache == use_cache
    assert model.config._attn_implementation == "sdpa"
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_what_a_trace_counts() -> None:
    """Exactly what is known: weights, moments, and that checkpointing, micro-batches and rows change the rest."""
    arch, method = ARCHS["bert"], load_method("lora")
    model, loss = arch.build(), Loss(load_method("lora").objective)
    batch = batch_of(arch, 32, 16)
    found = trace_step(model, method, loss, batch)
    base = sum(p.numel() * 4 for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    unipet.adapt(model, method)
    own = sum(p.numel() * 4 for p in unipet.parameters(model).values())
    head = sum(p.numel() * 4 for p in unipet.parameters(model, head=True).values()) - own
    assert found.weights_bytes == base + own + head  # the head's values before training are kept
    trained = unipet.parameters(model, head=True)
    assert found.optimiser_bytes == sum(8 * p.numel() + 4 for p in trained.values())
    less = trace_step(arch.build(), method, loss, batch, StepSettings(checkpointing=True))
    half = trace_step(arch.build(), method, loss, {name: value[:16] for name, value in batch.items()})
    assert less.rest_bytes < 0.8 * found.rest_bytes
    assert 0.45 * found.rest_bytes < half.rest_bytes < 0.6 * found.rest_bytes


def test_a_step_that_depends_on_weights_is_said_to_be_untraceable() -> None:
    model = ARCHS["bert"].build()
    model.bert.pooler.register_forward_hook(lambda module, args, output: output * float(output.sum()))
    method = load_method("lora")
    with pytest.raises(Untraceable, match="'lora' cannot be predicted"):
        trace_step(model, method, Loss(method.objective), batch_of(ARCHS["bert"]))


def test_an_adapted_model_is_not_traced() -> None:
    model, method = ARCHS["bert"].build(), load_method("lora")
    unipet.adapt(model, method)
    with pytest.raises(UnipetError, match=r"Call unipet\.eject"):
        trace_step(model, method, Loss(method.objective), batch_of(ARCHS["bert"]))


# -- micro-batches ---------------------------------------------------------------------------------------------------

PER_EXAMPLE = {
    **MIXTURE,
    "insertions": {"ffn": {**MIXTURE["insertions"]["ffn"], "mixture": {"experts": 3, "router": "per_example"}}},
}


def gradients(name: str, method: Any, micro_batch: int) -> dict[str, Tensor]:
    given = load_method(method).to_dict()
    for insertion in given["insertions"].values():  # dropout draws anew for every micro-batch
        if "dropout" in insertion["function"]:
            insertion["function"]["dropout"] = 0.0
    arch, made = ARCHS[name], load_method(given)
    model = arch.build()
    unipet.adapt(model, made)
    generator = torch.Generator().manual_seed(1)
    for parameter in unipet.parameters(model).values():
        with torch.no_grad():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.train()
    adaptation(model).draw(3, 0)
    batch = batch_of(arch)
    if name == "bart":
        batch["labels"][2] = -100  # an example without an answer, a micro-batch of its own
    Loss(made.objective, read=READ[arch.kind], label_smoothing=0.1).gradients(model, batch, micro_batch)
    found = {key: p.grad for key, p in unipet.parameters(model, head=True).items() if p.grad is not None}
    assert found
    return found


@pytest.mark.parametrize(
    ("arch", "method"),
    [
        ("bert", "mam"),
        ("bert", "adamix"),
        ("bert", PER_EXAMPLE),
        ("gpt2", "adamix_lora"),
        ("gpt2", "prefix_flat"),
        ("bart", {**MIXTURE, "name": "both"}),
        ("t5", "full"),
    ],
    ids=str,
)
def test_gradients_are_those_of_the_whole_batch(arch: str, method: Any) -> None:
    expected = gradients(arch, method, 6)
    scale = max(float(value.abs().max()) for value in expected.values())
    for micro_batch in (1, 2, 4):
        found = gradients(arch, method, micro_batch)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(found[name], value, atol=1e-5 * scale, rtol=1e-3), (micro_batch, name)


# -- fitting ---------------------------------------------------------------------------------------------------------


def steps_of(sizes: dict[tuple[int, bool], float]) -> Any:
    def predict(size: int, accumulates: bool, checkpointing: bool) -> Trace:
        assert accumulates == (size < 12)
        return Trace(int(sizes[size, checkpointing] * GIB), 0, 0)

    return predict


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, (12, 1, False)),
        (12.0, (12, 1, False)),
        (11.0, (6, 2, False)),
        (4.5, (4, 3, False)),
        (1.0, (1, 12, False)),
        (0.9, (6, 2, True)),
        (0.2, (1, 12, True)),
    ],
)
def test_the_largest_micro_batch_then_checkpointing(limit: float | None, expected: tuple[int, int, bool]) -> None:
    sizes = {(size, kept): size * (0.15 if kept else 1.0) for size in (1, 2, 3, 4, 6, 12) for kept in (False, True)}
    budget = BudgetConfig(peak_memory_gib=limit, memory_margin=0.0)
    found = fit_memory(steps_of(sizes), 12, budget, checkpoints=True)
    assert (found.micro_batch, found.accumulation, found.checkpointing) == expected
    assert found.why_not is None


def test_what_does_not_fit_is_skipped_or_an_error() -> None:
    sizes = {(size, kept): size * (0.5 if kept else 1.0) for size in (1, 2, 3, 4, 6, 12) for kept in (False, True)}

    def fit(on_exceed: str, limit: float, checkpoints: bool = True, margin: float = 0.0) -> MemoryFit:
        budget = BudgetConfig(peak_memory_gib=limit, memory_margin=margin, on_exceed=on_exceed)
        return fit_memory(steps_of(sizes), 12, budget, checkpoints)

    why = fit("fit", 0.4).why_not
    assert why is not None and "a micro-batch of 1 with checkpointing is predicted to need 0.5 GiB, 0.1 too much" in why
    why = fit("fit", 0.9, checkpoints=False).why_not
    assert why is not None and "a micro-batch of 1 is predicted to need 1 GiB" in why
    why = fit("skip", 11.0).why_not
    assert why is not None and "a micro-batch of 12" in why and "on_exceed=fit would try" in why
    with pytest.raises(UnipetError, match=r"budget\.peak_memory_gib=11 .* Raise the limit"):
        fit("error", 11.0)
    assert fit("error", 12.0).why_not is None
    assert fit("fit", 12.0, margin=0.05).micro_batch == 6


class Rows(list[dict[str, Any]]):
    target_lengths: list[int]


def test_the_widest_batch_holds_the_longest_input_and_the_longest_target() -> None:
    data = Rows({"input_ids": [0] * (3 + 7 * index % 40)} for index in range(50))
    data.target_lengths = []
    sizes = [len(row["input_ids"]) for row in data]
    for seed in range(8):
        chosen = widest(data, 8, seed)
        assert len(set(chosen)) == len(chosen) == 8
        assert max(sizes) == max(sizes[index] for index in chosen)
    data.target_lengths = [index % 13 for index in range(50)]
    for seed in range(8):
        chosen = widest(data, 8, seed)
        assert len(set(chosen)) == len(chosen) == 8
        assert max(sizes) == max(sizes[index] for index in chosen)
        counts = [data.target_lengths[index] for index in chosen]
        assert counts[0] == 12
        assert counts == sorted(counts, reverse=True)
    assert len(widest(data, 64, 0)) == 50
    assert len(widest(data, 1, 0)) == 1


def test_a_fitted_run_gives_the_result_of_the_unfitted_one(tmp_path: Path) -> None:
    plain = run(tiny_config(tmp_path, MIXTURE, runs="plain"))
    needed = plain["memory"]["predicted_gib"]
    assert plain["fitted"]["micro_batch"] == 8
    assert sum(plain["fitted"]["predicted_parts_gib"].values()) == pytest.approx(needed)
    limit = {"budget__peak_memory_gib": 0.85 * needed, "budget__memory_margin": 0.0}
    fitted = run(tiny_config(tmp_path, MIXTURE, runs="fitted", **limit))
    assert fitted["status"] == "ok"
    assert fitted["fitted"]["micro_batch"] * fitted["fitted"]["accumulation"] == 8
    assert fitted["fitted"]["micro_batch"] < 8
    assert fitted["memory"]["predicted_gib"] <= 0.85 * needed
    logits = [_logits(tmp_path / runs) for runs in ("plain", "fitted")]
    assert torch.allclose(*logits, atol=1e-3)
    assert fitted["score"] == plain["score"]
    skipped = run(tiny_config(tmp_path, MIXTURE, runs="skipped", **{**limit, "budget__peak_memory_gib": needed / 9}))
    assert (skipped["status"], skipped["score"], skipped["error"]) == ("skipped", None, None)
    assert "too much" in skipped["reason"]
    assert skipped["params"]["trainable"] == plain["params"]["trainable"]


def _logits(runs: Path) -> Tensor:
    import json

    (path,) = runs.glob("*/predictions.jsonl")
    return torch.tensor([json.loads(line)["logits"] for line in path.read_text().splitlines()])


def test_running_out_of_memory_is_a_result_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded as `exceeded`, with no other settings tried and no failure counted."""
    from unipet.training import trainer

    real, calls = trainer.train, []

    def full(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["micro_batch"])
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines.")
        return real(model, *args, **kwargs)

    monkeypatch.setattr(trainer, "train", full)
    done = [
        jobs.run_job(
            dataclasses.asdict(tiny_config(tmp_path, LOW_RANK, seed=seed)), jobs.Task(tmp_path / "sweep", seed, [])
        )
        for seed in (0, 1)
    ]
    for outcome in done:
        jobs.write_outcome(tmp_path / "sweep", outcome)
    first, second = (job.record for job in done)
    assert (first.status, first.stopped_by, first.score) == ("exceeded", "out_of_memory", None)
    assert first.reason == "training: out of memory: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert first.memory.predicted_gib > 0
    assert second.status == "ok"
    assert calls == [8, 8]
    assert close(tmp_path / "sweep", 2) == 0
