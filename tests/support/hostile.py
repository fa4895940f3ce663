"""Files that a stranger could hand over: each is one case, with what a user would do with it. None of them may do anything.

    python -m tests.support.hostile --write     writes benchmarks/results/hostile.json and .md: file, error, time, memory

A case is built out of honest files (a finished run, its adapter, the same for peft), of which one thing is changed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.hostile_changes import (
    BOMB,
    DEEP,
    EVIL,
    EXPERTS,
    LONG,
    MANY,
    MAPPING,
    NESTED,
    SECRET,
    TABLE,
    UNIONS,
    Case,
    World,
    adapter_out,
    adapters_directory,
    configured,
    data_file,
    described,
    fifo,
    first,
    header,
    large,
    linked,
    merged,
    method_text,
    only_old_pickle,
    only_pickle,
    other_weights,
    overlapping,
    peft_result,
    pickled,
    pickled_table,
    replaced,
    text,
)
from tests.support.running import LOW_RANK, run_dir, tiny_config
from tests.support.tiny import tiny_bert

SECONDS, MIB, TEXT = 2.0, 500, 2000  # what each may take, and the longest error


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
    # directories of the adapters library
    Case("adapters", "pickle instead of safetensors", only_old_pickle),
    Case("adapters", "configuration nested deep", text("adapter_config.json", NESTED)),
    Case("adapters", "configuration of 200 MB", large("adapter_config.json", 200)),
    Case("adapters", "configuration is a link out", linked("adapter_config.json", "secret.json")),
    Case("adapters", "configuration is a pipe", fifo("adapter_config.json")),
    Case("adapters", "tensors are a link out", linked("adapter.safetensors", "adapter.safetensors")),
    Case("adapters", "tensors are a pickle", pickled("adapter.safetensors")),
    Case("adapters", "header of 2^62 bytes", text("adapter.safetensors", struct.pack("<Q", 2**62) + b"{}")),
    Case("adapters", "a shape of 10^18", header(lambda content: first(content).update(shape=[10**9, 10**9]))),
    Case("adapters", "a rank of a billion", merged("adapter_config.json", {"config.r": 10**9})),
    Case("adapters", "a rank that is a text", merged("adapter_config.json", {"config.r": "4"})),
    Case("adapters", "an architecture that is a module", merged("adapter_config.json", {"config.architecture": EVIL})),
    Case("adapters", "an architecture that is a list", merged("adapter_config.json", {"config.architecture": [EVIL]})),
    Case("adapters", "unions in each other", merged("adapter_config.json", {"config": UNIONS})),
    Case("adapters", "a union of 10,000", merged("adapter_config.json", {"config": MANY})),
    Case("adapters", "a name with a path", merged("adapter_config.json", {"name": "../../outside"})),
    Case("adapters", "a name of 100,000 characters", merged("adapter_config.json", {"name": "a" * DEEP})),
    Case("adapters", "matrices that are numbers", merged("adapter_config.json", {"config.attn_matrices": [1, {}]})),
    Case("adapters", "an alpha that is no number", merged("adapter_config.json", {"config.alpha": float("nan")})),
    # results of peft's comparison
    Case("results", "nested deep", text("a.json", NESTED)),
    Case("results", "a result of 200 MB", large("a.json", 200)),
    Case("results", "a link out", linked("a.json", "secret.json")),
    Case("results", "a pipe", fifo("a.json")),
    Case("results", "a number of 4,000 digits", merged("a.json", {"run_info.total_time": 10**4000})),
    Case("results", "metrics that are a text", merged("a.json", {"train_info.metrics": "all"})),
    Case("results", "negative parameters", merged("a.json", {"train_info.num_total_params": -1})),
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
    if case.kind == "adapters":
        adapters_directory(place)
    elif case.kind == "results":
        peft_result(place)
    elif case.kind in honest:
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
        elif case.kind == "adapters":
            unipet.import_adapters(tiny_bert(), place)
        elif case.kind == "sites":
            unipet.adapt(tiny_bert(), LOW_RANK, sites=place / "table.yaml")
        elif case.kind == "task":
            from unipet.tasks import load_task

            task = tiny_config(world.root / "made").task
            task.data_dir = str(place)
            load_task(task)
        else:
            imports = ["import-results", str(place), "--from", "peft", "--to", str(place.parent / "out")]
            given = {"report": ["report", str(place.parent)], "run": [case.act, str(place)], "results": imports}
            words = given[case.kind]
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
