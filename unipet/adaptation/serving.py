"""Which adaptations act, and on which rows of a batch: one on all rows, none, or each row its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.own_head import why_no_own_head
from unipet.adaptation.several import OTHERS, Standing, changing, in_use, standing, take_up
from unipet.adaptation.stack_hooks import why_not_by_row
from unipet.adaptation.unwrapping import unwrapped, unwraps
from unipet.calculus.own_rows import OwnRows
from unipet.errors import UnipetError, not_allowed, unknown


@unwraps
def adaptations(model: nn.Module) -> list[str]:
    """The names of the adaptations that a model carries, in the order in which they came."""
    return list(standing(model).carried)


@unwraps
def use(model: nn.Module, name: str) -> None:
    """Let the adaptation of this name act on all rows, and no other; it alone trains.

    The others wait, each with what it made of the head and of whatever else it unfreezes. Raises UnipetError for a name
    that the model does not carry.
    """
    now = standing(model)
    now.named(name)
    if now.used == name and now.rows is None:
        return
    _switch(model, in_use(now, name))


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Inside the block the model is the base model, bit for bit; afterwards it is adapted as before. Gradients stay."""
    with unwrapped(model) as inside:
        before = standing(inside)
        _switch(inside, in_use(before, None))
    try:
        yield
    finally:
        with unwrapped(model) as inside:
            now = standing(inside)
            names = {before.used, *(before.rows or ())} - {None}
            if names <= now.carried.keys():
                _switch(inside, replace(now, used=before.used, rows=before.rows), again=True)


@unwraps
def rows(model: nn.Module, names: Sequence[str | None]) -> None:
    """Say which adaptation each row of the batches to come uses, by name; None: the base model. It holds until `use`.

    Each row comes out as its adaptation alone would compute it, the head included, and gradients reach the adaptation of
    their row. A batch may hold k entries for each name, one after another, as `generate` orders beams and returned
    sequences. Raises UnipetError for an unknown name, and for an adaptation that cannot share a forward pass with
    others, with the reason; then nothing has changed.
    """
    now, asked = standing(model), tuple(names)
    if isinstance(names, str) or not asked:
        raise not_allowed("rows", names, "a list with the name of an adaptation, or None, for each row of the batch")
    for name in asked:
        if name is not None and name not in now.carried:
            raise unknown("rows", name, now.carried)
    if not now.carried:
        now.named(None)
    target = replace(now, rows=asked)
    for inserted in target.acting:
        if why := why_alone(model, inserted, target.acting):
            raise UnipetError(
                f"rows: {inserted.name!r} cannot share a forward pass with others: {why}. "
                f"Use it on a batch of its own: unipet.use(model, {inserted.name!r})."
            )
    if now.rows is not None and now.acting == target.acting:  # as usual, from one batch to the next
        for inserted in target.acting:
            inserted.own = OwnRows([name == inserted.name for name in asked])
        getattr(model, OTHERS).rows = asked
        return
    _switch(model, target)


def why_alone(model: nn.Module, inserted: Adaptation, acting: Sequence[Adaptation]) -> str | None:
    """Why an adaptation cannot act on some rows of a batch beside those that act on others, or None."""
    parts = sorted({part for part in inserted.unfrozen.values() if part != "head"})
    if parts:
        return f"it trains parts of the base model (unfreeze: {', '.join(parts)}), which all rows share"
    for insertion in inserted.items:
        if why := why_not_by_row(model, insertion, inserted.entries):
            return f"{insertion.name!r} {why}"
        longer = next((other for other in acting if other is not inserted and _lengthens(other)), None)
        if longer is not None and getattr(insertion.parts.scaling, "pool", "") == "all":
            return f"{insertion.name!r} averages over every position (scaling.pool: all), and {longer.name!r} adds some"
    if any(i.parts.mixture is not None and i.parts.mixture.reducer == "ensemble_logits" for i in inserted.items):
        return "its reducer ensemble_logits runs the whole model once for each expert"
    return why_no_own_head(model, inserted)


def _lengthens(inserted: Adaptation) -> bool:
    return any(insertion.parts.composition.lengthens for insertion in inserted.items)


def _switch(model: nn.Module, target: Standing, again: bool = False) -> None:
    with changing(model):
        take_up(model, target, again)
