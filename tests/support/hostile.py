"""Files that a stranger could hand over: each is one case, with what a user would do with it. None of them may do anything.

    python -m tests.support.hostile --write     writes benchmarks/results/hostile.json and .md: file, error, time, memory

A case is built out of honest files (a finished run, its adapter, the same for peft), of which one thing is changed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.running import LOW_RANK, run_dir, tiny_config
from tests.support.tiny import tiny_bert

SECRET = "CANARY-5f1c"  # stands in files outside of what is handed over; no message or output may have it
EVIL = "evil_module"  # on the import path; importing it leaves a file
DEEP = 100_000
SECONDS, MIB, TEXT = 2.0, 500, 2000  # what each may take, and the longest error


@dataclass(frozen=True)
class World:
    """Honest files, and what lies outside of them."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "honest" / "run"

    @property
    def outside(self) -> Path:
        return self.root / "outside"


@dataclass(frozen=True)
class Case:
    """`make` changes a copy of the honest files of its kind; `act` is what a user does with it."""

    kind: str
    name: str
    make: Callable[[World, Path], Any]
    act: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a case. `error` is "" where it was taken."""

    error: str
    seconds: float
    mib: float
    touched: tuple[str, ...]  # what should not have been


def build_world(root: Path) -> World:
    """Train the honest run, export it, and lay out what must not be touched."""
    import unipet
    from unipet.runs.run import run

    config = tiny_config(root / "made")
    assert run(config)["status"] == "ok"
    world = World(root)
    shutil.copytree(run_dir(config), world.run)
    made = yaml.safe_load((world.run / "config.yaml").read_text())
    made["runs_dir"] = str(root / "elsewhere")
    (world.run / "config.yaml").write_text(yaml.safe_dump(made))
    model = tiny_bert()
    unipet.adapt(model, LOW_RANK)
    unipet.save(model, root / "honest" / "adapter")
    unipet.export_peft(model, root / "honest" / "peft")
    world.outside.mkdir()
    (world.outside / "secret.json").write_text(json.dumps({"secret": SECRET}))
    (world.outside / f"{EVIL}.py").write_text(f"open({str(world.outside / 'imported')!r}, 'w').close()\n")
    shutil.copy(root / "honest" / "adapter" / "adapter.safetensors", world.outside / "adapter.safetensors")
    return world


# -- changing honest files ---------------------------------------------------------------------------------------------


def text(name: str, content: str | bytes) -> Callable[[World, Path], Any]:
    """Another content of a file."""
    return lambda world, place: (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def described(**changes: Any) -> Callable[[World, Path], Any]:
    """Other keys in an adapter's description."""
    return merged("adapter.json", changes)


def merged(name: str, changes: dict[str, Any]) -> Callable[[World, Path], Any]:
    """Other keys in a JSON file; a dotted key goes inside."""

    def make(world: World, place: Path) -> None:
        content = json.loads((place / name).read_text())
        for key, value in changes.items():
            *path, last = key.split(".")
            inner = content
            for part in path:
                inner = inner[part]
            inner[last] = value
        (place / name).write_text(json.dumps(content))

    return make


def configured(**changes: Any) -> Callable[[World, Path], Any]:
    """Other keys in a run's configuration; `__` goes inside."""

    def make(world: World, place: Path) -> None:
        content = yaml.safe_load((place / "config.yaml").read_text())
        for key, value in changes.items():
            *path, last = key.split("__")
            inner = content
            for part in path:
                inner = inner[part]
            inner[last] = value(world) if callable(value) else value
        (place / "config.yaml").write_text(yaml.safe_dump(content))

    return make


def replaced(name: str, old: str, new: str) -> Callable[[World, Path], Any]:
    """Other words in a file."""

    def make(world: World, place: Path) -> None:
        content = (place / name).read_text()
        assert old in content, (name, old)
        (place / name).write_text(content.replace(old, new, 1))

    return make


def method_text(old: str, new: str) -> Callable[[World, Path], Any]:
    """Other words in an adapter's method, whose checksum is right."""

    def make(world: World, place: Path) -> None:
        replaced("method.yaml", old, new)(world, place)
        mark = hashlib.sha256((place / "method.yaml").read_bytes()).hexdigest()
        described(method_sha256=mark)(world, place)

    return make


