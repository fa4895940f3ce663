"""AdaMix's experiments: sizes as the paper counts them, variants that differ in one choice, numbers as they were published."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import transformers
import yaml

import unipet
from tests.support.checkout import ROOT
from unipet.calculus.library import load_method
from unipet.runs.labels import leaves

EXPERIMENTS = ROOT / "experiments"
ROWS = EXPERIMENTS / "adamix" / "method"
PUBLISHED = ROOT / "unipet" / "report" / "published" / "sources" / "adamix.yaml"
BASES: dict[str, Any] = {
    "bert_base": transformers.BertConfig(architectures=["BertForSequenceClassification"]),
    "roberta_large": transformers.RobertaConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        architectures=["RobertaForSequenceClassification"],
    ),
    "gpt2_medium": transformers.GPT2Config(n_embd=1024, n_layer=24, n_head=16, architectures=["GPT2LMHeadModel"]),
}
#: base model, row, changes of the mixture -> parameters that train, and that remain once merged. Counted from the released code's
#: modules (reference/adamix_unipelt.md, 1.2 and 1.3): per layer M downs of (r d + r) and ups of (d r + d).
COUNTS = [
    ("bert_base", "adamix_r48", {}, 2_223_360, 894_528),
    ("bert_base", "adamix_r48", {"share": []}, 3_578_112, 894_528),
    ("bert_base", "adamix_twin_r48", None, 894_528, 894_528),
    ("roberta_large", "adamix", {}, 1_992_192, 811_392),
    ("roberta_large", "adamix", {"share": []}, 3_245_568, 811_392),
    ("roberta_large", "adamix_no_sharing", {}, 3_245_568, 811_392),
    ("roberta_large", "adamix_twin_r16", None, 811_392, 811_392),
    ("gpt2_medium", "adamix_lora", {}, 24 * 2 * (8 * 4 * 1024 + 4 * 1024), 393_216),
    ("gpt2_medium", "adamix_lora_twin", None, 393_216, 393_216),
    ("gpt2_medium", "adamix_adapter_nlg", {}, 24 * (8 * (8 * 1024 + 8) + 8 * 1024 + 1024), 417_984),
]
#: row -> the options in which it differs from AdaMix.
VARIANTS = {
    "adamix_no_consistency": {"objective"},
    "adamix_no_sharing": {"mixture.share"},
    "adamix_m2": {"mixture.experts"},
    "adamix_m8": {"mixture.experts"},
    "adamix_r8": {"function.size"},
    "adamix_r32": {"function.size"},
    "adamix_r48": {"function.size"},
    "adamix_adapter_nlg": {"function.size", "function.activation", "mixture.experts"},
}


def row(name: str) -> dict[str, Any]:
    """A row, or a shipped method, spelled out."""
    path = ROWS / f"{name}.yaml"
    return load_method(path if path.is_file() else name).to_dict()


@pytest.mark.parametrize(("base", "name", "mixture", "trained", "merged"), COUNTS)
def test_the_numbers_of_parameters_are_the_papers(
    base: str, name: str, mixture: dict[str, Any] | None, trained: int, merged: int
) -> None:
    method = row(name)
    (insertion,) = method["insertions"].values()
    if mixture is not None:
        insertion["mixture"].update(mixture)
    assert ("mixture" in insertion) is (mixture is not None)
    report = unipet.describe(method, BASES[base])
    assert (report.trainable, report.merged) == (trained, merged)


def test_the_published_sizes_are_these_rounded() -> None:
    tables = yaml.safe_load(PUBLISHED.read_text())["tables"]
    stated = {(name, one["method"]): one["trainable"] for name, table in tables.items() for one in table["rows"]}
    for table, base, name in (
        ("glue_roberta_large", "roberta_large", "adamix"),
        ("glue_bert_base", "bert_base", "adamix_r48"),
        ("nlg", "gpt2_medium", "adamix_adapter_nlg"),
    ):
        counted = unipet.describe(row(name), BASES[base]).merged
        rounded = round(counted, -4 if table == "nlg" else -5)
        assert stated[table, name] == rounded


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_in_what_its_name_says(name: str) -> None:
    flat = {which: {**leaves(row(which)), "name": ""} for which in ("adamix", name)}
    keys = {key for key in flat["adamix"].keys() | flat[name].keys() if flat["adamix"].get(key) != flat[name].get(key)}
    found = {"objective" if key.startswith("objective") else key.removeprefix("insertions.ffn.") for key in keys}
    assert found == VARIANTS[name]


def test_the_released_and_the_published_weight_of_consistency_are_rows() -> None:
    weights = [row(name)["objective"]["consistency"]["weight"] for name in ("adamix_lora", "adamix_lora_w100")]
    assert weights == [1.0, 100.0]
    rest = [{**row(name), "name": "", "objective": {}} for name in ("adamix_lora", "adamix_lora_w100")]
    assert rest[0] == rest[1]


@pytest.mark.parametrize(
    ("table", "method", "kept", "average"),
    [("glue_roberta_large", "adamix", "accuracy", 89.9), ("glue_bert_base", "adamix_r48", "f1", 84.5)],
)
def test_the_published_averages_are_those_of_the_cells(table: str, method: str, kept: str, average: float) -> None:
    """A cell that was copied wrongly would move the average: the paper prints it, our file does not."""
    rows = [one for one in yaml.safe_load(PUBLISHED.read_text())["tables"][table]["rows"] if one["method"] == method]
    cells = [one["value"] for one in rows if one["task"] not in ("qqp", "mrpc") or one["metric"] == kept]
    assert len(cells) == 8 and round(mean(cells), 1) == average


SMALL = sorted(EXPERIMENTS.glob("adamix_*/scores.csv"))


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.parent.name)
def test_a_readme_shows_the_scores_of_its_records(path: Path) -> None:
    text = (path.parent / "README.md").read_text()
    with path.open(newline="") as file:
        for line in csv.reader(file):
            assert f"| {' | '.join(line)} |" in text


def test_every_experiment_has_both_scripts() -> None:
    for name in ("glue", "nlg", "fewshot", "ablations"):
        folder = EXPERIMENTS / f"adamix_{name}"
        for script in ("run.sh", "small.sh"):
            assert f"bash experiments/adamix_{name}/{script}" in (folder / "README.md").read_text()
