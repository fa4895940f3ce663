"""`unipet runs`: lists, filters, compares two, exports, and deletes nothing that it should not."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.reports import write_run
from unipet.cli.main import main
from unipet.runs.run_directory import locked


@pytest.fixture()
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        write_run(Path("runs"), "good", seed, record={"finished": f"2026-01-0{2 - seed}T10:00:00+00:00"})
    write_run(
        Path("runs"),
        "bad",
        config={"name": "u"},
        record={"status": "failed", "score": None, "reason": "no memory\n\nmore"},
    )
    return Path("runs")


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["runs", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_list_has_every_run_the_last_to_finish_at_the_end(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys)
    lines = out.splitlines()
    assert code == 0 and err == "" and lines[0].split()[:3] == ["run", "status", "method"]
    assert [line.split()[0] for line in lines[2:5]] == ["bad-t-0-none", "good-t-1-none", "good-t-0-none"]
    assert lines[-1] == "3 runs in runs: 1 failed, 2 ok"


def test_filters_on_any_key(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "status=failed")[1].splitlines()[-1] == "1 of 3 runs in runs: 1 failed"
    assert "good-t-1" in call(capsys, "method=good", "seed=1", "optim.lr=0.1")[1]
    assert call(capsys, "score>2")[1] == "0 of 3 runs in runs\n"
    assert call(capsys, "runs_dir=elsewhere")[0] == 2
    assert call(capsys, "methud=good")[2].startswith("error: methud=good: no run has the key")


def test_json_and_csv_have_flat_columns_and_swept_keys(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--json", "--csv", "out/runs.csv")
    rows = json.loads(out)
    assert code == 0 and [row["run"] for row in rows] == ["bad-t-0-none", "good-t-1-none", "good-t-0-none"]
    assert rows[0]["reason"] == "no memory" and rows[0]["score"] is None and rows[0]["status"] == "failed"
    assert rows[1]["params.trainable"] == 400 and rows[1]["time.train_s"] == 1.0
    assert [row["task.data_dir"] for row in rows] == ["bad", "good", "good"]  # differs, so it is a column
    assert "optim.lr" not in rows[0] and "task.selection" not in rows[0]  # the same everywhere
    with open("out/runs.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [list(row) for row in table] == [list(row) for row in rows]
    assert table[0]["score"] == "" and float(table[1]["score"]) == rows[1]["score"]


def test_diff_says_what_differs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--diff", "good-t-0-none", str(runs / "bad-t-0-none"))
    assert code == 0 and "method.name" in out and "record: status" in out and "optim.lr" not in out
    both = json.loads(call(capsys, "--diff", "good-t-0-none", "good-t-1-none", "--json")[1])
    assert both["seed"] == [0, 1] and both["record: finished"][0].startswith("2026-01-02")
    assert "differ in nothing" in call(capsys, "--diff", "good-t-0-none", "good-t-0-none")[1]
    code, _, err = call(capsys, "--diff", "good-t-0-none", "nowhere")
    assert code == 2 and "nowhere: no run there" in err


def test_a_record_that_cannot_be_read_is_named_beside_the_list(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "good-t-0-none" / "result.json").write_text("{")
    code, out, err = call(capsys)
    assert (
        code == 0 and out.splitlines()[-1].startswith("2 runs") and "good-t-0-none/result.json: not a readable" in err
    )


def test_without_a_terminal_deleting_needs_yes(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, _, err = call(capsys, "status=failed", "--delete")
    assert code == 2 and "Add --yes" in err and (runs / "bad-t-0-none").is_dir()
    code, out, _ = call(capsys, "status=failed", "--delete", "--yes")
    assert code == 0 and "deleted: 1" in out and not (runs / "bad-t-0-none").exists()
    assert (runs / "good-t-0-none" / "result.json").is_file() and (runs / "good-t-1-none" / "result.json").is_file()


@pytest.mark.parametrize(
    ("answer", "gone"), [("y\n", True), ("yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_on_a_terminal_it_asks(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str, gone: bool
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    code, out, _ = call(capsys, "status=failed", "--delete")
    assert code == 0 and "delete 1 run, " in out and (runs / "bad-t-0-none").exists() is not gone


def test_a_run_that_is_being_done_is_kept(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(runs / "bad-t-0-none"):
        code, _, err = call(capsys, "--delete", "--yes")
    assert code == 1 and "bad-t-0-none: another process is doing this run" in err
    assert sorted(path.name for path in runs.iterdir() if path.name != ".cache") == ["bad-t-0-none"]


def test_what_links_lead_to_outside_stays(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = write_run(tmp_path / "outside", "good")
    os.symlink(outside, runs / "linked")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    os.symlink(tmp_path / "precious", runs / "bad-t-0-none" / "inside")
    code, out, _ = call(capsys, "--delete", "--yes")
    assert code == 0 and "deleted: 3" in out
    assert (outside / "result.json").is_file() and (tmp_path / "precious" / "file").read_text() == "kept"


def test_the_root_itself_and_runs_around_others_stay(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, f"runs_dir={runs / 'bad-t-0-none'}", "--delete", "--yes")
    assert code == 1 and "it is not below" in err and (runs / "bad-t-0-none" / "result.json").is_file()
    write_run(runs / "bad-t-0-none", "alike")
    code, _, err = call(capsys, "status=failed", "--delete", "--yes")
    assert code == 1 and "another run lies in it" in err and (runs / "bad-t-0-none" / "alike-t-0-none").is_dir()


@pytest.mark.parametrize(
    "argv",
    [("--yes",), ("--delete", "--json"), ("--diff", "a", "b", "seed=0"), ("--diff", "a", "b", "--delete"), ("score",)],
)
def test_what_does_not_go_together_is_one_error(
    runs: Path, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    code, out, err = call(capsys, *argv)
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
