"""Hydra for one command: where the configuration lies, which options a group has, one composition at a time."""

from __future__ import annotations

import copy
import filecmp
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unipet.compose.hydra_errors import translate
from unipet.compose.user_files import config_text, read_once
from unipet.compose.variables import register_resolvers
from unipet.config import RunConfig, conf_dir
from unipet.errors import UnipetError

PACKAGE = "unipet.conf"  # the installed conf/
ROOT = "config"  # the primary configuration, config.yaml


def packaged() -> bool:
    """True when conf/ is importable, that is, unipet is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def config_path() -> str:
    """`conf_dir` as hydra.main wants it."""
    return f"pkg://{PACKAGE}" if packaged() else str(conf_dir())


def version_base() -> dict[str, Any]:
    """Hydra's compatibility setting; Hydra 1.4 has one behaviour and warns when it is given."""
    import hydra

    major, minor = (int(part) for part in hydra.__version__.split(".")[:2])
    return {"version_base": "1.3"} if (major, minor) < (1, 4) else {}


def register_schema() -> None:
    """`RunConfig` under the name that config.yaml's defaults list starts with, and the resolvers that files use."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("unipet.home", os.path.expanduser, replace=True)
    register_resolvers()
    ConfigStore.instance().store(name="run_schema", node=RunConfig, provider="unipet")


def check_config_dir(config_dir: str) -> Path:
    """The user's directory. Raises `UnipetError` when it does not exist or would be silently shadowed by a built-in file."""
    directory = Path(config_dir)
    if not directory.is_dir():
        raise UnipetError(
            f"--config-dir {config_dir}: no such directory. It holds groups, for example {config_dir}/method/mine.yaml."
        )
    built_in = conf_dir()
    for path in sorted(path for path in directory.rglob("*.yaml") if path.is_file()):
        relative = path.relative_to(directory)
        config_text(path)  # Hydra would end in an exception that does not name the file
        if (built_in / relative).is_file() and not filecmp.cmp(path, built_in / relative, shallow=False):
            raise UnipetError(
                f"{path}: {relative} is also a built-in file, which Hydra would use instead of yours. "
                f"Rename yours, for example {relative.with_stem('my_' + relative.stem)}."
            )
    return directory.resolve()


