"""Several named adaptations on one model: which it carries, which one is in use, and how that changes.

The one in use is registered on the model as the only one would be, as `_unipet`. The others wait as `_unipet_others`, with
no hook in the model; what each of them made of the unfrozen base parameters waits with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from unipet.adaptation.adapted import CONTAINER, Adaptation, adaptation
from unipet.adaptation.own_head import drop_head, give_head, own_head, take_head
from unipet.calculus.own_rows import OwnRows
from unipet.errors import UnipetError, not_allowed, unknown

OTHERS = "_unipet_others"
#: The adaptation of each row of a batch, by name; None: the base model.
Rows = tuple[str | None, ...]


class Others(nn.Module):
    """The adaptations that a model carries besides the one in use, as children under their names."""

    def __init__(self, order: tuple[str, ...], rows: Rows | None, waiting: dict[str, Adaptation]) -> None:
        super().__init__()
        self.order, self.rows = order, rows  # of all adaptations, the one in use included
        self._modules.update(waiting)  # any name, also that of an attribute


@dataclass(frozen=True)
class Standing:
    """The adaptations of a model in the order in which they came, the name of the one in use, and where each row has its
    own, those rows."""

    carried: dict[str, Adaptation] = field(default_factory=dict)
    used: str | None = None
    rows: Rows | None = None

    @property
    def acting(self) -> list[Adaptation]:
        """The adaptations with hooks in the model, in the order in which these were registered."""
        names = (self.used,) if self.rows is None else self.rows
        return [inserted for name, inserted in self.carried.items() if name in names]

    def named(self, name: str | None) -> Adaptation:
        """The adaptation of this name; None: the one in use. Raises UnipetError where there is none."""
        if name is not None and name not in self.carried:
            raise unknown("name", name, self.carried)
        if name is None and self.used is None and self.carried:
            raise UnipetError(
                f"No adaptation is in use. The model carries {', '.join(map(repr, self.carried))}: "
                "call unipet.use(model, NAME), or give name=."
            )
        chosen = self.used if name is None else name
        if chosen is None:
            raise UnipetError(
                "This model carries no method. Call unipet.adapt(model, method) or unipet.load(model, DIR) first."
            )
        return self.carried[chosen]

    def without(self, name: str) -> Standing:
        """The same without one of them. If it was in use, the last one that came before takes its place."""
        left = {other: inserted for other, inserted in self.carried.items() if other != name}
        return Standing(left, next(reversed(left), None) if self.used == name else self.used)


def standing(model: nn.Module) -> Standing:
    """What a model carries."""
    used, others = getattr(model, CONTAINER, None), getattr(model, OTHERS, None)
    there = {used.name: used} if isinstance(used, Adaptation) else {}
    if not isinstance(others, Others):
        return Standing(there, next(iter(there), None))
    known = {**others._modules, **there}
    return Standing({name: known[name] for name in others.order}, next(iter(there), None), others.rows)  # type: ignore[misc]


def lay_down(model: nn.Module) -> Standing:
    """Take out all that a model carries, with nothing lost: it is the base model as it was. Returns what it carried."""
    now = standing(model)
    for inserted in reversed(now.acting):
        if now.rows is None:
            _keep(model, inserted)
        else:
            take_head(inserted)
            inserted.current.beside = []
        inserted.undo(model)
    for name in (CONTAINER, OTHERS):
        if hasattr(model, name):
            delattr(model, name)
    return now


def take_up(model: nn.Module, target: Standing, again: bool = False) -> None:
    """Let a base model carry `target`: the reverse of `lay_down`, and all or nothing.

    `again` says that it carried it a moment ago. Otherwise autograd is told that values of base parameters have changed:
    a backward pass of what was computed before is then an error, and not wrong.
    """
    with ExitStack() as undoing:
        for inserted in target.acting:
            undoing.callback(inserted.undo, model)
            if target.rows is None:
                inserted.attach(model)
                _give_back(model, inserted, again)
            else:
                undoing.callback(setattr, inserted.current, "beside", [])
                undoing.callback(drop_head, inserted)
                inserted.current.beside = [other.current for other in target.acting]
                inserted.attach(model, OwnRows([name == inserted.name for name in target.rows]))
                give_head(model, inserted)
        register(model, target)
        undoing.pop_all()
    if target.used is not None and target.rows is None:
        target.carried[target.used].kept = {}


def register(model: nn.Module, target: Standing) -> None:
    """Put every adaptation where modules are found: moved, copied and counted with the model."""
    if target.used is not None and not hasattr(model, CONTAINER):
        model.add_module(CONTAINER, target.carried[target.used])
    waiting = {name: inserted for name, inserted in target.carried.items() if name != target.used}
    if waiting or target.rows is not None:
        model.add_module(OTHERS, Others(tuple(target.carried), target.rows, waiting))


@contextmanager
def changing(model: nn.Module) -> Iterator[Standing]:
    """Inside, the model is the base model, and the block gives it what it is to carry; the value is what it carried before.
    Where the block fails, it carries that again."""
    before = lay_down(model)
    try:
        yield before
    except BaseException:
        lay_down(model)
        take_up(model, before, again=True)
        raise


@contextmanager
def alone(model: nn.Module, name: str | None) -> Iterator[Adaptation]:
    """Inside, the model carries one adaptation and no other; None: the one in use. Afterwards all is as before."""
    now = standing(model)
    chosen = now.named(name)
    if not hasattr(model, OTHERS):
        yield chosen
        return
    lay_down(model)
    try:
        take_up(model, Standing({chosen.name: chosen}, chosen.name))
        yield chosen
    finally:
        lay_down(model)
        take_up(model, now, again=True)


@contextmanager
def beside(model: nn.Module, name: str | None) -> Iterator[None]:
    """Inside, the model is the base model, and the block attaches one more adaptation to it; afterwards that one is in use, and
    those that were there wait."""
    with changing(model) as before:
        yield
        added = adaptation(model)
        added.name = name or added.name
        register(model, Standing({**before.carried, added.name: added}, added.name))


def check_name(model: nn.Module, name: str | None) -> None:
    """Raise UnipetError where no adaptation of this name can come into the model."""
    if name is not None and (not isinstance(name, str) or not name or "." in name):
        raise not_allowed("name", name, "a word without dots")
    carried = standing(model).carried
    if name is None and carried:
        methods = ", ".join(repr(inserted.method.name) for inserted in carried.values())
        raise UnipetError(
            f"The model already carries method {methods}. Call unipet.eject(model) or unipet.merge(model) first, or let "
            "it carry both: give this one a name of its own, name='...'."
        )
    if name in carried:
        raise UnipetError(
            f"name: the model already carries an adaptation called {name!r}. Give another name, or call "
            f"unipet.eject(model, {name!r}) first."
        )


def only(model: nn.Module, name: str | None) -> Adaptation:
    """The adaptation of this name. Raises UnipetError where the model carries others."""
    now = standing(model)
    chosen = now.named(name)
    others = [other for other in now.carried if other != chosen.name]
    if others:
        listed = "; ".join(f"unipet.eject(model, {other!r})" for other in others)
        raise UnipetError(
            f"Merging {chosen.name!r} would change the base model under {', '.join(map(repr, others))}. Take them out first: "
            f"{listed}."
        )
    if now.rows is not None or now.used is None:
        raise UnipetError(f"{chosen.name!r} is not in use on all rows. Call unipet.use(model, {chosen.name!r}) first.")
    return chosen


@torch.no_grad()
def _keep(model: nn.Module, inserted: Adaptation) -> None:
    """Note what the adaptation in use made of the base parameters that it unfreezes, and of the head."""
    base = dict(model.named_parameters())
    for name in {*inserted.unfrozen, *inserted.head}:
        inserted.kept[name] = base[name].detach().to("cpu", copy=True), base[name].grad
        base[name].grad = None


@torch.no_grad()
def _give_back(model: nn.Module, inserted: Adaptation, again: bool) -> None:
    """Put what `_keep` noted into the model."""
    base = dict(model.named_parameters())
    for name, (value, gradient) in inserted.kept.items():
        (base[name].data if again else base[name]).copy_(value)
        base[name].grad = None if gradient is None else gradient.to(base[name])


def unfrozen_tensors(model: nn.Module, now: Standing, inserted: Adaptation) -> Mapping[str, nn.Parameter]:
    """The base parameters that an adaptation trains, by name, among others. Raises UnipetError where it waits."""
    if inserted in now.acting:
        return dict(model.named_parameters()) if now.rows is None else own_head(inserted)
    raise UnipetError(
        f"{inserted.name!r} is not in use, so what it trains of the base model is not in the model. Call "
        f"unipet.use(model, {inserted.name!r}) first, or leave the head out (head=False)."
    )


def in_use(now: Standing, name: str | None) -> Standing:
    """The same with another one in use, on all rows; None: none."""
    return replace(now, used=name, rows=None)
