"""The exponent of a spectrum that decays like λ_k ≈ c k^{−α}.

Ordinary least squares on (log k, log λ_k) has two faults: ninety per cent of its points lie in the last
decade of ranks, and its standard error assumes independent residuals where neighbouring eigenvalues go up
and down together. Here every rank k has weight 1/k, the measure d log k, so that each decade counts the
same; the standard error comes from the block jackknife (Künsch 1989), which leaves out whole stretches of
ranks; and the range is the longest over which a straight line describes the spectrum, above the noise floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

# A line is accepted while the eigenvalues stay within about 10 % of it (rms, on average over log k).
_STRAIGHT = 0.1
_FEWEST = 10
_SPAN = 8.0
# Few, so that residuals correlated over a unit of log k are nearly independent from one block to the next.
_BLOCKS = 5
_CANDIDATES = 60


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """λ_k ≈ coefficient · k^{−exponent} for first ≤ k ≤ last (ranks counted from 1, both included).

    Attributes:
        exponent: α.
        standard_error: of α, by block jackknife over five stretches of equal length in log k.
        interval: 95 % confidence interval of α by Student's t, given the range. Of simulated spectra of 12 to 3,000
            eigenvalues it held α in 95 to 98 % with residuals independent or correlated (as e^{−Δ log k / ℓ}) over
            ℓ = 0.3 of log k at most, in 90 to 95 % over ℓ = 1, where residuals begin to look like another slope, and in
            86 to 89 % over ℓ = 3.
        coefficient: c.
        r2: weighted share of the variance of log λ explained.
        straight: whether the range was found by the 10 % criterion. If no range of a factor 8 in rank met it, the fit
            covers all ranks above the noise floor, and the spectrum is not a power law.
    """

    exponent: float
    standard_error: float
    interval: tuple[float, float]
    coefficient: float
    first: int
    last: int
    r2: float
    straight: bool


def fit_power_law(eigenvalues: NDArray[np.floating], floor: float = 0.0) -> PowerLaw | None:
    """Fits α on an automatically chosen range of ranks.

    Args:
        eigenvalues: (n,), any order.
        floor: eigenvalues at or below it are not interpreted (`ntk.spectral.stability.noise_floor`).

    Returns:
        None when fewer than 10 eigenvalues lie above the floor: a line through fewer is no evidence.
    """
    values = np.sort(np.asarray(eigenvalues, np.float64))[::-1]
    values = values[values > max(floor, 0.0)]
    if values.size < _FEWEST:
        return None
    sums = _Sums(values)
    window = _longest_straight_window(sums)
    first, last = window or (1, values.size)
    line = sums.line(first, last)
    error, degrees = _jackknife(sums, first, last, line.slope)
    margin = float(student_t.ppf(0.975, degrees)) * error
    return PowerLaw(
        exponent=-line.slope,
        standard_error=error,
        interval=(-line.slope - margin, -line.slope + margin),
        coefficient=float(np.exp(line.intercept)),
        first=first,
        last=last,
        r2=line.r2,
        straight=window is not None,
    )


@dataclass(frozen=True, slots=True)
class _Line:
    slope: float
    intercept: float
    rms: float
    r2: float


class _Sums:
    """Prefix sums of the weighted moments, so that the fit on any window costs O(1)."""

    def __init__(self, values: NDArray[np.float64]):
        k = np.arange(1, values.size + 1, dtype=np.float64)
        w = 1 / k
        # Logs are centred first: the sums then hold no large offsets that would cancel.
        self.x0, self.y0 = float(np.mean(np.log(k))), float(np.mean(np.log(values)))
        x, y = np.log(k) - self.x0, np.log(values) - self.y0
        moments = np.stack([w, w * x, w * y, w * x * x, w * x * y, w * y * y])
        self._sums = np.concatenate([np.zeros((6, 1)), np.cumsum(moments, axis=1)], axis=1)
        self.size = values.size

    def moments(self, first: int, last: int) -> NDArray[np.float64]:
        return self._sums[:, last] - self._sums[:, first - 1]

    def line(self, first: int, last: int, without: tuple[int, int] | None = None) -> _Line:
        """The weighted least-squares line on ranks first … last, perhaps without some ranks inside."""
        m = self.moments(first, last)
        if without is not None:
            m = m - self.moments(*without)
        x, y, xx, xy, yy = m[1:] / m[0]
        vx, vy, cov = xx - x * x, max(yy - y * y, 0.0), xy - x * y
        slope = cov / vx
        misfit = max(vy - slope * cov, 0.0)
        intercept = (y + self.y0) - slope * (x + self.x0)
        # A flat spectrum has nothing to explain; its line (of slope 0) explains all of it.
        r2 = 1 - misfit / vy if vy > 1e-24 else 1.0
        return _Line(float(slope), float(intercept), float(np.sqrt(misfit)), float(r2))


def _longest_straight_window(sums: _Sums) -> tuple[int, int] | None:
    """Longest in log k; of equally long ones (to 1 %) the straightest."""
    edges = np.unique(np.geomspace(1, sums.size, _CANDIDATES).round().astype(int))
    best: tuple[int, float, int, int] | None = None
    for first in edges:
        for last in edges:
            if last - first + 1 < _FEWEST or last < _SPAN * first:
                continue
            rms = sums.line(int(first), int(last)).rms
            if rms > _STRAIGHT:
                continue
            rank = (round(100 * float(np.log(last / first))), -rms, int(first), int(last))
            best = rank if best is None else max(best, rank)
    return None if best is None else best[2:]


def _jackknife(sums: _Sums, first: int, last: int, slope: float) -> tuple[float, float]:
    """√(Σ_b (α_b − α)²), where α_b is the exponent without block b (Künsch 1989), and its degrees of freedom.

    Blocks of low ranks hold few eigenvalues and vary most. So the differences are taken to the exponent itself and not
    made smaller, as for residuals of high leverage (HC3; MacKinnon & White 1985), and the degrees of freedom are fewer
    where few of them make up the sum (Satterthwaite 1946); a line through so many blocks leaves two fewer.
    """
    cuts = np.geomspace(first, last + 1, _BLOCKS + 1).round().astype(int)
    # Low ranks are too few for blocks of equal length in log k; each block keeps at least one.
    for b in range(1, _BLOCKS):
        cuts[b] = min(max(cuts[b], cuts[b - 1] + 1), last + 1 - (_BLOCKS - b))
    slopes = [sums.line(first, last, (int(a), int(b) - 1)).slope for a, b in pairwise(cuts)]
    squares = (np.array(slopes) - slope) ** 2
    total = float(squares.sum())
    spread = float(np.sum((squares / total) ** 2)) if total > 0 else 1 / _BLOCKS
    # E d⁴ = 3 (E d²)² for a normal d.
    return float(np.sqrt(total)), min(max(3 / spread - 2, 1.0), _BLOCKS - 2.0)
