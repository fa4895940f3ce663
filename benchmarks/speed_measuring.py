"""Time and memory of the floor, ours and a peer, which take turns in one process.

What else a machine does changes the time of a step, so only steps of one round are compared: a ratio is taken within each
round. Of a ratio to the floor the median over rounds is reported with its quartiles, which show how far a round may lie; of ours
to the peer's the median with its interval of 95 %, which tells whether one is faster. Who is first changes from round to round,
and who follows whom: a step finds the memory as the one before it left it.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler says nothing; it is read when torch is imported

import torch

from benchmarks.speed_models import Workload
from benchmarks.speed_pairs import Pair
from benchmarks.speed_variants import Variant, floor, merged, ours, peer

MIB = 2**20
SEED = 0
Rounds = dict[str, list[float]]
#: What a variant does in a phase.
ACTIONS = {"training": "step", "evaluation": "evaluate", "merged evaluation": "evaluate", "generation": "generate"}


def keep_freed_memory() -> bool:
    """Let the allocator keep what is freed; whether it does. glibc would give some of it back to the system and take it anew,
    which costs a few percent of a step; which variant pays depends on what stepped before it, not on the method.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h: no piece of memory of its own for any tensor, and none given back.
    return all([set_option(-4, 0), set_option(-1, 2**31 - 1)])


def take_turns(jobs: Mapping[str, Callable[[], None]], seconds: float, least: int, most: int, device: str) -> Rounds:
    """The seconds of each job in each round: at least `least` rounds, then as many as fit into `seconds`, at most `most`.
    Each job runs once before."""
    started = time.perf_counter()
    for job in jobs.values():
        job()
    names, times = list(jobs), {name: [] for name in jobs}
    for number in range(most):
        if number >= least and time.perf_counter() - started > seconds:
            break
        turn = number // 2 % len(names)
        order = names[turn:] + names[:turn]
        for name in reversed(order) if number % 2 else order:
            _wait(device)
            begun = time.perf_counter()
            jobs[name]()
            _wait(device)
            times[name].append(time.perf_counter() - begun)
    return times


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, lower quartile, upper quartile)."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return middle, low, high


def sure_median(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(median, lower end, upper end) of the interval that holds the true median at least this often, whatever the distribution:
    the sign test's order statistics. Fewer than six values give their extremes, which hold it less often.
    """
    ordered, total = sorted(values), len(values)
    outside, below = 0, 0.0  # how many values may lie outside on one side, and how often no more do
    while (below := below + math.comb(total, outside) / 2**total) <= (1 - level) / 2:
        outside += 1
    first = max(outside - 1, 0)
    return statistics.median(ordered), ordered[first], ordered[total - 1 - first]


def columns(times: Rounds) -> dict[str, Any]:
    """Milliseconds and ratios to the floor of the same round, each with its quartiles, and `ours_peer`: ours to the peer's of the
    same round, with the interval of its median."""
    made: dict[str, Any] = {"rounds": len(times["floor"])}
    for name, values in times.items():
        made[f"{name}_ms"], made[f"{name}_ms_low"], made[f"{name}_ms_high"] = (1000 * v for v in spread(values))
        if name != "floor":
            ratios = [value / floor for value, floor in zip(values, times["floor"], strict=True)]
            made[f"{name}_ratio"], made[f"{name}_ratio_low"], made[f"{name}_ratio_high"] = spread(ratios)
    if "peer" in times:
        ratios = [own / other for own, other in zip(times["ours"], times["peer"], strict=True)]
        made["ours_peer"], made["ours_peer_low"], made["ours_peer_high"] = sure_median(ratios)
    return made


def peak_mib(variant: Variant) -> float:
    """The most memory that a training step needs: what is there between steps, and what the step allocates. The variant has
    been stepped before, so that its optimiser's state exists."""
    tensors = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in variant.resident()}
    variant.model.zero_grad(set_to_none=True)  # the step allocates gradients anew
    with _no_garbage():
        peak = _step_bytes_on_cuda(variant) if variant.device.startswith("cuda") else _step_bytes(variant)
    return (sum(tensors.values()) + peak) / MIB


def _step_bytes_on_cuda(variant: Variant) -> int:
    _wait(variant.device)
    torch.cuda.reset_peak_memory_stats(variant.device)
    before = torch.cuda.memory_allocated(variant.device)
    variant.step()
    _wait(variant.device)
    return torch.cuda.max_memory_allocated(variant.device) - before


def _step_bytes(variant: Variant) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        variant.step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@contextmanager
def _no_garbage() -> Iterator[None]:
    """What others have left in cycles is freed now, and not while memory is counted, where it would make a step's look less."""
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of libraries, which say nothing about time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _sides(base: torch.nn.Module, pair: Pair, at_floor: Variant) -> tuple[dict[str, Variant], dict[str, Any]]:
    """What takes turns, and how a row about it begins."""
    work = at_floor.workload
    torch.manual_seed(SEED)
    own = ours(base, pair, work, at_floor.device, at_floor.autocast)
    other = peer(base, pair, own)
    row = {"model": work.name, "batch": work.batch, "length": work.length, "method": pair.name, "peer": pair.peer}
    return {"floor": at_floor, "ours": own} | ({"peer": other} if other else {}), row | {
        "parameters": own.own_parameters()
    }


