"""`unipet list sites model=NAME`: every role with its real modules, and a picture that shows where it sits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.calculus.test_sites_draft import offered, unknown
from tests.support.activations import layer_lists
from tests.support.architectures import ARCHS, SPARSE
from unipet.calculus.sites import ARCHITECTURES, ROLES, architecture_of
from unipet.calculus.sites.table import OF_TOKENS
from unipet.cli.commands.picture import picture
from unipet.cli.commands.site_list import site_list
from unipet.cli.main import main
from unipet.config import ModelConfig
from unipet.errors import UnipetError

NEOX = """\
            embedded sequence             ◄ embed
                    ┆                     the stream that enters the layer: x of layer
  ┌──┬──────────────┤
  │  │       input_layernorm              ◄ norm
  │  │  attention.query_key_value         ◄ attn.qkv
  │  │   ┌──────────┼──────────┐
  │  │   q          k          v          ◄ attn.q  attn.k  attn.v  parts of its output
  │  │   └───── attention ─────┘          ◄ attn.heads
  │  │       attention.dense              ◄ attn.o  attn
  │  │              └────────────────┐
  │  └──────────────┐                │
  │     post_attention_layernorm     │    ◄ norm
  │         mlp.dense_h_to_4h        │    ◄ ffn.up
  │            activation            │    ◄ ffn.mid
  │         mlp.dense_4h_to_h        │    ◄ ffn.down  ffn
  └───────────────► + ◄──────────────┘    ◄ ffn.post  layer
                    ▼"""
FLAN_DECODER = """\
            embedded sequence             ◄ embed
                    ┆                     the stream that enters the layer: x of layer
  ┌─────────────────┤
  │        layer.0.layer_norm             ◄ norm
  │      ┌──────────┼──────────┐
  │      q          k          v          ◄ attn.q  attn.k  attn.v
  │      └───── attention ─────┘          ◄ attn.heads
  │      layer.0.SelfAttention.o          ◄ attn.o  attn
  └───────────────► +                     ◄ attn.post
  ┌─────────────────┤
  │        layer.1.layer_norm             ◄ norm
  │      ┌──────────┘       encoder
  │      │          ┌──────────┤
  │      q          k          v          ◄ cross.q  cross.k  cross.v
  │      └───── attention ─────┘          ◄ cross.heads
  │     layer.1.EncDecAttention.o         ◄ cross.o  cross
  └───────────────► +                     ◄ cross.post
  ┌─────────────────┤
  │        layer.2.layer_norm             ◄ norm
  │         ┌───────┴───────┐
  │       wi_0            wi_1            ◄ ffn.gate  ffn.up
  │    activation           │
  │         └────── × ──────┘             ◄ ffn.mid
  │     layer.2.DenseReluDense.wo         ◄ ffn.down  ffn
  └───────────────► +                     ◄ ffn.post  layer
                    ▼"""
BERT = """\
            embedded sequence             ◄ embed
                    ┆                     the stream that enters the layer: x of layer
  ┌─────────────────┤
  │      ┌──────────┼──────────┐
  │    query       key       value        ◄ attn.q  attn.k  attn.v
  │      └───── attention ─────┘          ◄ attn.heads
  │      attention.output.dense           ◄ attn.o  attn
  └───────────────► +
       attention.output.LayerNorm         ◄ norm  attn.post
  ┌─────────────────┤
  │        intermediate.dense             ◄ ffn.up
  │            activation                 ◄ ffn.mid
  │           output.dense                ◄ ffn.down  ffn
  └───────────────► +
            output.LayerNorm              ◄ norm  ffn.post  layer
                    ▼"""


def saved(name: str, directory: Path) -> ModelConfig:
    """A configuration file alone: listing needs no weights and no tokeniser."""
    model = {**ARCHS, **SPARSE}[name].build()
    model.config.save_pretrained(directory)
    return ModelConfig(name="auto", path=str(directory))


@pytest.mark.parametrize("arch", [*ARCHS, *SPARSE])
def test_every_role_has_its_modules_and_its_place(arch: str, tmp_path: Path) -> None:
    text = site_list(saved(arch, tmp_path))
    rows, _, rest = text.partition("\n\nnot here:\n")
    reasons, *pictures = re.split(r"\n\n(?=(?:encoder|decoder): )", rest)
    table = architecture_of({**ARCHS, **SPARSE}[arch].build(), ARCHITECTURES)
    assert len(pictures) == len(table.stacks)
    assert max(map(len, text.splitlines())) <= 120
    assert max(len(line) for one in [reasons, *pictures] for line in one.splitlines()) <= 100
    listed = [line.split()[0] for line in rows.splitlines()[2:] if not line.startswith(" ")]
    absent = ", ".join(re.findall(r"^  (\S.*?): ", reasons, re.MULTILINE)).split(", ")
    assert set(listed) | set(absent) == set(ROLES) and not set(listed) & set(absent)
    drawn = set(re.findall(r"[a-z]+(?:\.[a-z]+)?", " ".join(re.findall("◄ ([a-z. ]+)", "\n".join(pictures)))))
    assert set(listed) - set(OF_TOKENS) <= drawn, "a role that no picture shows"


@pytest.mark.parametrize("arch", ["gpt2", "llama", "bart", "modernbert", "vit", "marian"])
def test_listed_modules_are_the_models_own(arch: str, tmp_path: Path) -> None:
    """Each path with its layer numbers put back is a module of the model that a run or `describe` builds."""
    from unipet.runs.base_model import skeleton

    config = saved(arch, tmp_path)
    modules = {path for path, _ in skeleton(config, "classification", as_saved=True).named_modules()}
    rows = site_list(config).partition("\n\n")[0].splitlines()[2:]
    places = [re.search(r"(?:of|entering|inside) ([\w.]+(?:\*[\w.]*)?)(?: \(|  |$)", row) for row in rows]
    assert len(places) >= 15 and all(places)
    for place in places:
        assert place is not None and place[1].replace("*", "1") in modules, place


@pytest.mark.parametrize(
    ("arch", "stack", "expected"), [("gpt_neox", 0, NEOX), ("flan_t5", 1, FLAN_DECODER), ("bert", 0, BERT)]
)
def test_pictures(arch: str, stack: int, expected: str) -> None:
    model = ARCHS[arch].build()
    table = list(architecture_of(model, ARCHITECTURES).stacks.values())[stack]
    assert "\n".join(picture(table, layer_lists(model)["decoder" if stack else "encoder"][1][-1])) == expected


def test_parts_layers_and_reasons_are_in_words(tmp_path: Path) -> None:
    text = site_list(saved("gpt2", tmp_path / "a"))
    assert re.search(r"attn\.v +decoder +part 3 of 3 of transformer\.h\.\*\.attn\.c_attn +its input", text)
    assert "cross.q, cross.k" in text and ": it has no cross-attention" in text
    text = site_list(saved("gpt_neox", tmp_path / "b"))
    assert "part 1 of 3 of each head of gpt_neox.layers.*.attention.query_key_value" in text
    assert "attention and feed-forward in parallel, causal" in text
    assert "attn_norm (layer 1)" in site_list(saved("modernbert", tmp_path / "c"))
    assert "AttentionInterface" in site_list(saved("deberta_v2", tmp_path / "d"))
    assert "2 key/value heads" in site_list(saved("llama", tmp_path / "e"))


def test_a_table_of_ones_own_is_listed_and_a_missing_one_drafted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = unknown("phi")
    model.config.save_pretrained(tmp_path / "phi")  # type: ignore[union-attr,operator]
    config = ModelConfig(name="auto", path=str(tmp_path / "phi"))
    with pytest.raises(UnipetError, match=r"No site table for the architecture 'phi'.*model\.sites=") as caught:
        site_list(config)
    assert offered(model) in str(caught.value), "ready to be saved"
    file = tmp_path / "phi.yaml"
    file.write_text(offered(model))
    assert main(["list", "sites", "model=auto", f"model.path={tmp_path / 'phi'}", f"model.sites={file}"]) == 0
    shown = capsys.readouterr().out
    assert "output of model.layers.*.self_attn.q_proj" in shown and "does not say where the norms stand" in shown
    argv = ["describe", "method=lora", "model=auto", f"model.path={tmp_path / 'phi'}"]
    assert main([*argv, f"model.sites={file}"]) == 0
    assert "2 x model.layers.*.self_attn.v_proj" in capsys.readouterr().out
    given = yaml.safe_load(file.read_text())
    given["stacks"]["decoder"]["roles"]["attn.q"] = "self_attn.query"
    file.write_text(yaml.safe_dump(given))
    assert main([*argv, f"model.sites={file}"]) == 2
    error = capsys.readouterr().err
    assert "phi.yaml: sites.stacks.decoder.roles.attn.q" in error and "Nearest: 'self_attn" in error
