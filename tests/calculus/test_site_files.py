"""Site tables of a user's own: read strictly, checked against the model, saved with the adapter."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.running import resolved, write_model
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.calculus.library import load_method
from unipet.calculus.site_files import load_sites
from unipet.calculus.sites import ARCHITECTURES, check_table, parse_table, table_data
from unipet.config import ModelConfig, RunConfig
from unipet.runs.identity import content_of, run_id

LOW_RANK = {
    "name": "probe",
    "insertions": {"probe": {"function": {"name": "low_rank", "size": 2}, "position": {"site": ["attn.q", "attn.v"]}}},
}
#: BERT's table, shortened: what a user might write for it.
OWN: dict[str, Any] = {
    "name": "mine",
    "model_types": ["bert"],
    "stacks": {
        "encoder": {
            "layers": "encoder.layer",
            "roles": {
                "attn.q": "attention.self.query",
                "attn.v": {"h": "attention.self.value"},
                "attn.heads": "attention.self",
                "attn": {"h": "attention.output.dense", "x": "attention"},
                "ffn.mid": {"h": "output.dense", "at": "input"},
                "norm": ["attention.output.LayerNorm", "output.LayerNorm"],
            },
            "outside": {"embed": "embeddings"},
        }
    },
    "without": {"ffn.gate": "it is not gated"},
}
ROLES = "stacks.encoder.roles"


def changed(path: str, value: Any) -> dict[str, Any]:
    """`OWN` with the key at `path` (the last two parts may be a role with its dot) set to `value`."""
    given = copy.deepcopy(OWN)
    node, parts = given, path.split("/")
    for part in parts[:-1]:
        node = node[part]
    node[parts[-1]] = value
    return given


MISTAKES: list[tuple[str, Any, list[str]]] = [
    ("stakcs", {}, ["sites.stakcs", "Did you mean 'stacks'"]),
    ("name", None, ["sites.name: missing"]),
    ("name", 3, ["sites.name", "3"]),
    ("model_types", [], ["sites.model_types: empty"]),
    ("model_types", [3], ["sites.model_types", "3"]),
    ("stacks", {}, ["sites.stacks: empty", "encoder"]),
    ("stacks", {"encodr": {}}, ["sites.stacks.encodr", "Did you mean 'encoder'"]),
    ("stacks/encoder", [], ["sites.stacks.encoder: [] given; allowed: a mapping with layers and roles"]),
    ("stacks/encoder/layers", None, ["sites.stacks.encoder.layers: missing"]),
    ("stacks/encoder/layers", 7, ["sites.stacks.encoder.layers", "7"]),
    ("stacks/encoder/layrs", "x", ["sites.stacks.encoder.layrs", "Did you mean 'layers'"]),
    ("stacks/encoder/roles", {}, ["sites.stacks.encoder.roles: empty"]),
    ("stacks/encoder/causal", "yes", ["sites.stacks.encoder.causal: 'yes' given; allowed: true or false"]),
    ("stacks/encoder/hidden", 32, ["sites.stacks.encoder.hidden", "32"]),
    ("stacks/encoder/norms", {"atn": "x"}, ["sites.stacks.encoder.norms.atn", "Did you mean 'attn'"]),
    ("stacks/encoder/outside", {"embd": "x"}, ["sites.stacks.encoder.outside.embd", "Did you mean 'embed'"]),
    ("stacks/encoder/roles/atn.q", "x", [f"sites.{ROLES}.atn.q", "Did you mean 'attn.q'"]),
    ("stacks/encoder/roles/attn.q", None, [f"sites.{ROLES}.attn.q: None given; allowed: a module path"]),
    ("stacks/encoder/roles/attn.q", [], [f"sites.{ROLES}.attn.q: [] given; allowed: a module path"]),
    ("stacks/encoder/roles/attn.q", ["x", 3], [f"sites.{ROLES}.attn.q[1]", "3"]),
    ("stacks/encoder/roles/attn.q", {"x": "y"}, [f"sites.{ROLES}.attn.q.h: missing"]),
    ("stacks/encoder/roles/attn.q", {"h": "y", "xx": "y"}, [f"sites.{ROLES}.attn.q.xx: unknown"]),
    ("stacks/encoder/roles/attn.q", {"h": "y", "at": "imput"}, [f"{ROLES}.attn.q.at", "Did you mean 'input'"]),
    ("stacks/encoder/roles/attn.q", {"h": "y", "at": "heads"}, [f"{ROLES}.attn.q.at", "attn.heads"]),
    ("stacks/encoder/roles/attn.heads", {"h": "y", "at": "output"}, [f"{ROLES}.attn.heads.at", "heads"]),
    ("stacks/encoder/roles/attn.q", {"h": "y", "part": [3, 3]}, [f"{ROLES}.attn.q.part", "[0, 3]", "[3, 3]"]),
    ("stacks/encoder/roles/attn.q", {"h": "y", "part": 1}, [f"{ROLES}.attn.q.part", "1 given; allowed: [index from 0"]),
    ("stacks/encoder/roles/attn.q", {"h": "y", "part": [0, 3], "at": "input"}, [f"{ROLES}.attn.q.part", "output"]),
    ("stacks/encoder/roles/attn.q", {"h": "y", "per_head": True}, [f"{ROLES}.attn.q.per_head", "no part"]),
    ("without", {"attn.z": "why"}, ["sites.without.attn.z", "unknown"]),
    ("without", {"ffn.gate": 3}, ["sites.without.ffn.gate", "3"]),
    ("when", {"x": [1]}, ["sites.when.x"]),
    # right by itself, but not for this model
    ("model_types", "albert", ["sites.model_types", "albert", "'bert'"]),
    ("when", {"hidden_act": "relu"}, ["sites.when.hidden_act", "'relu'", "'gelu'"]),
    ("stacks/encoder/layers", "encoder.layers", ["sites.stacks.encoder.layers", "Did you mean 'encoder.layer'"]),
    ("stacks/encoder/entry", "encodr", ["sites.stacks.encoder.entry", "'encoder'"]),
    ("stacks/encoder/entry", ".", ["sites.stacks.encoder.entry: '.' is no module path", 'The base model itself is ""']),
    ("stacks/encoder/entry", "encoder.", ["sites.stacks.encoder.entry: 'encoder.' is no module path"]),
    ("stacks/encoder/roles/attn.q", "attention..query", ["'attention..query' is no module path"]),
    ("stacks/encoder/layers", ".", ["sites.stacks.encoder.layers: '.' is no module path"]),
    ("stacks/encoder/roles/attn.q", "attention.self.quary", [f"{ROLES}.attn.q", "Nearest: 'attention.self.query'"]),
    ("stacks/encoder/roles/attn.q", "self_attn.query", [f"{ROLES}.attn.q", "(its h)", "attention.self.query"]),
    (
        "stacks/encoder/roles/attn",
        {"h": "attention.output.dense", "x": "atention"},
        [f"{ROLES}.attn:", "'atention' (its x)", "Nearest: 'attention'"],
    ),
    ("stacks/encoder/roles/attn.q", {"h": "attention.self.query", "part": [0, 3]}, [f"{ROLES}.attn.q.part", "32 wide"]),
    ("stacks/encoder/roles/attn.q", {"h": "attention", "part": [0, 3]}, [f"{ROLES}.attn.q.part", "no linear map"]),
    ("stacks/encoder/roles/attn.heads", "attention", [f"{ROLES}.attn.heads", "AttentionInterface"]),
    ("stacks/encoder/outside", {"embed": "embedding"}, ["outside.embed", "Nearest: 'embeddings'"]),
    ("stacks/encoder/norms", {"attn": "LayerNorm"}, ["norms.attn", "Nearest: 'output.LayerNorm'"]),
    ("stacks/encoder/heads", "num_heads", ["stacks.encoder.heads", "Did you mean 'num_attention_heads'"]),
    ("stacks/encoder/head_dim", "num_hidden_layers", ["stacks.encoder", "4 heads of 2", "32 wide"]),
]


@pytest.mark.parametrize(("path", "value", "pieces"), MISTAKES, ids=[f"{p}={v!r}"[:60] for p, v, _ in MISTAKES])
def test_a_mistake_names_its_key_and_changes_nothing(path: str, value: Any, pieces: list[str]) -> None:
    model = tiny_bert()
    with pytest.raises(unipet.UnipetError) as caught:
        unipet.adapt(model, LOW_RANK, sites=changed(path, value))
    message = str(caught.value)
    assert all(piece in message for piece in pieces), message
    assert "\n" not in message and len(message) < 900
    assert not hasattr(model, "_unipet") and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_shipped_table_survives_yaml_and_fits_its_model(name: str) -> None:
    table = ARCHITECTURES[name]
    text = yaml.safe_dump(table_data(table))
    assert parse_table(yaml.safe_load(text)) == table == parse_table(json.loads(json.dumps(table_data(table))))
    for model in (arch.build() for arch in ARCHS.values()):
        if table.fits(model.config) and name not in (
            "t5",
            "bart",
            "mbart",
        ):  # not each of these has every role of its table
            check_table(table, model)


def test_a_table_of_ones_own_wins_and_travels_with_the_adapter(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    swapped = changed("stacks/encoder/roles/attn.q", "attention.self.key")
    file.write_text(yaml.safe_dump(swapped))
    model, fresh = tiny_bert(), tiny_bert()
    report = unipet.adapt(model, LOW_RANK, sites=file)
    assert report.to_dict() == unipet.describe(LOW_RANK, tiny_bert().config, sites=str(file)).to_dict()
    assert {i.site.path.rpartition(".")[2] for i in adaptation(model).items} == {"key", "value"}
    randomise(model)
    saved = unipet.save(model, tmp_path / "adapter")
    file.unlink()
    unipet.load(fresh, saved)
    assert torch.equal(logits(fresh), logits(model)) and not torch.equal(logits(fresh), logits(tiny_bert()))
    unipet.save(fresh, tmp_path / "again")
    for name in ("adapter.json", "adapter.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()
    unipet.merge(fresh)
    assert torch.allclose(logits(fresh), logits(model), atol=1e-5)


def test_what_a_partial_merge_keeps_still_carries_the_table(tmp_path: Path) -> None:
    model = tiny_bert()
    insertion = {"function": {"name": "prefix", "size": 2}, "position": "attn.heads", "composition": "gated"}
    unipet.adapt(model, {"name": "probe", "insertions": {**LOW_RANK["insertions"], "heads": insertion}}, sites=OWN)  # type: ignore[dict-item]
    randomise(model)
    unipet.merge(model, partial=True)
    saved = unipet.save(model, tmp_path / "adapter")
    assert json.loads((saved / "adapter.json").read_text())["sites"]["name"] == "mine"


def test_a_damaged_table_in_an_adapter_is_refused(tmp_path: Path) -> None:
    model = tiny_bert()
    unipet.adapt(model, LOW_RANK, sites=OWN)
    saved = unipet.save(model, tmp_path / "adapter")
    description = json.loads((saved / "adapter.json").read_text())
    for value, match in (
        ("__import__('os')", "where an object belongs"),
        (changed("model_types", ["gpt2"]), "is for gpt2"),
    ):
        (saved / "adapter.json").write_text(json.dumps({**description, "sites": value}))
        fresh = tiny_bert()
        with pytest.raises(unipet.UnipetError, match=match):
            unipet.load(fresh, saved)
        assert not hasattr(fresh, "_unipet")


def test_adapters_of_shipped_architectures_carry_none(tmp_path: Path) -> None:
    model = tiny_bert()
    unipet.adapt(model, LOW_RANK)
    description = json.loads((unipet.save(model, tmp_path / "a") / "adapter.json").read_text())
    assert description["format"] == 4 and "sites" not in description


def test_files_that_are_no_table(tmp_path: Path) -> None:
    for content, match in (
        ("a: [", "not a readable YAML"),
        ("- a", "allowed: a mapping with name"),
        ("name: x", "model_types: missing"),
    ):
        (tmp_path / "mine.yaml").write_text(content)
        with pytest.raises(unipet.UnipetError, match=rf"mine\.yaml.*{match}"):
            unipet.adapt(tiny_bert(), LOW_RANK, sites=tmp_path / "mine.yaml")
    with pytest.raises(unipet.UnipetError, match=r"no file 'nowhere\.yaml'"):
        unipet.adapt(tiny_bert(), LOW_RANK, sites="nowhere.yaml")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changed("stacks/encoder/layers", "blocks")))
    with pytest.raises(unipet.UnipetError, match=r"mine\.yaml: sites\.stacks\.encoder\.layers"):
        unipet.adapt(tiny_bert(), LOW_RANK, sites=tmp_path / "mine.yaml")


def test_the_documented_example_is_a_table(root: Path) -> None:
    text = (root / "docs" / "sites.md").read_text(encoding="utf-8")
    table = parse_table(yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]))
    assert table.name == "mine" and len(table.stacks["decoder"].roles) == 6


def test_a_table_enters_a_runs_identity_by_what_it_says(tmp_path: Path) -> None:
    base = write_model(tmp_path / "model")

    def identity(name: str | None, content: str = "") -> str:
        path = None if name is None else tmp_path / name
        if path is not None:
            path.write_text(content)
        config = RunConfig(method=LOW_RANK, model=ModelConfig("auto", str(base), sites=path and str(path)))
        content = content_of(config, load_method(LOW_RANK), load_sites(config.model.sites), "data")
        return run_id(resolved(config), content)

    text = yaml.safe_dump(OWN)
    assert identity("a.yaml", text) == identity("b.yaml", f"# the same\n{text}")
    other = yaml.safe_dump(changed("stacks/encoder/roles/attn.q", "attention.self.key"))
    assert len({identity("a.yaml", text), identity("a.yaml", other), identity(None)}) == 3


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**tiny_batch()).logits
    return found


def randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in unipet.parameters(model, head=True).values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
