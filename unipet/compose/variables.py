"""Values of a method that follow from its variables, on the command line: `${unipet.when:...}` and `${unipet.pick:...}`.

A design space states choices that concern several options at once under `method.variables`, and options say what follows:

    size: ${unipet.when:${method.variables.group1},wide,8}           # 8 where group1 is or lists `wide`, otherwise 0: absent
    layers: ${unipet.when:${method.variables.group1},wide,all,[]}    # the same with a value of its own for otherwise
    ratio: ${unipet.pick:${method.variables.allocation},{uniform: 1, increasing: 2}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unipet.calculus.yaml_reader import text_of
from unipet.errors import UnipetError, unknown


def register_resolvers() -> None:
    """Make both known to OmegaConf."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("unipet.when", _when, replace=True)
    OmegaConf.register_new_resolver("unipet.pick", _pick, replace=True)


def _when(variable: Any, name: Any, value: Any, otherwise: Any = 0) -> Any:
    """`value` where the variable is `name`, or is a list that has it."""
    names = [variable] if isinstance(variable, str | int | float) or variable is None else list(variable)
    return value if str(name) in {str(text_of(each)) for each in names} else otherwise


def _pick(variable: Any, values: Any) -> Any:
    """The value under the variable's name. Raises `UnipetError` for a name that has none."""
    if not isinstance(values, Mapping):
        raise UnipetError("unipet.pick: the second argument is a mapping from the variable's values, {a: 1, b: 2}.")
    by_name = {str(key): value for key, value in values.items()}
    if str(text_of(variable)) not in by_name:
        raise unknown("unipet.pick", str(text_of(variable)), by_name)
    return by_name[str(text_of(variable))]
