"""All propagation rules, registered."""

from ntk.analytic import (
    rules_branching,
    rules_dense,
    rules_normalization,
    rules_piecewise,
    rules_smooth,
    rules_spatial,
)
from ntk.analytic.propagate import propagate

__all__ = [
    "propagate",
    "rules_branching",
    "rules_dense",
    "rules_normalization",
    "rules_piecewise",
    "rules_smooth",
    "rules_spatial",
]