def header(change: Callable[[dict[str, Any]], Any], tail: bytes = b"") -> Callable[[World, Path], Any]:
    """Another header of a file of tensors, with the checksums and shapes that go with it where they can."""

    def make(world: World, place: Path) -> None:
        path = next(place.glob("*.safetensors"))
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        content = json.loads(data[8 : 8 + length])
        change(content)
        raw = json.dumps(content).encode()
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :] + tail)
        if (place / "adapter.json").is_file():
            shapes = {
                name: {"dtype": str(each.get("dtype")), "shape": [n for n in each.get("shape", []) if type(n) is int]}
                for name, each in content.items()
                if name != "__metadata__" and isinstance(each, dict)
            }
            described(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), tensors=shapes)(world, place)

    return make


def first(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for name, each in content.items() if name != "__metadata__")
    return found


def linked(name: str, target: str) -> Callable[[World, Path], Any]:
    """A link out of the folder."""

    def make(world: World, place: Path) -> None:
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(world.outside / target)

    return make


def pickled(name: str) -> Callable[[World, Path], Any]:
    """A pickle that would run code."""

    class Bomb:
        def __reduce__(self) -> Any:
            return __import__, (EVIL,)

    def make(world: World, place: Path) -> None:
        import pickle

        (place / name).write_bytes(pickle.dumps(Bomb()))

    return make


def only_pickle(world: World, place: Path) -> None:
    """peft's older form: adapter_model.bin, and no safetensors."""
    next(place.glob("*.safetensors")).unlink()
    pickled("adapter_model.bin")(world, place)


def fifo(name: str) -> Callable[[World, Path], Any]:
    """A pipe, which would be read for ever."""

    def make(world: World, place: Path) -> None:
        (place / name).unlink(missing_ok=True)
        os.mkfifo(place / name)

    return make


def large(name: str, mib: int) -> Callable[[World, Path], Any]:
    """A sparse file of this size."""

    def make(world: World, place: Path) -> None:
        with open(place / name, "r+b" if (place / name).exists() else "wb") as file:
            file.truncate(mib * 2**20)

    return make


def other_weights(world: World, place: Path) -> None:
    """A base model whose index of weights leads out of its folder."""
    model = place / "model"
    shutil.copytree(world.root / "made" / "model", model)
    (model / "model.safetensors").unlink()
    index = {
        "metadata": {},
        "weight_map": {"bert.embeddings.word_embeddings.weight": "../../outside/adapter.safetensors"},
    }
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    configured(model__path=lambda world: str(model))(world, place)


def adapter_out(world: World, place: Path) -> None:
    """A run whose adapter's description is a link out of its folder."""
    shutil.rmtree(place / "adapter")
    (place / "adapter").mkdir()
    linked("adapter/adapter.json", "secret.json")(world, place)


def pickled_table(world: World, place: Path) -> None:
    """A pickle instead of a table."""
    (place / "train.jsonl").unlink()
    pickled("train.parquet")(world, place)


def overlapping(content: dict[str, Any]) -> None:
    """Every tensor at the same place."""
    for each in content.values():
        if "shape" in each:
            each.update(data_offsets=[0, 512])


EXPERTS = "    mixture: {experts: [../../outside, /etc]}\n    scaling:"
MAPPING = {"auto_mapping": {"parent_library": EVIL, "base_model_class": "x"}, "peft_type": EVIL}
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
NESTED = "[" * DEEP + "]" * DEEP
LONG = "9" * 6000
TABLE = "name: mine\nmodel_types: [bert]\nstacks:\n  encoder:\n    layers: encoder.layer\n    entry: encoder\n    roles: {}\n"


def data_file(name: str, content: str | bytes) -> Callable[[World, Path], Any]:
    """A task's folder in which one file is this."""

    def make(world: World, place: Path) -> None:
        for old in place.iterdir():
            if old.stem == Path(name).stem:
                old.unlink()
        text(name, content)(world, place)

    return make


