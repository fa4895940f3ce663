"""peft's directories: `adapter_config.json` and `adapter_model.safetensors`, written and read without peft itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import Adaptation, adaptation
from unipet.adaptation.api import adapt
from unipet.adaptation.peft import fused, virtual_tokens
from unipet.adaptation.peft.form import Form
from unipet.adaptation.peft.forms import FORMS
from unipet.adaptation.peft.reading import check_config, imported, read
from unipet.adaptation.report import AdaptReport
from unipet.adaptation.unwrapping import unwraps, unwraps_to_adapt
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.prefix import Prefix
from unipet.calculus.functions.prompt import Prompt
from unipet.calculus.insertion import Insertion
from unipet.calculus.method import name_of
from unipet.errors import UnipetError
from unipet.output.files import write_bytes_atomic

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
}
_WITH_HEAD = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")


@unwraps
@torch.no_grad()
def export_peft(model: nn.Module, directory: str | Path) -> Path:
    """Write the method of an adapted model so that `peft.PeftModel.from_pretrained(base, directory)` computes the same.

    What is possible follows from the method's four dimensions: low-rank maps at linear layers (with renormalised rows
    or not), vectors that rescale, shared random pairs, Hadamard and Kronecker products, prefixes, virtual tokens. A
    trained task head goes along. Raises UnipetError saying why peft cannot express anything else.
    """
    import safetensors.torch

    inserted = adaptation(model)
    training, _ = inserted.training, inserted.eval()
    try:
        heads = _heads(model, inserted)
        first = inserted.items[0].parts.function if inserted.items else None
        if isinstance(first, Prefix | Prompt):
            config, tensors = _virtual_tokens(model, inserted)
            start = "base_model."
        else:
            config, tensors = _linear(model, inserted)
            start = "base_model.model."
    finally:
        inserted.train(training)
    config = {
        "base_model_name_or_path": str(getattr(model.config, "_name_or_path", "") or "") or None,
        "task_type": _task(model, heads),
        "inference_mode": True,
        "modules_to_save": heads or None,
        **config,
    }
    named = dict(model.named_parameters())
    tensors |= {start + name: named[name] for name in named if any(name.startswith(f"{head}.") for head in heads)}
    ready = {name: tensor.detach().to("cpu").clone().contiguous() for name, tensor in tensors.items()}
    out = Path(directory).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(out / TENSORS, safetensors.torch.save(ready, metadata={"format": "pt"}))
        write_bytes_atomic(out / CONFIG, json.dumps(config, indent=2, sort_keys=True).encode())
    except OSError as error:
        raise UnipetError(f"Cannot write to {out}: {error}.") from error
    return out


def _task(model: nn.Module, heads: list[str]) -> str | None:
    """peft's word for what the model is for. Some words make peft ask for the head's tensors, so they are left out where none
    are stored."""
    task = next((task for end, task in _TASKS.items() if type(model).__name__.endswith(end)), None)
    return None if task in _WITH_HEAD and not heads else task


def _refuse(why: str) -> UnipetError:
    return UnipetError(f"peft cannot express this method: {why}. Save it with unipet.save, or unipet.merge it.")


def _heads(model: nn.Module, inserted: Adaptation) -> list[str]:
    """The largest modules that are the task's head and nothing else; peft holds no other part of the base model."""
    others = sorted({part for part in inserted.unfrozen.values() if part != "head"})
    if others:
        raise _refuse(f"it trains parts of the base model (unfreeze: {', '.join(others)})")
    if not inserted.items:
        raise _refuse("it has no insertions")
    others_of = {name for name, _ in model.named_parameters() if not name.startswith("_unipet")} - inserted.head
    found: dict[str, None] = {}
    for name in sorted(inserted.head):
        path = name.split(".")
        starts = [".".join(path[:count]) for count in range(1, len(path))]
        own = (start for start in starts if not any(other.startswith(f"{start}.") for other in others_of))
        if (module := next(own, None)) is None:
            raise _refuse(f"{name} is drawn with the head, and peft holds whole modules alone")
        found[module] = None
    return list(found)


def _common_refusals(insertion: Insertion) -> str | None:
    parts = insertion.parts
    if parts.scaling.dynamic:
        return f"{insertion.name}: {parts.scaling.dynamic}"
    if parts.tokens is not None:
        return f"{insertion.name}: it acts on some tokens only"
    if parts.mixture is not None and parts.mixture.reducer != "mean_of_weights":
        return f"{insertion.name}: its mixture is not reduced to one function (reducer {parts.mixture.reducer})"
    return None


