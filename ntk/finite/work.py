"""What evaluating a JAX program takes, counted on its jaxpr: flops of products and entries of temporaries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Work:
    """flops: of matrix products and convolutions (two per multiply-add), one per entry otherwise; entries: numbers in
    all values computed."""

    flops: float = 0.0
    entries: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.entries + other.entries)

    def times(self, count: float) -> Work:
        return Work(self.flops * count, self.entries * count)


def work(jaxpr: Any) -> Work:
    """The work of a jaxpr, closed or not. A `while` loop counts as one turn."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    total = Work()
    for eqn in jaxpr.eqns:
        inner = [work(sub).times(eqn.params.get("length", 1)) for sub in _programs(eqn.params)]
        total = total + (sum(inner[1:], start=inner[0]) if inner else _own(eqn))
    return total


def _programs(params: dict[str, Any]) -> list[Any]:
    values = [
        v for value in params.values() for v in (value if isinstance(value, (tuple, list)) else (value,))
    ]
    return [value for value in values if hasattr(getattr(value, "jaxpr", value), "eqns")]


def _own(eqn: Any) -> Work:
    entries = sum(math.prod(getattr(var.aval, "shape", ())) for var in eqn.outvars)
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return Work(2.0 * entries * math.prod(eqn.invars[0].aval.shape[i] for i in contracted), entries)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        outputs = eqn.params["dimension_numbers"].rhs_spec[0]
        return Work(2.0 * entries * math.prod(kernel) / kernel[outputs], entries)
    return Work(float(entries), entries)
