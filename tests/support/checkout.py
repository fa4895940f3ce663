"""Where the checkout is, and what may lie beside it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Real data sets and oracles: only development machines have them. A test that reads them skips where they are not.
SHARED = ROOT.parent / "shared"
