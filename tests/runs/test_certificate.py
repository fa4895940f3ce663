"""The certificate of a run: it says what is so, costs the run nothing that counts, and each planted fault is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.support.running import HEAD_ONLY, LOW_RANK, MIXTURE, run_dir, tiny_config, write_model, write_task
from tests.support.tasks import FULL, config_of, write_arch
from unipet.adaptation import build, checkpoint, merging
from unipet.adaptation.certificate import CHECKS, FAILED, Certificate
from unipet.cli.main import main
from unipet.runs import certify as certifying
from unipet.runs import run as running
from unipet.runs.certify import EXAMPLES, PARTS
from unipet.runs.record import Record
from unipet.runs.record_files import read_record
from unipet.runs.run import run
from unipet.runs.verify import verify
from unipet.training import trainer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model and a tiny task."""
    root = tmp_path_factory.mktemp("world")
    write_model(root / "model")
    write_task(root / "data")
    return root


@pytest.fixture(scope="module")
def finished(world: Path) -> Path:
    """A certified run."""
    config = tiny_config(world, runs="finished")
    assert run(config)["status"] == "ok"
    return run_dir(config)


@pytest.fixture()
def copied(finished: Path, tmp_path: Path, world: Path) -> Path:
    """The same in a directory of its own, to be damaged."""
    shutil.copytree(finished, tmp_path / "runs" / finished.name)
    path = tmp_path / "runs" / finished.name / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"]["path"], config["task"]["data_dir"] = str(world / "model"), str(world / "data")
    path.write_text(yaml.safe_dump(config))
    return path.parent


def certificate_of(record: dict[str, Any]) -> Certificate:
    assert record["status"] == "ok", record["error"]
    return Certificate.from_dict(record["certificate"])


def after_training(monkeypatch: pytest.MonkeyPatch, fault: Callable[[Any], Any], before: bool = False) -> None:
    """Do something to the model when training is over, or before it begins."""
    train = trainer.train

    def faulty(model: Any, *given: Any, **named: Any) -> Any:
        if before:
            fault(model)
        trained = train(model, *given, **named)
        if not before:
            fault(model)
        return trained

    monkeypatch.setattr(trainer, "train", faulty)


@pytest.mark.parametrize("method", [LOW_RANK, MIXTURE, HEAD_ONLY, FULL], ids=lambda method: str(method["name"]))
def test_a_run_is_certified_and_its_adapter_says_so(world: Path, method: dict[str, Any]) -> None:
    config = tiny_config(world, method, runs="kinds")
    record = run(config)
    certificate = certificate_of(record)
    assert certificate.certified and list(certificate.checks) == list(CHECKS)
    assert {
        name: len(row["modules"]) for name, row in zip(method["insertions"], record["insertions"], strict=True)
    } == {name: matched.count for name, matched in certificate.sites.items()}
    assert set(certificate.protocol) == {EXAMPLES, *PARTS}
    saved = json.loads((run_dir(config) / "adapter" / "adapter.json").read_text())
    assert saved["certificate"] == record["certificate"]
    assert saved["training"]["run_id"] == record["run_id"] and saved["training"]["score"] == record["score"]


