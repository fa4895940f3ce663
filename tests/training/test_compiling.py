"""`compile=true` and `checkpointing` as keys: the same training by another way, or one error.

The graph is run by `aot_eager`, which makes it without generating code: what is tested here is ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.running import LOW_RANK, MIXTURE, run_dir, tiny_config
from tests.training.test_trainer import fit
from unipet.errors import UnipetError
from unipet.runs.prepare import prepare
from unipet.runs.run import run
from unipet.training import compiling, trainer
from unipet.training.budget import checkpointing
from unipet.training.compiling import Compiled

#: Torch's own, while it traces checkpoints and autograd functions.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]
PREFIX = {
    "name": "tiny_prefix",
    "insertions": {
        "attention": {
            "function": {"name": "prefix", "size": 3},
            "position": {"site": "attn.heads"},
            "composition": "gated",
        }
    },
}
SOFT = json.loads(json.dumps(MIXTURE))
SOFT["insertions"]["ffn"]["mixture"] = {"experts": 3, "router": "soft"}


@pytest.fixture(autouse=True)
def without_code(monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(model: nn.Module) -> Compiled:
        return Compiled(model, backend="aot_eager")

    monkeypatch.setattr(trainer, "Compiled", made)
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("method", [LOW_RANK, PREFIX, SOFT], ids=["low_rank", "prefix", "soft"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_are_those_of_the_model_that_is_not_compiled(
    tmp_path: Path, method: dict[str, Any], precision: str
) -> None:
    """Batches of several lengths, the last one with fewer rows: one graph, without breaks."""
    changes: dict[str, Any] = {"precision": precision, "optim__batch_size": 7, "optim__epochs": 3}
    _, plain, expected = fit(tmp_path, method, **changes)
    _, trained, lines = fit(tmp_path, method, compile=True, **changes)
    assert plain.compiled is None and trained.compiled is not None
    assert trained.compiled["graph_breaks"] == 0
    assert 1 <= trained.compiled["graphs"] <= 2, "a batch of one row may have a graph of its own"
    losses, others = ([line["loss"] for line in some] for some in (expected, lines))
    assert len(losses) == 12
    assert others == pytest.approx(losses, rel=1e-4 if precision == "fp32" else 5e-2)


def test_the_record_says_what_was_compiled(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, LOW_RANK, compile=True, checkpointing=True, budget__max_steps=3)
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert record["compiled"]["graphs"] >= 1 and record["compiled"]["seconds"] > 0
    plain = run(tiny_config(tmp_path, LOW_RANK, budget__max_steps=3))
    assert "compiled" not in plain and plain["fitted"]["checkpointing"] is False
    assert record["fitted"]["checkpointing"] is True
    assert record["score"] == plain["score"]


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (MIXTURE, {}, r"compile: method\.insertions\.ffn\.mixture draws other experts in each step"),
        (LOW_RANK, {"model__quantization": "4bit"}, r"compile: layers that are stored in 4bit .* are not compiled"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    tmp_path: Path, method: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnipetError, match=message):
        prepare(tiny_config(tmp_path, method, compile=True, **changes))


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    monkeypatch.setattr(compiling.torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UnipetError, match=r"compile: torch\.compile needs a C\+\+ compiler \(g\+\+ or clang\+\+"):
        prepare(tiny_config(tmp_path, LOW_RANK, compile=True))


def test_checkpointing_changes_the_step_and_nothing_else(tmp_path: Path) -> None:
    records = {}
    for asked in (None, False, True):
        config = tiny_config(tmp_path, MIXTURE, checkpointing=asked, optim__batch_size=48)
        records[asked] = run(config)
        records[asked]["lines"] = (run_dir(config) / "metrics.jsonl").read_text()
    assert [records[asked]["fitted"]["checkpointing"] for asked in (None, False, True)] == [False, False, True]
    assert records[True]["lines"] == records[False]["lines"] == records[None]["lines"]
    predicted = [records[asked]["memory"]["predicted_gib"] for asked in (None, False, True)]
    assert predicted[0] == predicted[1] != predicted[2], "with two layers it is no less, but it is another step"


def test_never_is_never(tmp_path: Path) -> None:
    """A limit that only checkpointing would keep: with `false` the run is left out."""
    whole = run(tiny_config(tmp_path, LOW_RANK))["memory"]["predicted_gib"]
    tight = {"budget__peak_memory_gib": 0.5 * whole, "budget__memory_margin": 0.0}
    record = run(tiny_config(tmp_path, LOW_RANK, checkpointing=False, **tight))
    assert record["fitted"]["checkpointing"] is False


def test_a_base_model_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "can_checkpoint", lambda model: False)
    with pytest.raises(UnipetError, match=r"checkpointing: .* has no gradient checkpointing\. Set checkpointing=null"):
        prepare(tiny_config(tmp_path, LOW_RANK, checkpointing=True))
