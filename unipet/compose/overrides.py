"""All overrides of a command line, checked together before anything runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unipet.calculus.method_files import emptied
from unipet.compose import parse_run_config
from unipet.compose.composer import Composer, plain_values
from unipet.compose.imports import import_modules
from unipet.compose.override import Override, parse, rest, shown
from unipet.compose.override_text import command_line, quoted, value_text
from unipet.compose.schema import TEXTS, holds_text, kind_at
from unipet.compose.search_space import SearchedKey
from unipet.config import RunConfig
from unipet.errors import UnipetError


@dataclass(frozen=True)
class Plan:
    """What a command line asks for."""

    overrides: list[str]  # for Hydra
    multirun: bool
    config: RunConfig  # the run, or in a sweep its first job
    composed: Any  # the same as Hydra composed it, Hydra's own node included
    jobs: int | None  # how many; None when a sweeper other than Hydra's basic one decides
    swept: list[str] = field(default_factory=list)  # keys with several values
    sweep_dir: Path | None = None
    brought: list[Override] = field(default_factory=list)  # by the configuration itself; the command line's come after
    parsed: list[Override] = field(default_factory=list)  # the command line's
    space: list[SearchedKey] = field(default_factory=list)  # what a search chooses; empty without one
    space_of: dict[str, list[SearchedKey]] = field(default_factory=dict)  # the same for single methods

    @property
    def launcher(self) -> str:
        """Which of Hydra's launchers was chosen: "basic" is its default, which leaves launching to ours."""
        return str(self.composed.hydra.runtime.choices.get("hydra/launcher"))


def parse_all(texts: Sequence[str], composer: Composer) -> list[Override]:
    """A whole command line, checked and rewritten."""
    parsed = []
    for text in texts:
        one = parse(text, composer)
        if one.key == "model" and one.text.startswith("model.path="):  # was model=HUB/NAME
            parsed.append(Override("model=auto", "model"))
        if one.text:
            parsed.append(one)
    _check_label(parsed)
    return parsed


def _check_label(parsed: Sequence[Override]) -> None:
    """Raise UnipetError for `model.name=X` alone: records would label another base model's results with X."""
    label = next((one for one in parsed if one.key == "model.name" and "=" in one.text), None)
    if label is not None and not any(one.text.startswith(("model.path=", "model=auto")) for one in parsed):
        name, path = rest(label.text), shlex.quote(f"model.path={rest(label.text)}")
        raise UnipetError(
            f"model.name={name}: this is only the label in records; it does not choose a base model. To choose one, set "
            f"model=NAME (`unipet list models`), or model=auto {path} for a hub name or a directory."
        )


def plan(texts: Sequence[str], multirun: bool, composer: Composer, command: str = "train") -> Plan:
    """Check a whole command line by composing it. Raises one `UnipetError` for the first mistake.

    For a sweep, it checks the first job and the number of jobs; `expand.sweep_jobs` composes them all.
    """
    parsed = parse_all(texts, composer)
    if {"method", "space"} <= {one.key for one in parsed if "=" in one.text}:
        raise UnipetError("method: a design space (search.space, space) has its own method. Give one of the two.")
    first = [one.first for one in parsed]
    composed = composer.compose(first)
    by_config = composed.hydra.mode is not None and composed.hydra.mode.name == "MULTIRUN"
    multirun = multirun or by_config
    several = [one for one in parsed if one.values or one.interval]
    if several and not multirun:
        raise forgotten([*composer.flags, *texts], several[0], command)
    config = checked(plain_values(composed), first, composer)
    searching, basic = config.search.name != "none", composed.hydra.runtime.choices.get("hydra/sweeper") == "basic"
    if not multirun:
        if searching:
            raise UnipetError(f"search={config.search.name}: a search is a sweep. Add -m, or leave search out.")
        return Plan([one.text for one in parsed], False, config, composed, 1, parsed=parsed)
    if any(one.key == "runs_dir" for one in several):
        raise UnipetError(
            "runs_dir: one sweep has one runs_dir, the root of everything it writes. Give a single value."
        )
    brought = sweeper_params(composed, composer)
    _check_single([*brought.values(), *parsed])
    if searching:
        space, brought, parsed = _space(config, brought, parsed, composer)
        space_of = {
            method: [_chosen(each) for each in _listed(keys, f"search.space_of.{method}", composer)]
            for method, keys in config.search.space_of.items()
        }
    elif (
        basic
        and (interval := next((one for one in [*brought.values(), *parsed] if one.searched_alone), None)) is not None
    ):
        raise UnipetError(
            f"{interval.text}: a search must choose among the values of an interval: add search=random "
            "(`unipet train --help` lists the searches), or list values, a,b,c."
        )
    else:
        space, space_of = [], {}
    counts = {key: max(len(one.values), 1) for key, one in brought.items()}
    counts.update({one.key: max(len(one.values), 1) for one in parsed})
    return Plan(
        overrides=[one.text for one in parsed],
        multirun=True,
        config=config,
        composed=composed,
        jobs=product(counts.values()) if basic else None,
        swept=[key for key, count in counts.items() if count > 1],
        sweep_dir=Path(str(composed.hydra.sweep.dir)),
        brought=list(brought.values()),
        parsed=parsed,
        space=space,
        space_of=space_of,
    )


