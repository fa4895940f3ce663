"""Writes docs/reference.md: every option of a method file and of a run, read from the code. `make docs` runs it.

Typed by hand are the introduction and what a method's outermost keys are; `text` fails where those keys are no longer the code's.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.method import UNFREEZE, InsertionSpec, Method
from unipet.calculus.mixture import REDUCERS, ROUTERS, Mixture
from unipet.calculus.sites.position import Position, layer_indices, token_span
from unipet.cli.commands.option_list import KEYS, OptionRow, option_rows, paragraphs, values_of
from unipet.config import DecodingConfig, RunConfig, conf_dir
from unipet.errors import UnipetError
from unipet.runs.tracking import TRACKERS
from unipet.sweeps.launchers import LAUNCHERS
from unipet.sweeps.search.strategies import STRATEGIES
from unipet.tasks.kinds import KINDS
from unipet.tasks.scoring import METRICS
from unipet.tasks.stories import GENERATORS

DOCS = Path(__file__).resolve().parent
MOST = 20  # files of a group that are listed by name

INTRODUCTION = """# Reference

Made by `make docs` from the code; a test compares. Every option of a method file, then every key of a run: its default and
what it may be. [composing.md](composing.md) says how methods are put together, [glossary.md](glossary.md) what the terms mean.

A **key** is the way to one value, through names joined by dots. On the command line, `KEY=VALUE` overrides what files and
defaults say, for all commands that compose a run (`train`, `plan`, `describe`):

```bash
unipet train method=mam method.insertions.ffn.function.size=16 optim.lr=1e-3
unipet train -m method=lora,mam optim.lr=1e-4,1e-3      # with -m, each of several values is a run
unipet train method=lora --cfg job                      # the whole configuration, with every key; nothing runs
unipet list functions low_rank                          # the options of one function, in the terminal
```

NAME stands for a name that the method file chose: of an insertion (`unipet describe method=...` shows them) or of a
regulariser. A group without a dot chooses a file (`optim=full`: `conf/optim/full.yaml`), on top of which single keys apply. A
list is written `[a,b]`; where an option is a list, one value stands for a list of one. Any mistake is one error with the full
key, what is allowed, and the nearest name.

## Contents
"""

#: The keys of a method and of an insertion: default and meaning.
METHOD = {
    "name": ("(required)", "what tables and runs call the method: letters, digits, `_` and `-`"),
    "insertions": ("`{}`", "a mapping from a name to an insertion"),
    "unfreeze": ("`[head]`", "parts of the base model that train as well: a list of {unfreeze}"),
    "objective": ("`{}`", "a mapping from a name to a [regulariser](#objective)"),
    "variables": ("`{}`", "texts to which other values refer in a [design space](search.md#design-spaces)"),
}
INSERTION = {
    "function": ("(required)", "a [function](#functions): its name, or a mapping with `name` and its options"),
    "position": ("(required)", "a mapping with the options of a [position](#position), or a role, or a list of roles"),
    "composition": ("`add`", "a [composition](#compositions): its name, or a mapping with `name` and its options"),
    "scaling": ("`1.0`", "a number, or a [scaling](#scalings): its name, or a mapping with `name` and its options"),
    "mixture": ("`null`", "a mapping with the options of a [mixture](#mixture); null is one copy"),
    "ratio": ("`null`", "in which proportion a budget lets the size grow; 0: it stays; null: as the sizes given"),
}


def refusal(check: Callable[[], object]) -> str:
    """What is allowed, as the error for a value that is not says it."""
    try:
        check()
    except UnipetError as error:
        return str(error).partition("allowed: ")[2].rstrip(".")
    raise AssertionError("nothing was refused")


#: What no field says of itself, since a function checks it or a table lists it.
ALLOWED = {
    "position.site": "a role, or a list of roles (`unipet list sites`)",
    "position.layers": refusal(lambda: layer_indices("?", None, "")),
    "position.tokens": refusal(lambda: token_span("?", "")),
    "position.optional": refusal(lambda: Position(site=["those of site"], optional="?").check("")),
    "task.kind": ", ".join(KINDS),
    "task.generator": f"{', '.join(GENERATORS)} or null",
    "task.metrics": f"a list of: {', '.join(METRICS)}",
    "tracking.name": ", ".join(TRACKERS),
    "launcher.name": ", ".join(LAUNCHERS),
    "search.name": f"none, {', '.join(STRATEGIES)}",
}

REQUIRED = {"position.site"}  # although the field has a default

# -- comments ----------------------------------------------------------------------------------------------------------


def comments_in_code(kind: type) -> dict[str, str]:
    """Field of a dataclass -> the comment above it and beside it."""
    source = inspect.getsource(kind)
    beside: dict[int, str] = {}
    above: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            (above if token.line.lstrip().startswith("#") else beside)[token.start[0]] = token.string.lstrip("# ")
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno
            while first - 1 in above:
                first -= 1
            said = [above[line] for line in range(first, node.lineno)]
            said += [beside[line] for line in range(node.lineno, (node.end_lineno or 0) + 1) if line in beside]
            found[node.target.id] = " ".join(said)
    return {name: said for name, said in found.items() if said and not said.endswith(".py")}


def comments_in_file(path: Path) -> dict[str, str]:
    """Key of a YAML file -> the comment beside it, which further lines may continue."""
    found: dict[str, str] = {}
    key = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if begins := re.match(r"(\w+):.*?\s#\s+(.*)", line):
            key = begins[1]
            found[key] = begins[2]
        elif key and (goes_on := re.match(r"\s{8,}#\s+(.*)", line)):
            found[key] += " " + goes_on[1]
        else:
            key = ""
    return found


def comments(group: str, kind: type) -> dict[str, str]:
    """The comments of the group's default file, else those of the code, else those of the first other file that has one."""
    defaults = (conf_dir() / "config.yaml").read_text(encoding="utf-8")
    chosen = re.search(rf"^  - {group}: (\w+)$", defaults, re.MULTILINE)
    files = sorted((conf_dir() / group).glob("*.yaml"), reverse=True)
    found: dict[str, str] = {}
    for path in files:
        found |= {key: said for key, said in comments_in_file(path).items() if not said.startswith("null:")}
    found |= comments_in_code(kind)
    return found | (comments_in_file(conf_dir() / group / f"{chosen[1]}.yaml") if chosen else {})


