"""A data set that is made, not read: Gaussian inputs with a decaying spectrum, labelled by a random network.

Rows come in blocks, each from a random stream of its own, so that any first rows are made without the rest.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.config.model import Source

WIDTH = 64
"""Hidden units of each of the teacher's two layers."""

BLOCK = 4096
"""Rows that share a random stream."""

DECAY = 0.5
"""Feature k has standard deviation k^−DECAY: like the principal components of images, the first ones carry most."""


def teacher(source: Source, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Inputs float64 (rows, features) and the teacher's outputs float64 (rows, classes); the labels are their argmax.

    The teacher depends on `seed`, `features`, `classes` alone; `draw` numbers independent sets of inputs for it. Each
    output is centred on its average over one fixed block: without that a random network calls nearly every input by
    the same class.

    Args:
        rows: only so many of the first rows.
    """
    assert source.rows is not None
    count = source.rows if rows is None else min(rows, source.rows)
    centre = _network(source, _block(source.model_copy(update={"draw": 0}), 0)).mean(axis=0)
    x, outputs = np.empty((count, source.features or 0)), np.empty((count, source.classes))
    for start in range(0, count, BLOCK):
        here = np.s_[start : start + BLOCK]
        block = _block(source, start // BLOCK)
        # Of the whole block, whatever is kept of it: a product's rounding may depend on its number of rows.
        values = _network(source, block) - centre
        x[here], outputs[here] = block[: count - start], values[: count - start]
    return x, outputs


def _block(source: Source, index: int) -> np.ndarray:
    assert source.features is not None
    rng = np.random.default_rng([source.seed, 1, source.draw, index])
    deviations = np.arange(1, source.features + 1) ** -DECAY
    return rng.standard_normal((BLOCK, source.features)) * deviations


def _network(source: Source, x: np.ndarray) -> np.ndarray:
    """Two hidden ReLU layers without biases, He initialisation."""
    assert source.features is not None
    rng = np.random.default_rng([source.seed, 0])
    weights = [
        rng.standard_normal(pair) * np.sqrt(2 / pair[0])
        for pair in pairwise((source.features, WIDTH, WIDTH, source.classes))
    ]
    for weight in weights[:-1]:
        x = np.maximum(x @ weight, 0.0)
    return x @ weights[-1]
