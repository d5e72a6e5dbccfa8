"""The handwritten digits of scikit-learn enlarged to any number of rows by sub-pixel shifts, rotations and noise.

Its NTK has a spectrum with a long tail, as real data have; random Gaussian inputs are too easy for iterative solvers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from sklearn.datasets import load_digits

SHIFT = 0.5
"""Largest shift, pixels."""

ROTATION = 8.0
"""Standard deviation of the rotation, degrees."""

NOISE = 0.05
"""Standard deviation of the noise of a pixel, of a range of 1."""


def enlarged_digits(rows: int, *, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images (rows, 64), each of unit norm, and their labels (rows,)."""
    digits = load_digits()
    images, labels = digits.images / 16.0, digits.target
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(images), rows)
    angles = np.deg2rad(rng.normal(0, ROTATION, rows))
    shifts = rng.uniform(-SHIFT, SHIFT, (rows, 2))
    centre = (np.array(images.shape[1:]) - 1) / 2
    moved = np.empty((rows, *images.shape[1:]))
    for row, (image, angle, shift) in enumerate(zip(chosen, angles, shifts, strict=True)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        moved[row] = affine_transform(images[image], turn, centre - turn @ (centre + shift), order=1)
    moved += rng.normal(0, NOISE, moved.shape)
    flat = moved.reshape(rows, -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True), labels[chosen]
