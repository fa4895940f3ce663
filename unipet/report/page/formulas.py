"""What each value of a dimension computes, in one line, for the drawings. A test compares the keys with the code's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: function -> (f, what it reads: u its input, heads the queries, ids the token ids, or nothing)
FUNCTIONS: dict[str, tuple[str, str]] = {
    "low_rank": ("up · down · u", "u"),
    "normalised_low_rank": ("λ/r · up · diag(1/(‖downᵢ‖‖upᵢ‖)) · down · ‖W‖ · u", "u"),
    "random_low_rank": ("outer ⊙ B (inner ⊙ A u), A and B random and frozen", "u"),
    "random_bases": ("Σₙ Bₙ diag(innerₙ) A diag(outerₙ) u, A and B random and frozen", "u"),
    "hashed_low_rank": ("up · down · u, entries shared from one vector θ", "u"),
    "vector_bank": ("up · down · u, their parts mixed from one bank of vectors", "u"),
    "singular_core": ("U S (Σₖ coreₖ Pₖ) Vᵀ u, U S Vᵀ of the base weight", "u"),
    "grid": ("a K × K grid of low-rank maps of u", "u"),
    "hadamard_product": ("(up₁ down₁ ⊙ up₂ down₂) u", "u"),
    "kronecker": ("(outer ⊗ inner) u", "u"),
    "bottleneck": ("up · φ(down · u)", "u"),
    "kronecker_bottleneck": ("up · φ(down · u), both sums of Kronecker products", "u"),
    "weight_network": ("a small network of the base weight, times u", "u"),
    "projection": ("Q (fill − Nᵀ W) u", "u"),
    "block_sum": ("rows of a matrix, added to sums of u's parts", "u"),
    "circulant": ("circulant blocks · u, by Fourier transform", "u"),
    "fourier": ("Re ifft2(sparse spectrum) · u", "u"),
    "wavelet": ("inverse wavelet transform of sparse coefficients, times u", "u"),
    "sparse": ("a sparse matrix · u", "u"),
    "rotation": ("block-diagonal rotations of u", "u"),
    "butterfly": ("Mᵀ u, M a product of permuted block rotations", "u"),
    "reflection": ("H₁ ⋯ H_R u, Hᵢ = I − 2 vᵢvᵢᵀ/‖vᵢ‖²", "u"),
    "plane_rotation": ("each pair of channels of u turned by θ, times α", "u"),
    "subspace": ("Pᵀ (φ(S u + b) − P u)", "u"),
    "subspace_rotation": ("B (diag(β) R diag(α) − I) A u, W ≈ BA", "u"),
    "vector": ("v, one learned vector", "nothing"),
    "prefix": ("φ(q Kᵀ/√E) V, with learned keys K and values V", "heads"),
    "projected_prefix": ("softmax(q (P Wₖᵀ)ᵀ/√E) P Wᵥᵀ, with learned tokens P", "heads"),
    "prompt": ("learned tokens, the same for every input", "nothing"),
    "rows": ("rows[i] where a token is one of `ids`, else 0", "ids"),
}
#: composition -> (h', a mark for drawings)
COMPOSITIONS: dict[str, tuple[str, str]] = {
    "add": ("h + s·Δ", "+"),
    "multiply": ("h ⊙ (1 + s·Δ)", "×"),
    "replace": ("s·Δ", "="),
    "hadamard": ("(W ⊙ (1 + s·A)) x", "⊙"),
    "normalise": ("m ⊙ (W + s·A)/‖W + s·A‖ · x", "m"),
    "gated": ("(1 − λ)·h + λ·s·Δ", "λ"),
    "concat": ("[s·Δ ; tokens]", "‖"),
}


def formula(function: Mapping[str, Any], u: str = "u") -> str:
    """f in one line with its input's name; a function from outside the package is shown by its name, and the different functions
    of experts one after the other."""
    if "experts" in function:
        return " or ".join(dict.fromkeys(formula(own, u) for own in function["experts"]))
    text, _ = FUNCTIONS.get(str(function.get("name")), (f"{function.get('name')}(u)", "u"))
    words = text.split(" ")
    return " ".join(word.replace("u", u) if word.strip("(),'s") == "u" else word for word in words)


def reads(function: Mapping[str, Any]) -> str:
    """What the function reads."""
    own = function.get("experts", [function])
    kinds = {FUNCTIONS.get(str(each.get("name")), ("", "u"))[1] for each in own}
    return next(kind for kind in ("heads", "ids", "u", "nothing") if kind in kinds)


def joined(composition: Mapping[str, Any], s: str, delta: str = "Δ") -> str:
    """h' in one line with the scaling's value."""
    text, _ = COMPOSITIONS.get(str(composition.get("name")), (f"{composition.get('name')}(h, s·Δ)", "?"))
    return text.replace("s·", "" if s == "1" else f"{s}·").replace("Δ", delta)


def mark(composition: Mapping[str, Any]) -> str:
    """The composition as one sign."""
    return COMPOSITIONS.get(str(composition.get("name")), ("", "?"))[1]


def scale(scaling: Mapping[str, Any], size: Any) -> str:
    """s: its value where the configuration decides it, else what it is."""
    name, alpha = scaling.get("name"), scaling.get("alpha")
    if name == "constant":  # without its value where only the record tells of it
        return f"{float(scaling['value']):g}" if isinstance(scaling.get("value"), int | float) else "s"
    if name in ("alpha_over_rank", "alpha_over_sqrt_rank") and isinstance(alpha, int | float) and isinstance(size, int):
        below = size + float(scaling.get("epsilon") or 0) if name == "alpha_over_rank" else size**0.5
        return f"{alpha / below:.4g}"
    return {"learned": "s, learned", "learned_vector": "s, learned per channel", "input_gate": "σ(gate(u))"}.get(
        str(name), str(name)
    )
