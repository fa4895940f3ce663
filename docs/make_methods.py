"""Writes docs/methods.md: one row for each shipped method, derived from its YAML and the code. `make docs` runs it.

Nothing here is typed by hand but which oracles of docs/parity.json belong to which method. That file is what
tests/adaptation/test_parity.py measures (`UNIPET_PARITY_OUT=docs/parity.json`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

import unipet
from unipet.calculus.composition import COMPOSITIONS
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import Function, Slots, Widths
from unipet.calculus.method import InsertionSpec, Method, name_of
from unipet.calculus.method_files import method_names
from unipet.calculus.scaling import SCALINGS
from unipet.config import conf_dir
from unipet.errors import UnipetError

DOCS = Path(__file__).resolve().parent

#: Which oracles, by reference and method, a shipped method agrees with once their sizes are set.
ORACLES: dict[str, tuple[str, ...]] = {
    "adalora_fixed": ("peft adalora",),
    "adamix": ("adamix adamix", "adamix adamix_layer", "adamix adamix_consistency"),
    "adamix_lora": ("adamix adamix_lora",),
    "adapter": ("adapters double_seq_bn", "adapters double_seq_bn_cross", "he houlsby", "he ffn_seq_lnout"),
    "beft": ("peft beft",),
    "bitfit": ("peft bitfit",),
    "boft": ("peft boft",),
    "c3a": ("peft c3a",),
    "compacter": ("adapters compacter",),
    "compacterpp": ("adapters compacterpp",),
    "dora": ("peft dora", "adapters dora"),
    "fourierft": ("peft fourierft",),
    "hira": ("peft hira",),
    "hra": ("peft hra", "peft hra_gs"),
    "ia3": ("peft ia3", "adapters ia3"),
    "ln_tuning": ("peft ln_tuning",),
    "loha": ("peft loha",),
    "lokr": ("peft lokr", "peft lokr_both"),
    "lora": (
        *("peft lora_qv", "peft lora_all", "peft lora_bias", "adapters lora", "adapters lora_all"),
        *("he lora", "he lora_ffn", "loralib loralib_layers"),
    ),
    "mam": ("adapters mam", "he mam"),
    "miss": ("peft miss", "peft miss_bat"),
    "multihead_parallel_adapter": ("he mh_par",),
    "oft": ("peft oft", "peft oft_share", "peft oft_cayley"),
    "parallel_adapter": ("adapters par_bn", "adapters par_bn_mh", "he ffn_par", "he attn_par"),
    "prefix": (
        *("adapters prefix_mlp", "he prefix", "he prefix_add", "peft prefix_proj"),
        *("he cross_attn",),
    ),
    "prefix_flat": (
        *("adapters prefix_flat", "he prefix_nomlp", "he prefix_gate", "peft prefix", "peft prefix_seq2seq"),
    ),
    "prompt_tuning": ("peft prompt",),
    "randlora": ("peft randlora",),
    "road": ("peft road_1", "peft road_2", "peft road_4"),
    "rslora": ("peft rslora",),
    "scaled_par_bn": ("adapters scaled_par_bn", "he ffn_par_learn"),
    "scaled_parallel_adapter": ("adapters par_bn", "he ffn_par"),
    "seq_bn": ("adapters seq_bn", "adapters seq_bn_lnbefore", "he ffn_pfeiffer"),
    "shira": ("peft shira",),
    "unipelt": ("adapters unipelt",),
    "vblora": ("peft vblora",),
    "vera": ("peft vera",),
}

# -- parameter formulas ------------------------------------------------------------------------------------------------

_N = 2**12 * 3**3 * 5 * 7  # a width that every usual block size divides
#: exponents of d, f, r -> coefficient
Polynomial = dict[tuple[int, int, int], Fraction]
_WIDTHS = {"ffn.up": ("d", "f"), "ffn.gate": ("d", "f"), "ffn.mid": ("f", "f"), "ffn.down": ("f", "d")}


class NotPolynomial(Exception):
    """The count is no polynomial of d, f and r."""


def _widths(spec: InsertionSpec, role: str, d: int, f: int) -> Widths:
    size = {"d": d, "f": f}
    u, h = (size[letter] for letter in _WIDTHS.get(role, ("d", "d")))
    if spec.position.side == "input":
        h = u
    if spec.position.form == "sequential":
        u = h
    return Widths(u, h, 1, 1, d)


def _shapes(slots: Slots) -> dict[str, tuple[int, ...]]:
    return {f"{slot}.{name}": spec.shape for slot, own in slots.items() for name, spec in own.items()}


def _dimension(values: Mapping[str, int], size: int | None) -> Polynomial:
    """One dimension as a polynomial, from its value at the start and with each of d, f, r doubled.

    It is a coefficient times powers of d, f and r, or r(r-1)/2 in the place of r's power.
    """
    start, exponents = Fraction(values[""]), {"d": 0, "f": 0, "r": 0}
    coefficient = start
    base = {"d": _N, "f": 3 * _N, "r": size or 1}
    triangle = False
    for letter in [letter for letter in exponents if letter in values]:
        ratio = values[letter] / start
        if letter == "r" and size is not None and ratio * (size - 1) == 2 * (2 * size - 1):
            triangle = True
        elif ratio in (Fraction(1, 2), 1, 2, 4):
            exponents[letter] = {Fraction(1, 2): -1, Fraction(1): 0, Fraction(2): 1, Fraction(4): 2}[ratio]
        elif letter == "r" and size is not None and not any(exponents.values()) and coefficient == start:
            slope = (values["r"] - start) / size  # r of which some do not train: r - 1
            return {
                key: number for key, number in {(0, 0, 1): slope, (0, 0, 0): start - slope * size}.items() if number
            }
        else:
            raise NotPolynomial
        coefficient /= Fraction(base[letter]) ** exponents[letter]
    d, f, r = exponents.values()
    if not triangle or size is None:
        return {(d, f, r): coefficient}
    coefficient /= size * (size - 1)
    return {(d, f, r + 2): coefficient, (d, f, r + 1): -coefficient}


def _times(one: Polynomial, other: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for left, a in one.items():
        for right, b in other.items():
            key = (left[0] + right[0], left[1] + right[1], left[2] + right[2])
            result[key] = result.get(key, Fraction(0)) + a * b
    return result


def _plus(one: Polynomial, other: Polynomial) -> Polynomial:
    result = {key: one.get(key, Fraction(0)) + other.get(key, Fraction(0)) for key in {**one, **other}}
    return {key: value for key, value in result.items() if value}


def _count(spec: InsertionSpec, role: str | None) -> Polynomial:
    """The trained parameters at one site of a role, or with None those that all sites share."""
    function = spec.function
    size = getattr(function, "size", None)

    def shapes(d: int, f: int, one: Function) -> dict[str, tuple[int, ...]]:
        if role is None:
            return _shapes(one.shared([_widths(spec, name, d, f) for name in _roles(spec)]))
        widths = _widths(spec, role, d, f)
        scale = Widths(widths.u, widths.kv) if spec.composition.shares_softmax else widths
        own = _shapes(_experts(spec, one.slots(widths)))
        own |= {f"scale {name}": shape for name, shape in _shapes(spec.scaling.slots(scale)).items()}
        return own | {f"joint {name}": shape for name, shape in _shapes(spec.composition.slots(widths)).items()}

    variants = {"": shapes(_N, 3 * _N, function), "d": shapes(2 * _N, 3 * _N, function)}
    variants["f"] = shapes(_N, 6 * _N, function)
    if size is not None:
        try:
            doubled = shapes(_N, 3 * _N, replace(function, size=2 * size))
        except (UnipetError, TypeError):
            doubled = {}
        if {name: len(shape) for name, shape in doubled.items()} == {k: len(s) for k, s in variants[""].items()}:
            variants["r"] = doubled
    total: Polynomial = {}
    for name, shape in variants[""].items():
        count: Polynomial = {(0, 0, 0): Fraction(1)}
        for axis in range(len(shape)):
            values = {letter: variant[name][axis] for letter, variant in variants.items()}
            count = _times(count, _dimension(values, size if "r" in variants else None))
        total = _plus(total, count)
    return total


def _experts(spec: InsertionSpec, slots: Slots) -> Slots:
    """Every slot as often as the mixture has it."""
    if spec.mixture is None:
        return slots
    found: Slots = {}
    for slot, own in slots.items():
        copies = 1 if slot in spec.mixture.share else spec.mixture.experts
        found |= {f"{slot}.{i}": own for i in range(copies)}
        if spec.mixture.reducer == "weighted" and copies > 1:
            raise NotPolynomial
    return found


def _roles(spec: InsertionSpec) -> list[str]:
    """The roles that a BERT-like encoder has."""
    roles = [role for role in spec.position.site if not role.startswith("cross")]
    return [role for role in roles if role != "attn.qkv"] or roles


_POWERS = {1: "", 2: "²", 3: "³"}


def _written(total: Polynomial) -> str:
    """`2rd + r + d`, the powers of r first."""
    terms: list[str] = []
    for (d, f, r), number in sorted(total.items(), key=lambda item: (-item[0][2], -item[0][0], -item[0][1])):
        powers = (("r", r), ("d", d), ("f", f))
        letters = "".join(letter + _POWERS[e] for letter, e in powers if e > 0)
        under = "".join(letter + _POWERS[-e] for letter, e in powers if e < 0)
        size = abs(number)
        under = (str(size.denominator) if size.denominator > 1 else "") + under
        top = letters if size.numerator == 1 and letters else f"{size.numerator}{letters}"
        sign = "- " if number < 0 else "+ " if terms else ""
        terms.append(f"{sign}{top}/{under}" if under else sign + top)
    return " ".join(terms)


def _layers(layers: Any) -> str:
    if layers == "all":
        return "L"
    if isinstance(layers, str) and ":" in layers:
        return layers.partition(":")[2]
    if isinstance(layers, str):
        low, _, high = layers.partition("-")
        return str(int(high) - int(low) + 1)
    return str(len(layers) if isinstance(layers, list) else 1)


def formula(method: Method) -> str:
    """Trained parameters, on an encoder of L layers of width d, inner width f; r is the insertion's size."""
    parts: list[str] = []
    for spec in method.insertions:
        try:
            roles, total = _roles(spec), Polynomial()
            for role in roles:
                total = _plus(total, _count(spec, role))
            own, shared = _written(total), _written(_count(spec, None))
            if own and not set(roles) <= {"embed"}:
                own = (
                    f"{_layers(spec.position.layers)}·({own})"
                    if len(total) > 1
                    else f"{_layers(spec.position.layers)}·{own}"
                )
            parts.append(" + ".join(part for part in (own, shared) if part))
        except NotPolynomial:
            sizes = [_numbers(spec, role) for role in _roles(spec)]
            parts.append(f"{_layers(spec.position.layers)}·{sum(sizes):,} at d = 768, f = 3072")
    parts += {"bias": ["all biases"], "norm": ["all norms"], "all": ["all"]}.get(
        next((part for part in method.unfreeze if part != "head"), ""), []
    )
    return "<br>".join(parts) or "0"


