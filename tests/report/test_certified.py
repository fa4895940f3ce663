"""Certificates in a report: a column, a badge, and a ranking of certified runs alone."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from tests.support.reports import write_run
from unipet.adaptation.certificate import AFTERWARDS, CHECKS
from unipet.cli.main import main
from unipet.errors import UnipetError
from unipet.report.aggregate import aggregate
from unipet.report.certified import only_certified
from unipet.report.collect import collect
from unipet.report.numbers import GAP
from unipet.report.page.document import page
from unipet.report.table import csv_table, text_table


def certificate(**statuses: str) -> dict[str, Any]:
    made = {name: "not_run" if name in AFTERWARDS else "passed" for name in CHECKS} | statuses
    return {"certificate": {"by": "run", "checks": {name: {"status": status} for name, status in made.items()}}}


@pytest.fixture()
def runs(tmp_path: Path) -> Path:
    """One method certified, one of whose two seeds one is, and one from before there were certificates."""
    for seed in (0, 1):
        write_run(tmp_path, "good", seed, record=certificate())
        write_run(tmp_path, "alike", seed, record=certificate(merge="failed" if seed else "passed"))
        write_run(tmp_path, "bad", seed)
    return tmp_path


def test_a_column_says_which_rows_are_certified(runs: Path) -> None:
    rows = aggregate(collect(runs))
    assert {row.method: row.certified.text for row in rows} == {"good": "yes", "alike": "1 of 2", "bad": GAP}
    assert "certified" in text_table(rows).splitlines()[2]
    told = {row["method"]: row["certified"] for row in csv.DictReader(io.StringIO(csv_table(rows)))}
    assert told == {"good": "2", "alike": "1", "bad": "0"}


def test_what_all_rows_share_stands_above_and_what_no_row_has_nowhere(tmp_path: Path) -> None:
    write_run(tmp_path / "new", "good", record=certificate())
    write_run(tmp_path / "new", "bad", record=certificate())
    write_run(tmp_path / "old", "good")
    assert "certified: yes" in text_table(aggregate(collect(tmp_path / "new"))).splitlines()[0]
    assert "certified" not in text_table(aggregate(collect(tmp_path / "old")))
    assert "certified" not in page(collect(tmp_path / "old"))


def test_the_page_has_a_badge(runs: Path) -> None:
    html = page(collect(runs))
    assert html.count("✓ certified") == 1 and "1 of 2" in html


def test_certified_runs_alone(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs), "--certified"]) == 0
    shown = capsys.readouterr().out
    table, left_out = shown.split("left out, not certified:")
    assert "good" in table and "bad " not in table
    assert "alike-t-1-none: not certified: failed: merge" in left_out and "bad-t-0-none: no certificate" in left_out


def test_none_is_left(tmp_path: Path) -> None:
    write_run(tmp_path, "bad")
    with pytest.raises(UnipetError, match="none of 1 finished runs is certified"):
        only_certified(collect(tmp_path))


def test_a_hostile_label_is_escaped_in_the_page(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    failing = {"certificate": {"checks": {"merge": {"status": "failed", "text": hostile}}}}
    write_run(tmp_path, "good", task=hostile.replace("/", "_"), record=failing)
    write_run(tmp_path, "bad", record=certificate())
    assert "<script>alert(1)" not in page(collect(tmp_path))
