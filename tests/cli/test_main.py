"""The command line: what it prints, how fast, and one clear error for every mistake."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.running import TINY_TASK, write_world
from unipet.cli.main import COMMANDS, main

HEAVY = ("torch", "transformers", "hydra", "omegaconf", "datasets", "wandb", "numpy")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    insertion = {"function": {"name": "low_rank", "size": 2}, "position": {"site": "attn.q"}}
    method = {"name": "mine", "insertions": {"q": insertion}}
    nowhere = {"name": "nowhere", "insertions": {"q": {**insertion, "position": {"site": "attn.qq"}}}}
    typo = {**TINY_TASK, "lable": "label"}
    files = {"task/tiny": TINY_TASK, "task/typo": typo, "method/mine": method, "method/nowhere": nowhere}
    return write_world(tmp_path_factory.mktemp("world"), files)


@pytest.fixture()
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a command: it must stay empty but for runs/."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def base(world: Path) -> list[str]:
    """Flags and overrides of a run that takes a second."""
    return [
        f"--config-dir={world / 'mine'}",
        "task=tiny",
        f"task.data_dir={world / 'data'}",
        f"model={world / 'model'}",
        "method=mine",
        "optim.batch_size=8",
        "budget.max_steps=2",
    ]


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    before = list(sys.argv), dict(os.environ)
    code = main(list(argv))
    assert (sys.argv, dict(os.environ)) == before
    out, err = capsys.readouterr()
    return code, out, err


def test_help_is_light_and_has_examples(root: Path) -> None:
    code = f"import sys, unipet.cli.main; unipet.cli.main.main(['--help']); sys.exit(len(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in COMMANDS)
    assert "unipet train -m method=" in done.stdout


@pytest.mark.parametrize("argv", [(), ("help",), ("-h",)])
def test_help_by_any_name(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    code, out, _ = call(capsys, *argv)
    assert code == 0 and out.startswith("usage: unipet")


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_a_help_with_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, err = call(capsys, command, "--help")
    assert code == 0 and f"unipet {command}" in out and err == ""
    assert "xamples:" in out


def test_examples_of_the_help_are_accepted(capsys: pytest.CaptureFixture[str], root: Path, here: Path) -> None:
    """Every train example of --help composes as it stands (with the directory of its own that it names)."""
    examples = yaml.safe_load((root / "conf" / "examples.yaml").read_text())
    own = here / "my_conf" / "method" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("name: mine\nunfreeze: [head]\n")
    from unipet.cli.commands.train import arguments
    from unipet.compose.composer import composer
    from unipet.compose.overrides import plan

    for line, _ in examples["train"]:
        flags, overrides = arguments(shlex.split(line)[2:])
        with composer(flags.config_dir) as composing:
            assert plan(overrides, flags.multirun, composing).multirun == flags.multirun


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--version")
    assert code == 0 and out.startswith("unipet 0.")


MISTAKES: list[tuple[list[str], list[str]]] = [
    (["trian"], ["command: unknown 'trian'", "Did you mean 'train'?"]),
    (["train", "--multi"], ["unrecognized arguments: --multi"]),
    (["train", "--bogus"], ["unrecognized arguments: --bogus"]),
    (["train", "lora"], ["'lora' is not an override", "method=lora"]),
    (["train", "method=lorra"], ["method=lorra: unknown 'lorra'", "mam", "Did you mean 'lora'?"]),
    (["train", "method=3"], ["method=3: unknown '3'"]),
    (["train", "method="], ["method=: the value is empty"]),
    (["train", "-m", "method=lora,"], ["method=lora,: one of the values", "Remove the extra comma: method=lora\n"]),
    (["train", "-m", "seed=,0,,1"], ["seed=,0,,1: one of the values", "Remove the extra comma: seed=0,1\n"]),
    (["train", "method=[lora,mam]"], ["method=[lora,mam]: a run has one method", "unipet train -m method=lora,mam"]),
    (["train", "-m", "seed=0,1", "task=[sst2,mrpc]"], ["task=[sst2,mrpc]: a run has one task"]),
    (["train", "method={lora: mam}"], ["method={lora: mam}: a run has one method. Give one name."]),
    (["train", "task=sst22"], ["task=sst22: unknown 'sst22'", "Did you mean 'sst2'?"]),
    (["train", "model=minlm"], ["model=minlm: unknown", "Did you mean 'minilm'?", "model=auto model.path="]),
    (["train", "+debug=smal"], ["debug=smal: unknown", "Did you mean 'small'?"]),
    (["train", "taks=sst2"], ["taks: a run has no option 'taks'", "Did you mean 'task'?"]),
    (["train", "optim.lrr=1"], ["optim.lrr: optim has no option 'lrr'", "label_smoothing, lr, ", "Did you mean 'lr'?"]),
    (["train", "+budget.peak=3"], ["budget.peak: budget has no option 'peak'", "max_steps"]),
    (["train", "++optim.lrr=1"], ["optim.lrr: optim has no option 'lrr'"]),
    (["train", "learning_rate=1"], ["learning_rate: a run has no option 'learning_rate'", "Did you mean 'optim.lr'?"]),
    (["train", "optim.learning_rate=1"], ["Did you mean 'lr'?"]),
    (["train", "rank=8"], ["Did you mean 'method.insertions.NAME.function.size'?"]),
    (["train", "function.inject=false"], ["Did you mean 'method.insertions.NAME.function.inject'?"]),
    (["train", "method.insertions.attention.rank=8"], ["Did you mean 'function.size'?"]),
    (["describe", "method.insertions.attention.function.rank=8"], ["Did you mean 'size'?"]),
    (["train", "position=attention"], ["+position@method.insertions.INSERTION.position=attention"]),
    (["train", "+scaling=learned"], ["+scaling@method.insertions.INSERTION.scaling=learned"]),
    (["train", "method=no.yaml"], ["method: no file no.yaml"]),
    (["train", "method=lora.yaml"], ["method: no file lora.yaml", "Did you mean 'lora'?"]),
    (["train", "method.insertions=null"], ["method.insertions=null", "'~method.insertions.NAME'", "method.name=NAME"]),
    (["train", "method.insertions={}"], ["'~method.insertions.NAME'", "method.name=NAME"]),
    (["train", "~method.insertions.attention"], ["none of the insertions of 'lora' is left", "method.name=NAME"]),
    (["train", "~method.insertions.attention", "method.unfreeze=[all]"], ["none of the insertions of 'lora' is left"]),
    (["train", "-m", "method=lora,mam", "~method.insertions.attention"], ["none of the insertions of 'lora' is left"]),
    (["train", "imports=[no_such_module]"], ["imports: no module 'no_such_module'"]),
    (["train", "imports=[../evil.py]"], ["imports: '../evil.py' is not a module's name"]),
    (["list", "functions", "--import", "no_such_module"], ["--import: no module 'no_such_module'"]),
    (["train", "optim.lr.x=1"], ["optim.lr.x: optim.lr is", "single value"]),
    (["train", "seed=abc"], ["seed: 'abc' given; allowed: ", "whole number"]),
    (["train", "seed=1.5"], ["seed: 1.5 given; allowed: ", "whole number"]),
    (["train", "seed=null"], ["seed: null or a value of another shape given; allowed: a whole number"]),
    (["train", "imports={a: b}"], ["imports: null or a value of another shape given; allowed: a list"]),
    (["train", "optim.lr=fast"], ["optim.lr: 'fast' given; allowed: a finite number greater than 0"]),
    (["train", "rerun=maybe"], ["rerun: 'maybe' given; allowed: ", "true or false"]),
    (["train", "task.labels=3"], ["task.labels: 3 given; allowed: ", "a list"]),
    (
        ["train", "budget.max_steps=few"],
        ["budget.max_steps: 'few' given; allowed: ", "a whole number from 1 to 4294967295 or null"],
    ),
    (["train", "optim.lr=-1"], ["optim.lr: -1.0", "greater than 0"]),
    (["train", "precision=fp8"], ["precision: unknown 'fp8'"]),
    (["train", "seed=0,1"], ["seed=0,1: several values need -m", "unipet train -m seed=0,1"]),
    (["train", "method=lora,mam", "seed=1"], ["unipet train -m method=lora,mam seed=1"]),
    (
        ["train", "method.insertions.x.function.size=2,4"],
        ["method.insertions.x.function.size=2,4: several values need -m"],
    ),
    (["train", "-m", "method=lora,maam"], ["method=maam: unknown 'maam'", "Did you mean 'mam'?"]),
    (["train", "-m", "seed=0,abc"], ["seed: 'abc' given; allowed: "]),
    (["train", "-m", "runs_dir=a,b"], ["runs_dir", "single value"]),
    (["train", "-m", "optim.lr=interval(1e-4,1e-2)"], ["interval", "search=random", "list values"]),
    (["train", "-m", "method=glob(zz*)"], ["matches nothing"]),
    (["train", "-m", "--cfg", "job"], ["--cfg", "leave out -m"]),
    (["train", "model=auto"], ["model.path: not given"]),
    (
        ["train", "model.name=bert-base"],
        ["model.name=bert-base: this is only the label", "model=auto model.path=bert-base"],
    ),
    (["train", "-m", "model=minilm", "model.name=a,b"], ["model.name=a,b: this is only the label"]),
    (["list", "sites", "model.name=./mine"], ["model.name=./mine: this is only the label"]),
    (["train", "tracking=wandb", "tracking.mode=sometimes"], ["tracking.mode: unknown 'sometimes'", "offline"]),
    (["train", "--config-dir", "nowhere"], ["--config-dir nowhere: no such directory"]),
    (
        ["train", "method.insertions.attention.function.sise=3"],
        ["method.insertions.attention.function.sise", "Did you mean 'size'?"],
    ),
    (["describe", "method=lorra"], ["method=lorra", "Did you mean 'lora'?"]),
    (["describe", "seed=0,1"], ["seed=0,1: several values", "unipet describe"]),
    (["describe", "model=./no/such/model"], ["model.path"]),
    (["describe", "method.insertions.attention.function.size=-3"], ["method.insertions.attention.function.size: -3"]),
    (
        ["describe", "method.insertions.attention.function.size=many"],
        ["method.insertions.attention.function.size", "'many'"],
    ),
    (["list", "methds"], ["unipet list: unknown 'methds'", "Did you mean 'methods'?"]),
    (["list", "tasks", "model=minilm"], ["takes no overrides"]),
    (["report"], ["DIR"]),
    (["report", "nowhere"], ["nowhere: no such directory"]),
    (["report", "."], ["nothing to report"]),
    (["evaluate", "."], ["not a run's directory"]),
    (["merge", ".", "out"], ["not a run's directory"]),
]


@pytest.mark.parametrize(("argv", "words"), MISTAKES, ids=[" ".join(argv) for argv, _ in MISTAKES])
def test_a_mistake_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], here: Path, argv: list[str], words: list[str]
) -> None:
    code, out, err = call(capsys, *argv)
    assert (code, out) == (2, "")
    assert (
        err.startswith("error: ") and "Traceback" not in err and "hydra" not in err.lower().replace("--hydra-help", "")
    )
    assert [word for word in words if word not in err] == []
    assert list(here.iterdir()) == [], "nothing half-done"


@pytest.mark.parametrize("word", ["method={}.yaml", "method.{}=1", "model.path=./{}", "task.data_dir={}"])
def test_a_mistake_of_any_length_is_a_short_error(capsys: pytest.CaptureFixture[str], here: Path, word: str) -> None:
    code, out, err = call(capsys, "train", word.format("x" * 4000))
    assert (code, out) == (2, "") and err.startswith("error: ") and "Traceback" not in err and len(err) < 2000


def test_mistakes_in_a_users_files(capsys: pytest.CaptureFixture[str], world: Path, here: Path) -> None:
    code, _, err = call(capsys, "train", *base(world), "task=typo")
    assert (
        code == 2
        and "task.lable: task has no option 'lable'" in err
        and "task/typo.yaml" in err
        and "Did you mean 'label'?" in err
    )
    code, _, err = call(capsys, "train", *base(world), "method=nowhere")
    assert code == 2 and "attn.qq" in err and "attn.q" in err
    code, _, err = call(capsys, "train", *base(world), f"task.data_dir={here / 'no'}")
    assert code == 2 and "task.data_dir" in err
    assert list(here.iterdir()) == []


def test_a_users_file_may_not_be_shadowed(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    path = here / "conf" / "method" / "lora.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("name: lora\n")
    code, _, err = call(capsys, "train", "--config-dir", "conf", "method=lora")
    assert code == 2 and "my_lora.yaml" in err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# caf\xe9\nname: mine\n", ["method/bad.yaml: not UTF-8 (byte 6", "Save the file as UTF-8"]),
        (b"name: [\n", ["not a readable YAML file", "method/bad.yaml", "line 2"]),
    ],
)
def test_a_file_that_is_no_yaml_is_named(
    content: bytes, words: list[str], capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    (here / "conf" / "method").mkdir(parents=True)
    (here / "conf" / "method" / "bad.yaml").write_bytes(content)
    for command in ("train", "describe", "plan"):
        code, _, err = call(capsys, command, "--config-dir", "conf", "method=bad")
        assert code == 2 and all(word in err for word in words), err


def test_an_unwritable_directory(capsys: pytest.CaptureFixture[str], world: Path, here: Path) -> None:
    (here / "file").write_text("")
    for flags in ([], ["-m"]):
        code, _, err = call(capsys, "train", *flags, *base(world), f"runs_dir={here / 'file' / 'runs'}")
        assert code == 2 and "file" in err and "Traceback" not in err


def test_one_run_from_train_to_merge(capsys: pytest.CaptureFixture[str], world: Path, here: Path) -> None:
    code, out, err = call(capsys, "train", *base(world), "method.insertions.q.scaling=2.0", "seed=3")
    assert code == 0, err
    assert "status     ok" in out and "mine on tiny" in out and "accuracy" in out
    (run,) = (path for path in (here / "runs").iterdir() if path.name != ".cache")
    assert str(Path("runs") / run.name) in out and [path.name for path in here.iterdir()] == ["runs"]
    record = json.loads((run / "result.json").read_text())
    assert (record["status"], record["seed"], record["time"]["steps"]) == ("ok", 3, 2)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["method"]["insertions"]["q"]["scaling"] == {"name": "constant", "value": 2.0}

    code, out, _ = call(capsys, "evaluate", str(run))
    assert code == 0 and f"recorded   {record['score']:.6f}\nevaluated  {record['score']:.6f}" in out

    code, out, _ = call(capsys, "merge", str(run), "merged")
    assert code == 0 and "model.safetensors" in {path.name for path in (here / "merged").iterdir()}
    code, _, err = call(capsys, "merge", str(run), "merged")
    assert code == 2 and "exists already" in err
    from transformers import AutoModelForSequenceClassification

    names = [name for name, _ in AutoModelForSequenceClassification.from_pretrained(here / "merged").named_parameters()]
    assert names and not any("_unipet" in name for name in names)

    code, out, _ = call(capsys, "export", str(run), "for_peft", "--to", "peft")
    assert code == 0 and {"adapter_config.json", "adapter_model.safetensors"} <= {
        path.name for path in (here / "for_peft").iterdir()
    }
    code, _, err = call(capsys, "export", str(run), "for_peft", "--to", "peft")
    assert code == 2 and "exists already" in err

    code, out, _ = call(capsys, "report", "runs", "--csv", "table.csv")
    assert code == 0 and "mine" in out and "mine" in (here / "table.csv").read_text()


def test_what_cannot_merge_says_why(capsys: pytest.CaptureFixture[str], world: Path, here: Path) -> None:
    assert main(["train", *base(world), "method=prefix", "method.insertions.attention.function.size=2"]) == 0
    (run,) = (path for path in (here / "runs").iterdir() if path.name != ".cache")
    capsys.readouterr()
    code, _, err = call(capsys, "merge", str(run), "merged")
    assert code == 2 and "attention" in err and not (here / "merged").exists()

    code, _, err = call(capsys, "export", str(run), "for_peft", "--to", "peft")
    assert code == 2 and "peft cannot express this method" in err and not (here / "for_peft").exists()

    code, _, err = call(capsys, "merge", str(run), "merged", "--partial")
    assert code == 0, err
    from transformers import AutoModelForSequenceClassification

    import unipet

    model = AutoModelForSequenceClassification.from_pretrained(here / "merged")
    report = unipet.load(model, here / "merged" / "adapter")
    recorded = json.loads((run / "result.json").read_text())["params"]
    assert report.trainable == recorded["merged"] < recorded["trainable"], "the reparametrisation is gone"


def test_describe_prints_json_alone(capsys: pytest.CaptureFixture[str], world: Path, here: Path) -> None:
    argv = ["describe", f"--config-dir={world / 'mine'}", "method=mine", f"model={world / 'model'}"]
    code, out, _ = call(capsys, *argv, "--json", "method.insertions.q.function.size=3")
    report = json.loads(out)
    assert code == 0 and report["method"] == "mine" and report["insertions"][0]["parameters"] == 2 * 3 * (32 + 32)
    code, out, _ = call(capsys, *argv)
    assert code == 0 and "attn.q" in out
    assert list(here.iterdir()) == []


def test_list(capsys: pytest.CaptureFixture[str], world: Path, root: Path) -> None:
    code, out, _ = call(capsys, "list")
    assert code == 0
    for group in ("method", "task", "model", "budget"):
        assert all(f"  {path.stem} " in out for path in (root / "conf" / group).glob("*.yaml"))
    assert "low_rank" in out and "attn.heads" in out and max(map(len, out.splitlines())) <= 120
    code, out, _ = call(capsys, "list", "methods", "--config-dir", str(world / "mine"))
    assert code == 0 and "mine: a test's own\n" in out
    code, out, _ = call(capsys, "list", "sites", f"model={world / 'model'}")
    assert code == 0 and "output of bert.encoder.layer.*.attention.self.query" in out and "◄ attn.q" in out


def test_cfg_shows_the_rewritten_configuration(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    code, out, _ = call(
        capsys, "train", "--cfg", "job", "method=lora", "method.insertions.new.scaling=2.0", "model=some/name"
    )
    shown: dict[str, Any] = yaml.safe_load(out)
    assert code == 0 and shown["method"]["insertions"]["new"] == {"scaling": 2.0}
    assert (shown["model"]["name"], shown["model"]["path"], shown["model"]["sha256"]) == ("auto", "some/name", None)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("override", ["debug=small", "+debug=small", "debug=null"])
def test_overlays_with_and_without_plus(capsys: pytest.CaptureFixture[str], override: str) -> None:
    code, out, _ = call(capsys, "train", "--cfg", "job", override)
    assert code == 0 and (yaml.safe_load(out)["budget"]["max_steps"] == 4) == ("small" in override)


def test_a_callers_hydra_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(os.getcwd(), version_base="1.3"):
        mine = GlobalHydra.instance().hydra
        call(capsys, "train", "--cfg", "job")
        assert GlobalHydra.instance().hydra is mine


def test_a_failed_run_exits_1(capsys: pytest.CaptureFixture[str], world: Path, here: Path) -> None:
    code, out, _ = call(
        capsys, "train", *base(world), "optim.lr=1e30", "optim.clip=0", "optim.warmup_ratio=0", "budget.max_steps=6"
    )
    assert code == 1 and "status     failed" in out and "reason" in out


def test_the_module_runs_and_an_interrupt_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unipet.cli.commands import listing

    def interrupted(argv: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "main", interrupted)
    assert call(capsys, "list") == (130, "", "error: interrupted\n")
