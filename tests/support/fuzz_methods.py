"""Shipped methods with something done to them, and what must come of each: a model that works, or one error that names the key.

A mutant is a mapping, as Python gives it, or a file. Most changes are blind; some choose another value of a dimension, so that
many mutants are methods that nobody has written yet.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import tempfile
import typing
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import torch
import yaml
from hypothesis import strategies as st

import unipet
from tests.support.fuzz_trees import Changer, Draw, changed_text, some, written
from tests.support.fuzzing import Fault, calm
from tests.support.matrix import ARCHS, close, logits, randomise, same_bits, untouched, values, with_loss
from unipet.adaptation import room_for_tensors
from unipet.adaptation.adapted import adaptation
from unipet.calculus.composition import COMPOSITIONS
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.library import load_method
from unipet.calculus.method import UNFREEZE
from unipet.calculus.mixture import REDUCERS, ROUTERS
from unipet.calculus.objectives import REGULARISERS
from unipet.calculus.scaling import SCALINGS
from unipet.config import conf_dir
from unipet.errors import UnipetError
from unipet.tasks.readout import next_tokens, rows, tokens
from unipet.training.step import Loss

ARCHITECTURES = ("bert", "llama", "bart")
ROLES = (
    *(
        "attn.q",
        "attn.k",
        "attn.v",
        "attn.o",
        "attn.qkv",
        "attn.heads",
        "attn",
        "attn.post",
        "ffn",
        "ffn.up",
        "ffn.gate",
        "ffn.mid",
    ),
    *(
        "ffn.down",
        "ffn.post",
        "layer",
        "norm",
        "embed",
        "embed.tokens",
        "head.tokens",
        "cross.q",
        "cross.v",
        "cross.heads",
        "cross",
    ),
)
LAYERS = ("all", [0], [1], "0-1", "first:1", "last:1", [], [5], "spindle:1/2", 0, "1-0")
TEXT = 2000  # characters of the longest error
#: GiB: what the machine has to give, as the package is told. Nothing that a mutant asks for may take long, or all of it.
ROOM = 0.125
EXPERTS = 6  # more than these are not all routed to

FILES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((conf_dir() / "method").glob("*.yaml"))}
TREES: dict[str, Any] = {name: yaml.safe_load(text) for name, text in FILES.items()}
CHANGER = Changer(TREES)


@dataclass(frozen=True)
class Mutant:
    """A changed method, for one base model."""

    arch: str
    method: Any  # a mapping, or the text of a file
    changes: tuple[str, ...]

    def __str__(self) -> str:
        shown = self.method if isinstance(self.method, str) else _shown(self.method)
        return f"arch: {self.arch}\nchanges: {', '.join(self.changes)}\n{type(self.method).__name__}:\n{shown}"


def _shown(tree: Any) -> str:
    try:
        return written(tree)
    except (yaml.YAMLError, RecursionError):
        return f"{tree!r:.3000}"


@st.composite
def mutants(draw: Draw, archs: tuple[str, ...] = ARCHITECTURES) -> Mutant:
    """A shipped method with one to four changes."""
    arch, name = draw(st.sampled_from(archs)), draw(st.sampled_from(sorted(TREES)))
    python, changes = draw(st.booleans()), []
    tree = copy.deepcopy(TREES[name])
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 2)):
            changes.append(choose(draw, tree))
        else:
            changes.append(CHANGER.change(draw, tree, python))
    if python:
        return Mutant(arch, tree, tuple(changes))
    try:
        text = FILES[name] if draw(st.integers(0, 4)) == 0 else written(tree)
    except RecursionError:  # yaml writes no tree as deep as this
        hypothesis.reject()
    if text == FILES[name] or draw(st.integers(0, 3)) == 0:
        text, change = changed_text(draw, text)
        changes.append(change)
    return Mutant(arch, text, tuple(changes))


# -- other values of the dimensions ------------------------------------------------------------------------------------


def choose(draw: Draw, tree: Any) -> str:
    """Another choice for one insertion, or for the method, as far as the tree still is a method."""
    insertions = tree.get("insertions") if isinstance(tree, dict) else None
    own = [each for each in insertions.values() if isinstance(each, dict)] if isinstance(insertions, dict) else []
    wide = draw(st.sampled_from(["insertion"] * 6 + ["unfreeze", "objective", "another", "composed", "composed"]))
    if wide == "unfreeze" and isinstance(tree, dict):
        tree["unfreeze"] = some(draw, UNFREEZE)
    elif wide == "objective" and isinstance(tree, dict):
        tree["objective"] = {name: options(draw, REGULARISERS[name]) for name in some(draw, list(REGULARISERS), 2)}
    elif wide == "another" and isinstance(insertions, dict):
        other = TREES[draw(st.sampled_from(sorted(TREES)))].get("insertions") or {}
        for name in some(draw, list(other), 2) if other else []:
            insertions[draw(st.sampled_from([name, f"{name}2"]))] = copy.deepcopy(other[name])
    elif wide == "composed" and isinstance(insertions, dict):
        insertions[draw(st.sampled_from(["composed", *insertions]))] = composed = {}
        for dimension in ("function", "position", "position", "position 2", "composition", "scaling", "mixture"):
            if dimension in ("function", "position") or draw(st.integers(0, 2)) == 0:
                DIMENSIONS[dimension](draw, composed)
    elif own:
        insertion = draw(st.sampled_from(own))
        dimension = draw(st.sampled_from(sorted(DIMENSIONS)))
        DIMENSIONS[dimension](draw, insertion)
        wide = dimension
    return wide


def options(draw: Draw, cls: type, most: int = 3) -> dict[str, Any]:
    """Some options of a value, each with something that its type and its limits allow, as a rule."""
    fields, hints = dataclasses.fields(cls), typing.get_type_hints(cls)
    drawn = some(draw, [None, *fields], most) if fields else []
    return {field.name: value(draw, hints[field.name], field.metadata) for field in drawn if field is not None}


def value(draw: Draw, hint: Any, limits: Mapping[str, Any]) -> Any:
    if limits.get("choices"):
        return draw(st.sampled_from([*limits["choices"], *([None] if type(None) in typing.get_args(hint) else [])]))
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    kind = kinds[0] if kinds else hint
    if dataclasses.is_dataclass(kind):
        return options(draw, typing.cast("type", kind))
    if kind is bool:
        return draw(st.booleans())
    if kind is int:
        return draw(st.sampled_from([1, 2, 3, 4, 5, 6, 8, 16, 31, 32, 48, 0, 64, 100]))
    if kind is float:
        return draw(st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 4.0, -1.0, 100.0]))
    return draw(st.sampled_from([None, "x", [0, 1], [1, 2, 3], ["up"], 2, "all", []]))


def _function(draw: Draw, insertion: dict[str, Any]) -> None:
    name = draw(st.sampled_from(sorted(FUNCTIONS)))
    insertion["function"] = {"name": name, **options(draw, FUNCTIONS[name])}


def _function_alone(draw: Draw, insertion: dict[str, Any]) -> None:
    insertion["function"] = draw(st.sampled_from(sorted(FUNCTIONS)))


def _function_options(draw: Draw, insertion: dict[str, Any]) -> None:
    function = insertion.get("function")
    if isinstance(function, dict) and isinstance(function.get("name"), str) and function["name"] in FUNCTIONS:
        function.update(options(draw, FUNCTIONS[function["name"]]))


def _composition(draw: Draw, insertion: dict[str, Any]) -> None:
    name = draw(st.sampled_from(sorted(COMPOSITIONS)))
    insertion["composition"] = {"name": name, **options(draw, COMPOSITIONS[name], 1)}


def _scaling(draw: Draw, insertion: dict[str, Any]) -> None:
    name = draw(st.sampled_from(sorted(SCALINGS)))
    insertion["scaling"] = draw(
        st.sampled_from([{"name": name, **options(draw, SCALINGS[name])}, 2.0, -1, 0, 1e6, 1e20, 1e-20])
    )


def _mixture(draw: Draw, insertion: dict[str, Any]) -> None:
    mixture: dict[str, Any] = {
        "experts": draw(st.sampled_from([2, 3, 4, 1, 17])),
        "router": draw(st.sampled_from(sorted(ROUTERS))),
    }
    if draw(st.booleans()):
        mixture["reducer"] = draw(st.sampled_from(sorted(REDUCERS)))
    if draw(st.booleans()):
        mixture["share"] = draw(st.sampled_from([["up"], ["down"], ["values"], ["value"], []]))
    if draw(st.integers(0, 3)) == 0:
        mixture["top_k"] = draw(st.sampled_from([1, 2, 3]))
    if draw(st.integers(0, 3)) == 0:
        names = some(draw, sorted(FUNCTIONS))
        mixture["experts"] = {
            f"e{number}": {"name": name, **options(draw, FUNCTIONS[name])} for number, name in enumerate(names)
        }
        insertion.pop("function", None)
    insertion["mixture"] = mixture


def _position(draw: Draw, insertion: dict[str, Any]) -> None:
    position = insertion.get("position")
    position = {"site": position} if isinstance(position, str | list) else position
    position = insertion["position"] = dict(position) if isinstance(position, dict) else {}
    key = draw(
        st.sampled_from(
            ["site", "site", "site", "form", "form", "layers", "stack", "tokens", "input", "side", "optional"]
        )
    )
    position[key] = copy.deepcopy(draw(st.sampled_from(_POSITIONS[key]))) if key != "site" else some(draw, ROLES)


_POSITIONS: dict[str, list[Any]] = {
    "form": ["parallel", "sequential"],
    "layers": list(LAYERS),
    "stack": ["all", "encoder", "decoder"],
    "tokens": ["all", "first:1", "last:1", "first:3", "last:100"],
    "input": ["post_norm", "pre_norm", "block_output"],
    "side": ["output", "input"],
    "optional": [True, False],
}
DIMENSIONS = {
    "function": _function,
    "function alone": _function_alone,
    "function's options": _function_options,
    "composition": _composition,
    "scaling": _scaling,
    "mixture": _mixture,
    "position": _position,
    "position 2": _position,
}


# -- what must come of it ----------------------------------------------------------------------------------------------


@dataclass
class Base:
    """A base model that carries one mutant after the other, and what it must be again."""

    model: Any
    state: dict[str, torch.Tensor]
    outside: dict[str, Any]


@functools.cache
def _bases() -> dict[str, Base]:
    return {}


def base(arch: str) -> Base:
    if arch not in _bases():
        model = ARCHS[arch].build()
        _bases()[arch] = Base(model, values(model), untouched(model))
    return _bases()[arch]


def outcome(mutant: Mutant) -> str:
    """What came of a mutant: "works", or where it was refused. Raises Fault for anything else."""
    try:
        with calm(), _small_machine():
            return _outcome(mutant)
    except BaseException:
        _bases().pop(mutant.arch, None)
        raise


@typing.no_type_check
def _small_machine():
    from unittest.mock import patch

    return patch.multiple(room_for_tensors, available_gib=lambda: ROOM, ALWAYS_GIB=ROOM)


def _outcome(mutant: Mutant) -> str:
    own = base(mutant.arch)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        given = mutant.method
        if isinstance(given, str):
            given = Path(place) / "mine.yaml"
            given.write_text(mutant.method, encoding="utf-8", errors="surrogatepass")
        try:
            method = load_method(given)
        except UnipetError as error:
            named(str(error), given)
            return "refused as it is read"
        try:
            report = unipet.adapt(own.model, method)
        except UnipetError as error:
            named(str(error), given)
            as_it_was(own, "a refused method changed the base model")
            return "refused on the base model"
        try:
            works(mutant.arch, own.model, report)
        except UnipetError as error:  # more tokens than the base model has positions, beside an input of this length
            if "do not fit into the" not in str(error):
                raise
            unipet.eject(own.model.eval())
            as_it_was(own, "ejecting left something")
            return "refused beside this input"
        came = trains(mutant.arch, own.model, method)
        unipet.eject(own.model.eval())
        as_it_was(own, "ejecting left something")
        if zlib.crc32(str(mutant).encode(errors="replace")) % 4 == 0:
            merges(mutant.arch, method, Path(place))
            return f"{came}, merged and loaded"
    return came


def named(message: str, given: Any) -> None:
    """An error for a reader: of one key or one line of the file, and short."""
    file = str(given) if isinstance(given, Path) else "method"
    if not message.startswith(("method", file)):
        raise Fault(f"the error names no key: {message[:300]}")
    if len(message) >= TEXT:
        raise Fault(f"an error of {len(message)} characters: {message[:300]}")


def as_it_was(own: Base, what: str) -> None:
    if not same_bits(own.model.state_dict(), own.state):
        raise Fault(f"{what}: values")
    if (now := untouched(own.model)) != own.outside:
        raise Fault(f"{what}: {[key for key in now if now[key] != own.outside[key]]}")


def works(arch: str, model: Any, report: unipet.AdaptReport) -> None:
    """Finite in evaluation and in training, with gradients in all that the report counts."""
    owned = unipet.parameters(model, head=True)
    learning = {id(p) for p in model.parameters() if p.requires_grad}
    if {id(p) for p in owned.values()} != learning:
        raise Fault("what trains is not what the method owns")
    if (counted := sum(p.numel() for p in owned.values())) != report.trainable + report.head:
        raise Fault(f"{counted} parameters, and the report counts {report.trainable} and a head of {report.head}")
    batch = ARCHS[arch].batch()
    if not torch.isfinite(logits(arch, model.eval(), batch)).all():
        raise Fault("outputs before training are not finite")
    randomise(model, 0.1)
    if not torch.isfinite(logits(arch, model, batch)).all():
        raise Fault("outputs are not finite")
    inserted, reached = adaptation(model), set()
    mixtures = {i.number: i.parts.mixture for i in inserted.items if i.parts.mixture is not None}
    most = max((mixture.experts for mixture in mixtures.values()), default=1)
    model.train()
    for step in range(min(most, EXPERTS)):
        inserted.draw(step, seed=0)
        for route in inserted.context.routes:
            for number in route:
                route[number] = dict.fromkeys(route[number], step % mixtures[number].experts)
        loss = with_loss(arch, model, batch).loss
        if not torch.isfinite(loss):
            raise Fault("the loss is not finite")
        if learning:
            loss.backward()
        reached |= {name for name, p in owned.items() if p.grad is not None}
    for name, p in owned.items():
        if p.grad is not None and not torch.isfinite(p.grad).all():
            raise Fault(f"the gradient of {name} is not finite")
    if lost := [] if most > EXPERTS else sorted(set(owned) - reached - _not_picked(inserted, reached)):
        raise Fault(f"never had a gradient: {lost[:6]} of {len(owned)}")


def _not_picked(inserted: Any, reached: set[str]) -> set[str]:
    """Tensors of experts that inputs, or examples, did not choose, although they chose others."""
    found: set[str] = set()
    for item in inserted.items:
        mixture, names = item.parts.mixture, item.bank.names
        if mixture is None or (mixture.routes_by(True) == "drawn" and mixture.grain_of(True) == "call"):
            continue
        prefix = f"{item.name}/{item.site.name}/"
        own = {f"{prefix}{name}" for name in names.values()}
        found |= own if own & reached else set()
    return found


def trains(arch: str, model: Any, method: Any) -> str:
    """The objective's loss, and its gradients, are finite; or it does not go with the method, as one error says."""
    if not method.objective.regularisers:
        return "works"
    model.zero_grad()
    kind = ARCHS[arch].kind
    read = {"encoder": rows, "decoder": next_tokens, "encoder-decoder": tokens}[kind]
    batch = ARCHS[arch].batch()
    inputs = {name: tensor for name, tensor in batch.items() if not name.startswith("decoder")}
    adaptation(model).draw(0, seed=0)
    try:
        loss = Loss(method.objective, read=read)(model.train(), {**inputs, "labels": ARCHS[arch].labels(batch)})
    except UnipetError as error:
        named(str(error), None)
        return "works without its objective"
    if not torch.isfinite(loss):
        raise Fault("the objective's loss is not finite")
    if loss.requires_grad:
        loss.backward()
    for name, p in unipet.parameters(model, head=True).items():
        if p.grad is not None and not torch.isfinite(p.grad).all():
            raise Fault(f"the objective's gradient of {name} is not finite")
    return "works and trains"


def merges(arch: str, method: Any, place: Path) -> None:
    """What the report calls foldable folds; what is saved loads to the same outputs."""
    model, other = ARCHS[arch].build(), ARCHS[arch].build()
    torch.manual_seed(0)
    report = unipet.adapt(model, method)
    randomise(model, 0.1)
    expected = logits(arch, model.eval(), ARCHS[arch].batch())
    unipet.save(model, place / "adapter")
    unipet.load(other, place / "adapter")
    if not torch.equal(logits(arch, other.eval(), ARCHS[arch].batch()), expected):
        raise Fault("loaded, it says something else")
    stuck = [row for row in report.insertions if not row.foldable and row.modules]
    try:
        unipet.merge(model)
    except UnipetError as error:
        if not stuck:
            raise Fault(f"the report says that all folds, and merging says: {error}") from error
        return
    if stuck:
        raise Fault(f"merged, although the report says that {stuck[0].name} does not fold: {stuck[0].why_not}")
    if not close(logits(arch, model, ARCHS[arch].batch()), expected, 1e-3):
        raise Fault("merged, it says something else")
