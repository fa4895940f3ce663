"""The task head of one adaptation among several in one batch: its rows go through parameters of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unipet.adaptation.adapted import Adaptation

#: Where an adaptation keeps them while it works on its own rows.
HOME = "own_head"
#: How the class names of normalisation layers end.
_NORMS = ("layernorm", "rmsnorm")


class OwnHead:
    """A hook on one module of the head: the adaptation's own rows once more, with its own parameters."""

    def __init__(self, module: nn.Module, own: dict[str, nn.Parameter], inserted: Adaptation) -> None:
        self.module, self.inserted = copy.copy(module), inserted
        object.__setattr__(self.module, "_parameters", {**module._parameters, **own})

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        own = self.inserted.own_now
        assert own is not None and isinstance(output, Tensor)
        return own.put(output, self.module.forward(own.pick(args[0]), *args[1:], **kwargs))


def why_no_own_head(model: nn.Module, inserted: Adaptation) -> str | None:
    """Why rows of this adaptation cannot have a head of their own, or None."""
    for name in sorted(inserted.head):
        module = model.get_submodule(name.rpartition(".")[0])
        if type(module) is not nn.Linear and not type(module).__name__.lower().endswith(_NORMS):
            return f"its head holds {name} of a {type(module).__name__}, which may not be computed row by row"
    return None


def give_head(model: nn.Module, inserted: Adaptation) -> None:
    """Hook the head that the adaptation kept onto the model, for its own rows."""
    base, own = dict(model.named_parameters()), dict[str, nn.Parameter]()
    for name in sorted(inserted.head):
        value, gradient = inserted.kept[name]
        own[name] = parameter = nn.Parameter(value.to(base[name]), name in inserted.unfrozen)
        parameter.grad = None if gradient is None else gradient.to(parameter)
        inserted.put_parameter(f"{HOME}.{name}", parameter)
    inserted.attached.handles += hook_head(model, inserted, own)


def hook_head(model: nn.Module, inserted: Adaptation, parameters: Mapping[str, nn.Parameter]) -> list[Any]:
    """Let the own rows of an adaptation go through these parameters of the head, by their names. The handles that end it."""
    owned = dict[str, dict[str, nn.Parameter]]()
    for name, parameter in parameters.items():
        path, _, leaf = name.rpartition(".")
        owned.setdefault(path, {})[leaf] = parameter
    handles = []
    for path, own in owned.items():
        module = model.get_submodule(path)
        handles.append(module.register_forward_hook(OwnHead(module, own, inserted), with_kwargs=True))
    return handles


def own_head(inserted: Adaptation) -> dict[str, nn.Parameter]:
    """The head of an adaptation that works on its own rows, by the names that its parameters have in the base model."""
    return {name: inserted.parameter(f"{HOME}.{name}") for name in inserted.head}


def take_head(inserted: Adaptation) -> None:
    """Note the head as its own rows have trained it."""
    for name, parameter in own_head(inserted).items():
        inserted.kept[name] = parameter.detach().to("cpu", copy=True), parameter.grad
    drop_head(inserted)


def drop_head(inserted: Adaptation) -> None:
    """Forget the head that was given, if it was."""
    inserted._modules.pop(HOME, None)
