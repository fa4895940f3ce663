"""Saved adapters: what is written, and everything that loading must refuse."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import unipet
from tests.support.architectures import ARCHS
from tests.support.tiny import tiny_batch, tiny_bert, tiny_roberta
from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.description import FORMAT
from unipet.adaptation.description import FORMATS as READABLE
from unipet.adaptation.tensor_file import NAMES
from unipet.calculus.named_tensors import NamedTensors


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = tiny_bert()
    unipet.adapt(model, "lora")
    return unipet.save(model, tmp_path / "adapter")


def rewrite(directory: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the tensors as an honest program would, checksum and shapes included."""
    tensors = safetensors.torch.load_file(directory / "adapter.safetensors")
    change(tensors)
    data = safetensors.torch.save(tensors)
    (directory / "adapter.safetensors").write_bytes(data)
    description = json.loads((directory / "adapter.json").read_text())
    description["sha256"] = hashlib.sha256(data).hexdigest()
    description["tensors"] = {
        name: {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape)} for name, tensor in tensors.items()
    }
    (directory / "adapter.json").write_text(json.dumps(description))


def refused(directory: Path, match: str, model: Any = None) -> None:
    model = model if model is not None else tiny_bert()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(unipet.UnipetError, match=match):
        unipet.load(model, directory)
    assert not hasattr(model, "_unipet")
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad for p in model.parameters())


def test_three_files_and_nothing_else(saved: Path) -> None:
    assert sorted(p.name for p in saved.iterdir()) == ["adapter.json", "adapter.safetensors", "method.yaml"]
    assert [path.name for path in saved.parent.iterdir()] == ["adapter"], "nothing is left beside it"
    assert unipet.load_method(saved / "method.yaml") == unipet.load_method("lora")
    names = safetensors.torch.load_file(saved / "adapter.safetensors").keys()
    assert {name.split("/")[0] for name in names} == {"attention", "head"}


def test_saving_again_replaces(saved: Path) -> None:
    model = tiny_bert()
    unipet.adapt(model, "ia3")
    unipet.save(model, saved)
    assert unipet.load(tiny_bert(), saved).method == "ia3"


def test_another_base_model(saved: Path) -> None:
    refused(saved, "belongs to another base model", tiny_bert(seed=1))
    refused(saved, "belongs to another base model", tiny_roberta())


def test_the_fingerprint_survives_training_of_the_base_and_half_precision(tmp_path: Path) -> None:
    model = tiny_bert()
    unipet.adapt(model, "bitfit")
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.add_(1.0)
    unipet.save(model, tmp_path / "a")
    unipet.load(tiny_bert(), tmp_path / "a")
    refused(tmp_path / "a", "in float32, this one is in bfloat16.*cast=True", tiny_bert().to(torch.bfloat16))
    unipet.load(tiny_bert().to(torch.bfloat16), tmp_path / "a", cast=True)


def test_a_flipped_bit(saved: Path) -> None:
    data = bytearray((saved / "adapter.safetensors").read_bytes())
    data[-1] ^= 1
    (saved / "adapter.safetensors").write_bytes(bytes(data))
    refused(saved, "corrupted: its checksum")


def test_a_truncated_file(saved: Path) -> None:
    data = (saved / "adapter.safetensors").read_bytes()[:-100]
    (saved / "adapter.safetensors").write_bytes(data)
    refused(saved, "corrupted")
    description = json.loads((saved / "adapter.json").read_text())
    description["sha256"] = hashlib.sha256(data).hexdigest()
    (saved / "adapter.json").write_text(json.dumps(description))
    refused(saved, "corrupted")


def test_missing_extra_and_misshapen_tensors(saved: Path) -> None:
    rewrite(saved, lambda t: t.pop("attention/bert.encoder.layer.0.attention.self.query/down"))
    refused(saved, "missing .*query/down")
    rewrite(saved, lambda t: t.update({"attention/bert.encoder.layer.0.attention.self.query/down": torch.zeros(3, 32)}))
    refused(saved, r"query/down is \(3, 32\) in the file but \(16, 32\)")
    good = torch.zeros(16, 32)
    rewrite(
        saved,
        lambda t: t.update(
            {"attention/bert.encoder.layer.0.attention.self.query/down": good, "attention/more": good.clone()}
        ),
    )
    refused(saved, "extra .*attention/more")


