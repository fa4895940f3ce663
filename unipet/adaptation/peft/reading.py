"""Reading what peft wrote: its configuration into a method, its tensors into our slots. Strict: nothing is left over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.peft import starts, virtual_tokens
from unipet.adaptation.peft.form import Form
from unipet.adaptation.peft.frozen import form_of, take_frozen
from unipet.adaptation.peft.option_patterns import by_options
from unipet.adaptation.peft.patterns import checked_pattern
from unipet.adaptation.peft.saved_modules import parts_of
from unipet.adaptation.peft.table import FORMS
from unipet.adaptation.peft.targets import check_saved_modules, check_targets, saved_names, targeted
from unipet.adaptation.tensor_file import SIZES, WHOLE, finite_tensors, header_of
from unipet.calculus.sites import ARCHITECTURES, Architecture, Position, architecture_of, head_names, resolve
from unipet.errors import UnipetError, nearest
from unipet.output.json_reader import MIB, read_json

#: Keys that do not change what a trained adapter computes.
_NEUTRAL = frozenset(
    "peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode task_type target_modules "
    "exclude_modules modules_to_save fan_in_fan_out layers_to_transform layers_pattern megatron_config megatron_core "
    "loftq_config eva_config corda_config lora_ga_config qalora_group_size bias "
    "init_weights init_ia3_weights init_vera_weights use_effective_conv2d rank_dropout module_dropout rank_dropout_scale "
    "prompt_tuning_init_text tokenizer_name_or_path tokenizer_kwargs velora_config".split()
)
_YES_OR_NO = frozenset(
    "use_rslora use_dora fan_in_fan_out inference_mode lora_bias use_effective_conv2d decompose_both rank_dropout_scale".split()
)
#: Values of `init_weights` that change what is computed, not only where it starts.
_VARIANTS = ("bat", "mini")
_STARTS = ("base_model.model.", "base_model.")


def read(source: Path, config_name: str, tensors_name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors of a directory."""
    if not source.is_dir():
        raise UnipetError(f"{source} is no adapter of peft's: it is no directory. Give the one that peft saved into.")
    for name in (config_name, tensors_name):
        if not (source / name).is_file():
            raise UnipetError(f"{source} is no adapter of peft's: {name} is missing.")
    config = read_json(source / config_name, MIB)
    header_of(source / tensors_name, {**SIZES, **WHOLE})
    tensors = finite_tensors((source / tensors_name).read_bytes(), source / tensors_name)
    if not isinstance(config, dict) or "peft_type" not in config:
        raise UnipetError(f"{source / config_name} is no configuration of peft's: it has no peft_type.")
    return config, tensors


def _form(config: Mapping[str, Any]) -> Form | None:
    return next((form for form in FORMS if form.peft_type == config["peft_type"]), None)


def check_config(source: Path, config: Mapping[str, Any]) -> None:
    """Raise UnipetError for a type or an option that nothing here computes."""
    form, kind = _form(config), config["peft_type"]
    if form is None and kind not in virtual_tokens.KINDS:
        known = [*(one.peft_type for one in FORMS), *virtual_tokens.KINDS]
        raise UnipetError(
            f"{source}: peft_type {kind!r} cannot be imported. Types that can: {', '.join(known)}.{nearest(str(kind), known)}"
        )
    understood = _NEUTRAL | set((*form.reads, *form.patterns.values()) if form else virtual_tokens.READS)
    for key, value in config.items():
        if key not in understood and value:
            raise UnipetError(
                f"{source}: {key}: {value!r} has no counterpart here, so the import would compute otherwise."
            )
        if key in _YES_OR_NO and value is not None and type(value) is not bool:
            raise UnipetError(f"{source}: {key}: {str(value)[:40]!r} given; allowed: true or false.")
    if form is not None and starts.KEY in form.reads:
        starts.check_start(source, config)
    if isinstance(variant := config.get("init_weights", True), str) and variant in _VARIANTS:
        raise UnipetError(
            f"{source}: init_weights: {variant!r} is another function of its {kind}, which is not imported."
        )
    if config.get("bias", "none") != "none":
        raise UnipetError(f"{source}: bias: {config['bias']!r} trains the base model's biases, which is not imported.")