def _numbers(spec: InsertionSpec, role: str) -> int:
    widths = replace(_widths(spec, role, 768, 3072), heads=12, kv_heads=12, head_dim=64)
    return sum(one.count for own in spec.function.slots(widths).values() for one in own.values())


# -- the other columns -------------------------------------------------------------------------------------------------


def _given(value: Any) -> str:
    """The size, and the options that differ from their defaults: `(size=8, bias=False)`."""
    default = type(value)()
    changed = {key: one for key, one in vars(value).items() if one != getattr(default, key) or key == "size"}
    if "reparam" in changed and changed["reparam"] is not None:
        changed["reparam"] = changed["reparam"].hidden
    return "(" + ", ".join(f"{key}={one}" for key, one in changed.items()) + ")" if changed else ""


def _place(spec: InsertionSpec) -> str:
    position = spec.position
    extra = [f"layers {position.layers}"] * (position.layers != "all") + [f"tokens {position.tokens}"] * (
        position.tokens != "all"
    )
    extra += [f"input {position.input}"] * (position.input != "post_norm") + ["input side"] * (position.side == "input")
    roles = ", ".join(f"`{role}`" for role in position.site if not role.startswith("cross"))
    return f"{roles} {position.form}" + (f" ({', '.join(extra)})" if extra else "")


