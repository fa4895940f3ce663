"""Command lines, and the files of finished runs, with something done to them: what a command does, or one error."""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import io
import itertools
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.support.fuzz_trees import Changer, Draw, changed_text, written
from tests.support.fuzzing import Fault, calm, refused
from tests.support.running import LOW_RANK, run_dir, tiny_config
from unipet.calculus.library import load_method
from unipet.cli.main import main
from unipet.compose.composer import composer
from unipet.compose.expand import sweep_jobs
from unipet.compose.overrides import plan
from unipet.errors import UnipetError

#: Honest overrides; pieces of them are put together anew.
LINES = """
method=lora method=mam method=adamix task=sst2 model=minilm budget=params_1 optim=adamw optim.lr=1e-3 seed=0,1,2 method=lora,mam
method.insertions.attention.function.size=4 method.insertions.ffn.scaling=2.0 ~method.insertions.ffn
method.insertions.ffn.position.form=parallel,sequential +position@method.insertions.attention.position=ffn
+objective@method.objective.r_drop=r_drop method.objective.consistency=null method.unfreeze=[head,norm]
task.text=[sentence] task.labels=[no,yes] task.max_train=null task.rename={a:b} task.data_dir=DIR task.decoding.num_beams=2
search=random search=halving search.trials=4 search.space=s4 search=none launcher=slots launcher.workers=2 rerun=true debug=small
optim.lr=tag(log,interval(1e-4,1e-2)) optim.lr=choice(1e-3,1e-4) seed=range(0,3) optim.epochs=1.5 checkpoint.every='2_minutes'
budget.max_steps=10 budget.trainable_percent=0.5 precision=bf16 compile=true cache_frozen=auto experiment=zero_shot
model.dtype=bf16 model.quantization=4bit tracking=wandb tracking.project=x runs_dir=R hydra.run.dir=x +budget.x=1
++optim.lr=2 ~budget method.name=x method.variables.a=1 imports=[] optim.lr= seed
""".split()
VALUES = [
    *"1 -1 0 1e999 nan inf -inf null true none x '' \"\" [] {} [1,2] [a,[b]] {a:1} {a:{b:1}} a,b 1,2 , [ ] { '".split(),
    *"${oc.env:HOME} ${unipet.when:a} a=b = range(0,9) range(9) choice() interval(1,0) interval(a,b) glob(*) sort(3,1) é".split(),
    *"${seed} ??? shuffle(1,2) tag(x,1) str(1) int(x) json_str('x') extend_list(1)".split(),
    *("a b", "\x00", "\n", "9" * 30, "9" * 500, "1" * 5000, "[" * 200, "x" * 4000),
]


@dataclass(frozen=True)
class Line:
    """A command line of `unipet train`."""

    words: tuple[str, ...]
    multirun: bool

    def __str__(self) -> str:
        return f"{'-m ' if self.multirun else ''}{json.dumps(self.words)}"


@st.composite
def lines(draw: Draw) -> Line:
    words = []
    for _ in range(draw(st.integers(1, 4))):
        word = draw(st.sampled_from(LINES))
        change = draw(st.integers(0, 9))
        key, _, value = word.partition("=")
        if change == 0:
            word = f"{key}={draw(st.sampled_from(VALUES))}"
        elif change == 1:
            word = f"{key}={draw(st.sampled_from(LINES)).partition('=')[2]}"
        elif change == 2:
            word = draw(st.sampled_from(["+", "~", "++", "~~", "-", "@", ".", "/"])) + word
        elif change == 3:
            word = f"{key}{draw(st.sampled_from(['s', '.x', '.name', '.', '@x', '/x', ' ', '[0]', ':']))}={value}"
        elif change == 4:
            at = draw(st.integers(0, len(word)))
            word = word[:at] + draw(st.sampled_from(list("=.,[]{}()'\"@~+$\\ \t:é"))) + word[at:]
        elif change == 5:
            word = draw(st.text(max_size=12))
        words.append(word)
    return Line(tuple(words), draw(st.booleans()))


def line_outcome(given: Line) -> str:
    """What came of a command line: composed, a sweep's first jobs as well; or refused."""
    with calm(), tempfile.TemporaryDirectory() as place, contextlib.chdir(place), composer(None) as composing:
        try:
            made = plan(list(given.words), given.multirun, composing)
            if made.multirun and made.jobs is not None:
                for job in itertools.islice(sweep_jobs(made, composing), 8):
                    if job.config is None:
                        assert job.mistake
            load_method(made.config.method)
        except UnipetError as error:
            return refused("composed", error)
    return "works"


