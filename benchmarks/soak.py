"""A sweep that is killed at random moments and given again until it is done ends with the bytes of one that nobody disturbed.

    python benchmarks/soak.py [--kills 50] [--launcher local|slots] [--seed 0] [--out FILE]

Each kill is SIGKILL to the whole process group: the command, its workers, and whatever they started. Every other one comes at a
random moment of the command: of the rest, one as soon as a run has written a resume point, since that run must go on, the next at
a random moment after it, since starting takes longer than these small runs. Between two kills, the script checks that no
half-written file is taken for a whole one. At the end, it checks that no process, lock or claim is left, that every job has ended
exactly once, that runs have gone on from resume points, and that score, metrics, predictions and adapter of every run are byte
for byte those of the undisturbed sweep.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.running import TINY_TASK, write_world  # noqa: E402

LOW_RANK = {"function": {"name": "low_rank", "size": 4}, "position": {"site": ["attn.q", "attn.v"]}, "scaling": 2.0}
BOTTLENECK = {"function": {"name": "bottleneck", "size": 4}, "position": {"site": "ffn", "form": "sequential"}}
PREFIX = {"function": {"name": "prefix", "size": 4}, "position": {"site": "attn.heads"}, "composition": "gated"}
METHODS: dict[str, dict[str, Any]] = {
    "low_rank": {"insertions": {"a": LOW_RANK}},
    "prefixes": {"insertions": {"a": PREFIX}},
    "mixture": {
        "insertions": {"a": {**BOTTLENECK, "mixture": {"experts": 3}}},
        "objective": {"consistency": {"weight": 1.0}},
    },
    "whole": {"insertions": {}, "unfreeze": ["all"]},
}
#: What must be equal, byte for byte.
SAME = ("metrics.jsonl", "predictions.jsonl", "adapter")


def main() -> int:
    """0 when everything is as the docstring says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--launcher", choices=("local", "slots"), default="slots")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed")
    parser.add_argument("--out", type=Path, help="a JSON file for what was found")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = soak(Path(place), asked.kills, asked.launcher, random.Random(asked.seed))
    found["command"] = " ".join(["python benchmarks/soak.py", *sys.argv[1:]])
    print(json.dumps(found, indent=2))
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if found["equal"] else 1


def soak(place: Path, kills: int, launcher: str, chance: random.Random) -> dict[str, Any]:
    """Both sweeps in `place`, and what came of them."""
    write_world(
        place, {"task/tiny": TINY_TASK, **{f"method/{name}": {"name": name, **m} for name, m in METHODS.items()}}
    )
    undisturbed = Sweep(place, "calm", launcher)
    began = time.monotonic()
    undisturbed.start().wait()
    calm_s = undisturbed_s = time.monotonic() - began
    disturbed = Sweep(place, "killed", launcher)
    done = commands = 0
    went_on: set[tuple[str, ...]] = set()  # (run, the steps after which it has gone on)
    while done < kills and commands < 10 * kills:  # a command that comes to its end first is not a kill
        commands += 1
        begun, process = time.monotonic(), disturbed.start()
        try:
            seconds = chance.uniform(0.2, max(4.0, calm_s))
            if done % 2:
                disturbed.await_resume_point(process)
                seconds *= 0 if done % 4 == 1 else 0.25
            process.wait(timeout=seconds)
            calm_s = min(calm_s, time.monotonic() - begun)  # the machine may have become faster
            disturbed.forget_results(chance)  # it came to its end: some of its runs shall be done again
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
        time.sleep(0.2)
        disturbed.check_files()
        print(f"{done} of {kills} kills, {commands} commands", file=sys.stderr, flush=True)
        went_on |= disturbed.resumed()
    last = disturbed.start()
    code = last.wait()
    went_on |= disturbed.resumed()  # the kill before it came after a resume point
    problems = [*disturbed.left_behind(), *disturbed.differences(undisturbed)]
    problems += ["no run has gone on from a resume point"] if not went_on else []
    problems += [f"only {done} of {kills} kills hit a running sweep in {commands} commands"] if done < kills else []
    runs = disturbed.runs()
    return {
        "kills": done,
        "commands": commands + 1,
        "launcher": launcher,
        "jobs": len(runs),
        "resumed": len(went_on),
        "exit_code": code,
        "undisturbed_s": round(undisturbed_s, 1),
        "problems": problems,
        "equal": code == 0 and not problems,
    }


