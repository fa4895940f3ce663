"""The statistics against scipy and on simulated data: intervals cover, p-values are uniform, corrections hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from unipet.errors import UnipetError
from unipet.report.resampling import RESAMPLED, answers
from unipet.report.statistics import combined, holm, over_examples, over_seeds, resamples
from unipet.tasks import METRICS
from unipet.tasks.label_sets import many_hot
from unipet.tasks.metrics import span_f1
from unipet.tasks.text_metrics import TEXT_METRICS

EXAMPLES = 100


def world(
    seeds: int, by_seed: float, by_example: float, rest: float, worlds: int = 2000, draw: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Differences of two equally good methods in many simulated experiments: per seed (W, S) and resampled (W, S, B).

    The variances are those of the overall mean that each source contributes."""
    rng = np.random.default_rng(draw)
    each = rng.normal(0, np.sqrt(by_seed * seeds), (worlds, seeds, 1))
    each = each + rng.normal(0, np.sqrt(by_example * EXAMPLES), (worlds, 1, EXAMPLES))
    each = each + rng.normal(0, np.sqrt(rest * seeds * EXAMPLES), (worlds, seeds, EXAMPLES))
    weights = np.concatenate(list(resamples(EXAMPLES, 1000)))
    drawn = each.reshape(-1, EXAMPLES).astype(np.float32) @ weights.T.astype(np.float32) / EXAMPLES
    return each.mean(-1), drawn.reshape(worlds, seeds, -1).astype(np.float64)


def test_over_seeds_is_scipys_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 20, 4))
    mine, known = over_seeds(a - b), stats.ttest_rel(a, b, axis=1)
    limits = known.confidence_interval(0.95)
    assert np.allclose(mine.p, known.pvalue, rtol=1e-9)
    assert np.allclose(mine.low, limits.low) and np.allclose(mine.high, limits.high)


