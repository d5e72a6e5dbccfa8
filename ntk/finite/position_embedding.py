"""The covariance of positional embeddings between positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import jax
import numpy as np

from ntk.errors import ArchitectureError
from ntk.stax.attention import GlobalSelfAttention

_BY_NAME: dict[str, Callable[[Any], Any]] = {"exp": lambda distance: np.exp(-distance)}


@lru_cache(maxsize=64)
def embedding_covariance(layer: GlobalSelfAttention, spatial: tuple[int, ...]) -> np.ndarray:
    """R[p, q] = decay(Σ |p − q|ᵖ) over all pairs of positions, (P, P) in float64, without the factor W_pos_emb_std².

    Raises ArchitectureError where `pos_emb_decay_fn` does not give a positive semi-definite matrix.
    """
    decay = layer.pos_emb_decay_fn
    if decay is None:
        return np.eye(prod(spatial))
    places = np.stack([axis.ravel() for axis in np.indices(spatial)], axis=-1).astype(np.float64)
    distance = np.sum(np.abs(places[:, None] - places[None]) ** layer.pos_emb_p_norm, axis=-1)
    if isinstance(decay, str):
        return _BY_NAME[decay](distance)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        covariance = np.asarray(decay(distance), np.float64)
    if covariance.shape != distance.shape or not np.isfinite(covariance).all():
        raise ArchitectureError(
            "GlobalSelfAttention: pos_emb_decay_fn must be finite and act on every entry of an array of distances"
        )
    return covariance


@lru_cache(maxsize=64)
def embedding_root(layer: GlobalSelfAttention, spatial: tuple[int, ...]) -> np.ndarray:
    """L with L Lᵀ = R, (P, P), symmetric: it exists also where R is singular."""
    covariance = embedding_covariance(layer, spatial)
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-9 * values[-1]:
        raise ArchitectureError(
            f"GlobalSelfAttention: pos_emb_decay_fn gives embeddings with a covariance of smallest eigenvalue "
            f"{values[0]:.3g} over {len(values)} positions, which cannot be. hint: a decay such as exp(-distance)"
        )
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