def measure_pair(
    base: torch.nn.Module, pair: Pair, at_floor: Variant, floor_mib: float, seconds: float, least: int, most: int
) -> Iterator[dict[str, Any]]:
    """The rows of one pair on one base model: training, and the further phases of the workload."""
    work, device = at_floor.workload, at_floor.device
    sides, row = _sides(base, pair, at_floor)
    share = seconds / (1 + 0.4 * len(work.phases))

    def turns(action: str, variants: Mapping[str, Variant], within: float) -> dict[str, Any]:
        jobs = {name: getattr(variant, action) for name, variant in variants.items()}
        return columns(take_turns(jobs, within, least, most, device))

    training = turns(ACTIONS["training"], sides, share)
    peaks = {f"{name}_mib": peak_mib(variant) for name, variant in sides.items() if variant is not at_floor}
    yield {**row, "phase": "training", **training, "floor_mib": floor_mib, **peaks}
    for variant in sides.values():
        variant.model.zero_grad(set_to_none=True)
    for phase in work.phases:
        if phase == "merged evaluation":
            folded = {name: merged(variant, base) for name, variant in sides.items() if name != "floor"}
            if folded["ours"] is None:
                continue
            sides = {"floor": at_floor} | {name: variant for name, variant in folded.items() if variant is not None}
        yield {**row, "phase": phase, **turns(ACTIONS[phase], sides, 0.4 * share)}


def measure_alone(work: Workload, pair: Pair, phase: str, seconds: float, least: int = 6) -> dict[str, Any]:
    """The row of one phase, unmerged, on the CPU: as many rounds as fit into `seconds`. Memory is left out."""
    with _quiet():
        torch.manual_seed(SEED)
        base, at_floor, _ = prepare(work, "cpu", False)
        sides, row = _sides(base, pair, at_floor)
        jobs = {name: getattr(variant, ACTIONS[phase]) for name, variant in sides.items()}
        return {**row, "phase": phase, **columns(take_turns(jobs, seconds, least, 10_000, "cpu"))}


def measure_all(
    workloads: Sequence[Workload],
    pairs: Iterable[Pair],
    seconds: float,
    *,
    device: str = "cpu",
    autocast: bool = False,
    least: int = 6,
    most: int = 100,
    without: Mapping[str, Sequence[str]] | None = None,
    say: Callable[[str], None] = print,
) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows, what could not be measured and why). The time is shared evenly between the pairs that are left, and a pair for
    which nothing is left is not measured. `without`: the pairs that a base model leaves out, by their names.
    """
    ends = time.perf_counter() + seconds
    waiting = [
        (work, [p for p in pairs if work.structure in p.models and p.name not in (without or {}).get(work.name, ())])
        for work in workloads
    ]
    left = sum(len(own) for _, own in waiting)
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    with _quiet():
        for work, own in waiting:
            torch.manual_seed(SEED)
            try:
                base, at_floor, floor_mib = prepare(work, device, autocast)
            except torch.OutOfMemoryError as error:
                failures.append(f"{work.name} {work.batch} x {work.length}: {_first_line(error)}")
                left -= len(own)
                continue
            for pair in own:
                rest = ends - time.perf_counter()
                share, left = max(0.0, rest) / left, left - 1
                if seconds and rest <= 0:
                    failures.append(f"{work.name} {work.batch} x {work.length}, {pair.name}: no time was left")
                    continue
                try:
                    for row in measure_pair(base, pair, at_floor, floor_mib, share, least, most):
                        rows.append(row)
                        say(line(row))
                except Exception as error:  # one pair that fails, out of memory for instance, leaves the others
                    failures.append(f"{work.name} {work.batch} x {work.length}, {pair.name}: {_first_line(error)}")
                    say(failures[-1])
                _forget(device)
            del base, at_floor
            _forget(device)
    return rows, failures


def prepare(work: Workload, device: str, autocast: bool) -> tuple[torch.nn.Module, Variant, float]:
    """A base model, its floor after a step, and the floor's peak memory in MiB."""
    with torch.device(device):
        base = work.build()
    base.to(device)
    if autocast:
        base.to(torch.bfloat16)
    at_floor = floor(base, work, device, autocast)
    at_floor.step()
    return base, at_floor, peak_mib(at_floor)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _forget(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def line(row: Mapping[str, Any]) -> str:
    """A row for the terminal."""
    text = f"{row['model']:13} {row['length']:5} {row['method']:26} {row['phase']:18} {row['rounds']:3} rounds, "
    text += f"floor {row['floor_ms']:8.1f} ms, ours {row['ours_ratio']:5.2f}"
    return text + (f", {row['peer']} {row['peer_ratio']:5.2f}" if "peer_ratio" in row else "")