def _dimensions(method: Method) -> tuple[str, str, str, str]:
    functions, places, rules, scales = [], [], [], []
    for spec in method.insertions:
        functions.append(f"`{name_of(FUNCTIONS, spec.function)}`{_given(spec.function)}")
        places.append(_place(spec))
        rules.append(f"`{name_of(COMPOSITIONS, spec.composition)}`{_given(spec.composition)}")
        value = getattr(spec.scaling, "value", None)
        name = name_of(SCALINGS, spec.scaling)
        scales.append(f"{value:g}" if name == "constant" else f"`{name}`{_given(spec.scaling)}")
    return (
        "<br>".join(functions) or "-",
        "<br>".join(places) or "-",
        "<br>".join(rules) or "-",
        "<br>".join(scales) or "-",
    )


def _extras(method: Method) -> str:
    found = [
        f"mixture of {spec.mixture.experts}, `{spec.mixture.router}`"
        + (f", shared {', '.join(spec.mixture.share)}" if spec.mixture.share else "")
        for spec in method.insertions
        if spec.mixture is not None
    ]
    found += [f"unfreeze {part}" for part in method.unfreeze if part != "head"]
    found += [f"`{name}`, {each.passes} views" for name, each in method.objective.regularisers if each.passes > 1]
    found += [f"`{name}`" for name, each in method.objective.regularisers if each.passes == 1]
    return "<br>".join(found) or "-"


def _folds(name: str) -> str:
    from transformers import BertConfig

    config = BertConfig(num_hidden_layers=1, vocab_size=64)
    try:
        report = unipet.describe(name, config)
    except UnipetError as error:
        return str(error).split(".")[0]
    if not report.insertions:
        return "nothing to fold"
    reasons = dict.fromkeys(row.why_not for row in report.insertions if row.why_not)
    if not reasons:
        return "yes"
    some = any(row.foldable for row in report.insertions)
    return ("in part: " if some else "no: ") + "; ".join(str(reason) for reason in reasons)


