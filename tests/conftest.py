"""What every test stands on: no hub, no tracking server, one thread each. Set before anything heavy is imported."""

from __future__ import annotations

import gc
import os
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",  # torch reads it when it is imported
)

import pytest

from tests.support.checkout import ROOT, SHARED
from tests.support.selection import mark


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests are left to `make matrix`, said in one place."""
    mark(items)


def pytest_collection_finish() -> None:
    """What the imports made stays: do not let every later collection of garbage walk through it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets as JSON lines; only development machines have them, beside the checkout."""
    directory = SHARED / "data"
    if not directory.is_dir():
        pytest.skip("no ../shared/data beside this checkout: the real data sets are not here")
    return directory