def imported(
    model: nn.Module, source: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], Callable[[Adaptation], None]]:
    """The method, and what puts the values into a model adapted with it."""
    named, head = dict(model.named_parameters()), head_names(model)
    bare: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if bare.setdefault(_bare(name, model), tensor) is not tensor:
            raise UnipetError(f"{source}: {name} and another tensor are both {_bare(name, model)} of this model.")
    whole = saved_names(source, config, model)
    saved = {name: bare.pop(name) for name in list(bare) if name in whole or name in head}
    form = _form(config)
    sites: Mapping[str, Mapping[str, Tensor]] = _by_module(model, source, form, bare) if form is not None else {}
    if form is None:
        virtual_tokens.check_names(source, bare)
    check_saved_modules(source, config, whole, saved)
    for name, tensor in saved.items():
        if named[name].shape != tensor.shape:
            raise UnipetError(
                f"{source}: {name} is {tuple(tensor.shape)} there, {tuple(named[name].shape)} in this model. "
                "Load the base model with the task's number of labels."
            )
    insertions: dict[str, Any] = {}
    try:
        if form is None:
            insertions = {"tokens": virtual_tokens.method_of(config)}
        else:
            if form.bare and not sites:
                sites = dict.fromkeys(targeted(source, config, model), bare)
            check_targets(source, config, model, sites)
            own: dict[str, Mapping[str, Tensor]] = {}
            for options, some in by_options(source, form, config, sites):
                if starts.KEY in form.reads:
                    options, some = starts.with_start(source, options, model, some)
                for given, group in form.prepared(model, options, some):
                    for each in (form, *([form.beside] if form.beside else [])):
                        insertions |= _insertions(model, each, given, group, len(insertions))
                    own |= group
            sites = own
    except KeyError as error:
        raise UnipetError(f"{source}: it does not say {error.args[0]}, which a {config['peft_type']} needs.") from None
    method = {"name": "imported", "insertions": insertions, "unfreeze": parts_of(model, source, saved, head)}

    @torch.no_grad()
    def fill(inserted: Adaptation) -> None:
        if form is None:
            slots = virtual_tokens.assign(inserted, bare[virtual_tokens.TABLE], source)
            if any(item.bank.frozen_names for item in inserted.items):
                inserted.unsavable = f"its frozen positions came from {source}, no text here makes them again"
        else:
            its = {item: form_of(form, item) for item in inserted.items}
            slots = {item.number: own.slots(sites[item.site.path]) for item, own in its.items()}
            if take_frozen(source, {item: own.frozen(sites[item.site.path], item) for item, own in its.items()}):
                inserted.unsavable = f"its random projections came from {source}, no seed here makes them again"
        for item in inserted.items:
            banks = item.banks if item.shared is None else (*item.banks, item.shared)
            own = {name: tensor for bank in banks for name, tensor in bank.named_tensors()}
            given = slots[item.number]
            if own.keys() != given.keys() or any(own[name].shape != given[name].shape for name in own):
                mine, theirs = ({name: tuple(t.shape) for name, t in one.items()} for one in (own, given))
                raise UnipetError(f"{source} does not fit this model at {item.site.path}: {theirs} there, {mine} here.")
            for name, parameter in own.items():
                parameter.copy_(given[name])
        for name, tensor in saved.items():
            named[name].copy_(tensor)

    return method, fill


def _bare(name: str, model: nn.Module) -> str:
    """A tensor's name without what peft puts in front: the longer start, unless the model itself begins so."""
    for start in _STARTS:
        if name.startswith(start):
            rest = name.removeprefix(start)
            first = rest.split(".")[0]
            if hasattr(model, first) or start == _STARTS[-1]:
                return rest
    return name


def _by_module(model: nn.Module, source: Path, form: Form, bare: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """module path -> peft's suffix -> tensor, in the model's order. Every tensor has its place, or UnipetError names it."""
    modules = [name for name, _ in model.named_modules() if name]
    found: dict[str, dict[str, Tensor]] = {}
    shared = {name: tensor for name, tensor in bare.items() if form.is_shared(name)}
    for name, tensor in bare.items():
        suffix = next((one for one in form.suffixes if name.endswith(f".{one}")), None)
        path = name.removesuffix(f".{suffix}")
        if suffix is not None and path in modules:
            found.setdefault(path, {**shared})[suffix] = tensor
        elif name not in shared:
            raise UnipetError(
                f"{source}: {name} has no place here: it is none of {', '.join(form.suffixes)} of a module of this "
                f"{type(model).__name__}."
            )
    return {path: found[path] for path in modules if path in found}


def _insertions(
    model: nn.Module, form: Form, config: Mapping[str, Any], sites: Mapping[str, Mapping[str, Tensor]], before: int
) -> dict[str, Any]:
    """One insertion for each set of roles that are in the same layers, numbered after those `before`."""
    table = architecture_of(model, ARCHITECTURES)
    feedforward = config.get("feedforward_modules") or []
    shape, side_of = form.place
    if side_of == "input":
        feedforward = list(sites)
    if isinstance(feedforward, str):
        pattern = checked_pattern(Path("feedforward_modules"), "feedforward_modules", feedforward)
        inputs = {path for path in sites if pattern.fullmatch(path)}
    else:
        inputs = {
            path for path in sites if path.endswith(tuple(feedforward))
        }  # as peft does, which needs no dot before
    groups: dict[tuple[str, str, tuple[int, ...] | None], list[str]] = {}
    for side, left in (("output", set(sites) - inputs), ("input", set(inputs))):
        for stack in table.stacks:
            for role in table.roles():
                taken = _layers(model, table, role, stack, side, left)
                if taken is not None:
                    groups.setdefault((side, stack, taken), []).append(role)
        if left:
            raise UnipetError(f"No role is at {', '.join(sorted(left)[:4])}; the adapter fits another architecture.")
    result: dict[str, Any] = {}
    for number, ((side, stack, layers), roles) in enumerate(groups.items(), before):
        position: dict[str, Any] = {"site": roles, "layers": "all" if layers is None else list(layers), "side": side}
        position["form"] = "sequential" if side == "input" else shape
        if len(table.stacks) > 1:
            position["stack"] = stack
        result[f"weights{number or ''}"] = {**form.parts(config), "position": position}
    return result


def _layers(
    model: nn.Module, table: Architecture, role: str, stack: str, side: str, left: set[str]
) -> tuple[int, ...] | None:
    """The layers of a role whose modules are among `left`, which are taken from there."""
    try:
        found = resolve(model, table, Position(site=[role], stack=stack, side=side, optional=True), "position")
    except UnipetError:
        return None
    at = [s for s in found if s.at == side and s.part is None and s.x_path == s.path and s.path in left]
    if not at or any(site.layer is None for site in at):
        return None
    left -= {site.path for site in at}
    return tuple(sorted({site.layer for site in at if site.layer is not None}))
