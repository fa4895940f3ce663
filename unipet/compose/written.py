"""Making Hydra read files and overrides with the package's own YAML reader, so that a scalar means the same everywhere.

Hydra's own reader uses YAML 1.1 (`no` is false), and it turns `1.10` on a command line into a number before the type is
known. Here a text field gets the text as written, and a method's scalars stay as written until its parser reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import file_config_source, importlib_resources_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser import overrides_parser
from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
from hydra.core.override_parser.types import QuotedString
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf._utils import get_omega_conf_dumper

from unipet.calculus.method_files import is_file_name
from unipet.calculus.yaml_reader import Plain, parse_yaml, represent_plain, texts, values
from unipet.compose.schema import METHOD, METHOD_GROUPS, TEXTS, holds_text, kind_at, typed
from unipet.compose.user_files import config_text, method_file, space_file
from unipet.config import RunConfig
from unipet.errors import UnipetError, not_allowed

_KEEPING = ("choice", "shuffle", "extend_list")  # functions of Hydra's grammar that return their arguments unchanged


@contextmanager
def as_written() -> Iterator[None]:
    """Inside, Hydra reads files and overrides with the package's own readers."""
    Plugins.instance()  # registers Hydra's own sources first
    known = SourcesRegistry.instance().types
    before = dict(known)
    known.update(file=FileConfigSource, pkg=ImportlibResourcesConfigSource)
    get_omega_conf_dumper().add_representer(Plain, represent_plain)
    overrides_parser.HydraOverrideVisitor = WrittenOverride
    try:
        yield
    finally:
        overrides_parser.HydraOverrideVisitor = HydraOverrideVisitor
        known.clear()
        known.update(before)


# Both classes are named as Hydra's own. A process that a launcher of Hydra's starts is given what is known here and registers
# Hydra's own sources on top, which is refused for a class of another name.


class FileConfigSource(file_config_source.FileConfigSource):
    """YAML files of a directory. After `method/` and `space/`, the path of any file is allowed as well."""

    def is_config(self, config_path: str) -> bool:
        return _own_file(config_path) is not None or bool(super().is_config(config_path))

    def load_config(self, config_path: str) -> ConfigResult:
        if (path := _own_file(config_path)) is not None:
            return _read_own(self, config_path, path)
        name = self._normalize_file_name(config_path)
        file = Path(self.path) / name
        if not file.is_file():
            return super().load_config(config_path)  # raises Hydra's error
        return _read(self, config_text(file), config_path, str(file))


class ImportlibResourcesConfigSource(importlib_resources_config_source.ImportlibResourcesConfigSource):
    """The same for the files of the installed package. Hydra's own reader reads the files of other packages."""

    def is_config(self, config_path: str) -> bool:
        return (self._is_own and _own_file(config_path) is not None) or bool(super().is_config(config_path))

    def load_config(self, config_path: str) -> ConfigResult:
        if not self._is_own:
            return super().load_config(config_path)
        if (path := _own_file(config_path)) is not None:
            return _read_own(self, config_path, path)
        if not super().is_config(config_path):
            return super().load_config(config_path)  # raises Hydra's error
        file = resources.files(self.path).joinpath(self._normalize_file_name(config_path))
        return _read(self, file.read_text(encoding="utf-8"), config_path, config_path)

    @property
    def _is_own(self) -> bool:
        return bool(self.path.split(".")[0] == "unipet")


def _own_file(config_path: str) -> Path | None:
    """The file that `method=my/file.yaml` or `space=my/file.yaml` chooses, from `method/my/file.yaml`, relative to the working
    directory."""
    group, _, name = config_path.partition("/")
    return Path(os.path.expanduser(name)) if group in ("method", "space") and is_file_name(name) else None


def _read_own(source: ConfigSource, config_path: str, path: Path) -> ConfigResult:
    if config_path.startswith("method/"):
        return _result(source, method_file(path), METHOD, {"package": None}, str(path))
    return _read(source, space_file(path), config_path, str(path))


def _read(source: ConfigSource, text: str, config_path: str, path: str) -> ConfigResult:
    """A file's content, with the types of the key that its header or its group determines."""
    try:
        header = ConfigSource._get_header_dict(text)
    except ValueError as error:
        raise UnipetError(f"{path}: {error}") from None
    tree = parse_yaml(text, path)
    if not isinstance(tree, Mapping | None):
        raise not_allowed(path, values(tree), "a mapping of keys")
    group = config_path.rpartition("/")[0].replace("/", ".")
    if config_path.startswith("space/"):  # a design space says what all of a run is, wherever its file lies
        header = {**header, "package": "_global_"}
    place = (header["package"] or group).replace("_group_", group)
    kind = METHOD if place.split(".")[0] in METHOD_GROUPS else kind_at("" if place == "_global_" else place)
    return _result(source, dict(tree or {}), kind, header, path)


