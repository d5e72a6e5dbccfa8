"""All finite-width rules, registered."""

from ntk.finite import rules_branching, rules_dense, rules_elementwise, rules_normalization, rules_spatial
from ntk.finite.network import apply, init

__all__ = [
    "apply",
    "init",
    "rules_branching",
    "rules_dense",
    "rules_elementwise",
    "rules_normalization",
    "rules_spatial",
]
