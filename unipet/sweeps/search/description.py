"""What a sweep's directory says of its search: the options, the space, and the studies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unipet.compose.search_space import SearchedKey
from unipet.config import SearchConfig
from unipet.errors import UnipetError
from unipet.sweeps.search.draws import Choice
from unipet.sweeps.search.stage_files import SEARCH, json_bytes


@dataclass(frozen=True)
class StudyText:
    """A study by what is typed: `differing` tells it from the others, `overrides` are those of all trials, for Hydra."""

    differing: list[str]
    overrides: list[str]

    @property
    def label(self) -> str:
        """What tells it from the other studies, as one text; empty where there is no other one."""
        return " ".join(self.differing)


@dataclass(frozen=True)
class Search:
    """A search as `search.json` describes it. `known` are the trials of every study that were drawn beforehand."""

    config: SearchConfig
    space: list[SearchedKey]
    studies: list[StudyText]
    known: list[Choice]

    def content(self) -> bytes:
        """The file."""
        return json_bytes(asdict(self))

    @property
    def compared(self) -> int:
        """How many studies there are."""
        return len(self.studies)


def read_search(sweep: Path) -> Search:
    """The search of a sweep. Raises `UnipetError` for a file that is none."""
    path = sweep / SEARCH
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Search(
            SearchConfig(**content["config"]),
            [SearchedKey(**each | {"texts": tuple(each["texts"])}) for each in content["space"]],
            [StudyText(**each) for each in content["studies"]],
            _choices(content["known"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnipetError(
            f"{path}: not the description of a search ({error}). Give the sweep's command again."
        ) from None


def _choices(listed: Sequence[Sequence[Any]]) -> list[Choice]:
    return [tuple(each) for each in listed]
