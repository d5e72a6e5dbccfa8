"""Outputs after so long a training that rounding errors of the kernel decide them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.linalg import LinAlgError

from ntk.predict.axes import library
from ntk.predict.training import TrainingKernel

_SHARE = 0.01
"""The error that is let pass, as a share of the size of what is predicted."""


def resolved(outputs: Any, weights: Any, coefficients: Any, train: TrainingKernel, size: Any) -> Any:
    """`outputs` f = k(x)ᵀ α, refused where rounding errors of the kernels change them by a hundredth of `size`.

    With w = A_tᵀ, what each training row counts in an output, errors δ of kernel entries change f by
    (δk − δK w)ᵀ α to first order: about ε max K (1 + ‖w‖) ‖α‖ for independent errors of relative size ε, that of the
    dtype the kernel came in. ‖α‖ grows with time along eigenvectors whose eigenvalues are zero to working precision.

    Args:
        outputs: (m, k). weights: w, (m, n), and coefficients: α, (n, k) or (n, 1), in any orthonormal basis.
        train: the kernel of the training rows.
        size: (k,) or a number.

    Returns:
        `outputs`, with NaN in their places where they are traced.

    Raises:
        numpy.linalg.LinAlgError: some are not known to this share.
    """
    xp = library(outputs, weights, coefficients, size)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = (xp.sqrt(xp.sum(a * a, axis)) for a, axis in ((weights, 1), (coefficients, 0)))
        known, grown = lengths
        entry = float(np.finfo(train.dtype).eps) * float(np.abs(np.diag(train.matrix)).max())
        errors = entry * (1 + known)[:, None] * grown
        lost = ~(errors <= _SHARE * size)
    if xp is not np:
        return xp.where(lost, xp.nan, outputs)
    if lost.any():
        other = "" if train.dtype == np.float64 else ", kernels in float64"
        raise LinAlgError(
            f"rounding errors of the {train.name} ({train.dtype}) change outputs after so long a training by about "
            f"{float(np.max(errors)):.2g}: along some directions the kernel of the training rows, regularised by "
            f"{train.added:.3g}, is zero to working precision\n"
            f"hint: shorter times{other}, or a larger {train.argument}; look for repeated rows"
        )
    return outputs