# -- the files of finished runs ----------------------------------------------------------------------------------------

COMMANDS = [
    tuple(line.split())
    for line in """
report RUNS
report RUNS --html OUT --rows OUT2 --csv OUT3
report RUNS --certified
report RUNS --latex OUT --pairs OUT2 --tuning OUT3
report RUNS --effects OUT --averages OUT2
runs runs_dir=RUNS --csv OUT
runs runs_dir=RUNS --json
runs runs_dir=RUNS score>0.1
runs runs_dir=RUNS --diff other run
dashboard RUNS --dry-run --out OUT
evaluate RUN
verify RUN
submit RUN --out OUT
merge RUN OUT
export RUN OUT --to peft
""".strip().splitlines()
]
FILES = ["result.json"] * 2 + ["config.yaml"] * 2 + ["predictions.jsonl", "metrics.jsonl", "adapter/adapter.json"]


@dataclass(frozen=True)
class Record:
    """A file of a finished run, and what a user does with the run or with the directory that it is in."""

    command: tuple[str, ...]
    file: str
    content: bytes
    changes: tuple[str, ...]

    def __str__(self) -> str:
        return f"unipet {' '.join(self.command)}, {self.file}: {', '.join(self.changes)}\n{self.content[:4000]!r}"


@functools.cache
def _honest() -> Path:
    """Two finished runs: `run`, and `other` beside it; and what they were made of."""
    from unipet.runs.run import run

    root = Path(_KEPT.enter_context(tempfile.TemporaryDirectory()))
    for name, seed in (("run", 0), ("other", 1)):
        config = tiny_config(root, LOW_RANK, seed=seed)
        assert run(config)["status"] == "ok"
        shutil.copytree(run_dir(config), root / "honest" / name)
    return root / "honest"


_KEPT = contextlib.ExitStack()
atexit.register(_KEPT.close)


@functools.cache
def _tree(file: str) -> Any:
    text = (_honest() / "run" / file).read_text(encoding="utf-8")
    return json.loads(text) if file.endswith(".json") else yaml.safe_load(text)


@functools.cache
def _changer(file: str) -> Changer:
    return Changer({"run": _tree(file)})


def records() -> st.SearchStrategy[Record]:
    """Damaged runs; the honest ones are trained first, outside of what hypothesis watches."""
    _honest()
    return _records()


@st.composite
def _records(draw: Draw) -> Record:
    file, command = draw(st.sampled_from(FILES)), draw(st.sampled_from(COMMANDS))
    changes: list[str] = []
    if file.endswith("jsonl"):
        rows: Any = [json.loads(line) for line in (_honest() / "run" / file).read_text().splitlines()[:8]]
        changes.append(Changer({"rows": copy.deepcopy(rows)}).change(draw, rows, python=False))
        text = "".join(json.dumps(row) + "\n" for row in (rows if isinstance(rows, list) else [rows]))
    else:
        tree = copy.deepcopy(_tree(file))
        for _ in range(draw(st.integers(1, 2))):
            changes.append(_changer(file).change(draw, tree, python=False))
        text = json.dumps(tree) if file.endswith(".json") else written(tree)
    if draw(st.integers(0, 3)) == 0:
        text, change = changed_text(draw, text)
        changes.append(change)
    return Record(command, file, text.encode("utf-8", "surrogatepass"), tuple(changes))


def record_outcome(given: Record) -> str:
    """What came of the command: its exit code, or the one error."""
    with calm(), tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        runs = Path(place) / "runs"
        shutil.copytree(_honest(), runs)
        (runs / "run" / given.file).write_bytes(given.content)
        names = {
            "RUNS": str(runs),
            "RUN": str(runs / "run"),
            **{f"OUT{n}": str(Path(place) / f"out{n}") for n in ("", 2, 3)},
        }
        words = [names.get(word, word.replace("RUNS", str(runs))) for word in given.command]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
        if code == 2:
            said = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
            if len(said) != 1 or len(said[0]) > 4000:
                raise Fault(f"{len(said)} errors: {err.getvalue()[:1000]}")
            return f"{given.command[0]}: refused"
        if "Traceback" in err.getvalue() or code not in (0, 1):
            raise Fault(f"exit code {code}: {err.getvalue()[:1000]}")
        return f"{given.command[0]}: exit code {code}"