def test_over_examples_is_scipys_bootstrap() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.binomial(1, [[0.8], [0.7]], (2, 400)).astype(float)
    drawn = np.concatenate(list(resamples(400, 4000))) @ (a - b) / 400
    mine = over_examples(np.array([(a - b).mean()]), drawn[None], 400)
    known = stats.bootstrap(
        (a, b), lambda x, y, axis: (x - y).mean(axis), paired=True, n_resamples=4000, rng=0, method="percentile"
    )
    assert np.sqrt(drawn.var(ddof=1)) == pytest.approx(known.standard_error, rel=0.05)
    assert [mine.low, mine.high] == pytest.approx(list(known.confidence_interval), abs=0.1 * known.standard_error * 2)
    assert mine.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=0.2)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_over_seeds_covers(seeds: int) -> None:
    found = over_seeds(np.random.default_rng(seeds).normal(size=(4000, seeds)))
    assert np.mean((found.low <= 0) & (found.high >= 0)) == pytest.approx(0.95, abs=0.02)
    assert stats.kstest(found.p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_over_examples_covers(seeds: int) -> None:
    differences, drawn = world(seeds, by_seed=0.0, by_example=1.0, rest=0.5)
    found = over_examples(differences, drawn, EXAMPLES)
    assert np.mean((found.low <= 0) & (found.high >= 0)) == pytest.approx(0.95, abs=0.02)
    assert stats.kstest(found.p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("shares", [(0, 1, 0), (1, 0, 0), (1, 1, 0), (3, 1, 0), (1, 1, 0.5), (9, 1, 0.2)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_combined_interval_covers_and_is_cautious_where_it_errs(seeds: int, shares: tuple[float, ...]) -> None:
    differences, drawn = world(seeds, *shares)
    found = combined(differences, drawn, EXAMPLES)
    covered = np.mean((found.low <= 0) & (found.high >= 0))
    assert 0.93 <= covered <= 0.98
    assert np.mean(found.p <= 0.05) == pytest.approx(1 - covered, abs=1e-9)


def test_one_source_alone_is_too_sure_of_itself() -> None:
    """Why the combined test decides: with both sources at work, each interval alone misses far too often."""
    differences, drawn = world(3, by_seed=1.0, by_example=1.0, rest=0.0)
    found = over_examples(differences, drawn, EXAMPLES)
    assert np.mean((found.low <= 0) & (found.high >= 0)) < 0.9


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews_correlation"])
def test_the_interval_over_examples_covers_for_scores_of_labels(metric: str) -> None:
    """Two equally good classifiers that fail on partly the same examples, one seed each; the true difference is zero."""
    rng, worlds, examples = np.random.default_rng(9), 1500, 200
    weights = np.concatenate(list(resamples(examples, 400)))
    everything = np.ones((1, examples))
    differences, drawn = np.empty((worlds, 1)), np.empty((worlds, 1, 400))
    for world_ in range(worlds):
        labels, hard = rng.integers(0, 2, examples), rng.random(examples) < 0.2
        scores = []
        for _ in range(2):
            right = np.where(hard, rng.random(examples) < 0.4, rng.random(examples) < 0.9)
            guess = np.where(right, labels, 1 - labels)
            lines = [
                {"id": "", "prediction": int(a), "label": int(b), "score": float(a == b)}
                for a, b in zip(guess, labels, strict=True)
            ]
            rescore = RESAMPLED[metric](lines, [])
            scores.append((rescore(everything)[0], rescore(weights)))
        differences[world_, 0], drawn[world_, 0] = scores[0][0] - scores[1][0], scores[0][1] - scores[1][1]
    found = over_examples(differences, drawn, examples)
    assert np.mean((found.low <= 0) & (found.high >= 0)) == pytest.approx(0.95, abs=0.02)


def test_nothing_to_judge_by_is_not_a_number() -> None:
    assert np.isnan(over_seeds(np.array([0.1])).p)
    assert np.isnan(over_seeds(np.array([0.1, 0.1])).p)  # the same difference twice is no evidence of its spread
    assert over_seeds(np.array([0.0, 0.0])).p == 1.0
    assert np.isnan(combined(np.array([0.1]), np.random.default_rng(0).normal(size=(1, 50)), 10).p)


def test_holm_is_closed_testing_with_bonferroni() -> None:
    """Holm's p-value of a hypothesis: the largest Bonferroni p-value of all the sets of hypotheses that hold it."""
    rng = np.random.default_rng(0)
    for count in (1, 2, 5):
        values = rng.uniform(0, 0.2, count)
        sets = [some for size in range(1, count + 1) for some in combinations(range(count), size)]
        closed = [
            max(min(1.0, len(some) * min(values[list(some)])) for some in sets if i in some) for i in range(count)
        ]
        assert holm(list(values)) == pytest.approx(closed)
    assert holm([]) == []


# --- scores on resampled examples -----------------------------------------------------------------------------------


def lines_of(metric: str, count: int = 60) -> list[dict[str, Any]]:
    """Predictions as `predictions.jsonl` holds them, of the kind of answers that the metric scores."""
    rng = np.random.default_rng(3)
    kind = metric.rpartition(" of ")[2] if " of " in metric else METRICS[metric].answers[0]
    lines: list[dict[str, Any]] = []
    for i in range(count):
        line: dict[str, Any] = {"id": f"e{i}", "score": float(rng.random())}
        if kind == "index":
            line |= {"prediction": int(rng.integers(3)), "label": int(rng.integers(3))}
            line["score"] = float(line["prediction"] == line["label"])
        elif kind == "number":
            line |= {"label": float(rng.integers(5)) / 2, "prediction": float(rng.integers(9)) / 3}
        elif kind == "sets":
            line |= {key: np.flatnonzero(rng.random(4) < 0.4).tolist() for key in ("label", "prediction")}
            line |= {"logits": [0.0] * 5, "score": float(line["label"] == line["prediction"])}
        elif kind == "tags":
            words = int(rng.integers(1, 7))
            line |= {key: rng.integers(0, 5, words).tolist() for key in ("label", "prediction")}
            line["prediction"][-1] = -1 if i % 4 == 0 else line["prediction"][-1]
        else:
            words = "a cat sat on the mat and a dog lay by the door .".split()
            texts = [" ".join(rng.choice(words, int(rng.integers(4, 12)))) for _ in range(3)]
            line |= {"prediction": texts[0], "references": texts[1 : 2 + i % 2]}
        lines.append(line)
    return lines


TAGS = ["O", "B-x", "I-x", "B-y", "I-y"]


def by_the_metric(metric: str, lines: Sequence[dict[str, Any]]) -> float:
    """The room of tasks' own value."""
    if metric == "accuracy of tags":
        pairs = [(a, b) for line in lines for a, b in zip(line["prediction"], line["label"], strict=True)]
        return sum(a == b for a, b in pairs) / len(pairs)
    if metric == "f1 of tags":
        guess, truth = (
            [[TAGS[i] if i >= 0 else "O" for i in one[key]] for one in lines] for key in ("prediction", "label")
        )
        return span_f1(guess, truth)
    if metric.endswith(" of sets"):
        guess, truth = (many_hot([one[key] for one in lines], 5).astype(int) for key in ("prediction", "label"))
        compute = METRICS[metric.removesuffix(" of sets")].compute
        assert compute is not None
        return float(compute(guess, truth))
    if metric in TEXT_METRICS:
        return TEXT_METRICS[metric]([one["prediction"] for one in lines], [one["references"] for one in lines]).corpus
    compute = METRICS[metric].compute
    assert compute is not None
    return float(compute(*(np.array([one[key] for one in lines]) for key in ("prediction", "label"))))


SAME_AS_ITS_METRIC = ["accuracy", "f1", "f1_macro", "matthews_correlation", "pearson", "spearman", "bleu", "ter"]


OF_SETS = [f"{name} of sets" for name in ("f1_micro", "f1_macro", "subset_accuracy")]


@pytest.mark.parametrize("metric", [*SAME_AS_ITS_METRIC, "accuracy of tags", "f1 of tags", *OF_SETS])
def test_a_resampled_score_is_the_metric_of_the_drawn_examples(metric: str) -> None:
    lines = lines_of(metric)
    drawn = np.concatenate([np.ones((1, len(lines))), *resamples(len(lines), 4, seed=5)])
    found = RESAMPLED[metric](lines, TAGS)(drawn)
    for row, value in zip(drawn, found, strict=True):
        again = [line for line, times in zip(lines, row.astype(int), strict=True) for _ in range(times)]
        assert value == pytest.approx(by_the_metric(metric, again), abs=1e-9)


def test_every_metric_is_resampled_or_known_not_to_be() -> None:
    assert METRICS.keys() - {name.partition(" of ")[0] for name in RESAMPLED} == {"chrf", "nist", "perplexity"}


def test_degenerate_resamples_have_the_metrics_own_zero() -> None:
    lines = [{"id": str(i), "prediction": 0, "label": i % 2} for i in range(4)]
    for metric in ("f1", "matthews_correlation", "pearson", "spearman"):
        assert RESAMPLED[metric](lines, [])(np.ones((2, 4))).tolist() == [0.0, 0.0]


def write(directory: Path, lines: Sequence[dict[str, Any]]) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def test_predictions_must_give_the_recorded_score(tmp_path: Path) -> None:
    lines = lines_of("accuracy")
    score = by_the_metric("accuracy", lines)
    found = answers(write(tmp_path, lines), "accuracy", score, [])
    assert not isinstance(found, str) and found.ids == tuple(f"e{i}" for i in range(60))
    assert answers(tmp_path, "accuracy", score + 0.01, []) == (
        f"predictions.jsonl gives accuracy {score:.6g}, the record says {score + 0.01:.6g}"
    )
    assert answers(tmp_path, "nist", 1.0, []) == "nist cannot be computed on resampled examples"
    assert answers(tmp_path / "nowhere", "accuracy", score, []) == "no predictions.jsonl"
    assert answers(None, "accuracy", score, []) == "no predictions.jsonl"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no prediction"),
        ('{"id": 1}\n{', "line 2: not JSON"),
        ("[1]\n", "line 1"),
        ('{"id": 1}\n', "cannot be scored"),
    ],
)
def test_damaged_predictions_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "predictions.jsonl").write_text(text)
    with pytest.raises(UnipetError, match=f"predictions.jsonl.*{words}"):
        answers(tmp_path, "accuracy", 0.5, [])
