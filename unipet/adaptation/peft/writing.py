"""An adapted model's method as peft's configuration and tensors, or why peft has no words for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.peft import fused, virtual_tokens
from unipet.adaptation.peft.form import Form
from unipet.adaptation.peft.saved_modules import refuse, saved_modules
from unipet.adaptation.peft.table import FORMS, NOT_WRITTEN
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.prefix import Prefix
from unipet.calculus.functions.prompt import Prompt
from unipet.calculus.insertion import Insertion
from unipet.calculus.method import name_of
from unipet.calculus.weights import out_width

_TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
}
#: An insertion that becomes an adapter of peft's, with all parts of a fused projection where it is at one.
Group = tuple[Insertion, list[Insertion]]
_WITH_HEAD = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
#: What peft asks for and no value of which has an effect beside these.
_NO_FAN = ("LOHA", "LOKR", "HIRA", "MISS", "C3A", "PEANUT", "BEFT", "HRA", "ROAD", "DELORA")


def written(model: nn.Module, inserted: Adaptation) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration, and the tensors by peft's names, as they are in the model. Raises UnipetError."""
    saved = saved_modules(model, inserted)
    if not inserted.items:
        raise refuse("it has no insertions")
    if isinstance(inserted.items[0].parts.function, Prefix | Prompt):
        config, tensors = _virtual_tokens(model, inserted)
        start = "base_model."
    else:
        config, tensors = _linear(model, inserted)
        start = "base_model.model."
    config = {
        "base_model_name_or_path": str(getattr(model.config, "_name_or_path", "") or "") or None,
        "task_type": _task(model, saved),
        "inference_mode": True,
        "modules_to_save": saved or None,
        **config,
    }
    named = dict(model.named_parameters())
    tensors |= {start + name: named[name] for name in named if any(name.startswith(f"{path}.") for path in saved)}
    return config, tensors


def _task(model: nn.Module, saved: list[str]) -> str | None:
    """peft's word for what the model is for. Some words make peft ask for the head's tensors, so they are left out where none
    are stored."""
    task = next((task for end, task in _TASKS.items() if type(model).__name__.endswith(end)), None)
    return None if task in _WITH_HEAD and not saved else task


def _common_refusals(insertion: Insertion) -> str | None:
    parts = insertion.parts
    if parts.scaling.dynamic:
        return parts.scaling.dynamic
    if parts.tokens is not None:
        return "it acts on some tokens only"
    if parts.mixture is not None and parts.mixture.reducer != "mean_of_weights":
        return f"its mixture is not reduced to one function (reducer {parts.mixture.reducer})"
    return None


def _virtual_tokens(model: nn.Module, inserted: Adaptation) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if len({item.name for item in inserted.items}) > 1:
        raise refuse("virtual tokens stand alone there, and it has other insertions, too")
    for item in inserted.items:
        if reason := _common_refusals(item):
            raise refuse(f"{item.name}: {reason}")
    if reason := virtual_tokens.why_not(inserted.items, model):
        raise refuse(f"{inserted.items[0].name}: {reason}")
    return virtual_tokens.config(inserted, model), {virtual_tokens.TABLE: virtual_tokens.table(inserted)}


