"""The infinite-width interpreter: one rule per layer, state in, state out.

Rules live by subject in `rules_*.py`; importing `ntk.analytic.rules` registers all of them.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from ntk.analytic.state import Covariance
from ntk.errors import ArchitectureError
from ntk.stax.combinators import Parallel, Serial

State = Covariance | tuple["State", ...]


@singledispatch
def propagate(layer: Any, state: Any) -> Any:
    """The covariances after `layer` (Covariance → Covariance; tuples of them between FanOut and FanIn).

    The architecture is taken to have passed `ntk.stax.signal.trace`. Raises ArchitectureError for a layer without an
    infinite-width kernel.
    """
    raise ArchitectureError(f"{type(layer).__name__} has no infinite-width kernel")


@propagate.register
def _(layer: Serial, state: Any) -> Any:
    for inner in layer.layers:
        state = propagate(inner, state)
    return state


@propagate.register
def _(layer: Parallel, state: Any) -> Any:
    return tuple(propagate(branch, s) for branch, s in zip(layer.layers, state, strict=True))
