"""How an honest file becomes a hostile one: one thing in it is changed, by a function of the folder that holds it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SECRET = "CANARY-5f1c"  # stands in files outside of what is handed over; no message or output may have it
EVIL = "evil_module"  # on the import path; importing it leaves a file
DEEP = 100_000


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


def only_old_pickle(world: World, place: Path) -> None:
    """The adapters library's older form: pytorch_adapter.bin, and no safetensors."""
    next(place.glob("*.safetensors")).unlink()
    pickled("pytorch_adapter.bin")(world, place)


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
UNIONS: dict[str, Any] = {"architecture": "union", "configs": [{"architecture": "union", "configs": [{}]}]}
MANY: dict[str, Any] = {"architecture": "union", "configs": [{"architecture": "lora"}] * 10_000}
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


def adapters_directory(place: Path) -> None:
    """A directory of the adapters library, by its layout: low-rank maps of size 4 at the queries of tiny BERT."""
    import torch
    from safetensors.torch import save_file

    place.mkdir(parents=True)
    config = {"architecture": "lora", "r": 4, "alpha": 8, "attn_matrices": ["q"], "composition_mode": "add"}
    content = {"config": config, "name": "a", "version": "adapters.1.3.0"}
    (place / "adapter_config.json").write_text(json.dumps(content))
    at = "encoder.layer.{}.attention.self.query.loras.a.lora_{}"
    shapes = {"A": (4, 32), "B": (32, 4)}
    save_file(
        {at.format(layer, part): torch.ones(shape) for layer in range(2) for part, shape in shapes.items()},
        place / "adapter.safetensors",
    )


def peft_result(place: Path) -> None:
    """A result of the comparison that comes with peft."""
    from tests.runs.test_importing_results import RESULT

    place.mkdir(parents=True)
    (place / "a.json").write_text(json.dumps(RESULT))
