"""The shipped published numbers, the form of their files, and the differences in setting that a report lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from unipet.cli.main import main
from unipet.compose.parse_run_config import check_key
from unipet.errors import UnipetError
from unipet.report.collect import Entry
from unipet.report.published.asked import SOURCES, read_published, source_names
from unipet.report.published.beside import beside, published_text, setting_notes
from unipet.report.published.number import Published
from unipet.runs.record import Record
from unipet.tasks.scoring import METRICS

TASKS = {path.stem for path in (ROOT / "conf" / "task").glob("*.yaml")} | {"metamathqa"}
MODELS = {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")}
EMPTY = ("autopeft",)  # sources of which no number has been read
TEXT = """source: P
scale: {accuracy: 0-100}
settings_of: {sst2: {optim.lr: 1e-4, optim.epochs: 10}}
tables:
  t1:
    settings: {model.name: bert_base, optim.schedule: linear}
    notes: [chosen on the reported split]
    rows:
      - {method: lora, task: sst2, metric: accuracy, value: 94.2, std: 0.2, runs: 5}
      - {method: lora, task: sst2, metric: accuracy, value: 92.0, settings: {optim.lr: 1e-3, optim.epochs: null}}
"""


@pytest.mark.parametrize("name", source_names())
def test_a_source_names_tasks_metrics_models_and_keys_that_exist(name: str) -> None:
    assert (SOURCES / f"{name}.yaml").read_text().startswith("# ")
    if name in EMPTY:
        with pytest.raises(UnipetError, match="were not available"):
            read_published([name])
        return
    for number in read_published([name]):
        assert (
            number.task in TASKS and number.metric in METRICS and number.source and number.place.startswith(f"{name}:")
        )
        assert number.model in MODELS or "/" in number.model, number
        assert 0 < number.value <= (number.top or 10)
        for key in number.settings:
            check_key(key)


def write(tmp_path: Path, text: str = TEXT) -> str:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return str(path)


def test_a_row_s_settings_come_before_its_table_s_and_these_before_the_task_s(tmp_path: Path) -> None:
    first, second = read_published([write(tmp_path)])
    assert first.settings == {
        "optim.lr": "1e-4",
        "optim.epochs": "10",
        "model.name": "bert_base",
        "optim.schedule": "linear",
    }
    assert second.settings == {"optim.lr": "1e-3", "model.name": "bert_base", "optim.schedule": "linear"}
    assert (first.model, first.top, first.place, second.place) == ("bert_base", 100.0, "p:t1", "p:t1 optim.lr=1e-3")
    assert read_published([write(tmp_path) + ":t1"]) == [first, second]


def ours(model: str = "bert_base", rate: float = 1e-4, **task: object) -> Entry:
    record = Record(status="ok", run_id="r", method="lora", task="sst2", model=model, budget="none", seed=0, score=0.93)
    record.metrics, record.metric = {"accuracy": 0.93}, "accuracy"
    return Entry(
        record, {"optim": {"lr": rate, "epochs": 10, "schedule": "linear"}, "task": task, "model": {"name": model}}
    )


def test_an_equal_setting_has_a_difference_of_scores_and_no_other(tmp_path: Path) -> None:
    first, second = beside(read_published([write(tmp_path)]), [ours()])
    assert first.difference == pytest.approx(-0.012) and first.differences == () and first.why == ""
    assert second.differences == ("optim.lr: 1e-3 there, 0.0001 here",)
    assert setting_notes([second]) == [
        "P t1 (optim.lr=1e-3), lora on sst2: optim.lr: 1e-3 there, 0.0001 here; chosen on the reported split"
    ]


def test_other_settings_are_listed_and_another_base_model_has_no_difference(tmp_path: Path) -> None:
    first, _ = beside(read_published([write(tmp_path)]), [ours("minilm", 3e-3, max_train=64)])
    assert first.mean == 0.93 and first.difference is None and first.why == "bert_base there, minilm here"
    assert first.differences == ("optim.lr: 1e-4 there, 0.003 here", "task.max_train: 64 here")
    text = published_text([first])
    assert "Where the settings of published numbers differ from ours" in text and "task.max_train: 64 here" in text


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "task: sst2, metric: accuracy, value: 94.2",
            "task: sst2, metric: f1, value: 94.2",
            "no scale is given of 'f1'",
        ),
        ("0-100", "0-10", "scale.accuracy: unknown '0-10'"),
        ("value: 94.2", "value: high", "tables.t1.rows[0].value: 'high' given"),
        ("value: 94.2, ", "", "value: not given"),
        (", settings: {optim.lr: 1e-3, optim.epochs: null}", "", "stands there twice"),
        ("tables:", "tabels:", "tabels"),
        ("    rows:", "    rwos:", "rwos"),
    ],
)
def test_a_mistake_in_a_file_is_one_error(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TEXT
    with pytest.raises(UnipetError) as error:
        read_published([write(tmp_path, TEXT.replace(old, new, 1))])
    assert says in str(error.value) and "p.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("he2021", "Did you mean 'he2022'?"),
        ("he2022:table9", "unknown 'table9'. Allowed: figure4"),
        ("nowhere.yaml", "nowhere.yaml"),
        ("nowhere.csv", "nowhere.csv cannot be read"),
        ("autopeft", "were not available"),
    ],
)
def test_what_is_not_there_is_one_error(
    asked: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["report", str(tmp_path), "--published", asked]) == 2
    err = capsys.readouterr().err
    assert says in err and "Traceback" not in err


def test_several_sources_may_be_asked_for_and_a_number_comes_once() -> None:
    numbers = read_published(["he2022:table2", "he2022:table2", "unipelt"])
    assert len(numbers) == len(read_published(["he2022:table2"])) + len(read_published(["unipelt"]))
    assert all(isinstance(number, Published) for number in numbers)