def _result(source: Any, tree: dict[str, Any], kind: Any, header: dict[str, str | None], path: str) -> ConfigResult:
    defaults, hydra = _defaults(tree.pop("defaults", []), path), tree.pop("hydra", None)
    content = typed(tree, kind)
    if hydra is not None:
        content["hydra"] = _hydra(hydra)
    if defaults:
        content = {"defaults": typed(defaults, METHOD), **content}
    config = OmegaConf.create(
        content, flags={"allow_objects": True}
    )  # an unquoted scalar of a method is an object, `Plain`, until the method's parser reads it
    return ConfigResult(config=config, path=source.full_path(), provider=source.provider, header=header)


def _defaults(tree: Any, path: str) -> list[Any]:
    """A defaults list. Raises UnipetError for one that Hydra has no errors for."""
    read = values(tree)
    if not isinstance(read, list):
        raise not_allowed(f"{path}: defaults", read, "a list of `_self_`, names and `group: option`")
    for entry, own in zip(read, tree, strict=True):
        chosen = list(own.items()) if isinstance(own, Mapping) else [(own, None)]
        texts_only = len(chosen) == 1 and _is_option(chosen[0][1]) and isinstance(chosen[0][0], str) and chosen[0][0]
        if entry is None or not texts_only:
            raise not_allowed(f"{path}: defaults", entry, "`_self_`, a name or `group: option`")
    return list(tree)


def _is_option(option: Any) -> bool:
    """Whether a defaults list may choose this of a group: an option, several, or none."""
    one = option is None or (isinstance(option, str) and bool(option))
    return one or (isinstance(option, list) and all(isinstance(each, str) and each for each in option))


def _hydra(tree: Any) -> Any:
    """Hydra's own settings. The parameters of its sweeper are overrides, so they stay texts."""
    read = values(tree)
    sweeper = tree.get("sweeper") if isinstance(tree, Mapping) else None
    if isinstance(sweeper, Mapping) and isinstance(sweeper.get("params"), Mapping):
        read["sweeper"]["params"] = texts(sweeper["params"])
    return read


class WrittenOverride(HydraOverrideVisitor):
    """Hydra's visitor of an override's parse tree, except that texts stay as written."""

    keeps: Any = None  # the type for numbers, truth values and null of this override; None: as Hydra reads them

    def visitOverride(self, ctx: Any) -> Any:
        key = next(child.getText() for child in ctx.getChildren() if type(child).__name__ == "KeyContext")
        kind = kind_at(key)
        if "@" in key or "/" in key or (key in RunConfig.__dataclass_fields__ and not _is_value(kind)):
            self.keeps = str  # the option of a group
        elif kind == METHOD:
            self.keeps = Plain
        elif holds_text(kind) or key.startswith("hydra.sweeper.params."):
            self.keeps = str
        self.kind = kind
        return super().visitOverride(ctx)

    def visitFunction(self, ctx: Any) -> Any:
        keeps = self.keeps
        if ctx.getChild(0).getText() not in _KEEPING:
            self.keeps = None
        try:
            return super().visitFunction(ctx)
        finally:
            self.keeps = keeps

    def visitListContainer(self, ctx: Any) -> Any:
        return self._inside(super().visitListContainer, ctx)

    def visitDictContainer(self, ctx: Any) -> Any:
        return self._inside(super().visitDictContainer, ctx)

    def _inside(self, visit: Any, ctx: Any) -> Any:
        depth, self.depth = getattr(self, "depth", 0), getattr(self, "depth", 0) + 1
        try:
            return visit(ctx)
        finally:
            self.depth = depth

    def _createPrimitive(self, ctx: Any) -> Any:
        read = super()._createPrimitive(ctx)
        if self.keeps is None or isinstance(read, str | QuotedString):
            return read
        if read is None and (self.keeps is Plain or not getattr(self, "depth", 0)):
            return None  # alone it is null; as an element of a list of texts it is a text
        if self.keeps is str and self.kind in TEXTS and not getattr(self, "depth", 0):
            return read  # a single value where a list is needed: the error shows it unchanged
        return self.keeps(ctx.getText().strip())


def _is_value(kind: Any) -> bool:
    return kind is not None and kind != METHOD and not hasattr(kind, "__dataclass_fields__")