def _linear(model: nn.Module, inserted: Adaptation) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a method at linear layers."""
    each: dict[str, dict[str, Any]] = {}  # module -> its options
    carried: dict[str, Insertion] = {}  # module -> insertion
    tensors: dict[str, Tensor] = {}
    used: Form | None = None
    groups, beside = _beside(_by_projection(inserted.items))
    for item, parts in groups:
        form = _form(item, model)
        path, first = item.site.path, next(iter(carried.values()), item)
        if path in each:
            raise refuse(f"{item.name}: {path} carries an insertion already")
        if used is not None and form is not used:
            raise refuse(
                f"one of its adapters has one type, {first.name} is {used.peft_type} and {item.name} {form.peft_type}"
            )
        if form.shares and item.shared is not first.shared:
            raise refuse(f"{first.name} and {item.name} have shared tensors of their own")
        used, carried[path] = form, item
        each[path] = fused.config(form, parts) if parts else form.config(item)
        made = _tensors(form, item, parts, model)
        if form.beside is not None:
            made |= _second(form, beside.get(path), model, path)
        tensors |= {f"base_model.model.{path}.{suffix}": tensor for suffix, tensor in made.items()}
    assert used is not None
    tensors |= {f"base_model.{name}": tensor for name, tensor in used.common(list(carried.values())).items()}
    names = {path: item.name for path, item in carried.items()}
    options = {"peft_type": used.peft_type, **_together(used, each, names), "target_modules": list(each)}
    if used.peft_type not in _NO_FAN:
        options["fan_in_fan_out"] = any(type(model.get_submodule(path)).__name__ == "Conv1D" for path in each)
    if used.peft_type == "IA3":
        options["feedforward_modules"] = [path for path, item in carried.items() if item.site.at == "input"]
    return options, tensors


def _tensors(form: Form, item: Insertion, parts: list[Insertion], model: nn.Module) -> dict[str, Tensor]:
    return fused.tensors(form, parts, model.get_submodule(item.site.path)) if parts else form.tensors(item)


def _second(form: Form, given: Group | None, model: nn.Module, path: str) -> dict[str, Tensor]:
    """The tensors of the insertion beside one of this form, or what stands for none."""
    assert form.beside is not None
    if given is None:
        width = out_width(model.get_submodule(path))
        assert width is not None
        return form.absent(width)
    _check(given[0], form.beside, model)
    return _tensors(form.beside, *given, model)


def _together(form: Form, each: Mapping[str, dict[str, Any]], names: Mapping[str, str]) -> dict[str, Any]:
    """The options of all modules as one configuration: those that most have, and patterns for the others where peft has them.
    Raises UnipetError for options that differ and have none."""
    first, *_ = each
    options = dict(each[first])
    for path, own in each.items():
        differing = [key for key in own if own[key] != options[key] and key not in form.patterns]
        if differing:
            one, other = names[first], names[path]
            two = f"{one} and {other}" if one != other else f"{one} at {first} and at {path}"
            raise refuse(f"one of its adapters has one set of options, and {two} differ in {differing[0]}")
    for key, pattern in form.patterns.items():
        common = Counter(own[key] for own in each.values()).most_common(1)[0][0]
        others = {path: own[key] for path, own in each.items() if own[key] != common}
        options[key] = common
        if others:
            options[pattern] = others
    return options


def _by_projection(items: list[Insertion]) -> list[Group]:
    """Insertions that become one adapter of peft's: those at parts of one fused projection together, every other alone."""
    groups: dict[str, list[Insertion]] = {}
    for item in items:
        if item.site.part is not None:
            groups.setdefault(item.site.path, []).append(item)
    for path, parts in groups.items():
        if len({part.site.name for part in parts}) < len(parts):
            raise refuse(f"{parts[-1].name}: a part of {path} carries an insertion already")
        names = {part.name: type(part.parts.function) for part in parts}
        if len(names) > 1:
            raise refuse(f"{' and '.join(names)} act on parts of one fused projection, {path}. Make them one insertion")
    alone: list[Group] = [(item, []) for item in items if item.site.part is None]
    return alone + [(parts[0], parts) for parts in groups.values()]


def _beside(groups: list[Group]) -> tuple[list[Group], dict[str, Group]]:
    """The groups that become adapters, and, by module, those that another one's type holds together with it."""
    found: dict[str, Group] = {}
    for form in FORMS:
        if form.beside is not None:
            paths = {item.site.path for item, _ in groups if type(item.parts.function) is form.function}
            for group in groups:
                item, path = group[0], group[0].site.path
                if type(item.parts.function) is form.beside.function and path in paths:
                    if path in found:
                        raise refuse(f"{item.name}: {path} carries two insertions already")
                    found[path] = group
    return [group for group in groups if group not in found.values()], found


def _form(insertion: Insertion, model: nn.Module) -> Form:
    function = insertion.parts.function
    forms = [form for form in FORMS if type(function) is form.function]
    if not forms:
        name = name_of(FUNCTIONS, function)
        why = f"is not written for peft: {NOT_WRITTEN[name]}" if name in NOT_WRITTEN else "is none of peft's"
        raise refuse(f"{insertion.name}: function {name!r} {why}")
    form = next((each for each in forms if each.why_not(insertion) is None), forms[0])
    _check(insertion, form, model)
    return form


def _check(insertion: Insertion, form: Form, model: nn.Module) -> None:
    """Raise UnipetError unless the form can say this insertion where it is."""
    function, site = insertion.parts.function, insertion.site
    if reason := _common_refusals(insertion) or form.why_not(insertion):
        raise refuse(f"{insertion.name}: {reason}")
    module = model.get_submodule(site.path)
    kind = type(module).__name__
    if not isinstance(module, nn.Linear) and not (kind == "Conv1D" and form.conv1d):
        raise refuse(f"{insertion.name}: {site.path} is no linear layer that its {form.peft_type} takes ({kind})")
    if site.part is not None and not form.joins:
        raise refuse(
            f"{insertion.name}: {site.name} is a part of a fused projection, which its {form.peft_type} takes whole"
        )
    if function.reads != "nothing":
        away = site.at == "output" and insertion.parts.form == "parallel" and site.x_path != site.path
        if (insertion.parts.form, site.at) != form.place or away:
            raise refuse(f"{insertion.name}: it does not {_PLACES[form.place]} the linear layer {site.path}")


_PLACES = {
    ("parallel", "output"): "read the input of",
    ("sequential", "input"): "turn the input of",
    ("sequential", "output"): "turn the output of",
}
