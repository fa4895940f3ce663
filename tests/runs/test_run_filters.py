"""Filters of runs: every operator on every kind of value, and one clear error for each that makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipet.errors import UnipetError
from unipet.runs.record import Data, ErrorOf, Record, Time
from unipet.runs.record_index import KnownRun
from unipet.runs.run_filters import filtered, read_filters


def run(name: str, seed: int, score: float | None, lr: float, **more: object) -> KnownRun:
    data = Data(synthetic=seed == 0)
    record = Record(
        status="failed" if score is None else "ok",
        method=name,
        task="synthetic_duels",
        seed=seed,
        score=score,
        time=Time(train_s=10.0 * seed),
        metrics={} if score is None else {"f1": score},
        data=data,
        error=ErrorOf("RuntimeError", "boom") if score is None else None,
        finished=f"2026-01-0{seed + 1}T00:00:00+00:00",
    )
    optim = {"lr": lr, "name": "adamw"}
    return KnownRun(
        Path(f"runs/{name}-{seed}"), record, {"optim": optim, "task": {"metrics": ["f1", "accuracy"]}, **more}
    )


RUNS = [run("lora", 0, 0.9, 1e-3), run("lora", 1, 0.7, 1e-2), run("mam", 2, None, 1e-3, budget={"gpus": 2})]


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        ([], [0, 1, 2]),
        (["method=lora"], [0, 1]),
        (["method=lora", "seed=1"], [1]),
        (["method!=lora"], [2]),
        (["method=l*,mam"], [0, 1, 2]),
        (["method=LORA"], []),
        (["task=synthetic_*"], [0, 1, 2]),
        (["seed=0,2"], [0, 2]),
        (["seed!=0,2"], [1]),
        (["score>0.7"], [0]),
        (["score>=0.7"], [0, 1]),
        (["score<0.9"], [1]),
        (["score<=9e-1"], [0, 1]),
        (["score=null"], [2]),
        (["score!=null"], [0, 1]),
        (["optim.lr=0.001"], [0, 2]),
        (["optim.lr=1e-3", "status=ok"], [0]),
        (["time.train_s>=10"], [1, 2]),
        (["metrics.f1>0.8"], [0]),
        (["budget.gpus=2"], [2]),
        (["budget.gpus!=2"], [0, 1]),
        (["data.synthetic=true"], [0]),
        (["finished>2026-01-02"], [1, 2]),
        (["task.metrics=f1+*"], [0, 1, 2]),
        (["run=lora-*"], [0, 1]),
        (["reason=null"], [0, 1, 2]),
        (["error=null"], [0, 1]),
        (["error=*boom*"], [2]),
        (["error.type=ValueError"], []),
        (["memory.peak_gib!=null"], []),
    ],
)
def test_what_a_filter_keeps(texts: list[str], kept: list[int]) -> None:
    assert filtered(RUNS, read_filters(texts)) == [RUNS[number] for number in kept]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method", "no filter"),
        ("=lora", "no filter"),
        ("methud=lora", "Did you mean 'method'"),
        ("optim.lrr=1", "Did you mean 'optim.lr'"),
        ("learning_rate=1", "Did you mean 'optim.lr'"),
        ("time.tran_s!=1", "Did you mean 'time.train_s'"),
        ("task.metrix!=f1", "Did you mean 'task.metrics'"),
        ("time!=1", "'time' holds several values. Give one of them: time.total_s, time.train_s, "),
        ("score>high", "'high' is none"),
        ("data.synthetic>0", "no number"),
        ("task.metrics>0", "no number"),
    ],
)
def test_what_is_no_filter(text: str, said: str) -> None:
    with pytest.raises(UnipetError) as caught:
        filtered(RUNS, read_filters([text]))
    assert said in str(caught.value) and text in str(caught.value)