def test_another_number_of_labels(saved: Path) -> None:
    refused(saved, r"head/classifier/weight.*number of labels", tiny_bert(num_labels=3))


def test_missing_and_foreign_files(saved: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "not a saved adapter.*no such directory")
    (saved / "adapter.safetensors").rename(saved / "other")
    refused(saved, "adapter.safetensors is missing")
    (saved / "adapter.json").write_text("{")
    refused(saved, "adapter.json is corrupted")
    (saved / "adapter.json").write_text("{}")
    refused(saved, "not a unipet adapter description")
    (saved / "adapter.json").write_text(
        json.dumps(dict.fromkeys(("format", "method", "base_model", "tensors", "sha256"), 9))
    )
    refused(saved, "format 9")


def test_loading_over_a_method(saved: Path) -> None:
    model = tiny_bert()
    unipet.adapt(model, "ia3")
    with pytest.raises(unipet.UnipetError, match="already carries method"):
        unipet.load(model, saved)


def test_an_unwritable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    model = tiny_bert()
    unipet.adapt(model, "lora")
    with pytest.raises(unipet.UnipetError, match="Cannot save the adapter"):
        unipet.save(model, tmp_path / "file")


def test_a_saved_method_runs_no_code(saved: Path) -> None:
    """A dotted path or a target inside a saved method is an unknown name, not an import."""
    text = (saved / "method.yaml").read_text().replace("name: low_rank", "name: os.system")
    (saved / "method.yaml").write_text(text)
    refused(saved, "not the method that was saved")
    description = json.loads((saved / "adapter.json").read_text())
    description["method_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (saved / "adapter.json").write_text(json.dumps(description))
    refused(saved, "unknown 'os.system'")


@pytest.mark.parametrize(
    ("arch", "method"), [("bert", "adamix"), ("gpt2", "unipelt"), ("t5", "prefix"), ("bert", "vera")]
)
def test_the_model_calls_its_tensors_what_unipet_parameters_does(arch: str, method: str) -> None:
    """`_unipet.<insertion>.<module path>.<slot>`, with dots for slashes: of mixtures, fused projections and what sites share."""
    model = ARCHS[arch].build()
    unipet.adapt(model, method)
    assert_same_names(model)


def assert_same_names(model: Any) -> None:
    inside = {name: parameter for name, parameter in model.named_parameters() if name.startswith("_unipet.")}
    owned = {name: p for name, p in unipet.parameters(model).items() if not name.startswith("norm/")}
    own = {f"_unipet.{name.replace('/', '.')}": parameter for name, parameter in owned.items()}
    assert own and inside.keys() == own.keys() == {n for n in model.state_dict() if n.startswith("_unipet.")}
    assert all(inside[name] is parameter for name, parameter in own.items())


@pytest.mark.parametrize("fails", [False, True])
def test_names_follow_a_partial_merge_also_one_that_fails(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """The mixture's copies give way to one ordinary function, at sites of which one lies inside the other."""
    sites = {"site": ["layer", "ffn.down"], "form": "sequential"}
    mixed = {"function": {"name": "bottleneck", "size": 2}, "position": sites, "mixture": {"experts": 2}}
    folds = {"function": {"name": "low_rank", "size": 2}, "position": "attn.q"}
    model = ARCHS["bert"].build()
    unipet.adapt(model, {"name": "x", "insertions": {"mixed": mixed, "folds": folds}})
    before = dict(model.named_parameters())
    if fails:
        with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="no room"):
            patched.setattr(Adaptation, "replaces", refuse)
            unipet.merge(model, partial=True)
        after = dict(model.named_parameters())
        assert after.keys() == before.keys() and all(after[name] is p for name, p in before.items())
    else:
        unipet.merge(model, partial=True)
        assert any(name.startswith("_unipet.mixed.") for name, _ in model.named_parameters())
    assert_same_names(model)


def refuse(*given: Any) -> None:
    raise RuntimeError("no room")


def test_a_slot_and_an_insertion_may_have_any_name() -> None:
    """Words that modules use for themselves, and sites of one insertion that lie inside each other."""
    names = ("type", "half", "method", "items", "training")
    model = ARCHS["bert"].build()
    both = {
        "function": {"name": "low_rank", "size": 2},
        "position": {"site": ["layer", "attn.q", "ffn.down"], "form": "sequential"},
    }
    unipet.adapt(model, {"name": "x", "insertions": dict.fromkeys(names, both)})
    owned = unipet.parameters(model)
    assert len(owned) == len(names) * 2 * 3 * 2
    inside = {id(p) for name, p in model.named_parameters() if name.startswith("_unipet.")}
    assert inside == {id(parameter) for parameter in owned.values()}
    assert {p.dtype for p in model.double()._unipet.parameters()} == {torch.float64}
    tensors = NamedTensors()
    tensors.put_parameter("half", torch.nn.Parameter(torch.ones(1)))
    tensors.put_parameter("type.float", torch.nn.Parameter(torch.ones(2)))
    assert [name for name, _ in tensors.named_parameters()] == ["half", "type.float"]
    assert tensors.parameter("type.float").shape == (2,)


FORMATS = Path(__file__).resolve().parent.parent / "support" / "formats"


@pytest.mark.parametrize("name", sorted(path.name for path in FORMATS.iterdir()))
def test_files_of_every_format_load_for_ever(name: str, tmp_path: Path) -> None:
    """Written by the version of their time for `tiny_bert(True)`, with the outputs that it had; and they can be saved again."""
    expected = torch.tensor(json.loads((FORMATS / name / "logits.json").read_text()))
    model = tiny_bert(True).eval()
    unipet.load(model, FORMATS / name)
    assert torch.allclose(model(**tiny_batch()).logits, expected, atol=1e-5)
    unipet.save(model, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "adapter.json").read_text())["format"] == FORMAT
    again = tiny_bert(True).eval()
    unipet.load(again, tmp_path / "again")
    assert torch.equal(model(**tiny_batch()).logits, again(**tiny_batch()).logits)