CASES = [
    # an adapter's description
    Case("adapter", "JSON nested 100,000 deep", text("adapter.json", NESTED)),
    Case("adapter", "description of 200 MB", large("adapter.json", 200)),
    Case("adapter", "a number of 6,000 digits", text("adapter.json", f'{{"format": {LONG}}}')),
    Case("adapter", "format 2.0", described(format=2.0)),
    Case("adapter", "a newer format", described(format=99)),
    Case("adapter", "an unknown key", described(run_on_load=EVIL)),
    Case("adapter", "base_model: null", described(base_model=None)),
    Case("adapter", "frozen: []", described(frozen=[])),
    Case("adapter", "a key twice", replaced("adapter.json", "{", '{"format": 3, ')),
    Case("adapter", "NaN in the description", replaced("adapter.json", '"format":4', '"format":NaN')),
    Case("adapter", "not UTF-8", text("adapter.json", b'{"format": 4, "\xff\xfe": 1}')),
    Case("adapter", "a head that is no list", described(head={"a": 1})),
    Case("adapter", "a site table that is none", described(sites={"name": EVIL, "stacks": 3})),
    Case("adapter", "description is a link out", linked("adapter.json", "secret.json")),
    Case("adapter", "description is a pipe", fifo("adapter.json")),
    # its method
    Case("adapter", "_target_ in the method", method_text("name: tiny_low_rank", f"name: x\n_target_: {EVIL}.run")),
    Case("adapter", "a dotted path as function", method_text("name: low_rank", f"name: {EVIL}.function")),
    Case("adapter", "an interpolation", method_text("size: 4", "size: ${oc.env:HOME}")),
    Case("adapter", "a YAML tag", method_text("size: 4", f"size: !!python/object/apply:{EVIL}.run []")),
    Case("adapter", "an alias bomb", method_text("name: tiny_low_rank", BOMB + "name: x")),
    Case("adapter", "an alias inside itself", method_text("name: tiny_low_rank", "name: &a [*a]")),
    Case("adapter", "method nested 100,000 deep", method_text("name: tiny_low_rank", f"name: {NESTED}")),
    Case("adapter", "a rank of a billion", method_text("size: 4", "size: 1000000000")),
    Case(
        "adapter", "a billion experts", method_text("    scaling:", "    mixture: {experts: 1000000000}\n    scaling:")
    ),
    Case(
        "adapter",
        "paths of experts in the method",
        method_text("    scaling:", EXPERTS),
    ),
    Case("adapter", "another method than was saved", replaced("method.yaml", "size: 4", "size: 8")),
    Case("adapter", "method is a link out", linked("method.yaml", "secret.json")),
    Case("adapter", "method of 200 MB", large("method.yaml", 200)),
    # its tensors
    Case("adapter", "tensors are a pickle", pickled("adapter.safetensors")),
    Case("adapter", "tensors are a link out", linked("adapter.safetensors", "adapter.safetensors")),
    Case("adapter", "header of 2^62 bytes", text("adapter.safetensors", struct.pack("<Q", 2**62) + b"{}")),
    Case("adapter", "header nested deep", text("adapter.safetensors", struct.pack("<Q", 2 * DEEP) + NESTED.encode())),
    Case("adapter", "a shape of 10^18", header(lambda content: first(content).update(shape=[10**9, 10**9]))),
    Case("adapter", "a negative shape", header(lambda content: first(content).update(shape=[-4, -32]))),
    Case("adapter", "offsets beyond the file", header(lambda content: first(content).update(data_offsets=[0, 2**40]))),
    Case(
        "adapter",
        "overlapping tensors",
        header(overlapping),
    ),
    Case("adapter", "integers as weights", header(lambda content: first(content).update(dtype="I32"))),
    Case("adapter", "bytes behind the tensors", header(lambda content: None, tail=b"#!/bin/sh\n")),
    Case("adapter", "cut short", large("adapter.safetensors", 0)),
    # peft's directories
    Case("peft", "pickle instead of safetensors", only_pickle),
    Case("peft", "target_modules: 5", merged("adapter_config.json", {"target_modules": 5})),
    Case("peft", "target_modules: [1]", merged("adapter_config.json", {"target_modules": [1]})),
    Case("peft", "a pattern that matches for ever", merged("adapter_config.json", {"target_modules": "(.*.*)*x"})),
    Case("peft", "a pattern of 100,000 characters", merged("adapter_config.json", {"target_modules": ".*" * 50_000})),
    Case("peft", "use_rslora: yes", merged("adapter_config.json", {"use_rslora": "yes"})),
    Case("peft", "rank_pattern: []", merged("adapter_config.json", {"rank_pattern": [3]})),
    Case("peft", "modules_to_save that means nothing", merged("adapter_config.json", {"modules_to_save": ["bert"]})),
    Case("peft", "a rank that is a text", merged("adapter_config.json", {"r": "4"})),
    Case("peft", "a rank of a billion", merged("adapter_config.json", {"r": 10**9})),
    Case(
        "peft",
        "auto_mapping to a module",
        merged(
            "adapter_config.json",
            MAPPING,
        ),
    ),
    Case("peft", "an unknown type", merged("adapter_config.json", {"peft_type": ["LORA"]})),
    Case("peft", "configuration nested deep", text("adapter_config.json", NESTED)),
    Case("peft", "configuration is a link out", linked("adapter_config.json", "secret.json")),
    Case("peft", "tensors of booleans", header(lambda content: first(content).update(dtype="BOOL"))),
    # records and predictions, in a report
    Case("report", "a record nested deep", text("result.json", NESTED)),
    Case("report", "a record of 200 MB", large("result.json", 200)),
    Case("report", "a record that is a list", text("result.json", "[1, 2]")),
    Case("report", "a score that is a text", merged("result.json", {"score": "0.9; rm"})),
    Case("report", "a score of NaN", replaced("result.json", '"score":', '"score": NaN, "was":')),
    Case("report", "a score of 6,000 digits", replaced("result.json", '"score":', f'"score": {LONG}, "was":')),
    Case("report", "metrics that are a list", merged("result.json", {"metrics": [1]})),
    Case("report", "a certificate that is a text", merged("result.json", {"certificate": "certified"})),
    Case("report", "checks that are numbers", merged("result.json", {"certificate.checks": {"merge": 1}})),
    Case("report", "a record that is a link out", linked("result.json", "secret.json")),
    Case("report", "a record that is a pipe", fifo("result.json")),
    Case("report", "a configuration with a tag", text("config.yaml", f"method: !!python/name:{EVIL}.x\n")),
    Case("report", "a configuration with a bomb", text("config.yaml", BOMB)),
    # a run's directory, given to the commands that load it
    Case("run", "precision: fp8", configured(precision="fp8"), "evaluate"),
    Case("run", "a batch of text", configured(optim__eval_batch_size="many"), "evaluate"),
    Case("run", "an unknown key", configured(optim__callbacks=[EVIL]), "evaluate"),
    Case("run", "a package's own code", configured(model__package=f"{EVIL}.sub"), "evaluate"),
    Case("run", "a package on the path", configured(model__package=EVIL), "evaluate"),
    Case("run", "imports are not followed", configured(imports=[EVIL], task__data_dir="nowhere"), "evaluate"),
    Case("run", "other data", configured(task__data_dir=lambda world: str(world.outside)), "evaluate"),
    Case("run", "a base model that is a pickle", configured(model__path=lambda world: str(world.outside)), "merge"),
    Case("run", "a configuration nested deep", text("config.yaml", f"method: {NESTED}"), "merge"),
    Case("run", "a configuration that is a link out", linked("config.yaml", "secret.json"), "export"),
    Case("run", "weights in another folder", other_weights, "merge"),
    Case("run", "predictions nested deep", text("predictions.jsonl", NESTED), "verify"),
    Case("run", "predictions that are a link out", linked("predictions.jsonl", "secret.json"), "verify"),
    Case(
        "run",
        "an adapter that is a link out",
        adapter_out,
        "export",
    ),
    Case(
        "run", "a submission named ../../x", configured(task__submission={"../../../outside/x": "validation"}), "submit"
    ),
    Case("run", "a record of another run", merged("result.json", {"status": ["ok"]}), "verify"),
    Case("run", "a data fingerprint that is none", merged("result.json", {"data.fingerprint": 7}), "evaluate"),
    Case("run", "a folder that leads out", merged("result.json", {"folder": 3}), "submit"),
    # site tables and methods of one's own
    Case("sites", "a tag", text("table.yaml", f"name: !!python/object/apply:{EVIL}.x []\n")),
    Case("sites", "a bomb", text("table.yaml", BOMB)),
    Case("sites", "nested deep", text("table.yaml", NESTED)),
    Case("sites", "200 MB", large("table.yaml", 200)),
    Case(
        "sites", "code as a path", text("table.yaml", TABLE.replace("encoder.layer", "__class__.__init__.__globals__"))
    ),
    Case("sites", "a key twice", text("table.yaml", TABLE + "name: other\n")),
    # a task's data
    Case("task", "JSON nested deep", data_file("train.jsonl", f'{{"sentence": "a", "label": {NESTED}}}\n')),
    Case("task", "a number of 6,000 digits", data_file("train.jsonl", f'{{"sentence": "a", "label": {LONG}}}\n')),
    Case("task", "not UTF-8", data_file("train.jsonl", b'{"sentence": "\xff\xfe", "label": 0}\n')),
    Case("task", "a parquet file that is none", data_file("train.parquet", b"PAR1" + b"\0" * 64 + b"PAR1")),
    Case(
        "task",
        "a pickle as parquet",
        pickled_table,
    ),
    Case("task", "a table with a column too few", data_file("train.csv", "sentence,label\na\n")),
]


