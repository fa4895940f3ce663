"""The kernels that a method cannot do without, alone, on tensors of its shapes: what `benchmarks.speed_bound` times.

Each function gives a job that runs them once, forward and backward, for all sites of a method.

Shapes: N tokens, D width of what is read, E width of what is yielded, R bottleneck, U prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.speed_models import Workload
from benchmarks.speed_variants import Variant
from unipet.adaptation.adapted import adaptation


def low_rank(variant: Variant, sizes: Mapping[str, int]) -> Callable[[], None]:
    """The two products at every site of the insertions named in `sizes`, their outputs added in the products' own kernels,
    and the four of the gradients."""
    tokens = variant.workload.batch * variant.workload.length
    made = []
    for width, out, size in linears(variant, sizes):
        x_ND, h_NE, g_NE = (torch.randn(tokens, each) for each in (width, out, out))
        made.append((x_ND, h_NE, g_NE, torch.randn(size, width), torch.randn(out, size)))

    def run() -> None:
        for x_ND, h_NE, g_NE, A_RD, B_ER in made:
            z_NR = x_ND @ A_RD.T
            torch.addmm(h_NE, z_NR, B_ER.T)
            dz_NR = g_NE @ B_ER
            g_NE.T @ z_NR
            dz_NR.T @ x_ND
            torch.addmm(x_ND, dz_NR, A_RD)

    return run


def rescaling(variant: Variant, sizes: Mapping[str, int]) -> Callable[[], None]:
    """Row norms of W + BA, outputs scaled by them, and the gradients of outputs and of magnitudes, at every site."""
    tokens = variant.workload.batch * variant.workload.length
    made = []
    for width, out, size in linears(variant, sizes):
        h_NE, g_NE = torch.randn(tokens, out), torch.randn(tokens, out)
        made.append((h_NE, g_NE, torch.randn(out, width), torch.randn(out, size), torch.randn(size, width)))

    def run() -> None:
        for h_NE, g_NE, W_ED, B_ER, A_RD in made:
            gain_E = torch.addmm(W_ED, B_ER, A_RD).norm(dim=1)
            h_NE * gain_E
            g_NE * gain_E
            (g_NE * h_NE).sum(0)

    return run


def gates(variant: Variant) -> Callable[[], None]:
    """At every site a product of x with one vector, its logistic function's mean, what is scaled by it (the bottleneck, or a
    prefix's keys and values), and the gradients of vector, x and both factors."""
    rows, width = variant.workload.batch, variant.model.config.hidden_size
    x_ND, w_D1, g_N1 = torch.randn(_tokens(variant), width), torch.randn(width, 1), torch.randn(_tokens(variant), 1)
    scaled = []
    for item in adaptation(variant.model).items:
        size = item.parts.function.size  # type: ignore[attr-defined]
        whole = item.parts.function.reads == "heads"
        shape = (1, 2 * size, width) if whole else (rows, variant.workload.length, size)
        scaled.append((torch.randn(shape), torch.randn(rows, *shape[1:])))

    def run() -> None:
        for z_BTR, g_BTR in scaled:
            s_B11 = (x_ND @ w_D1).view(rows, -1).sigmoid().mean(dim=1).view(rows, 1, 1)
            s_B11 * z_BTR
            s_B11 * g_BTR
            (z_BTR * g_BTR).sum((1, 2))
            x_ND.T @ g_N1
            torch.addmm(x_ND, g_N1, w_D1.T)

    return run


def network(variant: Variant, rows: int, narrow: int) -> Callable[[], None]:
    """What rows of a prefix need of every trained matrix that is no bottleneck's (both sides wider than `narrow`): the product,
    and the gradients of matrix and rows. Then AdamW over all that the method trains."""
    trained = [one for one in adaptation(variant.model).parameters() if one.requires_grad]
    tensors = [torch.randn_like(one, requires_grad=True) for one in trained]
    for one in tensors:
        one.grad = torch.zeros_like(one)
    wide = [one for one in tensors if one.dim() == 2 and min(one.shape) > narrow]
    made = [(one, torch.randn(rows, one.shape[1]), torch.randn(rows, one.shape[0])) for one in wide]
    optimiser = torch.optim.AdamW(tensors, fused=True)

    @torch.no_grad()
    def run() -> None:
        for W_EH, z_RH, g_RE in made:
            z_RH @ W_EH.T
            W_EH.grad = g_RE.T @ z_RH
            g_RE @ W_EH
        optimiser.step()

    return run