def test_there_are_files_of_every_format() -> None:
    kept = {json.loads((path / "adapter.json").read_text())["format"] for path in FORMATS.iterdir()}
    assert kept == set(READABLE)


def test_values_that_are_not_finite_are_neither_saved_nor_loaded(saved: Path, tmp_path: Path) -> None:
    rewrite(saved, lambda tensors: next(iter(tensors.values())).view(-1)[0].fill_(float("nan")))
    refused(saved, "not finite")
    model = tiny_bert()
    unipet.adapt(model, "lora")
    with torch.no_grad():
        next(iter(unipet.parameters(model).values())).fill_(float("inf"))
    with pytest.raises(unipet.UnipetError, match="not finite"):
        unipet.save(model, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_method_larger_than_its_file_of_numbers_is_refused_before_it_is_built(saved: Path) -> None:
    text = (saved / "method.yaml").read_text().replace("size: 16", "size: 1000000000")
    (saved / "method.yaml").write_text(text)
    description = json.loads((saved / "adapter.json").read_text())
    description["method_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (saved / "adapter.json").write_text(json.dumps(description))
    refused(saved, "needs [0-9,]+ numbers, and the file holds")


def test_a_size_beyond_this_machine_is_refused_before_it_is_built() -> None:
    low_rank = {"function": {"name": "low_rank", "size": 10**12}, "position": "attn.q"}
    with pytest.raises(unipet.UnipetError, match=r"would take .* GiB .* are free"):
        unipet.adapt(tiny_bert(), {"name": "huge", "insertions": {"a": low_rank}})


def test_saving_the_model_as_transformers_does_warns_while_it_carries_a_method(tmp_path: Path) -> None:
    model = tiny_bert()
    unipet.adapt(model, "lora")
    copied = copy.deepcopy(model)
    for one in (model, copied):
        with pytest.warns(UserWarning, match="what it has learned would be lost"):
            one.save_pretrained(tmp_path / "plain")
    with torch.no_grad():
        copied.classifier.bias.fill_(3.0)
    with pytest.warns(UserWarning, match="lost"):
        copied.save_pretrained(tmp_path / "copy")
    saved = safetensors.torch.load_file(tmp_path / "copy" / "model.safetensors")
    assert (saved["classifier.bias"] == 3.0).all(), "the copy saves itself, not the model it was copied from"
    unipet.merge(model)
    model.save_pretrained(tmp_path / "merged")
    unipet.eject(copied)
    copied.save_pretrained(tmp_path / "ejected")
    assert "save_pretrained" not in vars(model) | vars(copied)