@functools.cache
def beside_peft() -> set[str]:
    """Methods that a test compares with the installed peft, as the tests' tables name them."""
    tables = {
        "adaptation/test_peft_live.py": r'Row\(\s*"(\w+)"',
        "adaptation/test_peft_live_tokens.py": r'shipped\("(\w+)"\)',
        "adaptation/test_prefix_init.py": r'(?m)^METHOD = "(\w+)"',
    }
    tests = DOCS.parent / "tests"
    return {
        name for file, row in tables.items() for name in re.findall(row, (tests / file).read_text(encoding="utf-8"))
    }


def _parity(name: str, measured: Mapping[str, Mapping[str, Any]]) -> str:
    own = [one for one in measured.values() if one["family"] in ORACLES.get(name, ())]
    if not own:
        return "beside peft, 1e-5 of the output" if name in beside_peft() else "formula test only"
    out, grad = (max(one[kind] for one in own) for kind in ("out", "grad"))
    return f"{len(own)} oracle{'s' * (len(own) > 1)}: {out:.0e}, gradients {grad:.0e}"


def _source(name: str) -> str:
    """The first citation in the comment of the method's file."""
    text = (conf_dir() / "method" / f"{name}.yaml").read_text(encoding="utf-8")
    comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    found = re.search(r"\(([^()]*\b(?:19|20)\d\d[^()]*)\)", comment)
    return found[1] if found else "-"


HEADER = """# Methods

Made by `make docs` from conf/method and docs/parity.json; a test compares. One line per insertion.

Options are listed where they differ from the value's defaults (conf/function, conf/composition, conf/scaling). Roles of
cross-attention are left out. *Parameters* counts what trains on an encoder of L layers of width d and inner width f, the
task head left out; r is the insertion's `size`. *Folds*: whether it becomes part of the base weights by `unipet.merge`, on
a BERT. *Parity*: the largest absolute error of outputs and of gradients against tensors computed by the reference
implementations (adapters, peft, the unified-view code, AdaMix, loralib), sizes and factors set to theirs; each oracle's
own tolerance is met (tests/adaptation/test_parity.py). *Beside peft*: outputs, gradients and merged weights of the
installed peft at random parameters (tests/adaptation/test_peft_live.py, test_peft_live_tokens.py, test_prefix_init.py).
*Formula test only*: no other implementation was compared with this method as such. Its parts were compared with their
formulas, written out in tests (tests/calculus/test_dimensions.py, test_functions_*.py; tests/adaptation/test_attention.py,
test_prefix_options.py); `full` and `head_only` have no parts. `ORACLES` in docs/make_methods.py says which oracles belong to
a method; one with neither an oracle nor a row in these tests of peft gets this entry. Of 184 oracles one is not compared,
VeRA of the adapters library: it trains full matrices where the method has vectors (`NOT_COVERED` in
tests/support/oracle_families.py).

| method | function | position | composition | scaling | more | parameters | folds | parity | source |
|---|---|---|---|---|---|---|---|---|---|
"""


def rows() -> Iterator[str]:
    path = DOCS / "parity.json"
    measured = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in method_names():
        method = unipet.load_method(name)
        cells = [f"`{name}`", *_dimensions(method), _extras(method), formula(method)]
        cells += [_folds(name), _parity(name, measured), _source(name)]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


COVERAGE = """
## Other libraries' names

Made from docs/coverage.yaml. {types} of the {all} types of peft 0.21 are files under conf/method; the others, with the reason:
"""


def coverage() -> dict[str, dict[str, Any]]:
    given: dict[str, dict[str, Any]] = yaml.safe_load((DOCS / "coverage.yaml").read_text(encoding="utf-8"))
    return given


def _names(values: list[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def names() -> str:
    """What peft and the adapters library call our methods, and what they have that we have not."""
    known = coverage()
    lines = [COVERAGE.format(types=len(known["peft"]), all=len(known["peft"]) + len(known["peft_without"]))]
    lines += [f"- {kind}: {reason}." for kind, reason in known["peft_without"].items()]
    for title, key in (
        ("peft's type", "peft"),
        ("variant of LoRA", "variants"),
        ("adapters' configuration", "adapters"),
    ):
        lines += ["", f"| {title} | here |", "|---|---|"]
        lines += [f"| {kind} | {_names(files)} |" for kind, files in known[key].items()]
    lines += ["", "Of the adapters library, left out:", ""]
    lines += [f"- {kind}: {reason}." for kind, reason in known["adapters_without"].items()]
    return "\n".join(lines) + "\n"


def text() -> str:
    return HEADER + "\n".join(rows()) + "\n" + names()


if __name__ == "__main__":
    (DOCS / "methods.md").write_text(text(), encoding="utf-8")
