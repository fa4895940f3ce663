"""Method files: composed or inline, by name or path, and out-of-tree functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import unipet
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.calculus import functions
from unipet.calculus.functions.base import Function, Params, Slots, TensorSpec, Widths
from unipet.calculus.method import parse_method
from unipet.calculus.method_files import method_names
from unipet.calculus.options import option
from unipet.config import conf_dir

SHIPPED = {
    "adapter", "adapter_pfeiffer", "parallel_adapter", "scaled_parallel_adapter", "multihead_parallel_adapter", "prefix",
    "lora", "mam", "adamix", "adamix_lora", "unipelt", "ia3", "bitfit", "full", "head_only",
}  # fmt: skip

COMPOSED = """\
# MAM once more, out of the groups' defaults.
defaults:
  - /function@insertions.attention.function: prefix
  - /position@insertions.attention.position: heads
  - /composition@insertions.attention.composition: gated
  - /function@insertions.ffn.function: bottleneck
  - /position@insertions.ffn.position: ffn
  - /scaling@insertions.ffn.scaling: constant
  - _self_
name: mam
insertions:
  ffn:
    function: {size: 512, init: lora}
    scaling: {value: 4.0}
"""


def test_the_issue_s_methods_ship() -> None:
    assert set(method_names()) >= SHIPPED


@pytest.mark.parametrize("name", method_names())
def test_a_method_spelled_out_reads_back_equal(name: str) -> None:
    method = unipet.load_method(name)
    assert method.name == name
    assert parse_method(method.to_dict()) == method


def test_composed_and_inline_are_the_same_method(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(COMPOSED)
    assert unipet.load_method(tmp_path / "mine.yaml") == unipet.load_method("mam")


def test_hydra_composes_what_load_method_composes(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from unipet.compose.composer import register_schema

    register_schema()
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text(COMPOSED)
    (tmp_path / "method" / "child.yaml").write_text("defaults: [mine, _self_]\nname: child\n")
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        for name in ("mine", "child"):
            overrides = [f"hydra.searchpath=[file://{tmp_path}]", f"method={name}"]
            cfg = compose("config", overrides=overrides)
            through_hydra = parse_method(OmegaConf.to_container(cfg.method, resolve=True))
            assert through_hydra == unipet.load_method(tmp_path / "method" / f"{name}.yaml")


def test_a_scaling_is_a_number_a_name_or_a_mapping() -> None:
    def scaling(given: Any) -> Any:
        insertion = {"function": "low_rank", "position": "attn.q", "scaling": given}
        return parse_method({"name": "x", "insertions": {"a": insertion}}).insertions[0].scaling

    assert scaling(4) == scaling(4.0) == scaling({"value": 4}) == scaling({"name": "constant", "value": 4.0})
    assert scaling("alpha_over_rank") == scaling({"name": "alpha_over_rank", "alpha": 16})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("defaults: [nobody]\nname: x", "method/nobody, which does not exist"),
        ("defaults: [{/function@insertions.a.function: low_rnk}]\nname: x", "Did you mean 'low_rank'"),
        ("defaults: [{a: b, c: d}]\nname: x", "defaults: .* given; allowed: `_self_`"),
        ("defaults: mam\nname: x", "defaults: 'mam' given; allowed: a list"),
        ("defaults: [mine]\nname: x", "lead back to itself"),
    ],
)
def test_mistakes_in_defaults(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(unipet.UnipetError, match=match):
        unipet.load_method(tmp_path / "mine.yaml")


@pytest.mark.parametrize("group", ["function", "scaling", "composition", "position", "mixture"])
def test_group_files_hold_the_defaults_of_their_values(group: str) -> None:
    """conf/<group>/*.yaml and the Python defaults are the same truth, written for two readers."""
    import dataclasses

    import yaml

    from unipet.calculus.composition import COMPOSITIONS
    from unipet.calculus.functions import FUNCTIONS
    from unipet.calculus.mixture import Mixture
    from unipet.calculus.scaling import SCALINGS
    from unipet.calculus.sites import Position

    files = {path.stem: yaml.safe_load(path.read_text()) for path in (conf_dir() / group).glob("*.yaml")}
    tables: dict[str, dict[str, Any]] = {
        "function": dict(FUNCTIONS),
        "scaling": dict(SCALINGS),
        "composition": dict(COMPOSITIONS),
    }
    if group in tables:
        expected = {name: {"name": name, **dataclasses.asdict(cls())} for name, cls in tables[group].items()}
        assert files == expected
    else:
        cls = Position if group == "position" else Mixture
        for given in files.values():
            assert set(given) == {field.name for field in dataclasses.fields(cls)}
    if group == "mixture":
        assert files["uniform"] == dataclasses.asdict(Mixture())


@dataclass(frozen=True)
class Shift(Function):
    """A function of one's own: a vector, tripled."""

    strength: float = option(3.0)

    def slots(self, widths: Widths) -> Slots:
        return {"shift": {"": TensorSpec((widths.h,), "table")}}

    def delta(self, u: Any, params: Params, training: bool) -> torch.Tensor:
        return self.strength * params["shift"]

    @property
    def starts_at_zero(self) -> bool:
        return False


def test_a_function_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "FUNCTIONS", functions.FUNCTIONS)
    try:
        unipet.register_function("shift", Shift)
        unipet.register_function("shift", Shift)  # once more is fine
        spec = {"name": "mine", "insertions": {"a": {"function": {"name": "shift", "strength": 2}, "position": "ffn"}}}
        model, copy = tiny_bert(), tiny_bert()
        unipet.adapt(model, spec)
        with torch.no_grad():
            for parameter in unipet.parameters(model).values():
                parameter.normal_()
            unipet.save(model, tmp_path / "a")
            unipet.load(copy, tmp_path / "a")
            assert torch.equal(copy(**tiny_batch()).logits, model(**tiny_batch()).logits)
        with pytest.raises(unipet.UnipetError, match="the name belongs to"):
            unipet.register_function("low_rank", Shift)
        with pytest.raises(unipet.UnipetError, match="given; allowed: a dataclass"):
            unipet.register_function("thing", dict)  # type: ignore[arg-type]
    finally:
        functions.FUNCTIONS.pop("shift", None)


def test_a_shipped_name_without_its_insertions_is_refused() -> None:
    for given in ({"insertions": {}}, {"insertions": {}, "unfreeze": ["all"]}):
        with pytest.raises(unipet.UnipetError, match="none of the insertions of 'lora' is left"):
            unipet.load_method({"name": "lora", **given})
        assert unipet.load_method({"name": "bare", **given}).insertions == ()
    with pytest.raises(unipet.UnipetError, match="None given; allowed: a mapping from a name"):
        unipet.load_method({"name": "bare", "insertions": None})
    assert unipet.load_method(unipet.load_method("head_only").to_dict()) == unipet.load_method("head_only")
