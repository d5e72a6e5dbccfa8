"""The largest learning rate at which gradient descent converges."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import eigvalsh

from ntk.arrays import within
from ntk.predict.axes import matrix, one_kernel
from ntk.predict.training import checked
from ntk.tracing import concrete


def max_learning_rate(
    ntk_train_train: Any, y_train_size: int | None = None, momentum: float = 0.0, eps: float = 1e-12
) -> float:
    """2 (1 + momentum) y_train_size / λ_max(Θ): above it gradient descent on ½ mean (f − y)² diverges.

    The bound with momentum is that of heavy-ball iterations (Goh 2017, "The Dynamics of Momentum").

    Args:
        ntk_train_train: Θ on the training rows, axes in pairs.
        y_train_size: rows times outputs, the divisor of the mean; None: rows of Θ as a matrix (`trace_axes` empty).
        momentum: of the descent, in [0, 1).
        eps: added to λ_max, so that a kernel of zeros gives a number.

    Raises:
        ValueError: a kernel that is not square, not finite or not symmetric; a momentum or size that cannot be.
    """
    ntk_train_train = one_kernel(ntk_train_train, "ntk_train_train")
    concrete(ntk_train_train, "ntk_train_train", "call it outside of jit, grad and vmap")
    if not within(0, momentum, 1) or not (y_train_size is None or within(1, y_train_size, np.inf)):
        raise ValueError(
            f"momentum must be in [0, 1) and y_train_size at least 1, got {momentum!r} and {y_train_size!r}"
        )
    rows = matrix(ntk_train_train).shape[0]
    largest = eigvalsh(checked(ntk_train_train, rows, "kernel"), subset_by_index=(rows - 1, rows - 1))[0]
    return float(2 * (1 + momentum) * (rows if y_train_size is None else y_train_size) / (largest + eps))
