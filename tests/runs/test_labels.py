"""Labels: short, and never the same for two variants."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.reports import write_run
from unipet.calculus.library import load_method
from unipet.report.aggregate import aggregate
from unipet.report.collect import Entry, collect
from unipet.report.comparing import compare
from unipet.report.figures import scores
from unipet.report.latex import latex
from unipet.report.markdown import markdown
from unipet.report.page.document import page
from unipet.report.paper import paper_table, wide_csv
from unipet.report.table import csv_table, text_table
from unipet.runs.labels import INSERTION_ORDER, Told, difference, leaves, variants
from unipet.runs.record import Record


def mams() -> list[dict[str, Any]]:
    found = []
    for site, size in itertools.product(("attn", "ffn"), (8, 16)):
        method = load_method("mam").to_dict()
        method["insertions"]["ffn"]["position"]["site"] = [site]
        method["insertions"]["attention"]["function"]["size"] = size
        found.append(method)
    return found


LABELS = [
    "ffn site=attn · attention size=8",
    "ffn site=attn · attention size=16",
    "ffn site=ffn · attention size=8",
    "ffn site=ffn · attention size=16",
]


def test_options_of_several_insertions_say_whose_they_are() -> None:
    assert variants([leaves({"method": one}) for one in mams()]) == LABELS


def test_one_insertion_needs_no_name() -> None:
    methods = [load_method("lora").to_dict() for _ in range(2)]
    methods[0]["insertions"]["attention"]["function"]["size"] = 2
    assert variants([leaves({"method": one, "optim": {"lr": 0.1}}) for one in methods]) == ["size=2", "size=16"]


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"a": ["x"]}, {"a": ["y"]}, ["a=x", "a=y"]),
        ({"a": ["x", "y"]}, {"a": ["z"]}, ["a=x+y", "a=z"]),
        ({"a": ["x"]}, {"a": "x"}, ['a=["x"]', 'a="x"']),  # alike only when shortened
        ({"a": 1}, {"a": "1"}, ["a=1", 'a="1"']),
        ({"a": None}, {"a": "null"}, ["a=null", 'a="null"']),
        ({"method.a.name": "x", "method.a.value": 1}, {"method.a.name": "y", "method.a.value": 2}, ["a=x · a value=1"]),
        ({"task.d": Told("f0", "D", "a/D")}, {"task.d": Told("f1", "D", "b/D")}, ["d=a/D", "d=b/D"]),
        ({"task.d": Told("f0", "D"), "n": 1}, {"task.d": Told("f1", "D"), "n": 2}, ["n=1", "n=2"]),
    ],
)
def test_a_value_is_as_short_as_it_can_be(one: dict[str, Any], other: dict[str, Any], said: list[str]) -> None:
    assert variants([one, other])[: len(said)] == said


def test_an_insertion_or_a_mixture_that_only_some_have_is_named() -> None:
    whole = load_method("mam").to_dict()
    mixed, less = copy.deepcopy(whole), copy.deepcopy(whole)
    mixed["insertions"]["ffn"]["mixture"] = {"experts": 4, "router": "uniform"}
    del less["insertions"]["attention"]
    said = variants([leaves({"method": one}) for one in (whole, mixed, less)])
    assert said == ["attention · no ffn mixture", "attention · ffn mixture", "no attention · no ffn mixture"]
    assert difference(leaves({"method": less}), leaves({"method": whole})) == "without attention"


CHANGES: dict[str, Any] = {
    "objective": lambda c: c["method"]["objective"].update(consistency={"weight": 1.0}),
    "unfreeze": lambda c: c["method"].update(unfreeze=["head", "norm"]),
    "order": lambda c: c["method"].update(insertions=dict(reversed(c["method"]["insertions"].items()))),
    "lr": lambda c: c["optim"].update(lr=0.2),
    "imports": lambda c: c.update(imports=["mine"]),
    "precision": lambda c: c.update(precision="bf16"),
    "length": lambda c: c["task"].update(max_length=8),
    "sites": lambda c: c["model"].update(sites="mine.yaml"),
    "budget": lambda c: c["budget"].update(max_steps=8),
    "model": lambda c: c["model"].update(path="elsewhere/model"),
    "layers": lambda c: c["method"]["insertions"]["ffn"]["position"].update(layers=[0, 1]),
}


@pytest.mark.parametrize("anyway", [False, True])
def test_no_two_runs_that_differ_share_a_row(anyway: bool) -> None:
    entries = []
    for name in ("none", *CHANGES):
        config: dict[str, Any] = {
            "method": load_method("mam").to_dict(),
            "task": {"name": "t", "max_length": 16},
            "model": {"name": "m", "path": "here/model", "sites": None},
            "budget": {"name": "none", "max_steps": None},
            "optim": {"lr": 0.1},
            "precision": "fp32",
            "imports": [],
        }
        if name != "none":
            CHANGES[name](config)
        record = Record(status="ok", run_id=name, method="mam", task="t", model="m", seed=0, score=0.5)
        entries.append(Entry(record, config))
    groups = compare(entries, anyway)
    labels = [(group.budget, label) for group in groups for label in group.labels]
    assert len(labels) == len(set(labels)) == len(CHANGES) + 1
    assert not any("{" in label or '"' in label for _, label in labels)


def test_rows_of_a_design_space_are_named_by_what_they_have() -> None:
    """Which insertions they lack, and their order, say nothing besides."""
    whole = load_method("unipelt").to_dict()
    parts = list(whole["insertions"])
    assert len(parts) > 2
    chosen = [[parts[0]], [parts[1], parts[2]], [parts[0], parts[2]], parts]
    rows = [{**whole, "insertions": {name: whole["insertions"][name] for name in names}} for names in chosen]
    flat = [{**leaves({"method": row}), INSERTION_ORDER: list(row["insertions"])} for row in rows]
    assert variants(flat) == [" · ".join(names) for names in chosen]
    turned = {**flat[1], INSERTION_ORDER: chosen[1][::-1]}
    assert len(set(variants([*flat, turned]))) == 5


def test_a_table_says_which_sizes_were_asked_for(tmp_path: Path) -> None:
    """Fitted sizes are another column's; what was asked is not what was trained."""
    key = "method.insertions.a.function.size"
    entries = []
    for size in (16, 32):
        method = {"name": "m", "insertions": {"a": {"function": {"name": "low_rank", "size": size}}}}
        record = Record(status="ok", run_id=str(size), method="m", task="t", model="b", seed=0, score=0.1)
        record.fitted.requested, record.fitted.sizes = {key: size}, {key: 2}
        entries.append(Entry(record, {"method": method, "task": {"name": "t"}}))
    assert [row.variant for row in aggregate(entries)] == ["asked size=16", "asked size=32"]


