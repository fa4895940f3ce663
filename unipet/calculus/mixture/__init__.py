"""**How many copies**: mixtures of several copies of a function's slots, their routers and reducers."""

from __future__ import annotations

from unipet.calculus.mixture.choices import Mixture
from unipet.calculus.mixture.reducers import REDUCERS
from unipet.calculus.mixture.routers import ROUTERS
from unipet.calculus.mixture.routes import Route, by_expert

__all__ = ["REDUCERS", "ROUTERS", "Mixture", "Route", "by_expert"]
