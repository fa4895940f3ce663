"""`unipet train`: one run, or with -m a sweep. Hydra composes, `unipet.runs.run` trains; everything is checked before."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from unipet.cli.commands.arguments import Parser, home
from unipet.cli.commands.resume import asks_to_resume, resume
from unipet.sweeps.hydra_main import Flags, call_hydra, environment
from unipet.sweeps.launch import SWEEP_ID, single, sweep

if TYPE_CHECKING:
    from unipet.compose.composer import Composer


def arguments(argv: Sequence[str]) -> tuple[Flags, list[str]]:
    """The flags of `unipet train`, and the overrides before and after them."""
    parser = Parser(prog="unipet train", add_help=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cd", "--config-dir", type=home)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-p", "--package")
    parser.add_argument("-i", "--info", nargs="?", const="all")
    asked = vars(parser.parse_intermixed_args(argv))
    overrides: list[str] = asked.pop("overrides")
    if asked["cfg"] and asked["multirun"]:
        parser.error("--cfg shows the configuration of one run, leave out -m")
    if asked["resolve"] and not asked["cfg"]:
        parser.error("--resolve goes with --cfg")
    return Flags(**asked), overrides


def help_text(composing: Composer) -> str:
    """The text of `unipet train --help`: what can be chosen, the user's own files included."""
    from unipet.calculus.yaml_reader import read_yaml
    from unipet.compose.schema import METHOD_GROUPS
    from unipet.config import conf_dir

    parts = METHOD_GROUPS[1:]
    text = str(read_yaml(conf_dir() / "config.yaml")["hydra"]["help"]["template"])
    for mark, groups in (("$GROUPS", [name for name in composing.groups() if name not in parts]), ("$PARTS", parts)):
        lines = [f"  {name}: {', '.join(composing.options(name))}" for name in groups]
        text = text.replace(mark, "\n".join(lines))
    return text.rstrip()


def main(argv: Sequence[str]) -> int:
    """Exit code 0 when every run is ok, 1 when one failed."""
    from unipet.compose.composer import check_config_dir, composer

    flags, overrides = arguments(argv)
    if flags.help:
        with composer(flags.config_dir) as composing:
            print(help_text(composing))
        return 0
    if flags.hydra_help or flags.info:
        if flags.config_dir:
            check_config_dir(flags.config_dir)
        return call_hydra(lambda composed: None, flags, [])
    if asks_to_resume(overrides):
        return resume(overrides, flags)
    with environment(SWEEP_ID, f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"):
        return _composed(flags, overrides)


def _composed(flags: Flags, overrides: list[str]) -> int:
    from unipet.compose.composer import composer
    from unipet.compose.overrides import parse_all, plan
    from unipet.runs.tracking import check_tracking

    with composer(flags.config_dir) as composing:
        if not flags.cfg:
            todo = plan(overrides, flags.multirun, composing)
            check_tracking(todo.config.tracking)
            return sweep(todo, flags, overrides, composing) if todo.multirun else single(todo, flags)
        texts = [one.text for one in parse_all(overrides, composing)]
    return call_hydra(lambda composed: None, flags, texts)
