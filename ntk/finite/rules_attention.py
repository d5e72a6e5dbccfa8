"""Attention at finite width: parameters (query or None, key, value, output, bias or None, positions or None)."""

from __future__ import annotations

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from ntk.finite.network import Key, apply, init
from ntk.finite.position_embedding import embedding_root
from ntk.stax.attention import GlobalSelfAttention
from ntk.stax.signal import Signal


def attention_weights(layer: GlobalSelfAttention, scores: Array, axis: int) -> Array:
    """ζ of scores, whose `axis` are the positions attended to."""
    if layer.attention_mechanism == "SOFTMAX":
        return jax.nn.softmax(scores, axis=axis)
    function = {"IDENTITY": lambda g: g, "ABS": jnp.abs, "RELU": lambda g: jnp.maximum(g, 0)}
    return function[layer.attention_mechanism](scores)


@init.register
def _(layer: GlobalSelfAttention, key: Key, signal: Signal) -> Any:
    query, keys, value, out, bias, positions = random.split(key, 6)
    n_key = layer.key_channels(signal.channels)
    n_value = n_key if layer.val_pos_emb else signal.channels
    heads, embedded = layer.n_heads, layer.pos_emb_type != "NONE"
    n_position = layer.embedding_channels(signal.channels)
    return (
        None if layer.linear_scaling else random.normal(query, (heads, n_key, layer.n_chan_key)),
        random.normal(keys, (heads, n_key, layer.n_chan_key)),
        random.normal(value, (heads, n_value, layer.n_chan_val)),
        random.normal(out, (layer.n_chan_val * heads, layer.n_chan_out)),
        None if layer.b_std is None else random.normal(bias, (*(1,) * len(signal.shape), layer.n_chan_out)),
        random.normal(positions, (1, *signal.spatial, n_position)) if embedded else None,
    )


@apply.register
def _(layer: GlobalSelfAttention, params: Any, x: Array, **kwargs: Any) -> Array:
    query, key, value, out, bias, positions = params
    spatial = x.shape[1:-1]
    rows = x.reshape(x.shape[0], prod(spatial), x.shape[-1])  # (batch, positions, channels)
    embedded = rows if positions is None else _with_embedding(layer, rows, positions, spatial)
    valued = embedded if layer.val_pos_emb else rows

    def projected(inputs: Array, weights: Array) -> Array:  # (batch, heads, positions, channels)
        return jnp.einsum("npc,hck->nhpk", inputs, weights, precision=lax.Precision.HIGHEST)

    keys = projected(embedded, key)
    queries = keys if query is None else projected(embedded, query)
    scale = layer.W_query_std * layer.W_key_std / embedded.shape[-1]
    scale /= layer.n_chan_key ** (1 if layer.linear_scaling else 0.5)
    scores = scale * jnp.einsum("nhpk,nhqk->nhpq", queries, keys, precision=lax.Precision.HIGHEST)
    heads = jnp.einsum(
        "nhpq,nhqv->npvh",
        attention_weights(layer, scores, -1),
        projected(valued, value),
        precision=lax.Precision.HIGHEST,
    )
    joined = heads.reshape(*heads.shape[:2], -1)
    width = valued.shape[-1] * joined.shape[-1]
    result = (layer.W_out_std * layer.W_value_std / width**0.5) * jnp.matmul(
        joined, out, precision=lax.Precision.HIGHEST
    )
    result = result.reshape(x.shape[0], *spatial, layer.n_chan_out)
    return result if bias is None else result + layer.b_std * bias


def _with_embedding(
    layer: GlobalSelfAttention, rows: Array, positions: Array, spatial: tuple[int, ...]
) -> Array:
    """`rows` with the embeddings of their positions added or beside them."""
    embedding = layer.W_pos_emb_std * positions.reshape(1, -1, positions.shape[-1])
    if layer.pos_emb_decay_fn is not None:
        root = jnp.asarray(embedding_root(layer, spatial), rows.dtype)
        embedding = jnp.einsum("pq,nqc->npc", root, embedding, precision=lax.Precision.HIGHEST)
    if layer.pos_emb_type == "SUM":
        return rows + embedding
    return jnp.concatenate(
        [rows, jnp.broadcast_to(embedding, (*rows.shape[:2], embedding.shape[-1]))], axis=-1
    )
