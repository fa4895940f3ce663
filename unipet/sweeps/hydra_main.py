"""Handing over to Hydra: one composed run as hydra.main does it, Hydra's own answers, and sweeps with launchers of Hydra's."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from unipet.compose.composer import ROOT, config_path, hydra_state, register_schema, version_base
from unipet.compose.hydra_errors import translate
from unipet.output import libraries
from unipet.runs.tracked_summary import own_files


@dataclass(frozen=True)
class Flags:
    """The command line but for its overrides."""

    multirun: bool = False
    config_dir: str | None = None
    help: bool = False
    hydra_help: bool = False
    cfg: str | None = None
    resolve: bool = False
    package: str | None = None
    info: str | None = None

    def line(self) -> list[str]:
        """As hydra.main reads them."""
        switches = [
            f"--{name.replace('_', '-')}"
            for name in ("multirun", "help", "hydra_help", "resolve")
            if getattr(self, name)
        ]
        values = [
            f"--{name}={value}" for name in ("cfg", "package", "info") if (value := getattr(self, name)) is not None
        ]
        return switches + values + self.config()

    def config(self) -> list[str]:
        """What a single job of the sweep needs of them."""
        return ["--config-dir", self.config_dir] if self.config_dir else []


def run_composed(task: Callable[[Any], None], composed: Any) -> None:
    """What hydra.main does with one run once it is composed: logging, callbacks, environment and directory of the job."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import configure_log, run_job
    from hydra.types import HydraContext, RunMode

    hydra = composed.hydra
    hydra.mode = RunMode.RUN
    configure_log(hydra.hydra_logging, hydra.verbose)
    callbacks = Callbacks(composed)
    callbacks.on_run_start(config=composed, config_name=ROOT)
    context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=callbacks)
    done = run_job(task, composed, "hydra.run.dir", job_subdir_key=None, hydra_context=context)
    callbacks.on_run_end(config=composed, config_name=ROOT, job_return=done)
    _ = done.return_value  # raises what the job raised


def call_hydra(task: Callable[[Any], Any], flags: Flags, overrides: Sequence[str]) -> int:
    """Hand over to hydra.main with its own command line. Errors of Hydra come out as `UnipetError`."""
    import hydra

    line = [*flags.line(), *overrides]
    hydra_answers = bool(flags.help or flags.hydra_help or flags.cfg or flags.info)
    with (
        libraries.speaking(hydra_answers),
        hydra_state(),
        environment("HYDRA_FULL_ERROR", "1"),
        command_line(line),
        translate(overrides),
        own_files(flags.config_dir),
    ):
        register_schema()
        try:
            hydra.main(config_path=config_path(), config_name=ROOT, **version_base())(task)()
        except SystemExit as end:  # hydra's own --help, --info
            return int(end.code or 0)
    return 0


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """An environment variable, for the time inside."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def command_line(rest: Sequence[str]) -> Iterator[None]:
    """sys.argv, where hydra.main looks, for the time inside."""
    before = sys.argv
    sys.argv = ["unipet train", *rest]
    try:
        yield
    finally:
        sys.argv = before
