"""`unipet list [TOPIC]`: methods, values of the dimensions, sites, tasks, ..., one per line, or one value with its options."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from unipet.cli.commands.arguments import Parser, home, read
from unipet.cli.commands.examples import examples
from unipet.cli.commands.option_list import KEYS, WIDTH, described, values_of
from unipet.errors import UnipetError, unknown

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

        refuse(f"{name}s", overrides)
        directories = [conf_dir()] + ([check_config_dir(config_dir)] if config_dir else [])
        found = {path.stem: path for root in directories for path in sorted((root / name).glob("*.yaml"))}
        return [(stem, description(path)) for stem, path in found.items()]

    return lines


def refuse(topic: str, overrides: Sequence[str]) -> None:
    """Raise `UnipetError` if there are overrides."""
    if overrides:
        raise UnipetError(f"unipet list {topic} takes no overrides, given {' '.join(overrides)}.")


def dimension(topic: str) -> Callable[[Sequence[str], str | None], Lines]:
    """A function that lists the values of a dimension, each with the first paragraph of what it is."""

    def lines(overrides: Sequence[str], config_dir: str | None) -> Lines:
        refuse(topic, overrides)
        return [(name, "".join(value.paragraphs[:1])) for name, value in values_of(topic).items()]

    return lines


def functions(overrides: Sequence[str], config_dir: str | None) -> Lines:
    """Every modification function, also those of the modules that `imports` names."""
    if overrides:  # imports=[my_module]
        from unipet.compose.composer import composer
        from unipet.compose.overrides import plan

        with composer(config_dir) as composing:
            plan(overrides, False, composing, command="list functions")
    return dimension("functions")([], config_dir)


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
    "compositions": dimension("compositions"),
    "scalings": dimension("scalings"),
    "routers": dimension("routers"),
    "reducers": dimension("reducers"),
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


#: Topics whose names are told about elsewhere.
ELSEWHERE = {
    "methods": " `unipet describe method=NAME` shows a method.",
    "sites": " `unipet list sites model=NAME` shows a base model.",
    "tasks": " `unipet describe task=NAME` shows a task.",
}


def main(argv: Sequence[str]) -> int:
    """Print one topic, some of its values with their options, or all topics."""
    parser = Parser(
        prog="unipet list",
        description=f"Topics: {', '.join(TOPICS)}. Without a topic: all of them.",
        epilog=examples("list"),
    )
    parser.add_argument("topic", nargs="?", metavar="TOPIC")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="NAME|KEY=VALUE",
        help=f"for {', '.join(KEYS)}: NAME shows what it is and its options; for sites: model=NAME lists one base model",
    )
    parser.add_argument("-cd", "--config-dir", type=home, metavar="DIR", help="a directory with your own groups")
    parser.add_import()
    asked = read(parser, argv)
    if asked is None:
        return 0
    if asked.topic is not None and asked.topic not in TOPICS:
        raise unknown("unipet list", asked.topic, TOPICS)
    names = [word for word in asked.words if "=" not in word and not word.startswith(("~", "+"))]
    overrides = [word for word in asked.words if word not in names]
    if names and asked.topic not in KEYS:
        raise UnipetError(
            f"unipet list {asked.topic} takes no name, given {names[0]!r:.200}. Topics that do: {', '.join(KEYS)}."
            f"{ELSEWHERE.get(asked.topic, '')}"
        )
    for topic in [asked.topic] if asked.topic else TOPICS:
        if not asked.topic:
            print(f"{topic}:")
        found = TOPICS[topic](overrides, asked.config_dir)
        if names:
            found = "\n\n\n".join([described(topic, name) for name in names])
        print(found if isinstance(found, str) else table(found))
    return 0
