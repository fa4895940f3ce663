"""The boundaries of the house, read from its source: who may import whom, what stays lazy, and no method in Python."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.checkout import ROOT

PACKAGE = ROOT / "unipet"
SOURCES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))
DIMENSIONS = ("function", "position", "composition", "scaling", "mixture")
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "wandb",
    "hydra",
    "omegaconf",
    "accelerate",
    "scipy",
    "pandas",
    "nltk",
    "sacrebleu",
    "matplotlib",
}

#: Bottom to top, as docs/architecture.md draws them. A room knows itself and the rooms below it, never one above.
ROOMS = (
    *("errors", "config", "output", "calculus", "adaptation"),
    "unipet",  # unipet/__init__.py, the public interface
    *("tasks", "training", "compose", "runs", "report", "sweeps", "cli", "__main__"),
)
MOST_ENTRIES = 15  # of `ls unipet`

#: What of the calculus knows nothing but torch, errors and options: the values of the dimensions.
VALUES = ("calculus/functions/", "calculus/sites/", "calculus/composition", "calculus/scaling", "calculus/mixture")
#: Who alone may know a third-party package.
ONLY = {
    "hydra": ("compose/", "sweeps/", "cli/"),
    "omegaconf": ("compose/",),
    "wandb": ("runs/tracking", "report/"),
    "wandb_workspaces": ("report/",),
    "trackio": ("runs/tracking",),
    "datasets": ("tasks/",),
    "pyarrow": ("tasks/",),
    "scipy": ("report/", "tasks/metrics"),
    "matplotlib": ("cli/", "report/"),
    "altair": ("report/",),
    "vl_convert": ("report/",),
    "jinja2": ("report/page/rendering",),
    "pandas": ("report/data_frame", "sweeps/from_python"),
    "submitit": ("sweeps/slurm",),
    "ray": ("sweeps/ray",),
    "optuna": ("sweeps/search/optuna_study",),
    "yaml": ("calculus/yaml_reader", "compose/hydra_errors"),
}
#: What answers before torch could be loaded.
LIGHT = (
    "__main__",
    "__init__",
    "cli/main",
    "config",
    "errors",
    "output/",
    "calculus/options",
    "runs/record",
    "report/",
)


#: Words that say nothing of what a parameter is.
NAMELESS = {"one", "found", "where", "given", "what"}
#: The methods of a dictionary that change it.
WRITES = {"clear", "pop", "popitem", "setdefault", "update", "__setitem__", "__delitem__"}


def place_of(path: Path) -> str:
    """`unipet/calculus/functions/vector.py` -> `calculus/functions/vector`."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def room_of(path: Path) -> str:
    """`unipet/calculus/functions/vector.py` -> `calculus`; `unipet/__init__.py` -> `unipet`."""
    first = place_of(path).split("/")[0]
    return "unipet" if first == "__init__" else first


