"""The infinite-width interpreter one displacement at a time: what `ntk.analytic.propagate` computes in the full layout,
in pieces that fit a cache.

A nonlinearity needs the variances of its two positions, and those follow from a recursion of their own: `variances`
computes them for every layer and row once, before any pair (full covariances of each input with itself are needed only
where a pooling mixes positions). With them, the rule of every layer that acts on positions alone serves unchanged, for
the covariances of one displacement are laid out as those of equal positions are; only the convolution is told where
zeros lie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ntk.analytic.displacement import Displacement, doubled, rolled, window_sum
from ntk.analytic.nonlinearity import settled
from ntk.analytic.propagate import propagate
from ntk.analytic.rules_dense import affine
from ntk.analytic.stage_end import Between, Collector
from ntk.analytic.staging import Stage, Staged
from ntk.analytic.state import Covariance, Residual
from ntk.stax.combinators import Parallel, Serial
from ntk.stax.geometry import axes
from ntk.stax.signal import Signal, trace
from ntk.stax.spatial import Conv, Flatten

#: Up to so many channels the covariance of inputs is a sum written out, which fuses; above, a matrix product.
_FEW_CHANNELS = 16


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs and what is known of each of them alone, the rows the last axis of every array.

    x: (\\*spatial, channels, n). square: the sum of squares. entering: for every stage the variances on entry,
    (\\*spatial, n). ledgers: for every stage those before each of its layers, nested as the layers are. last: the
    variance after the last stage.
    """

    x: Array
    square: Array
    entering: tuple[Array, ...]
    ledgers: tuple[Any, ...]
    last: Array


@dataclass(frozen=True, slots=True)
class Mode:
    """outer: all pairs of rows, else row by row. itself: every row with itself. exact: with residuals. wants_ntk,
    doubting: see `ntk.analytic.state.Covariance`."""

    outer: bool
    itself: bool = False
    exact: bool = False
    wants_ntk: bool = False
    doubting: bool = False


def variances(staged: Staged, x: Array) -> Rows:
    """`Rows` of inputs x (n, \\*spatial, channels)."""
    x = jnp.moveaxis(x, 0, -1)
    # One value wherever it is used: fused into its consumers it would round here so and there otherwise.
    x, var = lax.optimization_barrier((x, jnp.mean(x * x, axis=-2)))
    rows = Rows(x, jnp.sum(x * x, axis=tuple(range(x.ndim - 1))), (), (), var)
    between: Between | None = None
    for i, stage in enumerate(staged.stages):
        own, ledger = _recorded(stage.layers, _own(var, (*stage.sizes, stage.channels)))
        own, ledger = lax.optimization_barrier((own, ledger))
        rows = replace(rows, entering=(*rows.entering, var), ledgers=(*rows.ledgers, ledger))
        if isinstance(stage.end, Flatten):
            return replace(rows, last=jnp.mean(own.cov1, axis=own.spatial_axes))
        between = _through(staged, i, rows, rows, between, Mode(outer=False, itself=True))
        var = between.nngp
        if i + 1 < len(staged.stages):
            later = staged.stages[i + 1]
            var = var[tuple(later.entering(axis).index(0) for axis in range(len(later.sizes)))]
    return replace(rows, last=var)


def outer(
    staged: Staged, first: Rows, second: Rows, *, wants_ntk: bool, doubting: bool = False
) -> Covariance:
    """The final state of every row of `first` with every row of `second`."""
    return _final(staged, first, second, Mode(True, wants_ntk=wants_ntk, doubting=doubting))


def paired(staged: Staged, first: Rows, second: Rows, *, wants_ntk: bool, itself: bool) -> Covariance:
    """The final state of row i of `first` with row i of `second`, exact as `ntk.analytic.inputs.paired` is."""
    return _final(staged, first, second, Mode(False, itself, exact=True, wants_ntk=wants_ntk))


def _final(staged: Staged, first: Rows, second: Rows, mode: Mode) -> Covariance:
    between: Between | None = None
    for i in range(len(staged.stages)):
        between = _through(staged, i, first, second, between, mode)
    assert between is not None
    last = staged.stages[-1]
    channels = _channels(last) * (prod(last.sizes_out) if isinstance(last.end, Flatten) else 1)
    cov1, cov2 = _sides(first.last, second.last, mode)
    state = Covariance(
        between.nngp, between.ntk, cov1, cov2, between.residual, between.doubt, (channels,), False, mode.outer,
        mode.itself, mode.wants_ntk,
    )  # fmt: skip
    if mode.exact and not isinstance(last.end, Flatten):
        state = _resolved(state, between.equal)
    return propagate(staged.rest, state)


