"""What would train and could never learn, since nothing that training computes depends on it: refused before anything changes.

A saved adapter that has such tensors still loads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from unipet.adaptation.adapted import Adaptation
from unipet.calculus.composition import Replace
from unipet.calculus.insertion import Insertion
from unipet.calculus.sites import ARCHITECTURES, Architecture, Position, Site, architecture_of, resolve
from unipet.errors import UnipetError

_KV, _FFN = ("k", "v"), ("ffn.up", "ffn.gate", "ffn.mid", "ffn.down")
_ATTENTION = ("q", *_KV, "qkv", "heads", "o")


def _of(block: str, parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{block}.{part}" for part in parts)


#: Role -> the roles whose modules make its h of its x; a linear map does it alone.
_BETWEEN: dict[str, tuple[str, ...]] = {"ffn": _FFN, "ffn.post": (*_FFN, "ffn")}
#: Role -> the roles that reach the output through its h alone, whatever its x is.
_BEFORE: dict[str, tuple[str, ...]] = {"ffn.mid": _FFN[:2], "ffn.down": _FFN[:3]}
for _block in ("attn", "cross"):
    _BETWEEN |= {
        f"{_block}.heads": _of(_block, ("q", *_KV, "qkv")),
        _block: _of(_block, _ATTENTION),
        f"{_block}.post": (*_of(_block, _ATTENTION), _block),
    }
    _BEFORE[f"{_block}.o"] = _of(_block, _ATTENTION[:-1])


def check_learns(model: nn.Module, inserted: Adaptation, sites: Architecture | None) -> None:
    """Raise UnipetError for an insertion, an unfrozen parameter or experts' scores that training could not reach. `sites` is a
    table of the user's own, if there is one."""
    if inserted.items:
        for insertion in inserted.items:
            _check_scores(insertion)
        table = sites or architecture_of(model, ARCHITECTURES)
        _check_bypassed(model, table, list(inserted.items), inserted.unfrozen)


def _check_scores(insertion: Insertion) -> None:
    """Scores of experts are read where training uses all experts, and nowhere else."""
    mixture = insertion.parts.mixture
    if insertion.bank.scores and mixture is not None and mixture.grain_of(True) is not None:
        raise UnipetError(
            f"method.insertions.{insertion.name}.mixture.reducer: 'weighted' trains scores, and router {mixture.router!r} takes "
            "single experts, so that the scores never learn. Use router: soft, or reducer: mean_of_weights."
        )


def _check_bypassed(
    model: nn.Module, table: Architecture, insertions: Sequence[Insertion], unfrozen: Mapping[str, str]
) -> None:
    """Where Δ stands in the place of h, what made h reaches the output no more."""
    for number, insertion in enumerate(insertions):
        parts, site = insertion.parts, insertion.site
        constant = parts.evaluated.reads == "nothing"
        replaces = isinstance(parts.composition, Replace) and parts.tokens is None
        if not replaces or not (constant or parts.form == "parallel"):
            continue
        inside = _inside(model, table, insertion, constant)
        key = f"method.insertions.{insertion.name}.composition"
        for earlier, other in enumerate(insertions):
            same = earlier < number and _at(other.site) == _at(site)
            feeds = constant and (other.site.path, other.site.at) == (site.path, "input") != (site.path, site.at)
            if other is not insertion and (same or feeds or other.site.path in inside):
                raise UnipetError(
                    f"{key}: it stands in the place of what {other.name!r} changes at {other.site.name}, which could never "
                    "learn. Use composition: add, form: sequential, or other sites."
                )
        if site.at == "output" and site.part is None:
            inside.add(site.path)
        below = tuple(f"{path}." for path in inside)
        if (lost := next((name for name in unfrozen if name.startswith(below)), None)) is not None:
            raise UnipetError(
                f"{key}: it stands in the place of what {lost} computes, which method.unfreeze ({unfrozen[lost]}) trains, and "
                "which could never learn. Use composition: add, or unfreeze other parts."
            )


def _at(site: Site) -> tuple[object, ...]:
    return site.path, site.at, site.part


def _inside(model: nn.Module, table: Architecture, insertion: Insertion, constant: bool) -> set[str]:
    """The modules, other than that of h itself, whose outputs reach the model's output through h alone."""
    site, stack = insertion.site, table.stacks[insertion.site.stack]
    if site.layer is None:
        return set()
    roles = set(stack.roles) if site.role == "layer" else {*_BETWEEN.get(site.role, ())}
    roles |= {*_BEFORE.get(site.role, ())} if constant else set()
    if insertion.parts.evaluated.reads == "heads":  # it reads the queries, which stay
        roles &= {*_of(site.role.partition(".")[0], _KV)}
    paths: set[str] = set()
    for role in roles & set(stack.roles):
        position = Position(site=[role], layers=[site.layer], stack=site.stack, optional=True)
        paths |= {each.path for each in resolve(model, table, position, "method") if each.part is None}
    return paths - {site.path}
