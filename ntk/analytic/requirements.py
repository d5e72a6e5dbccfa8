"""Which covariances an architecture needs: only equal positions, or all pairs of positions."""

from __future__ import annotations

from ntk.stax.layer import Layer


def needs_full(layer: Layer) -> bool:
    """Whether the kernel after `layer` needs covariances between different positions of its input."""
    return False
