"""Published numbers stand beside ours, gaps are gaps, and a bad file is one error."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipet.errors import UnipetError
from unipet.report.collect import Entry
from unipet.report.published import beside, published_text, read_published

HEAD = "method,task,metric,published,std,runs,params_percent,source\n"


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "published.csv"
    path.write_text(text)
    return path


def run(method: str, seed: int, status: str = "ok", **metrics: float) -> Entry:
    known = {
        "status": status,
        "run_id": f"{method}{seed}",
        "method": method,
        "task": "xsum",
        "model": "bart",
        "budget": "none",
    }
    return Entry({**known, "seed": seed, "score": next(iter(metrics.values())), "metrics": metrics})


def test_ours_stand_beside_them(tmp_path: Path) -> None:
    rows = "a,xsum,rouge2,20.5,0.1,3,3.6,Paper\na,xsum,rouge1,43.4,,1,3.6,Paper\nb,xsum,rouge2,21,,1,6,Paper\n"
    published = read_published(table(tmp_path, HEAD + rows))
    entries = [
        run("a", 0, rouge2=19.0, rouge1=40.0),
        run("a", 1, rouge2=21.0, rouge1=42.0),
        run("b", 0, "failed", rouge2=9.0),
    ]
    found = {one.key: ours for one, ours in beside(published, entries)}
    assert found["a", "xsum", "rouge2"] == [("bart, budget none", [19.0, 21.0])]
    assert found["a", "xsum", "rouge1"] == [("bart, budget none", [40.0, 42.0])]
    assert found["b", "xsum", "rouge2"] == []
    text = published_text(published, entries)
    line = next(line for line in text.splitlines() if line.startswith("a ") and "rouge2" in line)
    assert "20.5 ± 0.1" in line and "20 ± 1.4" in line and "-0.5" in line
    gap = next(line for line in text.splitlines() if line.startswith("b "))
    assert gap.split()[-1] == "-" and "9" not in gap


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
