"""What the spectrum says about gradient descent, and how far down the spectrum it may be believed.

Convention: full-batch gradient descent on ½‖f − y‖², summed (not averaged) over the n training rows, in the
linearised regime f ← f − η K (f − y) (Lee et al. 2019, §2.2). For the mean over rows multiply learning
rates by n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, slots=True)
class ConditionNumber:
    """λ_max / λ_min, or a bound below it.

    Attributes:
        value: the ratio; when not resolved, λ_max over the noise floor.
        resolved: whether λ_min rises above the noise floor. If not, the condition number is at least `value`.
    """

    value: float
    resolved: bool


def noise_floor(lambda_max: float, n: int, dtype: DTypeLike) -> float:
    """n ε λ_max: computed eigenvalues carry absolute errors of this size (Weyl; Golub & Van Loan 2013, §8.1).

    Args:
        lambda_max: the largest |λ|.
        n: rows of the matrix.
        dtype: the least precise of the dtypes in which the matrix was computed, stored and decomposed.
    """
    return n * float(np.finfo(dtype).eps) * abs(lambda_max)


def condition_number(eigenvalues: NDArray[np.floating], floor: float) -> ConditionNumber:
    """λ_max / λ_min of all n eigenvalues, or the bound λ_max / floor when λ_min is not above `floor`.

    Raises:
        ValueError: λ_max is not above the floor, so that nothing is known.
    """
    largest, smallest = float(np.max(eigenvalues)), float(np.min(eigenvalues))
    if not largest > floor >= 0:
        raise ValueError(f"the largest eigenvalue {largest:.3g} must exceed the noise floor {floor:.3g} >= 0")
    resolved = smallest > floor
    bottom = smallest if resolved else floor
    return ConditionNumber(largest / bottom if bottom > 0 else float("inf"), resolved)


def max_learning_rate(lambda_max: float) -> float:
    """2 / λ_max: gradient descent on ½‖f − y‖² diverges above it (LeCun, Simard & Pearlmutter 1992).

    This is the rate for the sum over rows; for ½ times the mean over n rows it is 2 n / λ_max.
    """
    if not lambda_max > 0:
        raise ValueError(f"the largest eigenvalue must be > 0, got {lambda_max}")
    return 2.0 / lambda_max


def time_constants(
    eigenvalues: NDArray[np.floating], learning_rate: float, floor: float = 0.0
) -> NDArray[np.float64]:
    """1 / (η λ_k): steps in which the residual along mode k shrinks by e under gradient flow.

    The residual of mode k after t steps is e^{−η λ_k t} (Lee et al. 2019, §2.2; Arora et al. 2019, theorem
    4.1).

    Returns:
        (k,) steps; NaN for modes at or below `floor`, of which nothing is known.
    """
    if not learning_rate > 0:
        raise ValueError(f"the learning rate must be > 0, got {learning_rate}")
    known = eigenvalues > max(floor, 0.0)
    return np.divide(1.0, learning_rate * eigenvalues, out=np.full(eigenvalues.shape, np.nan), where=known)


def eigenvalue_bound(residual: float, gap: float | None = None) -> float:
    """How far a computed λ can be from an eigenvalue of K, given ‖K v − λ v‖ for its unit vector v.

    An eigenvalue lies within ‖K v − λ v‖ of λ; if every other eigenvalue is at least `gap` away and λ is the Rayleigh
    quotient of v, within ‖K v − λ v‖² / gap (Parlett 1998, theorems 4.5.1 and 11.7.1).
    """
    if not residual >= 0 or (gap is not None and not gap > 0):
        raise ValueError(f"the residual must be >= 0 and the gap > 0, got {residual} and {gap}")
    return residual if gap is None else min(residual, residual**2 / gap)