def imports(path: Path, module_level: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; everywhere in it, or only those that run when it is imported."""
    package = ("unipet", *path.relative_to(PACKAGE).parts[:-1])
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if module_level and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            module = base if node.level else str(node.module)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def third_party(names: Iterator[str]) -> set[str]:
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"unipet"}


def rooms(names: Iterator[str]) -> set[str]:
    """The package's rooms among the imported names; `from unipet import adapt` is the public interface itself."""
    parts = [name.split(".") for name in names if name.split(".")[0] == "unipet"]
    return {part[1] if len(part) > 1 and part[1] in ROOMS else "unipet" for part in parts}


def test_the_house_has_few_rooms_and_a_map_of_them() -> None:
    listing = subprocess.run(["git", "ls-files", "unipet"], cwd=ROOT, capture_output=True, text=True, check=True)
    entries = {path.split("/")[1] for path in listing.stdout.split()}
    assert len(entries) <= MOST_ENTRIES, sorted(entries)
    assert {room_of(path) for path in SOURCES} == set(ROOMS)
    known = re.findall(r"^## `(\w+)", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [room for room in known if room in ROOMS] == [room for room in ROOMS if room in known]
    assert {room_of(path) for path in SOURCES if path.parent != PACKAGE} <= set(known)


def test_the_map_names_every_file() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = re.split(r"^## `(\w+)", text, flags=re.MULTILINE)[1:]
    said = {
        (room, name)
        for room, part in zip(rooms[::2], rooms[1::2], strict=True)
        for name in re.findall(r"`(\w+)(?:\.py|/)`", part)
    }
    for path in SOURCES:
        room, *rest = path.relative_to(PACKAGE).parts
        if len(rest) == 1 and rest[0] != "__init__.py":
            assert (room, path.stem) in said, f"docs/architecture.md does not say what {room}/{path.name} owns"
        elif len(rest) > 1:
            assert (room, rest[0]) in said, f"docs/architecture.md does not say what {room}/{rest[0]}/ owns"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_keeps_to_its_room(path: Path) -> None:
    place, room, strangers = place_of(path), room_of(path), third_party(imports(path))
    above = {other for other in rooms(imports(path)) if ROOMS.index(other) > ROOMS.index(room)}
    assert not above, f"{room} knows rooms above it: {above}"
    if room == "calculus":
        assert strangers <= {"torch", "yaml"}, f"{room} imports {strangers - {'torch', 'yaml'}}"
    if place.startswith(VALUES):
        inside = {name.split(".")[2] for name in imports(path) if name.startswith("unipet.calculus.")}
        own = place.split("/")[1]
        assert strangers <= {"torch"} and rooms(imports(path)) <= {"errors", "calculus"}
        assert inside <= {"options", own} | ({"functions"} if own != "sites" else set()), f"{place} knows {inside}"
    for package, allowed in ONLY.items():
        assert package not in strangers or place.startswith(allowed), f"only {', '.join(allowed)} may import {package}"
    if place.startswith(LIGHT):
        eager = third_party(imports(path, module_level=True)) & HEAVY
        assert not eager, f"import {eager} where it is used, not when the module loads"


def test_tests_have_the_rooms_of_the_package() -> None:
    """And `project`, for what is no part of the package; no test lies outside a room."""
    tests = ROOT / "tests"
    folders = {path.relative_to(tests).parts[0] for path in tests.rglob("test_*.py")}
    assert folders <= {*ROOMS, "project"}, f"rooms that the package does not have: {folders - {*ROOMS, 'project'}}"
    assert not any("room" in path.stem for path in (tests / "support").iterdir())


def test_every_package_that_is_imported_is_asked_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    optional = [
        extras[name]
        for name in ("plots", "report", "dashboard", "notebook", "trackio", "slurm", "ray", "optuna", "quantised")
    ]
    asked = "\n".join([setup["options"]["install_requires"], *optional])
    wanted = {re.split(r"[ <>=]", line)[0] for line in asked.split("\n")}
    imported = set().union(*(third_party(imports(path)) for path in SOURCES))
    called = {name: name.replace("_", "-") for name in ("rouge_score", "wandb_workspaces")}
    called |= {"hydra": "hydra-core", "yaml": "pyyaml", "vl_convert": "vl-convert-python"}
    assert {called.get(name, name) for name in imported} <= wanted


def test_the_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, unipet, unipet.cli.main; print(*sorted({HEAVY!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


def test_composing_a_sweep_loads_nothing_heavy() -> None:
    """Workers import torch; the command that starts them only composes their jobs, and watches."""
    code = """
import sys, unipet.cli.commands.train, unipet.sweeps.launch, unipet.sweeps.supervisor
from unipet.compose.composer import composer
from unipet.compose.expand import sweep_jobs
from unipet.compose.overrides import plan
with composer(None) as composing:
    jobs = list(sweep_jobs(plan(["method=lora,mam", "seed=0,1"], True, composing), composing))
assert len(jobs) == 4
print(*sorted({"torch", "transformers", "datasets", "scipy", "wandb"} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


#: Files that may have more than 250 lines, since their one concept has them: the schema of a run, one field per line, and the
#: story of a run, which a reader follows from its beginning to the record.
LONG = {"config.py": 368, "runs/run.py": 261}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_small_and_named_for_its_concept(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONG.get(path.relative_to(PACKAGE).as_posix(), 250)
    assert not path.stem.startswith(("util", "helper", "misc", "common"))
    assert path.name == "__init__.py" or ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_written_behind_an_objects_back(path: Path) -> None:
    """No `__dict__`, and what `vars` gives is read only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.Attribute) and node.attr == "__dict__"), node.lineno
        written = (
            node.value
            if isinstance(node, ast.Attribute) and node.attr in WRITES
            else node.value
            if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
            else node.target
            if isinstance(node, ast.AugAssign)
            else None
        )
        called = written.func if isinstance(written, ast.Call) else None
        assert not (isinstance(called, ast.Name) and called.id == "vars"), node.lineno


#: Where report/ and sweeps/ ask a mapping for a key that may not be there, and what mapping it is. A record is none.
PROBED = {
    "report/page/circuit": "an insertion's options, which differ from value to value of a dimension",
    "report/page/command": "a configuration of any version, perhaps with a method of the user's own",
    "report/page/composition": "a method as its configuration wrote it, in full or in short",
    "report/page/effects": "two configurations, each with options that the other may lack",
    "report/page/formulas": "an insertion's options",
    "report/page/layer": "an insertion's options",
    "report/page/methods": "an insertion's options",
    "report/page/serve": "the headers of a request",
    "report/published/csv_file": "a line of a user's CSV",
    "report/published/source_file": "a file of published numbers, which may have no tables",
    "report/resampling": "a line of predictions.jsonl, whose keys differ from kind to kind of task",
    "sweeps/jobs": "the configuration of a job that could not be read",
}


def lookups(path: Path) -> Iterator[tuple[str, str, bool]]:
    """(text, what is asked, whether for a key by name) of every `x.get(...)`; of `x[...]` as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            named = bool(node.args) and isinstance(node.args[0], ast.Constant)
            yield ast.unparse(node), ast.unparse(node.func.value), named
        elif isinstance(node, ast.Subscript):
            yield ast.unparse(node), ast.unparse(node.value), False


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if room_of(path) in ("runs", "report", "sweeps")], ids=place_of
)
def test_a_record_is_never_asked_as_a_mapping(path: Path) -> None:
    assert [text for text, asked, _ in lookups(path) if asked.split(".")[-1] == "record"] == []


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path) in ("report", "sweeps")], ids=place_of)
def test_a_report_probes_no_mapping_but_those_that_have_a_reason(path: Path) -> None:
    probes = [text for text, _, named in lookups(path) if named]
    assert bool(probes) == (place_of(path) in PROBED), probes


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_parameter_is_called_what_it_is(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            names = {argument.arg for argument in every if argument is not None}
            public = not node.name.startswith("_") or node.name == "__init__"
            assert not (public and names & NAMELESS), f"{node.name} has parameters {names & NAMELESS}"


#: Where a method's name in quotes is another thing's name: `init: lora` starts a tensor, `adapter/` is what a run saves,
#: peft's `init_lora_weights` has values that are called as two papers are, vLLM's option is --max-lora-rank, and the adapters
#: library's configurations say `architecture: lora`.
NAMESAKES = {
    "calculus/functions/": {"lora"},
    "runs/record": {"adapter"},
    "adaptation/peft/": {"pissa", "olora", "lora"},
}
NAMESAKES["adaptation/adapters_library/"] = {"lora"}


def method_names() -> set[str]:
    """Names of methods that are not also the name of a value of a dimension (as `prefix` is)."""
    stems = {group: {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} for group in ("method", *DIMENSIONS)}
    return stems["method"] - set().union(*(stems[group] for group in DIMENSIONS)) - {"full", "none", "head_only"}


def words(path: Path) -> Iterator[str]:
    """Every whole string literal, and every word of the text but "adapter": prose needs it for what a run saves."""
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
    yield from set(re.findall(r"\w+", text)) - {"adapter"}
    yield from (node.name.lower() for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_python_names_a_method(path: Path) -> None:
    names = method_names()
    assert len(names) >= 10
    namesakes = (own for place, own in NAMESAKES.items() if place_of(path).startswith(place))
    found = (names & set(words(path))).difference(*namesakes)
    assert not found, f"a method is data; {path.name} names {sorted(found)}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_config_parses_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#"), "the first line says what this is"
    assert isinstance(yaml.safe_load(text), dict | None)


def dimension_tables() -> dict[str, dict[str, type]]:
    from unipet.calculus.composition import COMPOSITIONS
    from unipet.calculus.functions import FUNCTIONS
    from unipet.calculus.objectives import REGULARISERS
    from unipet.calculus.scaling import SCALINGS

    return {"function": FUNCTIONS, "scaling": SCALINGS, "composition": COMPOSITIONS, "objective": REGULARISERS}


@pytest.mark.parametrize("group", ["function", "scaling", "composition", "objective"])
def test_the_group_files_hold_the_defaults_of_the_code(group: str) -> None:
    values = dimension_tables()[group]
    files = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "conf" / group).glob("*.yaml")
    }
    assert set(files) == set(values)
    for name, given in files.items():
        assert given == {"name": name, **dataclasses.asdict(values[name]())}, f"conf/{group}/{name}.yaml"


def test_the_other_dimensions_files_are_values_that_the_code_has() -> None:
    from unipet.calculus.mixture import ROUTERS, Mixture
    from unipet.calculus.sites import Position

    def files(group: str) -> dict[str, dict[str, object]]:
        paths = (ROOT / "conf" / group).glob("*.yaml")
        return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}

    assert files("mixture") == {name: dataclasses.asdict(Mixture(router=name)) for name in ROUTERS}
    known = {field.name for field in dataclasses.fields(Position)}
    assert all(set(given) <= known for given in files("position").values())


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "method").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_method_says_how_to_run_it(path: Path) -> None:
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert re.search(rf"unipet train (-m )?method={path.stem}\b", " ".join(comments))
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["name"] == path.stem


def test_no_machine_path_in_any_file() -> None:
    pattern = re.compile(r"(^|[^\w.-])/(work|farm|root|opt|home|tmp)/", re.MULTILINE)
    folders = ("unipet", "conf", "tests", "docs", "experiments", "benchmarks", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    text = {".py", ".yaml", ".md", ".cfg", ".toml", ".txt", ".csv", ".json", ".svg", ""}
    for path in files:
        if path.suffix in text and path.name != ".git":
            assert not pattern.search(path.read_text(encoding="utf-8")), path.relative_to(ROOT)


def test_every_public_name_is_explained() -> None:
    import unipet

    for name in unipet.__all__:
        value = getattr(unipet, name)
        assert not callable(value) or (value.__doc__ or "").strip(), name
