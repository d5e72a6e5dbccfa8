"""All finite-width rules, registered."""

from ntk.finite import rules_dense, rules_elementwise
from ntk.finite.network import apply, init

__all__ = ["apply", "init", "rules_dense", "rules_elementwise"]
