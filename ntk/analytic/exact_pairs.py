"""Kernels of single pairs of rows in float64, exact where their angle is nearly 0 or π, to fill the holes of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from ntk.analytic import spatial
from ntk.analytic.costs import cost
from ntk.analytic.kernel import paired_kernel
from ntk.analytic.sides import DeviceSide, Side, both, padded
from ntk.analytic.staging import Staged
from ntk.analytic.strips import shared_out
from ntk.device import compiled
from ntk.stax.layer import Layer

#: Pairs per call: for the handful of a block that is in doubt, and for rows with themselves.
_PAIRS, _ROWS = 64, 512
#: The first of these for inputs with positions on a CPU, which fill its caches sooner.
_PAIRS_OF_POSITIONS = 16
#: Bytes of temporaries of such a call: with residuals a pair takes about twice what its covariances alone take.
_PAIRS_BYTES = 2**27


@lru_cache(maxsize=256)
def _paired(layer: Layer, names: tuple[str, ...], itself: bool) -> Any:
    def run(side1: DeviceSide, side2: DeviceSide) -> dict[str, jax.Array]:
        x1, x2, graphs = both(side1, side2)
        return paired_kernel(layer, x1, x2, names, graphs=graphs, itself=itself)

    return compiled(run)


@dataclass(frozen=True, slots=True)
class ExactPairs:
    """`names`, kernels of an architecture for inputs of `input_shape`, pair by pair.

    staged: its plan, where it has one. grain: rows of the blocks of the tile, which bound what a call takes at once.
    """

    architecture: Layer
    input_shape: tuple[int, ...]
    names: tuple[str, ...]
    staged: Staged | None
    grain: int

    def __call__(
        self, side1: Side, side2: Side, rows: np.ndarray, columns: np.ndarray, itself: bool = False
    ) -> dict[str, np.ndarray]:
        """float64 kernels of row rows[i] of one side with row columns[i] of the other; `itself`: of neighbouring rows
        with themselves."""
        run = (
            _paired(self.architecture, self.names, itself)
            if self.staged is None
            else spatial.paired(self.staged, self.names, itself)
        )
        size = self._at_once(itself)
        parts: list[dict[str, np.ndarray]] = []
        with jax.enable_x64(True):
            for start in range(0, len(rows), size):
                one, two = rows[start : start + size], columns[start : start + size]
                if itself:  # neighbours in memory, which need not be gathered
                    one = two = slice(one[0], one[-1] + 1)
                first = padded(tuple(a[one] for a in side1), size, np.float64)
                second = first if itself else padded(tuple(a[two] for a in side2), size, np.float64)
                part = run(first, second)
                count = len(rows[start : start + size])
                parts.append({name: np.asarray(value)[:count] for name, value in part.items()})
        return {name: joined([part[name] for part in parts]) for name in self.names}

    def _at_once(self, itself: bool) -> int:
        """Pairs per call of the paired kernel within the memory of a block. One size for every call: values depend on
        it in the last bit."""
        wanted = shared_out(self.grain, _ROWS) if itself else _PAIRS
        if self.staged is not None:
            on_cpu = spatial.device() == "cpu" and not itself
            return spatial.pairs_at_once(self.staged, _PAIRS_OF_POSITIONS if on_cpu else wanted)
        per_pair = 2 * cost(self.architecture, self.input_shape, get=self.names).bytes_per_pair
        return max(1, min(wanted, int(_PAIRS_BYTES / per_pair)))


def joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0)
