"""A sweep from Python: what `unipet train -m` does with a command line, for a mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.report.data_frame import check_pandas, results
from unipet.sweeps.hydra_main import Flags, environment
from unipet.sweeps.launch import SWEEP_ID, begun, go
from unipet.sweeps.launchers import check_launcher
from unipet.sweeps.search.checks import check_search

if TYPE_CHECKING:
    import pandas


def sweep(
    choices: Mapping[str, Any],
    runs_dir: str | os.PathLike[str] | None = None,
    launcher: str | Mapping[str, Any] | None = None,
    config_dir: str | os.PathLike[str] | None = None,
) -> pandas.DataFrame:
    """Run every combination of `choices` and return the sweep's runs, as `unipet.results` does.

    `choices` are keys of the command line and their values: `{"task": "sst2", "seed": [0, 1], "optim.lr": [1e-3, 1e-4]}`. A
    list is what is swept; a value that is a list itself stands in a list. `launcher` is a name, or a mapping with the name and
    its options. Without one the jobs run in this very process, one after the other, so that functions registered here are
    known to them. Runs that have finished are not repeated. A failed job is a row with its status and reason. The sweep's
    directory is in `.attrs["directory"]` of what is returned.
    Raises `UnipetError` for a mistake in `choices`, before anything runs.
    """
    check_pandas()
    from unipet.compose.composer import composer
    from unipet.compose.overrides import plan
    from unipet.runs.tracking import check_tracking

    texts = [*_overrides(choices), *_launching(launcher)]
    if runs_dir is not None:
        texts += _overrides({"runs_dir": os.fspath(runs_dir)})
    flags = Flags(multirun=True, config_dir=None if config_dir is None else os.path.expanduser(config_dir))
    with environment(SWEEP_ID, "python"), composer(flags.config_dir) as composing:
        todo = plan(texts, True, composing)
        check_tracking(todo.config.tracking)
        check_launcher(todo.config.launcher)
        check_search(todo)
        if todo.launcher != "basic" or todo.jobs is None:
            raise UnipetError(
                "unipet.sweep: Hydra's own launchers and sweepers are for `unipet train -m`. Leave them out."
            )
        asked = begun(todo, flags, texts, composing)
    go(asked)
    frame = results(asked.directory)
    frame.attrs["directory"] = str(Path(asked.directory))
    return frame


def _overrides(choices: Mapping[str, Any]) -> list[str]:
    """The overrides of a command line that say the same."""
    from unipet.compose.override_text import override, value_text

    if not isinstance(choices, Mapping):
        raise UnipetError(
            f"unipet.sweep: {choices!r:.80} given; allowed: a mapping of keys and values, {{'seed': [0, 1]}}."
        )
    texts = []
    for key, value in choices.items():
        if isinstance(value, str) or not isinstance(value, Sequence):
            texts.append(override(str(key), value))
        elif value:
            texts.append(f"{override(str(key), value[0])}{''.join(f',{value_text(each)}' for each in value[1:])}")
        else:
            raise UnipetError(f"{key}: an empty list has no value to run with. Leave the key out, or give a value.")
    return texts


def _launching(launcher: str | Mapping[str, Any] | None) -> list[str]:
    if launcher is None:
        return ["launcher.isolate=false"]
    options = {"name": launcher} if isinstance(launcher, str) else dict(launcher)
    name = options.pop("name", "local")
    return _overrides({"launcher": name, **{f"launcher.{key}": value for key, value in options.items()}})
