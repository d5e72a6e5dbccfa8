"""How far predictions are from targets: the figures that choose a ridge and that a report leads with."""

from __future__ import annotations

import numpy as np


def score(targets: np.ndarray, predictions: np.ndarray, task: str) -> dict[str, float]:
    """Root mean square error over all outputs; for regression R² too, for classification accuracy.

    Args:
        targets: (rows, outputs), encoded as for training.
        predictions: (rows, outputs).
        task: `classification` or `regression`.
    """
    figures = {"rmse": float(np.sqrt(np.mean((targets - predictions) ** 2)))}
    if task == "classification":
        figures["accuracy"] = float(np.mean(targets.argmax(axis=1) == predictions.argmax(axis=1)))
    else:
        spread = float(np.sum((targets - targets.mean(axis=0)) ** 2))
        # A single row or constant targets leave nothing to explain: R² has no meaning there and is left out.
        if spread > 0:
            figures["r2"] = 1.0 - float(np.sum((targets - predictions) ** 2)) / spread
    return figures


def leave_one_out(targets: np.ndarray, alpha: np.ndarray, inverse_diagonal: np.ndarray) -> np.ndarray:
    """What each training row would have been predicted without itself.

    y_i − f₋ᵢ(x_i) = α_i / (A⁻¹)_ii with A = K + λI and α = A⁻¹ Y (Rasmussen & Williams 2006, eq. 5.12).

    Args:
        targets, alpha: (n, outputs).
        inverse_diagonal: (n,).
    """
    return targets - alpha / inverse_diagonal[:, None]