# -- tables ------------------------------------------------------------------------------------------------------------


def cell(words: str) -> str:
    """Text as a cell of a table, or a paragraph: nothing in it is a tag or the end of a cell."""
    parts = re.split(r"(`[^`]*`)", words)  # code stays as it is
    shown = [part if part.startswith("`") else part.replace("<", "&lt;") for part in parts]
    return "".join(shown).replace("|", "\\|")


def paragraph(words: str) -> str:
    return cell(words).replace("\\|", "|")


def code(words: str) -> str:
    return words if words.startswith("(") else f"`{words}`"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(header)
    lines = [names, ["---"] * len(names), *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]


def options(rows: Iterable[OptionRow], owner: str = "") -> list[str]:
    cells = []
    for row in rows:
        name = f"{owner}.{row.name}"
        default = "(required)" if name in REQUIRED else code(row.default)
        cells.append((f"`{row.name}`", cell(default), cell(ALLOWED.get(name, row.allowed))))
    return table(("option", "default", "allowed"), cells) if cells else ["", "No options.", ""]


def value(title: str, said: Iterable[str], rows: Iterable[OptionRow], owner: str = "") -> list[str]:
    """A heading, the first paragraph, the options, and what else the docstring says of them."""
    first, *more = said
    key = f" `method.insertions.NAME.{owner}.OPTION`" if owner else ""
    lines = [title, "", paragraph(first) + key, *options(rows, owner)]
    for part in more:
        lines += [paragraph(part), ""]
    return lines


def dimension(title: str, topic: str, word: str, before: str) -> list[str]:
    lines = [f"## {title}", "", before, ""]
    for name, own in values_of(topic).items():
        if topic != "functions" or FUNCTIONS[name].__module__.startswith("unipet."):  # not one of a test's own
            lines += value(f"### {word} `{name}`", own.paragraphs, own.options)
    return lines


def choices(title: str, before: str, table_of: Mapping[str, Any]) -> list[str]:
    """Routers or reducers: what each does, and which options of a mixture it reads."""
    bakes = title == "Reducers"
    rows = [
        (
            f"`{name}`",
            cell(one.words),
            " ".join(f"`{key}`" for key in one.options) or "-",
            *(["yes" if one.bakes else "no"] if bakes else []),
        )
        for name, one in table_of.items()
    ]
    header = ("name", "what it does", "reads", *(["becomes one set of slots"] if bakes else []))
    return [f"### {title}", "", before, *table(header, rows)]


# -- the page ----------------------------------------------------------------------------------------------------------


def of_method() -> list[str]:
    assert [*METHOD] == [field.name for field in dataclasses.fields(Method)] + ["variables"]
    assert ["name", *INSERTION] == [field.name for field in dataclasses.fields(InsertionSpec)]
    parts = ", ".join(f"`{part}`" for part in UNFREEZE)
    rows = [(f"`{key}`", default, what.replace("{unfreeze}", parts)) for key, (default, what) in METHOD.items()]
    inner = [(f"`{key}`", default, what) for key, (default, what) in INSERTION.items()]
    lines = ["## A method", "", "The keys of a method file; on the command line, `method.KEY`.", *table(_KEYS, rows)]
    return [*lines, "The keys of an insertion: `method.insertions.NAME.KEY`.", *table(_KEYS, inner)]