class Sweep:
    """Eight jobs, four mechanisms with two seeds each, below a directory of their own."""

    def __init__(self, place: Path, name: str, launcher: str) -> None:
        self.place, self.root = place, place / name
        workers = ["launcher.workers=2"] if launcher == "slots" else []
        self.line = [
            *(sys.executable, "-m", "unipet", "train", "-m", "--config-dir=mine", "model=model", "task=tiny"),
            *("task.data_dir=data", f"method={','.join(METHODS)}", "seed=0,1", f"launcher={launcher}", *workers),
            *("optim.batch_size=4", "budget.max_steps=150", "task.selection=train_holdout", "task.selection_size=8"),
            *("checkpoint.every=3 steps", f"runs_dir={name}"),
        ]

    def start(self) -> subprocess.Popen[bytes]:
        """The command, in a process group of its own."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(self.line, cwd=self.place, env=environment, start_new_session=True, **quiet)

    def await_resume_point(self, process: subprocess.Popen[bytes]) -> None:
        """Until a run has written another resume point than were there, or the command has ended."""
        before = set(self.root.glob("*/resume/*.json"))
        while process.poll() is None and not set(self.root.glob("*/resume/*.json")) - before:
            time.sleep(0.02)

    def runs(self) -> dict[str, dict[str, Any]]:
        """The record of every run, by the name of its directory."""
        return {path.parent.name: json.loads(path.read_text()) for path in self.root.glob("*/result.json")}

    def resumed(self) -> set[tuple[str, ...]]:
        """The runs that have gone on, each with the steps after which it has."""
        return {(name, *map(str, record["resumed"])) for name, record in self.runs().items() if record["resumed"]}

    def forget_results(self, chance: random.Random) -> None:
        """Damage some finished runs as a crashing disk might: their next look at them must find it."""
        finished = sorted(self.root.glob("*/predictions.jsonl"))
        for path in chance.sample(finished, min(4, len(finished))):
            path.write_bytes(path.read_bytes()[:-1])

    def check_files(self) -> None:
        """Every JSON file that has its final name is whole."""
        for path in [*self.root.rglob("*.json"), *self.root.rglob("*.yaml")]:
            text = path.read_text()
            assert text.endswith("\n") or path.suffix == ".json", path
            if path.suffix == ".json":
                json.loads(text)

    def left_behind(self) -> list[str]:
        """Processes, claims and temporary files that outlived the sweep."""
        found = [f"a process: {line}" for line in _processes(str(self.root))]
        found += [f"a claim: {path}" for path in self.root.glob("sweeps/*/claims/*")]
        found += [f"a temporary file: {path}" for path in self.root.rglob("*.tmp")]
        (sweep,) = self.root.glob("sweeps/[!.]*")
        outcomes = [json.loads(path.read_text()) for path in sweep.glob("jobs/*.json")]
        found += [f"job {each['job']}: {each['status']}" for each in outcomes if each["status"] != "ok"]
        return found if len(outcomes) == 8 else [*found, f"{len(outcomes)} of 8 outcomes"]

    def differences(self, other: Sweep) -> list[str]:
        """What is not byte for byte as in the other sweep."""
        mine, theirs = self.runs(), other.runs()
        found = [] if mine.keys() == theirs.keys() else [f"runs: {sorted(mine)} and {sorted(theirs)}"]
        for name in mine.keys() & theirs.keys():
            found += [
                f"{name}: {key}" for key in ("score", "metrics", "status") if mine[name][key] != theirs[name][key]
            ]
            for part in SAME:
                for path in sorted((other.root / name).rglob("*") if part == "adapter" else [other.root / name / part]):
                    place = path.relative_to(other.root)
                    if path.is_file() and path.name not in ("result.json", "config.yaml", "libraries.log"):
                        twin = self.root / place
                        if not twin.is_file() or twin.read_bytes() != path.read_bytes():
                            found.append(str(place))
        return sorted(set(found))


def _processes(name: str) -> list[str]:
    """The command lines of living processes that name a directory."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if name in line and "soak.py" not in line:
            lines.append(line)
    return lines


if __name__ == "__main__":
    sys.exit(main())
