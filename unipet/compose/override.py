"""One override of a command line: checked before anything runs, and rewritten for Hydra."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipet.calculus.method_files import is_file_name
from unipet.compose import parse_run_config
from unipet.compose.composer import Composer
from unipet.compose.hydra_errors import translate
from unipet.compose.schema import METHOD_GROUPS, is_mapping, kind_at
from unipet.compose.search_space import SUBSET, SearchedKey, is_searched, searched_key
from unipet.compose.user_files import method_file, space_file
from unipet.config import RunConfig
from unipet.errors import UnipetError, unknown

PARTS = METHOD_GROUPS[1:]  # groups that are composed into a method
OVERLAYS = ("experiment", "debug", "space")  # groups that are empty by default


#: Groups whose option may be the path of a file -> how it is read.
READ: dict[str, Callable[[Path], Any]] = {"method": method_file, "space": space_file}


@dataclass(frozen=True)
class Override:
    """One override, rewritten for Hydra, and the values of a sweep."""

    text: str  # as rewritten for Hydra
    key: str
    values: tuple[str, ...] = ()  # each value of a sweep as a complete override; empty without a sweep
    searched: SearchedKey | None = None  # for a search: what choice(...), range(...) or interval(...) says

    @property
    def first(self) -> str:
        """This override with the first value of its sweep, or with the lower end of its interval."""
        if self.values:
            return self.values[0]
        if self.searched is None:
            return self.text
        low = self.searched.low
        return self.searched.override(int(low) if self.searched.whole else low)

    @property
    def searched_alone(self) -> bool:
        """Whether only a search can give it a value: an interval, or a subset."""
        return self.searched is not None and (self.searched.subset or not self.searched.texts)

    @property
    def interval(self) -> bool:
        """Whether it names no values, but all of an interval."""
        return self.searched is not None and not self.searched.texts


def shown(text: str) -> str:
    """An override as the user would type it. Only a dimension's group that is composed into a method needs the `+`."""
    return text if "@" in text.split("=", 1)[0] else text.lstrip("+")


def parse(text: str, composer: Composer) -> Override:
    """Check an override as typed, and rewrite it. Raises `UnipetError`."""
    text = _home_quoted(text)
    with translate([text]):  # whatever of Hydra's is asked about it
        return _parsed(text, composer)


def _parsed(text: str, composer: Composer) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([text])[0]
    key = parsed.key_or_group
    if key == "search.space" and not parsed.is_delete() and isinstance(parsed.value(), str):
        return parse(f"space={rest(text)}", composer)
    if key.split(".")[0] == "hydra" or key.startswith("hydra/"):
        return Override(text, key)
    prefix, groups = parsed.get_key_element(), composer.groups()
    if parsed.package is None and key in PARTS:
        raise _part_alone(key, text, composer)
    if parsed.is_delete():
        return Override(text, key)
    if text.endswith("=") and key in parse_run_config.field_names(RunConfig):
        raise UnipetError(f"{text}: the value is empty. Write {key}=VALUE.")
    if (key in groups or key.split("/")[0] in groups) and "." not in key:
        if parsed.package is None:
            prefix = prefix.lstrip("+")  # the defaults list already has every group
        return group_choice(key, prefix, parsed, composer)
    parse_run_config.check_key(key, extra=OVERLAYS)
    if key == "method.insertions" and not parsed.is_sweep_override() and not parsed.value():
        raise UnipetError(
            f"{text}: does not name the insertion to remove. Write '~method.insertions.NAME' for each one. A method from which "
            "all insertions are removed needs another name: method.name=NAME."
        )
    if key.startswith("method.") or is_mapping(kind_at(key)) or is_mapping(kind_at(key.rpartition(".")[0])):
        # optional keys of a method, and keys of mappings, need not exist in YAML: add them; `load_method` checks them
        prefix = "++" + prefix.lstrip("+")
    return Override(prefix + "=" + rest(text), key, sweep_values(prefix, parsed, []), _searched_key(prefix, parsed))


def _searched_key(prefix: str, parsed: Any) -> SearchedKey | None:
    return searched_key(prefix, parsed) if is_searched(parsed) else None


def _home_quoted(text: str) -> str:
    """Quote `~` in a value, as in `runs_dir=~/runs`: Hydra's grammar accepts it only in quotes."""
    key, equals, value = text.partition("=")
    if key.startswith("~") or "'" in value or '"' in value:
        return text
    return key + equals + re.sub(r"(?<![^,\[])~[^,\[\]]*", lambda match: f"'{match[0].rstrip()}'", value)


