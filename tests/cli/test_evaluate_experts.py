"""`unipet evaluate RUN --experts`: the comparison of a run's experts on request, kept in its record."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.running import LOW_RANK, MIXTURE, run_dir, tiny_config
from unipet.cli.commands.evaluate import main
from unipet.errors import UnipetError
from unipet.runs.record_files import read_record
from unipet.runs.run import run
from unipet.training import expert_comparison


def test_experts_are_compared_on_request_and_the_record_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(expert_comparison, "AUTOMATIC", 0)
    config = tiny_config(tmp_path, {**MIXTURE, "objective": {}}, budget__max_steps=3)
    before = run(config)["mixture"]
    assert before["not_compared"] and "ways" not in before
    assert main([str(run_dir(config)), "--experts"]) == 0
    said = capsys.readouterr().out
    assert "reproduced" in said and "oracle expert" in said and "barrier between the first two experts" in said
    kept = read_record(run_dir(config) / "result.json").to_dict()["mixture"]
    assert kept["not_compared"] is None and kept["use"] == before["use"]
    assert kept["ways"]["merged"]["score"] == read_record(run_dir(config) / "result.json").score


def test_without_a_mixture_there_is_nothing_to_compare(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, LOW_RANK, budget__max_steps=2)
    run(config)
    with pytest.raises(UnipetError, match="has a mixture, so there are no experts"):
        main([str(run_dir(config)), "--experts"])
