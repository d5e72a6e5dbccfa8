"""What every way of solving (K + λI) A = Y is given and what it must hand back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ntk.linalg.operator import Norms
from pipeline.plan.tiles import TileGrid

ALPHA = "solution/alpha"
"""The coefficients A of every ridge, (ridges, n, outputs), one chunk for each ridge."""


GATE_FACTOR = 2.0
"""The true residual of an iteration may exceed the tolerance by this factor at most."""


@dataclass(frozen=True, slots=True)
class Regression:
    """(K + λI) A = Y for several λ, λ = ridge · mean(diag K).

    Attributes:
        kernel: name of the stored matrix K.
        grid: its tiles.
        ridges: as configured, ascending.
        norms: of K.
    """

    kernel: str
    grid: TileGrid
    ridges: tuple[float, ...]
    norms: Norms

    @property
    def shifts(self) -> tuple[float, ...]:
        """λ of each ridge."""
        return tuple(ridge * self.norms.mean_diagonal for ridge in self.ridges)


@dataclass(frozen=True, slots=True)
class Solved:
    """What a method found for one ridge; its A stands in `ALPHA`.

    Attributes:
        gates: residuals that were checked, as dicts by name.
        figures: what else goes into the metrics of this ridge, JSON values by name.
        left_out: what each training row would have been predicted without itself, (n, outputs), if the method knows.
    """

    gates: dict[str, Any]
    figures: dict[str, Any] = field(default_factory=dict)
    left_out: np.ndarray | None = None