def write_mams(root: Path) -> list[Entry]:
    for number, method in enumerate(mams()):
        for seed in (0, 1):
            directory = write_run(
                root / str(number), "mam", seed, 0.6 + number / 20, record={"run_id": f"{number}-{seed}"}
            )
            config = json.loads(json.dumps({"method": method, "task": {"name": "t"}, "model": {"name": "m"}}))
            (directory / "config.yaml").write_text(json.dumps({**config, "budget": {"name": "none"}, "seed": seed}))
    return collect(root)


def test_every_output_has_the_same_labels(tmp_path: Path) -> None:
    entries = write_mams(tmp_path)
    groups, labels = compare(entries), [f"mam · {text}" for text in LABELS]
    table, rows = paper_table(groups), aggregate(entries)
    figure = scores(groups)
    assert {text.get_text().removesuffix(" =") for text in figure.axes[0].get_yticklabels()} == set(labels)
    html = page(entries)
    for label in labels:
        assert label in text_table(rows) and label in markdown(table) and label.replace("·", r"$\cdot$") in latex(table)
        assert label.removeprefix("mam · ") in csv_table(rows) and label.removeprefix("mam · ") in wide_csv(table)
        assert html.count(label) > 2, "chart, tables, the list of runs"


def test_a_long_label_is_broken_never_cut(tmp_path: Path) -> None:
    entries = [
        Entry(
            Record(status="ok", run_id=str(n), method="m" * 90, task=t, model="b", seed=0, score=0.1),
            {"method": {"name": "m" * 90, "very_long_option": "v" * 60 + str(n)}, "task": {"name": t}},
        )
        for n in (1, 2)
        for t in ("t", "u")
    ]
    text = text_table(aggregate(entries))
    assert max(map(len, text.splitlines())) <= 120 and "…" not in text
    assert "".join(text.split()).count("v" * 10) > 0 and "1" in text and "2" in text
    figure = scores(compare(entries))
    names = [label.get_text().replace("\n", "") for label in figure.axes[0].get_yticklabels()]
    assert len(set(names)) == 2 and all("v" * 40 in name for name in names)


def test_only_a_size_that_a_budget_replaced_was_asked() -> None:
    key = "method.insertions.x.function.size"
    free, fitted = {key: 16}, {key: 8, f"fitted.{key}": 2}
    assert [label.split(" · ")[0] for label in variants([free, fitted], [(), (key,)])] == ["size=16", "asked size=8"]