def linears(variant: Variant, sizes: Mapping[str, int]) -> list[tuple[int, int, int]]:
    """(width in, width out, bottleneck) at every site of the insertions named in `sizes`. What is put behind a module maps its
    output to its output."""
    found = []
    for item in adaptation(variant.model).items:
        if item.name in sizes:
            module = variant.model.get_submodule(item.site.path)
            out = variant.model.config.hidden_size if not isinstance(module, nn.Linear) else module.out_features
            width = module.in_features if isinstance(module, nn.Linear) and item.parts.form == "parallel" else out
            found.append((width, out, sizes[item.name]))
    return found


def attention(config: Any, workload: Workload, columns_before: int) -> Callable[[], None]:
    """All layers' attention in training, with so many columns before the keys: forward and backward, dropout included."""
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    shape = (workload.batch, heads, workload.length, width)
    q_BHTD, g_BHTD = torch.randn(shape, requires_grad=True), torch.randn(shape)
    k_BHSD, v_BHSD = (torch.randn(*shape[:2], columns_before + shape[2], width, requires_grad=True) for _ in "kv")
    dropout = config.attention_probs_dropout_prob

    def run() -> None:
        for _ in range(config.num_hidden_layers):
            out_BHTD = functional.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, dropout_p=dropout)
            torch.autograd.grad(out_BHTD, (q_BHTD, k_BHSD, v_BHSD), g_BHTD)

    return run


def scaled_outputs(variant: Variant) -> Callable[[], None]:
    """At every site a product of each element with a trained vector, and the gradients of both."""
    made = []
    for item in adaptation(variant.model).items:
        module: Any = variant.model.get_submodule(item.site.path)
        width = module.in_features if item.site.at == "input" else module.out_features
        made.append((*torch.randn(2, _tokens(variant), width), torch.randn(width)))

    def run() -> None:
        for h_NE, g_NE, gain_E in made:
            h_NE * gain_E
            g_NE * gain_E
            (g_NE * h_NE).sum(0)

    return run


def random_products(variant: Variant) -> Callable[[], None]:
    """In every layer a frozen product of x, at every site of it a second one with a trained vector before and after it, the
    outputs added, and the gradients of x and of the vectors."""
    made: dict[int | None, list[tuple[torch.Tensor, ...]]] = {}
    for item in adaptation(variant.model).items:
        module: Any = variant.model.get_submodule(item.site.path)
        size, out = item.parts.function.size, module.out_features  # type: ignore[attr-defined]
        both_NE = torch.randn(2, _tokens(variant), out)
        own = (*both_NE, torch.randn(out, size), torch.randn(size), torch.randn(out))
        made.setdefault(item.site.layer, []).append(own)
    x_ND, A_RD = torch.randn(_tokens(variant), module.in_features), torch.randn(size, module.in_features)

    def run() -> None:
        for sites in made.values():
            z_NR, dz_NR = x_ND @ A_RD.T, torch.zeros(())
            for h_NE, g_NE, B_ER, inner_R, outer_E in sites:
                y_NE = (z_NR * inner_R) @ B_ER.T
                torch.addcmul(h_NE, y_NE, outer_E)
                (g_NE * y_NE).sum(0)
                d_NR = (g_NE * outer_E) @ B_ER
                (d_NR * z_NR).sum(0)
                dz_NR = dz_NR + d_NR * inner_R
            torch.addmm(x_ND, dz_NR, A_RD)

    return run


def made_bottlenecks(variant: Variant) -> Callable[[], None]:
    """The products of every bottleneck, its activation, and the sums of Kronecker products that its matrices are."""
    (name,) = {item.name for item in adaptation(variant.model).items}
    function: Any = adaptation(variant.model).items[0].parts.function
    size, terms, count = function.size, function.terms, len(adaptation(variant.model).items)
    products = low_rank(variant, {name: size})
    width = variant.model.config.hidden_size
    z_NR = torch.randn(_tokens(variant), size, requires_grad=True)
    g_NR, rule_TTT = torch.randn(_tokens(variant), size), torch.randn(terms, terms, terms, requires_grad=True)
    factor_TPQ = torch.randn(terms, width // terms, size // terms, requires_grad=True)
    g_DR = torch.randn(width, size)

    def run() -> None:
        products()
        for _ in range(count):
            torch.autograd.grad(functional.gelu(z_NR), z_NR, g_NR)
            for _ in ("down", "up"):
                made_DR = torch.einsum("nab,npq->apbq", rule_TTT, factor_TPQ).reshape(width, size)
                torch.autograd.grad(made_DR, (rule_TTT, factor_TPQ), g_DR)

    return run


def _tokens(variant: Variant) -> int:
    return variant.workload.batch * variant.workload.length
