"""The exponent of label coefficients that decay like E (v_kᵀ y)² = c k^{−β}.

One coefficient is nearly a random number: its square has a relative spread of √2 and can be anything below its mean,
so that the logarithm of a power is far from a line though the mean power lies on one. The line log c − β log k is
therefore fitted to the mean, by the quasi-likelihood of the gamma family (Wedderburn 1974), Σ w_k (log μ_k + p_k / μ_k)
with weights w_k = 1 / (k + 10): each decade of ranks counts the same, and the first ten modes, one number each, do
not decide alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import t as student_t

_FEWEST = 20
_SOFTENING = 10


@dataclass(frozen=True, slots=True)
class LabelLaw:
    """Mean power of mode k ≈ coefficient · k^{−exponent} for first ≤ k ≤ last.

    With eigenvalues ∝ k^{−α} on the same ranks and no ridge the error falls like n^{−min(β − 1, 2α)} (Bordelon,
    Canatar & Pehlevan 2020; Spigler, Geiger & Wyart 2020).

    Attributes:
        exponent: β.
        interval: 95 % confidence interval, by a sandwich estimate of its variance and Student's t.
        coefficient: c, summed over outputs.
    """

    exponent: float
    interval: tuple[float, float]
    coefficient: float
    first: int
    last: int


def fit_label_law(power: NDArray[np.floating], first: int = 1, last: int | None = None) -> LabelLaw | None:
    """Fits β on ranks first … last.

    Args:
        power: (modes,) or (modes, outputs), `ntk.spectral.alignment.label_power`, in order of descending eigenvalues.
        first, last: ranks counted from 1, both included; by default all. Those of `fit_power_law` make the two
            exponents comparable.

    Returns:
        None when fewer than twenty ranks are given or they hold no power.
    """
    total = np.asarray(power, np.float64).reshape(len(power), -1).sum(axis=1)
    last = total.size if last is None else last
    if not 1 <= first <= last <= total.size:
        raise ValueError(f"needs 1 <= first <= last <= {total.size}, got {first} and {last}")
    k, p = np.arange(first, last + 1), total[first - 1 : last]
    if k.size < _FEWEST or not np.any(p > 0):
        return None
    w = 1.0 / (k + _SOFTENING)
    w /= w.sum()
    centre = float(w @ np.log(k))
    x = np.column_stack([np.ones(k.size), np.log(k) - centre])
    # The mean power as the unit, and the slope of white labels to start from.
    unit = float(w @ p)

    def misfit(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_mean = x @ theta
        ratio = p / unit * np.exp(-log_mean)
        return float(w @ (log_mean + ratio)), x.T @ (w * (1 - ratio))

    fitted: Any = minimize(misfit, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9})
    level, slope = fitted.x
    bread = np.linalg.inv(x.T @ (w[:, None] * x))
    leverage = w * np.einsum("ki,ij,kj->k", x, bread, x)
    # Each residual is enlarged to what it would be without its own mode (HC3; MacKinnon & White 1985).
    scores = x * (w * (p / unit * np.exp(-x @ fitted.x) - 1) / (1 - leverage))[:, None]
    variance = (bread @ scores.T @ scores @ bread)[1, 1]
    degrees = max(1 / np.sum(w**2) - 2, 1)
    margin = float(student_t.ppf(0.975, degrees) * np.sqrt(variance))
    coefficient = unit * float(np.exp(level - slope * centre))
    return LabelLaw(float(-slope), (float(-slope - margin), float(-slope + margin)), coefficient, first, last)
