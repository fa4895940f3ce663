"""What a sweep's directory says of its search: the options, the space, and the studies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unipet.compose.search_space import SearchedKey, SearchSpace
from unipet.config import SearchConfig
from unipet.errors import UnipetError
from unipet.sweeps.search.candidates import Discarded
from unipet.sweeps.search.draws import Choice
from unipet.sweeps.search.stage_files import SEARCH, json_bytes

BESIDE = "(random search beside)"


@dataclass(frozen=True)
class StudyText:
    """A study by what is typed: `differing` tells it from the others, `overrides` are those of all trials, for Hydra.
    `known` are its trials that were drawn beforehand, `discarded` the candidates that were left out; `beside`: random search at
    the effort of the study with the same `differing`."""

    differing: list[str]
    overrides: list[str]
    space: SearchSpace
    known: list[Choice]
    designed: bool = False  # its space has keys of the method, so that a judge looks at every candidate
    beside: bool = False
    discarded: Discarded = field(default_factory=Discarded)

    @property
    def label(self) -> str:
        """What tells it from the other studies, as one text; empty where there is no other one."""
        return " ".join([*self.differing, *([BESIDE] if self.beside else [])])


@dataclass(frozen=True)
class Search:
    """A search as `search.json` describes it."""

    config: SearchConfig
    studies: list[StudyText]

    def content(self) -> bytes:
        """The file."""
        studies = [asdict(study) | {"discarded": study.discarded.to_dict()} for study in self.studies]
        return json_bytes({"config": asdict(self.config), "studies": studies})

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
            [_study(each) for each in content["studies"]],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnipetError(
            f"{path}: not the description of a search ({error}). Give the sweep's command again."
        ) from None


def _study(content: Mapping[str, Any]) -> StudyText:
    space = SearchSpace(*(_keys(content["space"][name]) for name in ("common", "own")))
    return StudyText(
        content["differing"],
        content["overrides"],
        space,
        [tuple(each) for each in content["known"]],
        content["designed"],
        content["beside"],
        Discarded.from_dict(content["discarded"]),
    )


def _keys(listed: Sequence[Mapping[str, Any]]) -> list[SearchedKey]:
    return [SearchedKey(**{**each, "texts": tuple(each["texts"])}) for each in listed]
