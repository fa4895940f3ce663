"""Which parameters are the task's head: what the checkpoint does not determine, so that every run has its own."""

from __future__ import annotations

from torch import nn

from unipet.calculus.sites.resolve import prefix_of

#: What `from_pretrained` sets on every parameter that came from the checkpoint, and on no other.
_LOADED = "_is_hf_initialized"
#: In the class names of position embeddings that are a formula kept as a parameter: no gradient ever reaches them.
_FORMULA = "sinusoidal"


def head_names(model: nn.Module) -> frozenset[str]:
    """The parameters of the head: all outside the base model, and all that loading drew (a pooler, any missing key).

    What was drawn differs each time the base model is loaded, so it is no part of the base model's identity: it trains
    with the head and is stored with it. A model that was not loaded from a checkpoint, or copied since, does not tell
    what was drawn; its head is then what lies outside the base model.
    """
    return outside(model) | _drawn(model)


def outside(model: nn.Module) -> frozenset[str]:
    """The parameters outside the base model. A language model's output layer is pretrained, so it has none."""
    output = getattr(model, "get_output_embeddings", lambda: None)()
    prefix = "" if output is not None else prefix_of(model)
    return frozenset(name for name, _ in model.named_parameters() if not name.startswith(prefix))


def is_formula(module: nn.Module) -> bool:
    """Whether a module's parameter is computed by a formula, so that it neither trains nor differs between two loads."""
    return _FORMULA in type(module).__name__.lower()


def _drawn(model: nn.Module) -> frozenset[str]:
    """What `from_pretrained` drew because the checkpoint lacks it. Vocabularies that were resized since then are not:
    transformers replaces the parameter, but keeps its values."""
    named = {name: each for name, each in model.named_parameters() if not name.startswith("_unipet")}
    missing = [name for name, each in named.items() if not getattr(each, _LOADED, False)]
    if len(missing) == len(named):
        return frozenset()
    vocabularies = {id(weight) for weight in _vocabularies(model)}
    return frozenset(
        name
        for name in missing
        if id(named[name]) not in vocabularies and not is_formula(model.get_submodule(name.rpartition(".")[0]))
    )


def _vocabularies(model: nn.Module) -> list[nn.Parameter]:
    found = []
    for get in ("get_input_embeddings", "get_output_embeddings"):
        try:
            module = getattr(model, get, lambda: None)()
        except NotImplementedError:  # a model whose input is no text
            continue
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter):
            found.append(weight)
    return found