@contextmanager
def hydra_state() -> Iterator[None]:
    """Hydra's process-wide state is put back on leaving, so that a notebook or a test may use Hydra around us."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from unipet.compose.written import as_written

    before, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        with as_written():
            yield
    finally:
        GlobalHydra.instance().hydra = before
        HydraConfig.instance().cfg = config


class Composer:
    """Composes configurations; every mistake that Hydra finds comes out as one `UnipetError`."""

    def __init__(self, config_dir: str | None) -> None:
        self.flags = ["--config-dir", config_dir] if config_dir else []
        directory = check_config_dir(config_dir) if config_dir else None
        # quoted for Hydra's override grammar
        location = f"file://{directory}".replace("\\", "\\\\").replace("'", "\\'")
        self._known: dict[tuple[str, Any], list[str]] = {}
        self._chosen: dict[tuple[str, ...], Any] = {}  # group choices -> what they compose
        self._runs: dict[tuple[str, ...], Any] = {}  # the same without Hydra's own node; None where that is needed
        self._read: dict[str, Any] = {}  # overrides as Hydra's parser reads them
        self.search = [f"hydra.searchpath=['{location}']"] if config_dir else []

    def groups(self) -> list[str]:
        """The top-level configuration groups: method, task, ..."""
        from hydra.core.object_type import ObjectType

        return [name for name in self._options("", ObjectType.GROUP) if not name.startswith(("hydra", "_"))]

    def options(self, group: str) -> list[str]:
        """The choices of a group, the user's own included."""
        from hydra.core.object_type import ObjectType

        return self._options(group, ObjectType.CONFIG)

    def _options(self, group: str, kind: Any) -> list[str]:
        from hydra.core.global_hydra import GlobalHydra

        loader = GlobalHydra.instance().config_loader()
        if (group, kind) not in self._known:
            found = loader.get_group_options(group, kind, config_name=ROOT, overrides=self.search)
            self._known[group, kind] = sorted(set(found))
        return self._known[group, kind]

    def compose(self, overrides: Sequence[str], number: int | None = None) -> Any:
        """The composed DictConfig, Hydra's own node included; `number` is that of a sweep's job.

        Hydra composes every choice of groups once. Overrides of values are applied to a copy of that, by the function
        with which Hydra applies them.
        """
        from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
        from omegaconf import open_dict

        with translate(overrides):
            parsed = [self._parsed(text) for text in overrides]
            choices = [each for each in parsed if self._is_choice(each)]
            composed = copy.deepcopy(self._composed_choices(tuple(str(each.input_line) for each in choices)))
            values = [each for each in parsed if each not in choices]
            ConfigLoaderImpl._apply_overrides_to_config(values, composed)
            node, own = composed.hydra, [each for each in parsed if not each.is_hydra_override()]
            node.overrides.task = [each.input_line for each in own]
            node.overrides.hydra.extend([each.input_line for each in values if each.is_hydra_override()])
            naming = node.job.config.override_dirname
            with open_dict(node):
                node.job.override_dirname = get_overrides_dirname(
                    own, kv_sep=naming.kv_sep, item_sep=naming.item_sep, exclude_keys=naming.exclude_keys
                )
                if number is not None:
                    node.job.num, node.job.id = number, str(number)
        return composed

    def values(self, overrides: Sequence[str], number: int) -> dict[str, Any]:
        """The plain values of a sweep's job: `plain_values` of what `compose` gives, in less time where nothing of the run
        is said in terms of Hydra's own node, which then need not be copied."""
        from hydra._internal.config_loader_impl import ConfigLoaderImpl

        with translate(overrides):
            parsed = [self._parsed(text) for text in overrides]
            choices = tuple(str(each.input_line) for each in parsed if self._is_choice(each))
            values = [each for each in parsed if not self._is_choice(each)]
            if choices not in self._runs:
                self._runs[choices] = _without_hydra(self._composed_choices(choices))
            if (run := self._runs[choices]) is None or any(each.is_hydra_override() for each in values):
                return plain_values(self.compose(overrides, number))
            composed = copy.deepcopy(run)
            ConfigLoaderImpl._apply_overrides_to_config(values, composed)
        return plain_values(composed)

    def _parsed(self, text: str) -> Any:
        """One override as Hydra's parser reads it. The jobs of a sweep have most overrides in common."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        if text not in self._read:
            (self._read[text],) = OverridesParser.create().parse_overrides([text])
        return self._read[text]

    def _is_choice(self, override: Any) -> bool:
        """Whether Hydra reads an override as the choice of a group (in its defaults list), not as a value."""
        from hydra.core.global_hydra import GlobalHydra

        if override.package is not None or "/" in override.key_or_group:
            return True
        groups = self.groups() if not override.key_or_group.startswith("hydra") else ()
        loader: Any = GlobalHydra.instance().config_loader()
        return override.key_or_group in groups or bool(loader.repository.group_exists(override.key_or_group))

    def _composed_choices(self, choices: tuple[str, ...]) -> Any:
        """What Hydra composes of these choices alone."""
        from hydra import compose

        if choices not in self._chosen:
            lines = [*self.search, *choices]
            self._chosen[choices] = compose(ROOT, overrides=lines, return_hydra_config=True)
        return self._chosen[choices]


def _without_hydra(composed: Any) -> Any:
    """A copy of a composed configuration without Hydra's own node; None where a value refers to that."""
    from omegaconf import OmegaConf, open_dict

    run = copy.deepcopy(composed)
    with open_dict(run):
        del run["hydra"]
    return None if "${hydra" in OmegaConf.to_yaml(run).replace(" ", "") else run


def plain_values(composed: Any) -> dict[str, Any]:
    """The run's part of a composed configuration (all but Hydra's own node) as plain, resolved values."""
    from omegaconf import OmegaConf

    with translate([]):
        values = {str(key): composed[key] for key in composed if key != "hydra"}
        return {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in values.items()
        }


@contextmanager
def composer(config_dir: str | None) -> Iterator[Composer]:
    """Hydra, initialised on the project's configuration and the user's directory."""
    from hydra import initialize_config_dir, initialize_config_module

    with read_once(), hydra_state():
        composing = Composer(config_dir)
        register_schema()
        place: Any = (
            initialize_config_module(PACKAGE, job_name="unipet", **version_base())
            if packaged()
            else initialize_config_dir(os.fspath(conf_dir()), job_name="unipet", **version_base())
        )
        with place:
            yield composing
