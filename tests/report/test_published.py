"""Published numbers stand beside ours, gaps are gaps, and a bad file is one error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.reports import write_run
from unipet.cli.main import main
from unipet.errors import UnipetError
from unipet.report.collect import Entry, collect
from unipet.report.published.beside import Beside, beside, published_text
from unipet.report.published.csv_file import read_csv as read_published
from unipet.runs.record import Record

HEAD = "method,task,metric,published,std,runs,params_percent,source\n"


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "published.csv"
    path.write_text(text)
    return path


def run(method: str, seed: int, status: str = "ok", **metrics: float) -> Entry:
    names = {"run_id": f"{method}{seed}", "method": method, "task": "xsum", "model": "bart", "budget": "none"}
    return Entry(Record(status=status, seed=seed, score=next(iter(metrics.values())), metrics=metrics, **names))


def test_ours_stand_beside_them(tmp_path: Path) -> None:
    rows = "a,xsum,rouge2,20.5,0.1,3,3.6,Paper\na,xsum,rouge1,43.4,,1,3.6,Paper\nb,xsum,rouge2,21,,1,6,Paper\n"
    published = read_published(table(tmp_path, HEAD + rows))
    entries = [
        run("a", 0, rouge2=19.0, rouge1=40.0),
        run("a", 1, rouge2=21.0, rouge1=42.0),
        run("b", 0, "failed", rouge2=9.0),
    ]
    told = beside(published, entries)
    found = {one.number.key: one for one in told}
    assert len(found) == len(told) == 3
    two, one, none = (found[key] for key in (("a", "xsum", "rouge2"), ("a", "xsum", "rouge1"), ("b", "xsum", "rouge2")))
    assert (two.label, two.model, two.budget, two.mean, two.seeds, two.difference) == (
        "a",
        "bart",
        "none",
        20.0,
        2,
        -0.5,
    )
    assert (one.mean, one.std, one.number.value) == (41.0, pytest.approx(2**0.5), 43.4)
    assert (none.label, none.mean, none.difference, none.seeds) == ("", None, None, 0)
    text = published_text(told)
    line = next(line for line in text.splitlines() if line.startswith("a ") and "rouge2" in line)
    assert "20.50 ± 0.10" in line and "20.00 ± 1.41" in line and "-0.50" in line
    gap = next(line for line in text.splitlines() if line.startswith("b "))
    assert gap.split() == ["b", "xsum", "rouge2", "Paper", "21.00", "-", "-", "0", "-", "0", "to", "100"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("method,task,published\n", "lacks the column 'metric'"),
        (HEAD, "holds no rows"),
        (HEAD + "a,xsum,rouge2,high,,,,\n", "line 2: published='high'"),
        (HEAD + "a,xsum,rouge2,1,,,,\na,xsum,rouge2,2,,,,\n", "line 3: a, xsum, rouge2 stands there twice"),
    ],
)
def test_a_bad_file_is_one_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UnipetError, match="--published") as caught:
        read_published(table(tmp_path, text))
    assert says in str(caught.value)


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UnipetError, match=r"nowhere\.csv cannot be read"):
        read_published(tmp_path / "nowhere.csv")


def accuracies(tmp_path: Path, text: str, ours: float = 0.18) -> list[Beside]:
    entry = run("a", 0, accuracy=ours)
    return beside(read_published(table(tmp_path, text)), [Entry(replace(entry.record, metric="accuracy"))])


def test_per_cent_is_brought_to_the_scale_of_the_record(tmp_path: Path) -> None:
    """95.0 beside our 0.18 is 0.95, and its deviation with it; 0.95 is 0.95."""
    (one,) = accuracies(tmp_path, "method,task,metric,published,std\na,xsum,accuracy,95.0,1.5\n")
    assert (one.number.value, one.number.std, one.difference) == (0.95, pytest.approx(0.015), pytest.approx(-0.77))
    (same,) = accuracies(tmp_path, "method,task,metric,published\na,xsum,accuracy,0.95\n")
    assert (same.number.value, same.difference, same.why) == (0.95, pytest.approx(-0.77), "")
    assert "-0.7700" in published_text([one]) and "0.9500 ± 0.0150" in published_text([one])


@pytest.mark.parametrize(
    ("rows", "scales", "says"),
    [
        (["a,xsum,accuracy,0.95,", "b,xsum,accuracy,94.2,"], "0-1", "The file has both"),
        (["a,xsum,rouge2,0.21,"], "0-1", "a share or per cent"),
        (["a,xsum,accuracy,250,"], None, "outside the scale of accuracy"),
        (["a,xsum,made_up,3,"], None, "not known"),
    ],
)
def test_a_difference_that_cannot_be_told_is_refused_with_a_reason(
    tmp_path: Path, rows: list[str], scales: str | None, says: str
) -> None:
    entries = [run("a", 0, accuracy=0.18, rouge2=20.0, made_up=1.0)]
    head = "method,task,metric,published,scale\n"
    first = beside(read_published(table(tmp_path, head + "\n".join(rows) + "\n")), entries)[0]
    assert first.difference is None and says in first.why and first.mean is not None
    assert says in published_text([first])
    if scales:  # a column says which
        known = read_published(table(tmp_path, head + "\n".join(f"{row}{scales}" for row in rows[:1]) + "\n"))
        assert beside(known, entries)[0].difference is not None


def test_an_unknown_scale_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UnipetError, match="line 2: scale: unknown '0-10'"):
        read_published(table(tmp_path, "method,task,metric,published,scale\na,xsum,rouge2,1,0-10\n"))


def test_variants_stand_apart(tmp_path: Path) -> None:
    """Two sizes of one method are not averaged into one number of ours."""
    published = read_published(table(tmp_path, HEAD + "good,t,accuracy,80,,1,,P\n"))
    for size, rate in ((8, 0.6), (16, 0.8)):
        for seed in (0, 1):
            directory = write_run(tmp_path / str(size), "good", seed, rate, record={"run_id": f"{size}-{seed}"})
            path = directory / "config.yaml"
            path.write_text(path.read_text().replace("name: good", f"name: good\n  size: {size}", 1))
            record = json.loads((directory / "result.json").read_text())
            (directory / "result.json").write_text(json.dumps(record | {"metrics": {"accuracy": record["score"]}}))
    found = beside(published, collect(tmp_path))
    assert {(one.label, one.seeds) for one in found} == {("good · size=8", 2), ("good · size=16", 2)}


def test_published_numbers_stand_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        directory = write_run(tmp_path / "runs", "good", seed)
        record = json.loads((directory / "result.json").read_text())
        (directory / "result.json").write_text(json.dumps(record | {"metrics": {"accuracy": record["score"]}}))
    path = table(tmp_path, HEAD + "good,t,accuracy,95.12,,1,,A paper\nnever_run,t,accuracy,91.37,,1,,A paper\n")
    names = ("html", "latex", "csv", "rows", "markdown")
    options = [word for name in names for word in (f"--{name}", str(tmp_path / name))]
    assert main(["report", str(tmp_path / "runs"), "--published", str(path), *options]) == 0
    texts = {name: (tmp_path / name).read_text() for name in names} | {"text": capsys.readouterr().out}
    for name, text in texts.items():
        for value in ("0.9512", "0.9137"):
            assert value in text, name
        assert "95.12" not in text, name
