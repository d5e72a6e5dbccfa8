"""Propagation through attention (Hron et al. 2020, "Infinite attention: NNGP and NTK for deep attention networks").

With K̃ = λ K + μ R the covariance of what keys and queries are computed from (R that of positional embeddings), K_v
that of what values are computed from (K, or K̃ with val_pos_emb), q = W_query_std W_key_std, o = W_out_std W_value_std:

linear_scaling:  G_i = ζ(q K̃_ii),  K' = o² G₁ K_v G₂ᵀ + b²,  T' = o² G₁ T_v G₂ᵀ + 2 o² G₁ K_v G₂ᵀ + b²
else, ζ = id:    K' = q² o² K̃ Σ K̃ K_v + b²,
                 T' = q² o² (K̃ Σ (T̃ K_v + K̃ T_v) + (T̃ + 4 K̃) Σ K̃ K_v) + b²

where Σ is the sum over pairs of positions, and T̃, T_v are as K̃, K_v: embeddings are parameters too.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
from jax import Array

from ntk.analytic.mixing import grouped, remade, sandwich, ungrouped
from ntk.analytic.nonlinearity import settled
from ntk.analytic.propagate import propagate
from ntk.analytic.state import Covariance
from ntk.finite.position_embedding import embedding_covariance
from ntk.finite.rules_attention import attention_weights
from ntk.stax.attention import GlobalSelfAttention


@propagate.register
def _(layer: GlobalSelfAttention, state: Covariance) -> Covariance:
    axes = tuple(range(len(state.spatial)))
    flat = _attended(layer, replace(state, residual=None).map(partial(grouped, axes=axes)))
    after = flat.map(partial(ungrouped, axes=axes, sizes=state.spatial))
    after = replace(after, shape=(*state.spatial, layer.n_chan_out))
    return settled(remade(state, after if layer.b_std is None else _biased(after, layer.b_std**2)))


def _biased(state: Covariance, b2: float) -> Covariance:
    after = state.add_constant(b2)
    return after if after.ntk is None else replace(after, ntk=after.ntk + b2)


def _attended(layer: GlobalSelfAttention, state: Covariance) -> Covariance:
    """The state after attention without its bias; covariances are (P, P', pairs)."""
    total = layer.key_channels(state.channels)
    share = state.channels / total
    embedding = None
    if layer.pos_emb_type != "NONE":
        weight = layer.W_pos_emb_std**2 * (1 if layer.pos_emb_type == "SUM" else 1 - share)
        r = weight * embedding_covariance(layer, state.spatial)
        embedding = jnp.asarray(r.reshape(*r.shape, *[1] * (state.nngp.ndim - 2)), state.nngp.dtype)

    def embedded(k: Array) -> Array:
        return k if embedding is None else share * k + embedding

    def valued(k: Array) -> Array:
        return embedded(k) if layer.val_pos_emb else k

    tangent = jnp.zeros_like(state.nngp) if state.ntk is None else state.ntk
    query_key, out_value = layer.W_query_std * layer.W_key_std, layer.W_out_std * layer.W_value_std
    if layer.linear_scaling:

        def attend(k: Array, g1: Array, g2: Array) -> Array:
            return out_value**2 * sandwich(k, g1, g2)

        g1, g2 = (attention_weights(layer, query_key * embedded(cov), 1) for cov in (state.cov1, state.cov2))
        nngp = attend(valued(state.nngp), g1, g2)
        cov1, cov2 = attend(valued(state.cov1), g1, g1), attend(valued(state.cov2), g2, g2)
        ntk = attend(valued(tangent), g1, g2) + 2 * nngp if state.wants_ntk else None
    else:
        scale = (query_key * out_value) ** 2

        def product(a: Array, b: Array) -> Array:
            return jnp.sum(a * b, axis=(0, 1))

        def attend_all(k: Array) -> Array:
            return scale * product(embedded(k), valued(k)) * embedded(k)

        nngp, cov1, cov2 = attend_all(state.nngp), attend_all(state.cov1), attend_all(state.cov2)
        k, k_value = embedded(state.nngp), valued(state.nngp)
        t, t_value = embedded(tangent), valued(tangent)
        ntk = (
            scale * (k * (product(t, k_value) + product(k, t_value)) + (t + 4 * k) * product(k, k_value))
            if state.wants_ntk
            else None
        )
    return replace(state, nngp=nngp, ntk=ntk, cov1=cov1, cov2=cov2)
