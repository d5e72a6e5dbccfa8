"""Propagation through layers with weights on channels.

ntk parameterization (Jacot et al. 2018):        K' = W² K + b²,  T' = K' + W² T
standard (Sohl-Dickstein et al. 2020, eq. 12):   K' = W² K + b²,  T' = n K + W² T + 1 (with bias), n the input width
"""

from __future__ import annotations

from dataclasses import replace

from ntk.analytic.propagate import propagate
from ntk.analytic.state import Covariance
from ntk.stax.linear import Dense, Parameterization


def affine(
    before: Covariance,
    mixed: Covariance,
    W_std: float,
    b_std: float | None,
    parameterization: Parameterization,
    width: int,
    channels: int,
) -> Covariance:
    """The state after weights of standard deviation W_std and a bias.

    `mixed` is the state whose covariances the weights multiply (for Dense the input itself, for Conv its average over
    the filter); `width` the number of weights that a unit sums over, divided by the layer's own input scaling s[0].
    """
    w2 = W_std**2
    after = mixed.map(lambda k: w2 * k)
    if b_std is not None:
        after = after.add_constant(b_std**2)
    after = replace(after, shape=(*after.shape[:-1], channels))
    if not before.wants_ntk:
        return after
    own = after.nngp if parameterization == "ntk" else width * mixed.nngp + (0.0 if b_std is None else 1.0)
    return replace(after, ntk=own if after.ntk is None else own + after.ntk)


@propagate.register
def _(layer: Dense, state: Covariance) -> Covariance:
    return affine(
        state,
        state,
        layer.W_std,
        layer.b_std,
        layer.parameterization,
        state.channels // layer.s[0],
        layer.out_dim * layer.s[1],
    )