def _channels(stage: Stage) -> int:
    after = trace(stage.layers, Signal((*stage.sizes, stage.channels)))
    assert isinstance(after, Signal)
    return after.channels


def _sides(first: Array, second: Array, mode: Mode) -> tuple[Array, Array]:
    """Values of rows (…, n) of x1 and x2, broadcastable against pairs."""
    return (first[..., :, None], second[..., None, :]) if mode.outer else (first, second)


# --- the variances of every input alone ---------------------------------------------------------------------------


def _own(var: Array, shape: tuple[int, ...]) -> Covariance:
    return Covariance(var, None, var, var, None, None, shape, False, False, True, False)


def _recorded(layer: Any, own: Any) -> tuple[Any, Any]:
    """The variances after `layer`, and those before each layer in it."""
    if isinstance(layer, Serial):
        pages = []
        for inner in layer.layers:
            own, page = _recorded(inner, own)
            pages.append(page)
        return own, tuple(pages)
    if isinstance(layer, Parallel):
        parts = [_recorded(branch, o) for branch, o in zip(layer.layers, own, strict=True)]
        return tuple(part[0] for part in parts), tuple(part[1] for part in parts)
    after = propagate(layer, own)
    if isinstance(after, tuple):
        return tuple(_own(o.cov1, o.shape) for o in after), own.cov1
    page = tuple(o.cov1 for o in own) if isinstance(own, tuple) else own.cov1
    return _own(after.cov1, after.shape), page


# --- one stage ----------------------------------------------------------------------------------------------------


def _through(
    staged: Staged, i: int, first: Rows, second: Rows, before: Between | None, mode: Mode
) -> Between:
    """The covariances after stage i."""
    stage = staged.stages[i]
    later = staged.stages[i + 1] if i + 1 < len(staged.stages) else None
    page1 = jax.tree.map(lambda var: _sides(var, var, mode)[0], first.ledgers[i])
    page2 = _doubled(stage.layers, second.ledgers[i], stage.moduli, mode)[0]
    source = (
        _of_inputs(stage, first, second, mode)
        if before is None
        else _of_pooling(stage, i, first, second, before, mode)
    )
    collect = Collector(stage, later)

    def step(state: Covariance, at: Displacement) -> tuple[Covariance, Displacement]:
        return _advanced(stage.layers, state, page1, page2, at)

    if len(stage.steps) == 1:
        at = Displacement(
            tuple(s * d for s, d in zip(stage.stride, stage.steps[0], strict=True)), stage.moduli
        )
        state, at = step(source(at), at)
        sums = collect.added(collect.zeros(state), state, at)
    else:
        start = np.asarray(stage.steps, np.int32) * np.asarray(stage.stride, np.int32)

        def body(sums: Any, shift: Array) -> tuple[Any, None]:
            at = Displacement(tuple(shift[axis] for axis in range(len(stage.sizes))), stage.moduli)
            state, at = step(source(at), at)
            return collect.added(sums, state, at), None

        like = jax.eval_shape(
            lambda shift: _probe(step, source, shift, stage), jnp.zeros(len(stage.sizes), np.int32)
        )
        sums, _ = lax.scan(body, collect.zeros(like), jnp.asarray(start))
    return collect.finished(sums, None if before is None else before.doubt)


def _probe(step: Any, source: Any, shift: Array, stage: Stage) -> Covariance:
    at = Displacement(tuple(shift[axis] for axis in range(len(stage.sizes))), stage.moduli)
    return step(source(at), at)[0]


