"""`unipet list [TOPIC]`: methods, functions, sites, tasks, models, budgets, objectives and design spaces, one per line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from unipet.cli.commands.arguments import Parser, home, read
from unipet.cli.commands.examples import examples
from unipet.errors import UnipetError, unknown

WIDTH = 120
Lines = list[tuple[str, str]]  # name, description


def description(path: Path) -> str:
    """The first sentence of a YAML file's opening comment, without Hydra's `# @package` line and without commands."""
    words: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UnipetError(
            f"{path}: cannot be read ({error.strerror or error}). Correct its permissions, or move it elsewhere."
        ) from None
    for line in lines:
        text = " ".join(line.lstrip("# ").split())
        if not line.startswith("#") or (words and not text):
            break
        if not text.startswith(("@package", "unipet ")):
            words.append(text.split(" unipet ")[0])
    # a full stop ends the sentence before a capital, but not after "et al"
    return re.split(r"(?<!\bal)\.(?=\s+[A-Z])", " ".join(words).strip())[0].rstrip(".")


def group(name: str) -> Callable[[Sequence[str], str | None], Lines]:
    """A function that lists a configuration group: the shipped files, then the user's own."""

    def lines(overrides: Sequence[str], config_dir: str | None) -> Lines:
        from unipet.compose.composer import check_config_dir
        from unipet.config import conf_dir

        if overrides:
            raise UnipetError(f"unipet list {name}s takes no overrides, given {' '.join(overrides)}.")
        directories = [conf_dir()] + ([check_config_dir(config_dir)] if config_dir else [])
        found = {path.stem: path for root in directories for path in sorted((root / name).glob("*.yaml"))}
        return [(stem, description(path)) for stem, path in found.items()]

    return lines


def functions(overrides: Sequence[str], config_dir: str | None) -> Lines:
    """Every modification function, with the first line of its class's docstring."""
    from unipet.calculus.functions import FUNCTIONS

    if overrides:  # imports=[my_module]
        from unipet.compose.composer import composer
        from unipet.compose.overrides import plan

        with composer(config_dir) as composing:
            plan(overrides, False, composing, command="list functions")
    return [(name, (kind.__doc__ or "").strip().split("\n")[0]) for name, kind in FUNCTIONS.items()]


def sites(overrides: Sequence[str], config_dir: str | None) -> Lines | str:
    """Every role, or with model=NAME the roles of that base model, with its modules and a picture of its layers."""
    from unipet.calculus.sites import ARCHITECTURES, ROLES

    if not overrides:
        has = {role: [name for name, table in ARCHITECTURES.items() if role in table.roles()] for role in ROLES}
        return [(role, f"{what} ({', '.join(has[role])})") for role, what in ROLES.items() if has[role]]
    from unipet.cli.commands.site_list import site_list
    from unipet.compose.composer import composer
    from unipet.compose.overrides import plan

    with composer(config_dir) as composing:
        model = plan(overrides, False, composing, command="list sites").config.model
    return site_list(model)


TOPICS: dict[str, Callable[[Sequence[str], str | None], Lines | str]] = {
    "methods": group("method"),
    "functions": functions,
    "sites": sites,
    "tasks": group("task"),
    "models": group("model"),
    "budgets": group("budget"),
    "objectives": group("objective"),
    "spaces": group("space"),
}


def table(lines: Lines) -> str:
    """The lines as two columns. A long description is wrapped within its column."""
    size = max((len(name) for name, _ in lines), default=0)
    indent = " " * (size + 4)
    return "\n".join(
        textwrap.fill(
            what, WIDTH, initial_indent=f"  {name:<{size}}  ", subsequent_indent=indent, break_on_hyphens=False
        )
        or f"  {name}"
        for name, what in lines
    )


def main(argv: Sequence[str]) -> int:
    """Print one topic, or all of them."""
    parser = Parser(
        prog="unipet list",
        description=f"Topics: {', '.join(TOPICS)}. Without a topic: all of them.",
        epilog=examples("list"),
    )
    parser.add_argument("topic", nargs="?", metavar="TOPIC")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for sites: model=NAME lists one base model")
    parser.add_argument("-cd", "--config-dir", type=home, metavar="DIR", help="a directory with your own groups")
    parser.add_import()
    asked = read(parser, argv)
    if asked is None:
        return 0
    if asked.topic is not None and asked.topic not in TOPICS:
        raise unknown("unipet list", asked.topic, TOPICS)
    for topic in [asked.topic] if asked.topic else TOPICS:
        if not asked.topic:
            print(f"{topic}:")
        found = TOPICS[topic](asked.overrides, asked.config_dir)
        print(found if isinstance(found, str) else table(found))
    return 0