def _virtual_tokens(model: nn.Module, inserted: Adaptation) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if len({item.name for item in inserted.items}) > 1:
        raise _refuse("virtual tokens stand alone there, and it has other insertions, too")
    for item in inserted.items:
        if reason := _common_refusals(item):
            raise _refuse(reason)
    if reason := virtual_tokens.why_not(inserted.items, model):
        raise _refuse(f"{inserted.items[0].name}: {reason}")
    return virtual_tokens.config(inserted, model), {virtual_tokens.TABLE: virtual_tokens.table(inserted)}


def _linear(model: nn.Module, inserted: Adaptation) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a method at linear layers."""
    options: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    targets: list[str] = []
    inputs: list[str] = []
    owner = ""
    for item, parts in _by_projection(inserted.items):
        form = _form(item, model)
        own = {"peft_type": form.peft_type, **(fused.config(form, parts) if parts else form.config(item))}
        if owner and own != options:
            differing = next(key for key in own if own.get(key) != options.get(key))
            raise _refuse(
                f"one of its adapters has one set of options, and {owner} and {item.name} differ in {differing}"
            )
        common = {f"base_model.{name}": tensor for name, tensor in form.common(item).items()}
        if any(name in tensors and tensors[name] is not tensor for name, tensor in common.items()):
            raise _refuse(f"{owner} and {item.name} have shared tensors of their own")
        options, owner = own, item.name
        path = item.site.path
        if path in targets:
            raise _refuse(f"{item.name}: {path} carries an insertion already")
        targets.append(path)
        if item.site.at == "input":
            inputs.append(path)
        made = fused.tensors(form, parts, model.get_submodule(path)) if parts else form.tensors(item)
        tensors |= common | {f"base_model.model.{path}.{suffix}": one for suffix, one in made.items()}
    modules = [model.get_submodule(path) for path in targets]
    transposed = any(type(module).__name__ == "Conv1D" for module in modules)
    options |= {"target_modules": targets, "fan_in_fan_out": transposed}
    if options["peft_type"] == "IA3":
        options["feedforward_modules"] = inputs
    if options["peft_type"] in ("LOHA", "LOKR"):
        del options["fan_in_fan_out"]
    return options, tensors


def _by_projection(items: list[Insertion]) -> list[tuple[Insertion, list[Insertion]]]:
    """Insertions that become one adapter of peft's: those at parts of one fused projection together, every other alone."""
    groups: dict[str, list[Insertion]] = {}
    for item in items:
        if item.site.part is not None:
            groups.setdefault(item.site.path, []).append(item)
    for path, parts in groups.items():
        if len({part.site.name for part in parts}) < len(parts):
            raise _refuse(f"{parts[-1].name}: a part of {path} carries an insertion already")
        names = {part.name: type(part.parts.function) for part in parts}
        if len(names) > 1:
            raise _refuse(
                f"{' and '.join(names)} act on parts of one fused projection, {path}. Make them one insertion"
            )
    alone: list[tuple[Insertion, list[Insertion]]] = [(item, []) for item in items if item.site.part is None]
    return alone + [(parts[0], parts) for parts in groups.values()]


def _form(insertion: Insertion, model: nn.Module) -> Form:
    function, site = insertion.parts.function, insertion.site
    form = next((form for form in FORMS if type(function) is form.function), None)
    if form is None:
        raise _refuse(f"{insertion.name}: function {name_of(FUNCTIONS, function)!r} is none of peft's")
    if reason := _common_refusals(insertion) or form.why_not(insertion):
        raise _refuse(f"{insertion.name}: {reason}")
    module = model.get_submodule(site.path)
    kind = type(module).__name__
    constant = function.reads == "nothing"
    if not isinstance(module, nn.Linear) and not (kind == "Conv1D" and form.conv1d):
        raise _refuse(f"{insertion.name}: {site.path} is no linear layer that its {form.peft_type} takes ({kind})")
    if site.part is not None and form.peft_type not in fused.JOINED:
        raise _refuse(
            f"{insertion.name}: {site.name} is a part of a fused projection, which its {form.peft_type} takes whole"
        )
    if not constant and (insertion.parts.form != "parallel" or site.at != "output" or site.x_path != site.path):
        raise _refuse(f"{insertion.name}: it does not read the input of the linear layer {site.path}")
    return form


@unwraps_to_adapt
def import_peft(model: nn.Module, directory: str | Path) -> AdaptReport:
    """Adapt a base model with a directory that peft (or `export_peft`) wrote, and take over its values.

    The method is called `imported`; its sites are the roles whose modules the tensors name. Raises UnipetError where the
    directory says something that no composition here computes, or does not fit the model, which is then left as it was.
    """
    source = Path(directory).expanduser()
    config, tensors = read(source, CONFIG, TENSORS)
    check_config(source, config)
    method, values = imported(model, source, config, tensors)
    report = adapt(model, method)
    inserted = adaptation(model)
    try:
        values(inserted)
    except BaseException:
        inserted.undo(model)
        raise
    return report