def _doubled(layer: Any, page: Any, moduli: tuple[int, ...], mode: Mode) -> tuple[Any, tuple[int, ...]]:
    """The ledger of x2, ready for `rolled` at every layer, and the moduli after `layer`."""
    if isinstance(layer, Serial):
        pages = []
        for inner, inner_page in zip(layer.layers, page, strict=True):
            done, moduli = _doubled(inner, inner_page, moduli, mode)
            pages.append(done)
        return tuple(pages), moduli
    if isinstance(layer, Parallel):
        parts = [_doubled(branch, p, moduli, mode) for branch, p in zip(layer.layers, page, strict=True)]
        return tuple(part[0] for part in parts), parts[0][1]
    done = jax.tree.map(lambda var: doubled(_sides(var, var, mode)[1], moduli), page)
    strides = (layer.strides if isinstance(layer, Conv) else None) or (1,) * len(moduli)
    return done, tuple(m // s for m, s in zip(moduli, strides, strict=True))


def _advanced(layer: Any, state: Any, page1: Any, page2: Any, at: Displacement) -> tuple[Any, Displacement]:
    """The covariances of one displacement after `layer`, and the displacement there."""
    if isinstance(layer, Serial):
        for inner, p1, p2 in zip(layer.layers, page1, page2, strict=True):
            state, at = _advanced(inner, state, p1, p2, at)
        return state, at
    if isinstance(layer, Parallel):
        parts = [
            _advanced(branch, s, p1, p2, at)
            for branch, s, p1, p2 in zip(layer.layers, state, page1, page2, strict=True)
        ]
        return tuple(part[0] for part in parts), parts[0][1]
    if isinstance(layer, Conv):
        return _filtered(layer, state, page1, page2, at)
    if isinstance(state, tuple):
        known = tuple(_knowing(s, p1, p2, at) for s, p1, p2 in zip(state, page1, page2, strict=True))
        return propagate(layer, known), at
    return propagate(layer, _knowing(state, page1, page2, at)), at


def _knowing(state: Covariance, var1: Array, var2: Array, at: Displacement) -> Covariance:
    """`state` with the variances of its positions."""
    state = replace(state, cov1=var1, cov2=rolled(var2, state.spatial, at))
    if state.itself:
        # Equal positions of an input with itself have covariance = variance, without a rounding error.
        state = replace(state, nngp=jnp.where(at.zero(), var1, state.nngp))
    return state


def _filtered(
    layer: Conv, state: Covariance, var1: Array, var2: Array, at: Displacement
) -> tuple[Covariance, Displacement]:
    """The state after a convolution: its rule (`ntk.analytic.rules_spatial`) at one displacement."""
    geometry = axes(state.spatial, layer.filter_shape, layer.strides, layer.padding)
    after_at = at.after(tuple(g.stride for g in geometry))
    size = prod(layer.filter_shape)
    if state.itself:
        state = replace(state, nngp=jnp.where(at.zero(), var1, state.nngp))

    def box(k: Array, at: Displacement | None) -> Array:
        for axis, g in enumerate(geometry):
            # Written out between the axes: a fused second sum would compute the first once per offset.
            k = window_sum(lax.optimization_barrier(k) if axis else k, axis, g, at)
        return k

    residual = state.residual
    if residual is not None:
        own2 = var2[tuple(slice(0, n) for n in state.spatial)]
        # Where one of two positions lies outside, the residuals are the variance of the other.
        lone1 = box(var1, None) - box(var1, at)
        lone2 = rolled(
            doubled(box(own2, None), after_at.moduli), tuple(g.out for g in geometry), after_at
        ) - box(rolled(var2, state.spatial, at), at)
        # Of two equal positions neither is alone outside: zero, whatever the rounding of the two sums.
        a, b = (jnp.where(at.zero(), 0, lone) for lone in (lone1 / residual.scale, lone2 * residual.scale))
        residual = Residual(
            residual.scale,
            (box(residual.minus, at) + a + b) / size,
            (box(residual.plus, at) + a + b) / size,
            (box(residual.delta, at) + a - b) / size,
        )
    nothing = jnp.zeros((), state.nngp.dtype)
    mean = replace(
        state,
        nngp=box(state.nngp, at) * (1 / size),
        ntk=None if state.ntk is None else box(state.ntk, at) * (1 / size),
        residual=residual,
        cov1=nothing,
        cov2=nothing,
        shape=(*[g.out for g in geometry], state.channels),
    )
    after = affine(
        state, mean, layer.W_std, layer.b_std, layer.parameterization, size * state.channels // layer.s[0],
        layer.out_chan * layer.s[1],
    )  # fmt: skip
    return settled(after), after_at


# --- what enters a stage ------------------------------------------------------------------------------------------


def _of_inputs(stage: Stage, first: Rows, second: Rows, mode: Mode) -> Any:
    """The covariances of the inputs as a function of the displacement."""
    channels = stage.channels
    x1 = first.x * channels**-0.5
    x2 = doubled(second.x * channels**-0.5, stage.moduli)
    pairs = (x1.shape[-1], x2.shape[-1]) if mode.outer else (x1.shape[-1],)
    doubt = jnp.zeros(pairs, x1.dtype) if mode.doubting else None
    if mode.exact:
        usable = (first.square > 0) & (second.square > 0)
        scale = jnp.sqrt(jnp.where(usable, first.square, 1) / jnp.where(usable, second.square, 1))

    def source(at: Displacement) -> Covariance:
        y = rolled(x2, stage.sizes, at)
        nngp = _contracted(x1, y, mode)
        residual = None
        if mode.exact:
            u, v = lax.optimization_barrier((x1 / jnp.sqrt(scale), y * jnp.sqrt(scale)))
            residual = Residual(
                scale,
                jnp.sum((u - v) ** 2, axis=-2),
                jnp.sum((u + v) ** 2, axis=-2),
                jnp.sum((u - v) * (u + v), axis=-2),
            )
        none = jnp.zeros((), nngp.dtype)
        state = Covariance(
            nngp, None, none, none, residual, doubt, (*stage.sizes, channels), False, mode.outer, mode.itself,
            mode.wants_ntk,
        )  # fmt: skip
        return settled(state)

    return source


def _contracted(x: Array, y: Array, mode: Mode) -> Array:
    """Σ_c x[…, c, i] y[…, c, j] for all pairs (i, j), or for i = j."""
    if not mode.outer:
        return jnp.sum(x * y, axis=-2)
    if x.shape[-2] <= _FEW_CHANNELS:
        return sum(
            (x[..., c, :, None] * y[..., c, None, :] for c in range(x.shape[-2])), jnp.zeros((), x.dtype)
        )
    positions = tuple(range(x.ndim - 2))
    dims = (((x.ndim - 2,), (x.ndim - 2,)), (positions, positions))
    return lax.dot_general(x, y, dims, precision=lax.Precision.HIGHEST)


def _of_pooling(stage: Stage, i: int, first: Rows, second: Rows, before: Between, mode: Mode) -> Any:
    """The covariances after the stage before as a function of the displacement."""
    var1, var2 = _sides(first.entering[i], second.entering[i], mode)
    var2 = doubled(var2, stage.moduli)
    rank = len(stage.sizes)
    doubt = None if before.doubt is None else jnp.zeros_like(before.doubt)

    def source(at: Displacement) -> Covariance:
        slots = [
            jnp.asarray(_positions_of(stage.entering(axis), stage.moduli[axis]))[at.shift[axis]]
            for axis in range(rank)
        ]
        here = lambda k: k[tuple(slots)]  # noqa: E731
        state = Covariance(
            here(before.nngp), None if before.ntk is None else here(before.ntk), var1,
            rolled(var2, stage.sizes, at), None, doubt, (*stage.sizes, stage.channels), False, mode.outer,
            mode.itself, mode.wants_ntk,
        )  # fmt: skip
        if mode.exact:
            state = _resolved(state, before.equal if at.zero() is True else _only(before.equal, at.zero()))
        return settled(state)

    return source


def _only(equal: Array | None, zero: Any) -> Array | None:
    return None if equal is None else equal & zero


def _positions_of(displacements: tuple[int, ...], modulus: int) -> np.ndarray:
    table = np.zeros(modulus, np.int32)
    table[list(displacements)] = np.arange(len(displacements))
    return table


def _resolved(state: Covariance, equal: Array | None) -> Covariance:
    """`state` with residuals found by cancellation, exactly zero for the pairs that are `equal`: what pooling leaves,
    for residuals do not pass through it pair by pair."""
    assert equal is not None
    var1, var2 = state.cov1, state.cov2
    # Equal inputs have one covariance, up to the order of summation.
    nngp, var2 = jnp.where(equal, var1, state.nngp), jnp.where(equal, var1, var2)
    return replace(
        state,
        nngp=nngp,
        cov2=var2,
        residual=Residual(
            jnp.ones_like(equal, dtype=nngp.dtype),
            jnp.maximum(var1 + var2 - 2 * nngp, 0),
            jnp.maximum(var1 + var2 + 2 * nngp, 0),
            var1 - var2 + 0 * nngp,
        ),
    )