# -- what a user does with them ----------------------------------------------------------------------------------------


def prepared(case: Case, world: World, place: Path) -> None:
    """The files of a case, in `place`."""
    honest = {"adapter": "adapter", "peft": "peft", "report": "run", "run": "run"}
    if case.kind in honest:
        shutil.copytree(world.root / "honest" / honest[case.kind], place)
    elif case.kind == "task":
        shutil.copytree(world.root / "made" / "data", place)
    else:
        place.mkdir(parents=True)
    case.make(world, place)


def act(case: Case, world: World, place: Path) -> str:
    """Do what a user would; the error, or "" where there was none."""
    import unipet
    from unipet.cli.main import main
    from unipet.errors import UnipetError

    try:
        if case.kind == "adapter":
            unipet.load(tiny_bert(), place)
        elif case.kind == "peft":
            unipet.import_peft(tiny_bert(), place)
        elif case.kind == "sites":
            unipet.adapt(tiny_bert(), LOW_RANK, sites=place / "table.yaml")
        elif case.kind == "task":
            from unipet.tasks import load_task

            task = tiny_config(world.root / "made").task
            task.data_dir = str(place)
            load_task(task)
        else:
            words = {"report": ["report", str(place.parent)], "run": [case.act, str(place)]}[case.kind]
            words += [str(place.parent / "out")] if case.act in ("merge", "export") else []
            words += ["--to", "peft"] if case.act == "export" else []
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                code = main(words)
            shown = said.getvalue()
            return shown if code else ""
    except UnipetError as error:
        return f"error: {error}"
    return ""