_KEYS = ("key", "default", "what it is")


def dimensions() -> list[str]:
    lines = dimension("Functions", "functions", "Function", f"**What** is computed: f(u). `{KEYS['functions']}.OPTION`")
    lines += dimension(
        "Compositions", "compositions", "Composition", f"**How** s · Δ joins h. `{KEYS['compositions']}.OPTION`"
    )
    scaling = f"**How much**: s. `{KEYS['scalings']}.OPTION`; a number alone is a constant (`scaling: 4.0`)."
    lines += dimension("Scalings", "scalings", "Scaling", scaling)
    lines += value("## Position", paragraphs(Position), option_rows(Position), "position")
    links = {"ROUTERS": "[Routers](#routers)", "REDUCERS": "[reducers](#reducers)"}  # as the docstring calls them
    said = [re.sub("|".join(links), lambda name: links[name[0]], part) for part in paragraphs(Mixture)]
    lines += value("## Mixture", said, option_rows(Mixture), "mixture")
    reads = "An option that only some routers and reducers read is an error where neither does."
    lines += choices("Routers", f"What a training step uses. {reads}", ROUTERS)
    lines += choices("Reducers", "What evaluation makes of the experts.", REDUCERS)
    objective = "Regularisers that training adds to the task's loss. `method.objective.NAME.OPTION`"
    return lines + dimension("Objective", "objectives", "Regulariser", objective)


def of_run() -> list[str]:
    """The keys that stand alone, then a section for each group of keys."""
    fields = {field.name: field for field in dataclasses.fields(RunConfig)}
    groups = {name: kind for name, field in fields.items() if dataclasses.is_dataclass(kind := field.default_factory)}
    alone = [name for name in fields if name not in groups and name != "method"]
    lines = ["## A run", "", "Keys outside all groups. `method` is [above](#a-method), the groups follow."]
    lines[-1] += (
        " `trial` is left out: a search writes it into the configurations of its runs. More: [runs.md](runs.md),"
    )
    lines[-1] += " [precision.md](precision.md)."
    del groups["trial"]
    lines += keys("", option_rows(RunConfig, alone), comments_in_code(RunConfig))
    for name, kind in groups.items():
        assert isinstance(kind, type)
        said = comments(name, kind) | {
            f"decoding.{key}": told for key, told in comments_in_code(DecodingConfig).items()
        }
        lines += [f"## `{name}`", "", paragraph(" ".join(paragraphs(kind))), *_files(name)]
        lines += keys(f"{name}.", option_rows(kind), said)
    return lines


#: What else is to be said of a group.
MORE = {
    "task": "[tasks.md](tasks.md) has an example of each kind.",
    "budget": "[budgets.md](budgets.md) says how sizes are fitted.",
    "launcher": "[sweeps.md](sweeps.md) says which launcher reads what.",
    "search": "[search.md](search.md) says which search reads what.",
}


def _files(group: str) -> list[str]:
    files = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    shown = ", ".join(f"`{name}`" for name in files) if len(files) <= MOST else f"`unipet list {group}s`"
    lines = ["", f"Files for `{group}=NAME`: {shown}."] if files else []
    return [*lines, "", MORE[group]] if group in MORE else lines


def keys(prefix: str, rows: Iterable[OptionRow], said: Mapping[str, str]) -> list[str]:
    def cells() -> Iterator[tuple[str, ...]]:
        for row in rows:
            name = prefix + row.name
            yield (
                f"`{name}`",
                cell(code(row.default)),
                cell(ALLOWED.get(name, row.allowed)),
                cell(said.get(row.name, "")),
            )

    return table(("key", "default", "allowed", "note"), cells())


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def contents(lines: Iterable[str]) -> list[str]:
    """A line for each section, with links to its parts."""
    parts: dict[str, list[str]] = {}
    for line in lines:
        marks, _, title = line.partition(" ")
        if marks == "##":
            parts[f"[{title}](#{anchor(title)})"] = []
        elif marks == "###":
            parts[[*parts][-1]].append(f"[{title.rpartition(' ')[2]}](#{anchor(title)})")
    return [f"- {section}{': ' if inner else ''}{' · '.join(inner)}" for section, inner in parts.items()]


def text() -> str:
    lines = [*of_method(), *dimensions(), *of_run()]
    page = "\n".join([INTRODUCTION, *contents(lines), "", *lines]).rstrip() + "\n"
    return re.sub(r"\n{3,}", "\n\n", page)


if __name__ == "__main__":
    (DOCS / "reference.md").write_text(text(), encoding="utf-8")
