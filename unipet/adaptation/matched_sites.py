"""Whether an adaptation is everywhere that its method says: no role that only some of the layers have."""

from __future__ import annotations

from torch import nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.certificate import CHECKS, Check, Matched, failed, hash_of, passed
from unipet.calculus.method import InsertionSpec
from unipet.calculus.sites import ARCHITECTURES, Architecture, architecture_of, module_at, prefix_of
from unipet.calculus.sites.position import layer_indices


def matched_sites(inserted: Adaptation) -> dict[str, Matched]:
    """By insertion, how many sites it has and a hash of their names."""
    found: dict[str, list[str]] = {spec.name: [] for spec in inserted.method.insertions}
    for item in inserted.items:
        found[item.name].append(f"{item.site.role} {item.site.name} {item.site.at}")
    return {name: Matched(len(sites), hash_of(sites)) for name, sites in found.items()}


def check_sites(model: nn.Module, inserted: Adaptation) -> Check:
    """Every role of every insertion in every layer that `position.layers` names, of each stack that has the role at all. A role
    that the position calls optional may be missing anywhere."""
    if not inserted.items:
        return passed("the method has no insertions")
    table = inserted.table or architecture_of(model, ARCHITECTURES)
    gaps = [gap for spec in inserted.method.insertions for gap in _gaps(model, table, inserted, spec)]
    return failed("; ".join(gaps)) if gaps else passed(CHECKS["sites"])


def _gaps(model: nn.Module, table: Architecture, inserted: Adaptation, spec: InsertionSpec) -> list[str]:
    """A sentence for each role that some layers lack."""
    found: dict[tuple[str, str], set[int]] = {}
    for item in inserted.items:
        if item.name == spec.name and item.site.layer is not None:
            found.setdefault((item.site.role, item.site.stack), set()).add(item.site.layer)
    gaps = []
    for (role, stack), layers in found.items():
        path = prefix_of(model) + table.stacks[stack].layers
        asked = layer_indices(spec.position.layers, len(module_at(model, path)), "position.layers")
        lacking = sorted(set(asked) - layers)
        if lacking and not spec.position.may_miss(role):
            gaps.append(
                f"insertion {spec.name!r}: {role} is in {len(layers)} of {len(asked)} layers of the {stack}, not in "
                f"{', '.join(map(str, lacking[:6]))}{', ...' if len(lacking) > 6 else ''}"
            )
    return gaps
