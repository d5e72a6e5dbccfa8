"""All finite-width rules, registered."""

from ntk.finite import (
    rules_attention,
    rules_branching,
    rules_dense,
    rules_elementwise,
    rules_graph,
    rules_normalization,
    rules_rearranging,
    rules_spatial,
)
from ntk.finite.network import apply, init

__all__ = [
    "apply",
    "init",
    "rules_attention",
    "rules_branching",
    "rules_dense",
    "rules_elementwise",
    "rules_graph",
    "rules_normalization",
    "rules_rearranging",
    "rules_spatial",
]
