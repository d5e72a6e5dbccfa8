"""All propagation rules, registered."""

from ntk.analytic import rules_dense, rules_elementwise
from ntk.analytic.propagate import propagate

__all__ = ["propagate", "rules_dense", "rules_elementwise"]
