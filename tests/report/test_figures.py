"""Figures for papers: every seed, and one curve per method over budgets."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.reports import two_tasks, write_run
from unipet.errors import UnipetError
from unipet.report import figures
from unipet.report.collect import collect
from unipet.report.comparing import compare
from unipet.report.tuning import Curve


def test_figures_are_vector_and_picture(tmp_path: Path) -> None:
    groups = two_tasks(tmp_path / "runs")
    once = figures.write_figures(tmp_path / "f", groups)
    assert sorted(path.name for path in once) == sorted(f"{n}.{k}" for n in figures.FIGURES for k in ("pdf", "png"))
    content = {path: path.read_bytes() for path in once}
    for path, data in content.items():
        assert data.startswith(b"%PDF" if path.suffix == ".pdf" else b"\x89PNG") and len(data) > 5000
    assert sorted((tmp_path / "f").iterdir()) == sorted(once)


def test_no_title_is_cut_at_the_edge(tmp_path: Path) -> None:
    """A title that is wider than its panel makes the picture wider."""
    groups = two_tasks(tmp_path / "runs")
    widths = []
    for name in ("b", "a budget of many words " * 6):
        written = figures.write_figures(tmp_path / str(len(widths)), groups, [replace(curve("x"), budget=name)])
        picture = next(path for path in written if path.name == "tuning.png").read_bytes()
        widths.append(int.from_bytes(picture[16:20], "big"))
    assert widths[1] > 2 * widths[0]


def test_figures_show_every_seed(tmp_path: Path) -> None:
    groups = two_tasks(tmp_path)
    panel = figures.scores(groups).axes[0]
    dots = [line for line in panel.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [3, 3, 3]
    assert sorted(x for line in dots for x in line.get_xdata()) == pytest.approx(
        sorted(score for row in groups[0].rows for score in row.scores)
    )


def test_a_method_is_one_curve_over_budgets_of_parameters(tmp_path: Path) -> None:
    """Figure 4 of He et al.: budgets that differ in parameters share a panel; another limit has a panel of its own."""
    for budget, percent, steps in (("small", 0.5, 9), ("large", 1.0, 9), ("long", 1.0, 99)):
        limits = {"trainable_percent": percent, "max_steps": steps}
        record = {"params": {"trainable": int(1000 * percent), "percent": percent}, "limits": limits}
        for seed in range(2):
            write_run(tmp_path, "good", seed, record=record, budget={"name": budget, **limits})
    axes = figures.scores_by_parameters(compare(collect(tmp_path))).axes
    assert [axis.get_title().split(", ")[-1] for axis in axes] == ["max_steps=9", "max_steps=99"]
    curves = [axis.containers[0].lines[0].get_xdata().tolist() for axis in axes]
    assert curves == [[0.5, 1.0], [1.0]]


def test_one_seed_has_no_error_bar(tmp_path: Path) -> None:
    """A deviation that is not known is not a deviation of zero."""
    write_run(tmp_path, "good")
    (axis,) = figures.scores_by_parameters(compare(collect(tmp_path))).axes
    (bar,) = axis.containers[0].lines[2]
    assert all(math.isnan(y) for _, y in bar.get_segments()[0])


def test_no_matplotlib_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    with pytest.raises(UnipetError, match=r"pip install 'unipet\[plots\]'"):
        figures.write_figures(tmp_path, two_tasks(tmp_path / "runs"))


def test_one_value_is_written_at_the_axis(tmp_path: Path) -> None:
    write_run(tmp_path, "good", predictions=False, record={"score": 0.6917, "params": {"trainable": 5, "percent": 3.2}})
    groups = compare(collect(tmp_path))
    assert [text.get_text() for text in figures.scores(groups).axes[0].get_xticklabels()] == ["0.6917"]
    axis = figures.scores_by_parameters(groups).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["0.6917"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "3.2"]


def curve(label: str, task: str = "t") -> Curve:
    values = (0.5, 0.6, 0.7)
    place = (task, "m", "b", "accuracy")
    return Curve(*place, label, f"method={label}", "random", values, tuple(v - 0.1 for v in values), (0.7, 0.8, 0.9))


def test_many_tuning_curves_stay_readable() -> None:
    """Every study has a colour and mark of its own, the same in each panel; the legend covers no line; intervals are for few."""
    names = [f"method_{number}" for number in range(14)]
    figure = figures.efforts([curve(name, task) for task in ("t", "u") for name in names])
    figure.draw_without_rendering()  # lays it out
    panels = figure.axes
    looks = [[(line.get_color(), line.get_marker()) for line in panel.lines] for panel in panels]
    assert looks[0] == looks[1] and len(set(looks[0])) == len(names)
    assert not any(panel.collections for panel in panels)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    beside = legend.get_window_extent()
    assert not any(panel.get_window_extent().overlaps(beside) for panel in panels)
    few = figures.efforts([curve(name) for name in names[: figures.BANDS]])
    assert len(few.axes[0].collections) == figures.BANDS
