"""`unipet train resume=RUN`: go on with the run in a directory, exactly as it began."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError

if TYPE_CHECKING:
    from unipet.config import RunConfig
    from unipet.sweeps.hydra_main import Flags

KEY = "resume"
#: What may be given beside it: how the run is watched and where it runs, and whose modules it needs.
BESIDE = ("tracking", "checkpoint", "launcher", "imports")


def asks_to_resume(overrides: Sequence[str]) -> bool:
    """Whether a command line names a run to go on with."""
    return any(text.split("=", 1)[0] == KEY for text in overrides)


def resume(overrides: Sequence[str], flags: Flags) -> int:
    """Go on with the run; 0 when it is ok, 1 when it failed. A finished run is not repeated."""
    from unipet.runs.tracked_summary import own_files
    from unipet.sweeps import closing, jobs

    named = [text for text in overrides if asks_to_resume([text])]
    if not (typed := named[0].partition("=")[2]):
        raise UnipetError(
            f"{KEY}: no run is named. Write {KEY}=RUN, the directory of a run; `unipet runs` lists what there is."
        )
    directory = Path(os.path.expanduser(typed))
    if len(named) > 1 or flags.multirun or flags.cfg:
        raise UnipetError(f"{named[0]}: goes on with one run. Leave out -m, --cfg and every further {KEY}=.")
    others = [text for text in overrides if text not in named]
    config, folder, root = _configuration(directory, others, flags)
    here = Path.cwd()

    def announce(place: Path) -> None:
        if place.resolve() != root:
            raise UnipetError(
                f"{named[0]}: what {directory} is the run of has changed: its data, its base model, or its directory's name. "
                f"Its configuration now means the run {os.path.relpath(place, here)}. Nothing was done."
            )

    root = root.resolve()
    with contextlib.chdir(folder), own_files(flags.config_dir):
        done = jobs.train(config, announce)
        place = done.directory.resolve()
    print(closing.summary(done.record, Path(os.path.relpath(place, here))))
    return 0 if done.record.status != "failed" else 1


def _configuration(directory: Path, others: Sequence[str], flags: Flags) -> tuple[RunConfig, Path, Path]:
    """The run's configuration with what was given beside it, the folder that its relative paths begin at, and its directory:
    an unfinished repetition (`attempt`) is one of the run around it."""
    from unipet.runs.record_files import ATTEMPT, CONFIG, RESULT, read_config, read_record

    for name in (RESULT, CONFIG):
        if not (directory / name).is_file():
            raise UnipetError(
                f"{KEY}={directory}: no {name} there, so it is not a run's directory. Give one, such as "
                f"{KEY}=runs/METHOD-sst2-s0-1a2b3c4d; `unipet runs` lists what there is."
            )
    config, record = read_config(directory / CONFIG), read_record(directory / RESULT)
    config.rerun = directory.name == ATTEMPT and (directory.parent / RESULT).is_file()
    root = directory.parent if config.rerun else directory
    folder = root / str(record.folder or "")
    folder = folder if folder.is_dir() else Path()
    if (folder / config.runs_dir).resolve() != root.resolve().parent:  # the run was moved without its folder
        config.runs_dir = str(root.resolve().parent)
    needed, config.imports = config.imports, []
    _put_beside(config, others, flags)
    if set(needed) - set(config.imports):
        asked = shlex.quote(f"imports=[{','.join(needed)}]")
        raise UnipetError(
            f"{KEY}={directory}: the run needs modules of your own ({', '.join(needed)}), and what a run's file names is not "
            f"imported by itself. Name them again: unipet train {shlex.quote(f'{KEY}={directory}')} {asked}"
        )
    return config, folder, root


def _put_beside(config: RunConfig, others: Sequence[str], flags: Flags) -> None:
    """Take into `config` what the overrides `others` say. Raises `UnipetError` for one that would make it another run."""
    from unipet.compose.composer import composer
    from unipet.compose.overrides import parse_all, plan
    from unipet.runs.tracking import check_tracking

    for text in others:
        if text.lstrip("+").split("=", 1)[0].split(".")[0] not in BESIDE:
            raise UnipetError(
                f"{text}: {KEY}=RUN goes on with a run exactly as it began; beside it only {', '.join(BESIDE)} can be given. "
                f"Leave it out, or start another run without {KEY}=."
            )
    if not others:
        return
    with composer(flags.config_dir) as composing:
        keys = [override.key for override in parse_all(others, composing)]
        composed = plan(others, False, composing).config
    for key in keys:
        source: Any = composed
        target: Any = config
        *groups, last = key.split(".")
        for group in groups:
            source, target = getattr(source, group), getattr(target, group)
        if hasattr(target, last):
            setattr(target, last, getattr(source, last))
    check_tracking(config.tracking)
