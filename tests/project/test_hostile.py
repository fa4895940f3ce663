"""Files of a stranger: each ends in one clear error, soon, in little memory, and nothing outside of them is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hostile import CASES, MIB, SECONDS, TEXT, World, build_world, tried


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("hostile") / "world")


@pytest.mark.parametrize("kind", sorted({case.kind for case in CASES}))
def test_one_error_and_nothing_touched(kind: str, world: World, tmp_path: Path) -> None:
    for number, case in enumerate(case for case in CASES if case.kind == kind):
        outcome = tried(case, world, tmp_path / str(number) / kind)
        said = outcome.error.removeprefix("error: ")
        assert outcome.error.startswith("error: ") and said, f"{case.name}: it was taken"
        assert "\n" not in said and "Traceback" not in said and len(said) < TEXT, f"{case.name}: {said}"
        assert not outcome.touched, f"{case.name}: {outcome.touched}"
        assert outcome.seconds < SECONDS and outcome.mib < MIB, f"{case.name}: {outcome}"


def test_honest_files_are_taken(world: World, tmp_path: Path) -> None:
    """Otherwise the errors above would say nothing."""
    from dataclasses import replace

    for kind in sorted({case.kind for case in CASES} - {"sites"}):
        first = next(case for case in CASES if case.kind == kind)
        honest = replace(first, make=lambda world, place: None)
        assert tried(honest, world, tmp_path / "honest" / kind).error == "", kind


def test_the_watch_sees_what_is_touched(world: World, tmp_path: Path) -> None:
    """An import, a file that is written and a secret that is told are all seen."""
    import sys
    from dataclasses import replace

    def touch(world: World, place: Path) -> None:
        place.mkdir(exist_ok=True)
        __import__("evil_module")

    case = replace(next(case for case in CASES if case.kind == "adapter"), make=touch)
    sys.path.insert(0, str(world.outside))
    try:
        outcome = tried(case, world, tmp_path / "touched" / "adapter")
    finally:
        sys.path.remove(str(world.outside))
        del sys.modules["evil_module"]
        (world.outside / "imported").unlink()
    assert outcome.touched == ("import of evil_module",)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60 and len({(case.kind, case.name) for case in CASES}) == len(CASES)