#: What a sweep has one of -> why.
SINGLE = {
    "launcher": "one sweep has one launcher, which runs all of its jobs and changes no result",
    "search": "one sweep has one search, which gives every study the same effort",
}


def _check_single(overrides: Sequence[Override]) -> None:
    """Raise UnipetError for several values of what all jobs of a sweep share."""
    for each in overrides:
        if (why := SINGLE.get(each.key.split(".")[0])) is not None and (len(each.values) > 1 or each.interval):
            raise UnipetError(f"{each.key}: {why}. Give a single value.")


def _space(
    config: RunConfig, brought: Mapping[str, Override], parsed: Sequence[Override], composer: Composer
) -> tuple[list[SearchedKey], dict[str, Override], list[Override]]:
    """The search space, and the other overrides. What the command line says of a key comes before what `search.space` says."""
    typed = {one.key for one in [*brought.values(), *parsed]}
    listed = [one for one in _listed(config.search.space, "search.space", composer) if one.key not in typed]
    searched = [one for one in [*listed, *brought.values(), *parsed] if one.searched is not None]
    every = {one.key: _chosen(one) for one in searched}
    return (
        list(every.values()),
        {key: one for key, one in brought.items() if key not in every},
        [one for one in parsed if one.key not in every and one.key.split(".")[0] != "search"],
    )


def _listed(space: Mapping[str, str], key: str, composer: Composer) -> list[Override]:
    """The keys of a space that stands in a mapping. Raises `UnipetError` where one has nothing to choose."""
    listed = parse_all([f"{name}={value}" for name, value in space.items()], composer)
    if (plain := next((one for one in listed if one.searched is None), None)) is not None:
        raise UnipetError(
            f"{key}.{plain.key}={rest(plain.text)}: a search has nothing to choose there. Write choice(A, B), "
            "range(LOW, HIGH), interval(LOW, HIGH), or tag(log, interval(LOW, HIGH)) for a logarithmic scale. A comma list "
            "alone says what is compared."
        )
    return listed


def _chosen(one: Override) -> SearchedKey:
    """The key of an override that is searched. Raises `UnipetError` for one that makes runs comparable."""
    assert one.searched is not None
    if one.key.split(".")[0] in ("seed", *_NEVER_SEARCHED):
        raise UnipetError(
            f"{one.key}: no search chooses it. " + ("Set search.seeds." if one.key == "seed" else "Give one value.")
        )
    return one.searched


_NEVER_SEARCHED = (
    "task",
    "model",
    "budget",
    "tracking",
    "launcher",
    "search",
    "trial",
    "runs_dir",
    "rerun",
    "checkpoint",
)


def checked(values: Mapping[str, Any], overrides: Sequence[str], composer: Composer) -> RunConfig:
    """The configuration of the run whose plain values `overrides` composed. Imports the modules that it names. Raises
    `UnipetError` for a method from which all insertions were removed, but that still has the name of its file."""
    config = parse_run_config.run_config(values)
    import_modules(config.imports)
    if any(text.startswith("~method.insertions") for text in overrides):
        others = [text for text in overrides if "method." not in text.split("=", 1)[0]]
        choice = composer.compose(overrides).hydra.runtime.choices.get("method")
        if choice is None:  # a design space has a method of its own
            return config
        others = [text for text in others if not text.startswith("method=")] + ["method=" + value_text(str(choice))]
        named = parse_run_config.run_config(plain_values(composer.compose(others))).method
        kept = set(config.method.get("insertions") or {}) & set(named.get("insertions") or {})
        if config.method.get("name") == named.get("name") and named.get("insertions") and not kept:
            raise emptied(str(named["name"]))
    return config


def product(counts: Any) -> int:
    """The number of combinations."""
    total = 1
    for count in counts:
        total *= count
    return total


def sweeper_params(composed: Any, composer: Composer) -> dict[str, Override]:
    """Key -> override, of the overrides that an experiment file contains in hydra.sweeper.params."""
    params = composed.hydra.sweeper.get("params") or {}
    return {str(key): parse(f"{key}={value}", composer) for key, value in params.items()}


def forgotten(texts: Sequence[str], sweep: Override, command: str) -> UnipetError:
    """The error for a comma list without -m."""
    key, value = shown(sweep.text).split("=", 1)
    kind, one = kind_at(key), "takes one" if command not in ("train", "plan") else ""
    listed = shlex.quote(f"{key}=[{value}]")
    as_text = holds_text(kind) and kind not in TEXTS and not {"'", '"'} & set(value)
    other = (
        f"One text with commas: {shlex.quote(f'{key}={quoted(value)}')}"
        if as_text
        else f"For a single list, write {listed}."
    )
    if one:
        asked = "" if as_text else f"Did you mean a list, {listed}?"
        return UnipetError(f"{key}={value}: several values, but `unipet {command}` {one}. {asked or other}")
    return UnipetError(
        f"{key}={value}: several values need -m (one run for each):\n    {command_line(command, ['-m', *texts])}\n{other}"
    )