@contextlib.contextmanager
def import_path(folder: Path) -> Iterator[None]:
    """With `folder` where Python looks for modules first, as a stranger's folder is for `python -m`."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _state(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def tried(case: Case, world: World, place: Path) -> Outcome:
    """Make the files of a case and do what a user would, watched."""
    prepared(case, world, place)
    before = _state(world.outside)
    _reset_peak()
    peak, began = _peak_mib(), time.process_time()
    with import_path(world.outside):
        error = act(case, world, place)
    seconds, mib = time.process_time() - began, max(0.0, _peak_mib() - peak)
    touched = [name for name, content in _state(world.outside).items() if before.get(name) != content]
    touched += [f"import of {EVIL}"] if EVIL in sys.modules else []
    touched += ["a secret in the message"] if SECRET in error else []
    return Outcome(error.strip(), seconds, mib, tuple(touched))


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    """The most memory that this process held since the peak was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> int:
    """Try every case and print the table; with --write, keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        world = build_world(Path(directory) / "world")
        for number, case in enumerate(CASES):
            place = Path(directory) / f"case{number}" / case.kind
            outcome = tried(case, world, place)
            shown = outcome.error.replace(str(place), "FOLDER").replace(directory, "")
            rows.append(
                {
                    "kind": f"{case.kind} {case.act}".strip(),
                    "file": case.name,
                    "error": shown[:240],
                    "seconds": round(outcome.seconds, 3),
                    "mib": round(outcome.mib, 1),
                    "touched": list(outcome.touched),
                }
            )
            print(
                f"{rows[-1]['kind']:14} {case.name:38} {outcome.seconds:6.2f} s {outcome.mib:7.1f} MiB  {shown[:110]}"
            )
    if asked.write:
        from benchmarks import speed_results

        content = {**speed_results.about("python -m tests.support.hostile --write", 0, os.getloadavg()), "rows": rows}
        path = speed_results.RESULTS / "hostile.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
