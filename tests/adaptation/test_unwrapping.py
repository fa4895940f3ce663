"""Models in wrappers: every public function works on the model inside, with the names that it has without the wrapper."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import unipet
from tests.adaptation.test_all_or_nothing import PlantedError, same, state
from tests.support.architectures import ARCHS
from tests.support.functions import built
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.unwrapping import bare, unwrapped

METHOD: dict[str, Any] = {
    "name": "x",
    "insertions": {
        "pairs": {"function": {"name": "low_rank", "size": 2}, "position": {"site": ["attn.q", "ffn.down"]}}
    },
    "unfreeze": ["head", "norm"],
}
EXPORTED = {**METHOD, "unfreeze": ["head"]}


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def inside(model: nn.Module) -> nn.Module:
    """Wrappers deep inside: a layer, a linear map of another, the head."""
    layers = model.bert.encoder.layer  # type: ignore[union-attr]
    layers[0] = compiled(layers[0])  # type: ignore[index, operator]
    layers[1].attention.self.query = compiled(layers[1].attention.self.query)  # type: ignore[index]
    model.classifier = compiled(model.classifier)  # type: ignore[arg-type]
    return model


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "compiled": compiled,
    "parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "both": lambda model: nn.DataParallel(compiled(model)),
    "inside": inside,
    "inside_and_around": lambda model: compiled(inside(model)),
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def moved(model: nn.Module) -> nn.Module:
    """The same values in the method's tensors whenever it is called."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model, head=True).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def adapted(method: dict[str, Any] = METHOD) -> nn.Module:
    model = built(ARCHS["bert"])
    unipet.adapt(model, method)
    return moved(model)


def output(model: Any) -> Tensor:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Tensor = model(**ARCHS["bert"].batch()).logits
    return found


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_an_adapted_model_says_and_saves_the_same_in_a_wrapper(wrapper: str, tmp_path: Path) -> None:
    plain = adapted()
    wrapped = WRAPPERS[wrapper](adapted())
    own, others = unipet.parameters(plain, head=True), unipet.parameters(wrapped, head=True)
    assert own.keys() == others.keys() and all(torch.equal(own[name], others[name]) for name in own)
    unipet.save(plain, tmp_path / "plain")
    unipet.save(wrapped, tmp_path / "wrapped")
    assert files(tmp_path / "plain") == files(tmp_path / "wrapped")
    assert unipet.describe(METHOD, wrapped) == unipet.describe(METHOD, plain)
    plain, wrapped = adapted(EXPORTED), WRAPPERS[wrapper](adapted(EXPORTED))
    unipet.export_peft(plain, tmp_path / "peft")
    unipet.export_peft(wrapped, tmp_path / "theirs")
    assert files(tmp_path / "peft") == files(tmp_path / "theirs")
    expected = output(plain)
    assert torch.allclose(output(wrapped), expected, atol=1e-6)
    assert unipet.merge(wrapped) == {"pairs": "folded"}
    assert not hasattr(bare(wrapped), "_unipet")
    assert torch.allclose(output(wrapped), expected, atol=1e-5)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_adapting_loading_and_importing_in_a_wrapper(wrapper: str, tmp_path: Path) -> None:
    plain = adapted()
    unipet.save(plain, tmp_path / "saved")
    wrapped = WRAPPERS[wrapper](built(ARCHS["bert"]))
    base = output(wrapped)  # compiled code that knows no hooks
    report = unipet.adapt(wrapped, METHOD)
    assert report == unipet.describe(METHOD, built(ARCHS["bert"]))
    assert adaptation(wrapped).method.name == "x"
    with torch.no_grad():
        for name, parameter in unipet.parameters(wrapped, head=True).items():
            parameter.copy_(unipet.parameters(plain, head=True)[name])
    assert torch.allclose(output(wrapped), output(plain), atol=1e-6)
    unipet.eject(wrapped)
    assert torch.allclose(output(wrapped), base, atol=1e-6)
    unipet.load(wrapped, tmp_path / "saved")
    assert torch.allclose(output(wrapped), output(plain), atol=1e-6)
    unipet.eject(wrapped)
    exported = adapted(EXPORTED)
    unipet.export_peft(exported, tmp_path / "peft")
    unipet.import_peft(wrapped, tmp_path / "peft")
    assert torch.allclose(output(wrapped), output(exported), atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("way", ["around", "in place", "inside"])
def test_code_compiled_before_sees_what_comes_and_goes(way: str, frozen: bool) -> None:
    """dynamo does not look for new hooks by itself: only a flag of a parameter that changed made it look again."""
    model: Any = built(ARCHS["bert"]).requires_grad_(not frozen)
    if way == "in place":
        model.compile(backend="eager")
    called = compiled(model) if way == "around" else inside(model) if way == "inside" else model
    base = output(called)
    spec = {**METHOD, "unfreeze": []}
    unipet.adapt(model, spec)
    moved(model)
    twin = adapted(spec)
    assert not torch.allclose(output(twin), base, atol=1e-4)
    assert torch.allclose(output(called), output(twin), atol=1e-6)
    unipet.eject(model)
    assert torch.allclose(output(called), base, atol=1e-6)


def test_wrappers_deep_inside_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = inside(built(ARCHS["bert"]))
    layer = model.bert.encoder.layer[0]  # type: ignore[union-attr, index]
    before = state(model)
    with unwrapped(model) as found:
        assert found is model
        assert not any("_orig_mod" in name for name, _ in model.named_parameters())
    assert model.bert.encoder.layer[0] is layer and same(state(model), before)  # type: ignore[union-attr, index]
    with pytest.raises(PlantedError), unwrapped(model):
        raise PlantedError
    assert same(state(model), before)
    with pytest.raises(unipet.UnipetError, match="unknown 'nothing'"):
        unipet.adapt(model, "nothing")
    assert same(state(model), before)


def test_a_fingerprint_is_that_of_the_model_inside(tmp_path: Path) -> None:
    import json

    described = []
    for name, model in (("plain", adapted()), ("wrapped", compiled(adapted()))):
        unipet.save(model, tmp_path / name)
        described.append(json.loads((tmp_path / name / "adapter.json").read_text())["base_model"])
    assert described[0] == described[1]


def test_a_wrapper_that_has_noted_what_trains_is_refused() -> None:
    class DistributedDataParallel(nn.Module):
        """torch's own needs a process group; it is known by its name and where it comes from."""

        __module__ = "torch.nn.parallel.distributed"

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    model = built(ARCHS["bert"])
    before = state(model)
    with pytest.raises(unipet.UnipetError, match="Adapt the model first, then wrap it"):
        unipet.adapt(DistributedDataParallel(model), METHOD)
    assert same(state(model), before)
    plain = adapted()
    assert unipet.parameters(DistributedDataParallel(plain)).keys() == unipet.parameters(plain).keys()


def test_a_wrapper_without_names_is_refused() -> None:
    class FullyShardedDataParallel(nn.Module):
        __module__ = "torch.distributed.fsdp.fully_sharded_data_parallel"

    with pytest.raises(unipet.UnipetError, match="keeps the parameters in flat pieces"):
        unipet.parameters(FullyShardedDataParallel())


def test_a_class_of_ones_own_by_such_a_name_is_no_wrapper() -> None:
    class DataParallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

    own = DataParallel()
    assert bare(own) is own
    assert copy.deepcopy(own).module is not own.module
