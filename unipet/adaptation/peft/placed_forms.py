"""What peft calls our maps that train numbers at fixed places of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unipet.adaptation.peft.form import Form, Sites, factor_of, grouped, per_channel, renamed
from unipet.calculus.functions.fourier import Fourier
from unipet.calculus.functions.sparse import Scattered, Sparse, first_places
from unipet.calculus.functions.wavelet import Wavelet
from unipet.calculus.insertion import Insertion
from unipet.calculus.scaling import Constant
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


class _TransformedForm(Form):
    """Coefficients at places that peft draws from one seed, alike for all weights of one shape, and does not store."""

    conv1d = True
    patterns: ClassVar[dict[str, str]] = {"n_frequency": "n_frequency_pattern"}
    values: ClassVar[str]  # its tensor
    own_options: ClassVar[Mapping[str, Any]] = {}

    def why_not(self, insertion: Insertion) -> str | None:
        if (why := per_channel(insertion)) is not None:
            return why
        places = insertion.reduced()["places"].cpu()
        if not torch.equal(places.sort().values, _theirs(insertion).sort().values):
            return (
                "it is not written for peft: peft draws its frozen part from a seed of its own, the same places for all weights "
                "of one shape, and its file does not hold it (with function.draw: shape the places are peft's)"
            )
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function, scaling = insertion.parts.function, insertion.parts.scaling
        assert isinstance(function, Scattered)
        return {
            "n_frequency": len(insertion.reduced()["places"]),
            "scaling": scaling.value if isinstance(scaling, Constant) else 1.0,
            "random_loc_seed": function.seed,
            "bias": "none",
            "init_weights": True,
            **self.own_options,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own, s = insertion.reduced(), factor_of(insertion)
        values = own["values"] if isinstance(insertion.parts.scaling, Constant) else own["values"] * s
        # Into the order in which peft's places come out.
        theirs = _theirs(insertion).to(own["places"].device)
        order = own["places"].argsort()
        return {self.values: values[order[torch.searchsorted(own["places"][order], theirs)]]}

    def prepared(
        self, model: nn.Module, config: Mapping[str, Any], sites: Sites
    ) -> list[tuple[Mapping[str, Any], Sites]]:
        """The number of coefficients as it is stored, wherever it came from."""
        for key, value in self.own_options.items():
            if key != "proportional_parameters" and config.get(key, value) != value:
                raise UnipetError(f"{key}: {str(config[key])[:40]!r} has no counterpart here. Allowed: {value!r}.")
        return grouped(config, sites, lambda path: {"n_frequency": sites[path][self.values].numel()})

    def _parts(self, name: str, config: Mapping[str, Any], scale: float) -> dict[str, Any]:
        function = {
            "name": name,
            "size": config["n_frequency"],
            "draw": "shape",
            "seed": config.get("random_loc_seed", 777),
        }
        return {"function": function, "composition": "add", "scaling": config.get("scaling", scale)}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed({self.values: "values"}, tensors)

    def frozen(self, tensors: Mapping[str, Tensor], insertion: Insertion) -> dict[str, Tensor]:
        return insertion.bank.frozen()  # of the seed


class FourierForm(_TransformedForm):
    """Re(ifft2(F)) times a number."""

    peft_type = "FOURIERFT"
    function = Fourier
    values = "fourierft_spectrum"
    suffixes = (values,)
    reads = ("n_frequency", "scaling", "random_loc_seed")

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return self._parts("fourier", config, 150.0)


class WaveletForm(_TransformedForm):
    """The inverse Haar transform times a number."""

    peft_type = "WAVEFT"
    function = Wavelet
    values = "waveft_spectrum"
    suffixes = (values,)
    own_options: ClassVar[dict[str, Any]] = {
        "wavelet_family": "db1", "use_idwt": True, "proportional_parameters": False,
    }  # fmt: skip
    reads = ("n_frequency", "scaling", "random_loc_seed", *own_options)

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return self._parts("wavelet", config, 25.0)


def _theirs(insertion: Insertion) -> Tensor:
    function, widths = insertion.parts.function, insertion.widths
    assert isinstance(function, Scattered)
    return first_places(widths.h * widths.u, len(insertion.reduced()["places"]), function.seed)