def _part_alone(group: str, text: str, composer: Composer) -> UnipetError:
    """The error for `position=ffn`: a dimension, or a regulariser, without the place in a method to which it belongs."""
    value = text.partition("=")[2]
    name = value if value in composer.options(group) else "NAME"
    if group == "objective":
        return UnipetError(
            f"{group}={value}: a regulariser belongs to a method, under a name: +objective@method.objective.{name}={name} "
            f"(NAME: {', '.join(composer.options(group))}). A single option is an override: "
            f"method.objective.{name}.weight=0.5."
        )
    return UnipetError(
        f"{group}={value}: {group} belongs to an insertion, so name the insertion: "
        f"+{group}@method.insertions.INSERTION.{group}={name} "
        f"(NAME: {', '.join(composer.options(group))}; `unipet describe method=...` names the insertions). "
        f"A single option is an override: method.insertions.INSERTION.{group}.OPTION=VALUE."
    )


def rest(text: str) -> str:
    """The value as typed."""
    return text.split("=", 1)[1]


def sweep_values(prefix: str, parsed: Any, names: list[str]) -> tuple[str, ...]:
    """Each value of a sweep as an override of its own. A glob matches against `names`."""
    if not parsed.is_sweep_override():
        return ()
    if not parsed.is_discrete_sweep():  # an interval: `Override.searched` has it
        return ()
    if SUBSET in getattr(parsed.value(), "tags", ()):  # a glob has none
        return (f"{prefix}=[{','.join(map(str, parsed.sweep_string_iterator()))}]",)
    if parsed.value_type.name == "GLOB_CHOICE_SWEEP":
        values = parsed.value().filter(names)
    else:
        values = list(parsed.sweep_string_iterator())
    if not values:
        raise UnipetError(f"{parsed.input_line}: matches nothing. Allowed: {', '.join(names)}.")
    return tuple(f"{prefix}={value}" for value in values)


def group_choice(group: str, prefix: str, parsed: Any, composer: Composer) -> Override:
    """An override such as `method=a,b`. Every name must exist; a base model may also be a hub name or a directory."""
    options = composer.options(group)
    values = sweep_values(prefix, parsed, options)
    typed = [value.split("=", 1)[1] for value in values] or [rest(parsed.input_line)]
    together = not parsed.is_sweep_override() and isinstance(parsed.value(), list | dict)
    if together and group not in OVERLAYS:  # several overlays may be combined
        raise _several(group, prefix, parsed)
    names = chosen_names(parsed)
    files = [name for name in names if group in READ and is_file_name(name)]
    for name in files:
        READ[group](Path(os.path.expanduser(name)))  # raises an error for an invalid file
    wrong = [name for name in names if name not in files and name.removesuffix(".yaml") not in options]
    if group == "model" and wrong == names and all("/" in name or _is_directory(name) for name in names):
        return Override(
            "model.path=" + ",".join(typed), group, tuple(f"model.path={one}" for one in typed[: len(values)])
        )
    if group in OVERLAYS and wrong in (["null"], [""]):
        return Override("", group)  # without an overlay, which is the default; Hydra does not accept null
    if wrong:
        error = unknown(f"{group}={wrong[0]}", wrong[0], options)
        if group == "model":
            error = UnipetError(f"{error} Any other base model: model=auto model.path=DIRECTORY_OR_HUB_NAME.")
        raise error
    return Override(f"{prefix}={rest(parsed.input_line)}", group, values, _searched_key(prefix, parsed))


def _several(group: str, prefix: str, parsed: Any) -> UnipetError:
    """The error for `method=[a,b]`: Hydra would merge both files, and the record would only have the last one's name."""
    value = parsed.value()
    advice = "Give one name"
    if isinstance(value, list) and value:
        advice += f", or sweep over them: unipet train -m {prefix}={','.join(map(str, value))}"
    return UnipetError(f"{group}={rest(parsed.input_line)}: a run has one {group}. {advice}.")


def chosen_names(parsed: Any) -> list[str]:
    """The options that an override of a group names, without quotes."""
    if not parsed.is_sweep_override():
        found = parsed.value()
    elif parsed.value_type.name == "GLOB_CHOICE_SWEEP":
        return []
    else:
        found = [getattr(value, "text", value) for value in parsed.sweep_iterator()]
    return ["null" if name is None else str(name) for name in (found if isinstance(found, list) else [found])]


def _is_directory(name: str) -> bool:
    return Path(os.path.expanduser(name)).is_dir()
