"""What peft calls our maps that train numbers at fixed places of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unipet.adaptation.peft.form import Form, factor_of, renamed
from unipet.calculus.functions.sparse import Sparse
from unipet.calculus.insertion import Insertion
from unipet.errors import UnipetError


class SparseForm(Form):
    """K = r(d_out + d_in) entries at places that are stored; s goes into them."""

    peft_type = "SHIRA"
    function = Sparse
    suffixes = ("shira_weight", "shira_indices")
    reads = ("r", "mask_type", "random_seed")

    def why_not(self, insertion: Insertion) -> str | None:
        count, both = len(insertion.reduced()["places"]), insertion.widths.h + insertion.widths.u
        if count % both:
            return (
                f"peft trains r(d_out + d_in) entries with a whole r, and it trains {count:,} at {insertion.site.path}, "
                f"where that is r times {both:,}"
            )
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        count = len(insertion.reduced()["places"])
        return {
            "r": count // (insertion.widths.h + insertion.widths.u),
            "mask_type": "random",  # of a new adapter; the stored places count
            "random_seed": getattr(insertion.parts.function, "seed", None),
            "init_weights": True,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own, factor = insertion.reduced(), factor_of(insertion)
        rows, columns = own["places"] // insertion.widths.u, own["places"] % insertion.widths.u
        of_row = factor[rows] if isinstance(factor, Tensor) and factor.numel() > 1 else factor
        return {"shira_weight": own["values"] * of_row, "shira_indices": torch.stack([rows, columns]).int()}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        seed = config.get("random_seed")
        given = {"size": config["r"], "mask": "random", **({} if seed is None else {"seed": seed})}
        return {"function": {"name": "sparse", **given}, "composition": "add", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed({"shira_weight": "values"}, tensors)

    def frozen(self, tensors: Mapping[str, Tensor], insertion: Insertion) -> dict[str, Tensor]:
        found, (rows, columns) = tensors.get("shira_indices"), (insertion.widths.h, insertion.widths.u)
        if found is None or found.dim() != 2 or len(found) != 2:
            return {}
        row, column = found.long()
        places = row * columns + column
        inside = bool(((row >= 0) & (row < rows) & (column >= 0) & (column < columns)).all())
        if not inside or len(places.unique()) < len(places):
            raise UnipetError(
                f"shira_indices of {insertion.site.path}: allowed: different entries of a weight of {rows} rows and {columns} "
                "columns."
            )
        return {"places": places}