def test_it_changes_no_byte_that_counts_and_no_random_stream(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = []

    def watched(*given: Any, **named: Any) -> Certificate:
        before = torch.get_rng_state()
        made = certify(*given, **named)
        streams.append(bool(torch.equal(before, torch.get_rng_state())))
        return made

    certify = certifying.certify
    monkeypatch.setattr(running, "certify", watched)
    one = run(tiny_config(world, MIXTURE, runs="with"))
    monkeypatch.setattr(running, "certify", lambda *given, **named: Certificate())
    other = run(tiny_config(world, MIXTURE, runs="without"))
    assert one["run_id"] == other["run_id"] and streams == [True]
    for name in ("metrics.jsonl", "predictions.jsonl", "adapter/adapter.safetensors", "adapter/method.yaml"):
        contents = [
            (run_dir(tiny_config(world, MIXTURE, runs=runs)) / name).read_bytes() for runs in ("with", "without")
        ]
        if name == "metrics.jsonl":  # which has times
            contents = [[json.loads(line)["loss"] for line in content.splitlines()] for content in contents]  # type: ignore[misc]
        assert contents[0] == contents[1], name


def frozen_head(model: Any) -> None:
    model.classifier.requires_grad_(False)


def dead_tensor(model: Any) -> None:
    name = "_unipet.attention.bert.encoder.layer.1.attention.self.value.up"
    dict(model.named_parameters())[name].register_hook(torch.zeros_like)


def moved_base(model: Any) -> None:
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[3, 4] += 1e-3


def unmasked(model: Any) -> None:
    def all_real(module: Any, given: Any, named: dict[str, Any]) -> Any:
        return given, {**named, "attention_mask": torch.ones_like(named["attention_mask"])}

    model.register_forward_pre_hook(all_real, with_kwargs=True)


def of_the_batch(model: Any) -> None:
    model.classifier.register_forward_hook(lambda module, given, made: made + 0.01 * len(made))


def of_the_place(model: Any) -> None:
    def shifted(module: Any, given: Any, made: Any) -> Any:
        return made + 0.01 * torch.arange(len(made), device=made.device)[:, None] * (len(made) == 4)

    model.classifier.register_forward_hook(shifted)


def not_a_number(model: Any) -> None:
    """Behind everything that training looks at: the value comes back when it is loaded."""
    with torch.no_grad():
        model._unipet.items[0].bank.home.parameter("down").fill_(float("inf"))


@pytest.mark.parametrize(
    ("fault", "before", "check", "words"),
    [
        (frozen_head, True, "moved", "head/classifier/"),
        (dead_tensor, True, "moved", "attention/bert.encoder.layer.1.attention.self.value/up"),
        (moved_base, False, "frozen", "bert.encoder.layer.1.output.dense.weight"),
        (unmasked, False, "padding", "tokens of padding behind an example"),
        (of_the_batch, False, "batch_size", "in a batch of 3"),
        (of_the_place, False, "row_order", "in another order"),
    ],
)
def test_a_planted_fault_is_named(
    fault: Any, before: bool, check: str, words: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_training(monkeypatch, fault, before)
    config = tiny_config(world, optim__weight_decay=0.0)
    config.runs_dir = str(tmp_path)
    certificate = certificate_of(run(config))
    assert not certificate.certified and certificate.failed == [check]
    assert words in certificate.checks[check].text and check in certificate.verdict


def lossy_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    fold = merging._fold_one

    def half(insertion: Any, weight: Any, bias: Any) -> Any:
        new, shifted = fold(insertion, weight, bias)
        return (weight + new) / 2, shifted

    monkeypatch.setattr(merging, "_fold_one", half)


def half_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = build.resolve

    def first_layer(*given: Any, **named: Any) -> Any:
        return [site for site in resolve(*given, **named) if site.layer == 0]

    monkeypatch.setattr(build, "resolve", first_layer)


def lost_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    unpack = checkpoint.unpack

    def losing(packed: Any, names: Any) -> Any:
        found = unpack(packed, names)
        lost = next(name for name in found if name.endswith("/up"))
        return {**found, lost: torch.zeros_like(found[lost])}

    monkeypatch.setattr(checkpoint, "unpack", losing)


def head_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = checkpoint.stored
    loading = []

    def without_head(model: Any) -> Any:
        return {name: tensor for name, tensor in stored(model).items() if not loading or not name.startswith("head/")}

    def unpack(packed: Any, names: Any) -> Any:
        return {name: packed[name] for name in names}

    def read(*given: Any) -> Any:
        loading.append(True)
        return reading(*given)

    reading = checkpoint._read
    monkeypatch.setattr(checkpoint, "stored", without_head)
    monkeypatch.setattr(checkpoint, "unpack", unpack)
    monkeypatch.setattr(checkpoint, "_read", read)


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        (half_the_layers, "sites", "attn.q is in 1 of 2 layers of the encoder, not in 1"),
        (lossy_merge, "merge", "merging loses"),
        (lost_at_load, "round_trip", "/up came back with other values"),
        (head_not_loaded, "round_trip", "not the one that was saved"),  # outputs that are no numbers
    ],
)
def test_a_fault_of_inserting_saving_or_merging_is_named(
    fault: Any, check: str, words: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    config = tiny_config(world)
    config.runs_dir = str(tmp_path)
    record = run(config)
    certificate = certificate_of(record)
    assert certificate.failed == [check] and words in certificate.checks[check].text
    json.dumps(record, allow_nan=False)


@pytest.fixture(scope="module")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    root = tmp_path_factory.mktemp("generating")
    yield root, write_arch(root / "model", "llama")


@pytest.mark.parametrize("faulty", [False, True])
def test_a_cache_that_does_not_match_is_named(
    faulty: bool, generating: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, model = generating

    def other_token(model: Any) -> None:
        def changed(module: Any, given: Any, named: dict[str, Any]) -> Any:
            past, ids = named.get("past_key_values"), named["input_ids"]
            later = past is not None and past.get_seq_length() > 0
            return given, {**named, "input_ids": torch.full_like(ids, 9) if later else ids}

        model.register_forward_pre_hook(changed, with_kwargs=True)

    if faulty:
        after_training(monkeypatch, other_token)
    config = config_of("causal_generation", root, model, LOW_RANK, optim_epochs=3)
    config.runs_dir = str(tmp_path)
    certificate = certificate_of(run(config))
    check = certificate.checks["generation_cache"]
    assert certificate.failed == (["generation_cache"] if faulty else [])
    assert ("with the cache and without: outputs differ" if faulty else "tokens for 2 examples") in check.text


def test_a_check_that_breaks_off_has_failed_and_the_run_is_finished(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **named: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(merging, "_folded", broken)
    config = tiny_config(world)
    config.runs_dir = str(tmp_path)
    certificate = certificate_of(run(config))
    assert certificate.failed == ["round_trip", "merge"] and "out of memory" in certificate.checks["merge"].text


def again(directory: Path, deep: bool = False) -> Certificate:
    return verify(directory, read_record(directory / "result.json"), deep)


def test_verify_makes_it_again(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(copied)]) == 0
    assert "certified" in capsys.readouterr().out
    record = read_record(copied / "result.json")
    assert record.certificate is not None and record.certificate.by == "verify" and record.certificate.certified
    assert main(["verify", str(copied / "adapter"), "--deep"]) == 0, "the adapter of a run is verified with the run"
    shown = capsys.readouterr().out
    assert "merge: float32" in shown and "bfloat16" in shown and "20 examples" in shown
    assert read_record(copied / "result.json").certificate.by == "verify --deep"  # type: ignore[union-attr]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_verify_names_another_template(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(copied / "config.yaml", "  - sentence", "  - 'w1 w2 {sentence}'")
    assert main(["verify", str(copied)]) == 1
    shown = capsys.readouterr().out
    assert "encoded examples, template" in shown and "not certified: failed:" in shown


def test_verify_names_other_predictions_and_another_score(copied: Path) -> None:
    lines = [json.loads(line) for line in (copied / "predictions.jsonl").read_text().splitlines()]
    for line in lines:
        line["logits"] = [value + 0.5 for value in line["logits"]]
    (copied / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = json.loads((copied / "result.json").read_text())
    record["score"] += 0.05
    (copied / "result.json").write_text(json.dumps(record))
    assert again(copied).failed == ["round_trip"]
    certificate = again(copied, deep=True)
    assert certificate.failed == ["round_trip", "score"] and "was recorded" in certificate.checks["score"].text


def test_verify_names_a_tensor_that_is_gone(copied: Path) -> None:
    import hashlib

    import safetensors.torch

    path = copied / "adapter" / "adapter.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors.pop("head/classifier/bias")
    data = safetensors.torch.save(tensors)
    path.write_bytes(data)
    description = json.loads((copied / "adapter" / "adapter.json").read_text())
    description["sha256"] = hashlib.sha256(data).hexdigest()
    description["tensors"].pop("head/classifier/bias")
    (copied / "adapter" / "adapter.json").write_text(json.dumps(description))
    certificate = again(copied)
    assert certificate.failed == ["round_trip"] and "head/classifier/bias" in certificate.checks["round_trip"].text


def test_a_record_from_before_there_were_certificates_can_get_one(copied: Path) -> None:
    record = json.loads((copied / "result.json").read_text())
    del record["certificate"]
    (copied / "result.json").write_text(json.dumps(record))
    assert Record.from_dict(record).certificate is None
    assert again(copied).certified


def test_every_failed_check_is_in_the_verdict() -> None:
    made = Certificate.from_dict({"checks": {name: {"status": "passed"} for name in CHECKS}})
    assert made.certified and made.verdict == "certified"
    made.checks["merge"].status = FAILED
    del made.checks["padding"]
    assert made.verdict == "not certified: failed: merge; not known: padding"
