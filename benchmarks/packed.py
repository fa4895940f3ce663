"""Training several variants at a time: one pack, the same one after the other, and the same in slots, on the same batches.

    python -m benchmarks.packed [--sizes 1,2,4,8,16] [--batches 4,16,32] [--length 64] [--rounds 5] [--device cuda:0] [--tiny]

Throughput is variants x examples per second of training steps, the optimisers' included. `solo` trains k variants one after
the other in this process, `packed` in passes over the rows of all, `slots` in worker processes, one for each core (on a GPU:
two that share it), each with its part of the threads. Variants differ in method and learning rate. Solo and packed take turns
in every round; the result is the median, with the quartiles. Inputs are random tokens without padding; the base model has
no dropout. Writes benchmarks/results/packed.json and its part of docs/performance.md. `--tiny` runs a tiny model and
writes to runs/bench: that is how the script is tested.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import speed_results

NAME = "packed"
METHODS = ("lora", "parallel_adapter", "prefix", "ia3")
SEED = 0
SLOT_S = 4.0  # that the workers of `slots` are timed


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=_numbers, default=[1, 2, 4, 8, 16])
    parser.add_argument("--batches", type=_numbers, default=[4, 16, 32])
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-slots", action="store_true", help="without the worker processes")
    parser.add_argument("--slot", metavar="BATCH", type=int, help="be one worker of `slots`, and print its throughput")
    asked = parser.parse_args(arguments)
    if asked.slot is not None:
        return _be_a_slot(asked)
    load = os.getloadavg()
    rows = [_measured(asked, batch, size) for batch in asked.batches for size in asked.sizes]
    if not asked.no_slots:
        for batch in asked.batches:
            by_workers = {count: _slots(asked, batch, count) for count in range(1, _workers(asked) + 1)}
            for row in rows:
                if row["batch"] == batch:
                    row["slots"] = by_workers[min(row["size"], _workers(asked))]
    typed = sys.argv[1:] if arguments is None else arguments
    content = {
        **speed_results.about(" ".join(["python -m benchmarks.packed", *typed]), SEED, load),
        "model": "tiny BERT" if asked.tiny else "MiniLM",
        "device": asked.device,
        "threads": _threads(),
        "length": asked.length,
        "methods": METHODS,
        "slot_workers": None if asked.no_slots else _workers(asked),
        "rows": rows,
    }
    place = Path("runs") / "bench" if asked.tiny else speed_results.RESULTS
    place.mkdir(parents=True, exist_ok=True)
    name = NAME if asked.device == "cpu" else f"{NAME}_gpu"
    (place / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(content))
    if place == speed_results.RESULTS:
        speed_results.put_into(speed_results.PAGE, name, table(content))
    return 0


def table(content: dict[str, Any]) -> str:
    """The result as a table of docs/performance.md."""
    load, day = content["load_average_before"][0], content["measured"][:10]
    lines = [
        f"{content['model']}, {content['length']} tokens, {content['threads']} threads, measured {day} at a load average of "
        f"{load:.1f} with `{content['command']}`. In examples per second, all variants together; in parentheses packed over "
        "solo, median and quartiles of the rounds.",
        "",
        "| batch | variants | solo | packed | slots |",
        "|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        ratio = f"{row['ratio']:.2f}, {row['ratio_low']:.2f}-{row['ratio_high']:.2f}"
        slots = f"{row['slots']:.0f}" if "slots" in row else "-"
        lines.append(
            f"| {row['batch']} | {row['size']} | {row['solo']:.0f} | {row['packed']:.0f} ({ratio}) | {slots} |"
        )
    return "\n".join(lines)


def _measured(asked: argparse.Namespace, batch: int, size: int) -> dict[str, Any]:
    """Solo and packed throughput of `size` variants, in turn."""
    variants = Variants(asked, batch, size)
    variants.solo(), variants.packed()  # warm
    solo, packed = [], []
    for number in range(asked.rounds):
        for each in (solo, packed) if number % 2 == 0 else (packed, solo):
            seconds = _timed(asked, variants.solo if each is solo else variants.packed)
            each.append(size * batch / seconds)
    ratios = [ours / theirs for ours, theirs in zip(packed, solo, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    row = {
        "batch": batch,
        "size": size,
        "rounds": asked.rounds,
        "solo": statistics.median(solo),
        "packed": statistics.median(packed),
        "ratio": statistics.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
    }
    print(json.dumps(row), file=sys.stderr)
    return row


class Variants:
    """Some variants over one frozen base model, each with its optimiser, and the batch that all of them see."""

    def __init__(self, asked: argparse.Namespace, batch: int, size: int) -> None:
        import torch

        import unipet
        from unipet.adaptation.together import Together

        torch.manual_seed(SEED)
        base = _base(asked)
        weights = base.state_dict()
        self.models, self.optimisers = [], []
        self.together = Together(base)
        for number in range(size):
            model = _base(asked)
            model.load_state_dict(weights)
            unipet.adapt(model, METHODS[number % len(METHODS)])
            if (why := self.together.why_not(model)) is not None:
                raise SystemExit(f"{METHODS[number % len(METHODS)]}: {why}")
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            self.models.append(model.train())
            self.optimisers.append(torch.optim.AdamW(trained, lr=1e-4 * (1 + number)))
        ids = torch.randint(5, base.config.vocab_size, (batch, asked.length), device=asked.device)
        self.inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        self.labels = torch.arange(batch, device=asked.device) % 2

    def solo(self) -> None:
        """A step of each, one after the other."""
        from torch.nn import functional as F

        for model, optimiser in zip(self.models, self.optimisers, strict=True):
            F.cross_entropy(model(**self.inputs).logits, self.labels).backward()
            optimiser.step()
            optimiser.zero_grad()

    def packed(self) -> None:
        """A step of all of them together."""
        import torch
        from torch.nn import functional as F

        from unipet.adaptation.together import Part

        with self.together.logits([Part(model, self.inputs) for model in self.models]) as logits:
            torch.stack([F.cross_entropy(each, self.labels) for each in logits]).sum().backward()
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()


def _base(asked: argparse.Namespace) -> Any:
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

    if asked.tiny:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        config = BertConfig(vocab_size=50, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes)
        return BertForSequenceClassification(config).to(asked.device)
    from unipet.compose.composer import composer
    from unipet.compose.overrides import plan
    from unipet.runs.model_files import locate

    with composer(None) as composing:
        config = plan(["model=minilm"], False, composing).config.model
    return AutoModelForSequenceClassification.from_pretrained(
        locate(config, True), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ).to(asked.device)


def _timed(asked: argparse.Namespace, work: Any) -> float:
    import torch

    started = time.perf_counter()
    work()
    if asked.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _slots(asked: argparse.Namespace, batch: int, workers: int) -> float:
    """The throughput of so many worker processes together."""
    threads = str(max(1, _threads() // _workers(asked)))
    line = [sys.executable, "-m", "benchmarks.packed", "--slot", str(batch), "--length", str(asked.length)]
    line += ["--device", asked.device, *["--tiny"] * asked.tiny]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    processes = [
        subprocess.Popen(
            line, cwd=speed_results.ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(workers)
    ]
    for process in processes:
        assert process.stdout is not None
        while (said := process.stdout.readline()) != "ready\n":
            if not said:
                raise SystemExit("benchmarks/packed.py: a worker of slots ended before it was ready")
    for process in processes:  # all begin at one moment
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0].split()[-1]) for process in processes)


def _be_a_slot(asked: argparse.Namespace) -> int:
    variants = Variants(asked, asked.slot, len(METHODS))
    variants.solo()
    print("ready", flush=True)
    sys.stdin.readline()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < (0.2 if asked.tiny else SLOT_S):
        _timed(asked, variants.solo)
        steps += len(METHODS)
    print(steps * asked.slot / (time.perf_counter() - started))
    return 0


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _workers(asked: argparse.Namespace) -> int:
    return max(_threads(), 2) if asked.device == "cpu" else 2


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
