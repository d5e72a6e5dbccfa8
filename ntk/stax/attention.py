"""Attention over all positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar
from typing import Any, Literal

from ntk.stax.layer import Layer
from ntk.stax.linear import check_deviations

#: Decays of positional embeddings that `GlobalSelfAttention` knows by name: "exp" is exp(−distance).
DECAYS = ("exp",)


class GlobalSelfAttention(Layer):
    """Scaled dot-product self-attention over all positions (Hron et al. 2020, "Infinite attention").

    Head h is ζ(Q_h(x) K_h(x)ᵀ · scale) V_h(x); the heads side by side are multiplied by an output matrix, and a bias of
    standard deviation `b_std` is added (None for no bias). Weights are of the ntk parameterization; at infinite width
    the number of heads and the channels of keys, queries and values are infinite.

    linear_scaling True: scale is 1/n_chan_key, keys and queries share their weights, attention weights converge to a
    constant. False: scale is 1/√n_chan_key, keys and queries are independent; at infinite width only for
    `attention_mechanism` IDENTITY. attention_mechanism: ζ, SOFTMAX over positions or a function of each entry.

    pos_emb_type SUM adds random embeddings of positions to the input (their number of channels is the input's), CONCAT
    puts `n_chan_pos_emb` channels of them (None: as many as the input has) beside it, for keys and queries, and for
    values too if `val_pos_emb`. Their covariance between two positions is W_pos_emb_std² times `pos_emb_decay_fn` of
    Σ |difference|ᵖ over the axes, p = `pos_emb_p_norm`: a JAX function or a name in DECAYS; None is 1 at distance 0 and
    0 elsewhere.
    """

    n_chan_out: int
    n_chan_key: int
    n_chan_val: int
    n_heads: int
    linear_scaling: bool = True
    W_key_std: float = 1.0
    W_value_std: float = 1.0
    W_query_std: float = 1.0
    W_out_std: float = 1.0
    b_std: float | None = None
    attention_mechanism: Literal["SOFTMAX", "IDENTITY", "ABS", "RELU"] = "SOFTMAX"
    pos_emb_type: Literal["NONE", "SUM", "CONCAT"] = "NONE"
    pos_emb_p_norm: float = 2.0
    pos_emb_decay_fn: str | Callable[..., Any] | None = None
    n_chan_pos_emb: int | None = None
    W_pos_emb_std: float = 1.0
    val_pos_emb: bool = False
    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1

    def check(self) -> None:
        for argument in ("n_chan_out", "n_chan_key", "n_chan_val", "n_heads"):
            if getattr(self, argument) < 1:
                raise self.wrong(argument, "at least 1")
        check_deviations(
            self, "W_key_std", "W_value_std", "W_query_std", "W_out_std", "b_std", "W_pos_emb_std"
        )
        if self.pos_emb_p_norm <= 0:
            raise self.wrong("pos_emb_p_norm", "greater than 0")
        if isinstance(self.pos_emb_decay_fn, str) and self.pos_emb_decay_fn not in DECAYS:
            raise self.wrong("pos_emb_decay_fn", "null, a function or one of " + ", ".join(DECAYS))
        if self.n_chan_pos_emb is not None and self.n_chan_pos_emb < 1:
            raise self.wrong("n_chan_pos_emb", "null or at least 1")

    def embedding_channels(self, channels: int) -> int:
        """Channels of the positional embeddings of inputs with `channels` channels."""
        if self.pos_emb_type == "NONE":
            return 0
        return channels if self.n_chan_pos_emb is None else self.n_chan_pos_emb

    def key_channels(self, channels: int) -> int:
        """Channels that keys and queries are computed from."""
        return channels + (self.embedding_channels(channels) if self.pos_emb_type == "CONCAT" else 0)
