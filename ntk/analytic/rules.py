"""All propagation rules, registered."""

from ntk.analytic import (
    rules_attention,
    rules_branching,
    rules_dense,
    rules_graph,
    rules_normalization,
    rules_piecewise,
    rules_rearranging,
    rules_smooth,
    rules_spatial,
)
from ntk.analytic.propagate import propagate

__all__ = [
    "propagate",
    "rules_attention",
    "rules_branching",
    "rules_dense",
    "rules_graph",
    "rules_normalization",
    "rules_piecewise",
    "rules_rearranging",
    "rules_smooth",
    "rules_spatial",
]
