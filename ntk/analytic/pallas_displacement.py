"""Stages of the staged kernel by GPU kernels: two convolutions and their activations in registers, every displacement
at once.

The plain twin, `ntk.analytic.displaced`, writes what follows every layer to memory. Here a program takes one
displacement d, some columns of the images and a vector of pairs (one row of x1, a lane for each row of x2), and goes
down the rows h of the images: row h enters, and every layer whose window is then complete gives its next row, the
sums of the rows that later windows want being carried along. Columns at either side of its own it computes anew.

Covariances of positions (h, w) of x1 with ((h, w) − d) mod M of x2, M the size of the images (no others are taken):
a window's offset t lies inside both images where h + t does and where no position between h and h + t is at d, for
there the second image begins anew.
"""

from __future__ import annotations

import functools
from math import prod
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ntk.analytic.displaced import Rows
from ntk.analytic.pallas_program import Run, Step
from ntk.analytic.rules import propagate
from ntk.analytic.staging import Stage, Staged
from ntk.analytic.state import Covariance
from ntk.stax.branching import Identity
from ntk.stax.elementwise import ABRelu, Abs, LeakyRelu, Relu
from ntk.stax.signal import Signal, trace
from ntk.stax.spatial import AvgPool, Conv, Flatten, GlobalAvgPool, GlobalSumPool, SumPool

#: Most channels of an input: a thread reads them all at once.
_CHANNELS = 4
#: Convolutions in one kernel, at most: with more, registers run out, and the columns computed anew outgrow the rest.
_TOGETHER = 2


@functools.cache
def steps_of(stage: Stage) -> tuple[Step, ...] | None:
    """A stage as the kernel takes it, None where it does not: convolutions of stride 1 that keep the size and
    activations of the arc-cosine family, on two axes, with every displacement wanted or the zero one alone."""
    if len(stage.sizes) != 2 or stage.moduli != stage.sizes or stage.moduli_out != stage.sizes:
        return None
    signal = Signal((*stage.sizes, stage.channels))
    steps: list[Step] = []
    for place, layer in enumerate(stage.layers.layers):
        if isinstance(layer, (Relu, LeakyRelu, ABRelu, Abs)):
            steps.append(Step(layer, place, signal.channels))
        elif isinstance(layer, Conv):
            odd = all(n % 2 for n in layer.filter_shape)
            if layer.padding != "SAME" or not odd or any(s != 1 for s in layer.strides or ()):
                return None
            steps.append(Step(layer, place, signal.channels))
        elif not isinstance(layer, Identity):
            return None
        after = trace(layer, signal)
        assert isinstance(after, Signal)
        signal = after
    every = tuple(tuple(range(n)) for n in stage.sizes)
    if stage.needed != every and not (steps and isinstance(stage.end, Flatten)):
        return None
    return tuple(steps)


def groups_of(stage: Stage) -> list[tuple[Step, ...]]:
    """The steps of a stage as they share kernels."""
    groups: list[list[Step]] = [[]]
    for step in steps_of(stage) or ():
        convolutions = sum(isinstance(other.layer, Conv) for other in groups[-1])
        if isinstance(step.layer, Conv) and convolutions == _TOGETHER:
            groups.append([])
        groups[-1].append(step)
    return [tuple(group) for group in groups if group]


@functools.cache
def suits(staged: Staged) -> bool:
    """Whether kernels take every stage of an architecture, each of them with an activation in it."""
    if staged.stages[0].channels > _CHANNELS or not steps_of(staged.stages[0]):
        return False
    return all(
        steps_of(stage) is not None
        and all(any(not isinstance(step.layer, Conv) for step in group) for group in groups_of(stage))
        for stage in staged.stages
    )


def outer(
    staged: Staged, first: Rows, second: Rows, *, wants_ntk: bool, interpret: bool = False
) -> Covariance:
    """`displaced.outer`, doubting. The rows of `second` must be a power of two. interpret: on any device, slowly."""
    doubt = jnp.zeros((first.x.shape[-1], second.x.shape[-1]), first.x.dtype)
    source: Any = None
    for stage, ledger1, ledger2 in zip(staged.stages, first.ledgers, second.ledgers, strict=True):
        for group in groups_of(stage):
            run = Run(stage, group, ledger1, ledger2, wants_ntk)
            entering = run.of_inputs(first.x, second.x) if source is None else run.of_covariances(*source)
            *source, share = run(entering, interpret)
            doubt = doubt + share
        assert source is not None
        nngp, ntk = source
        source = _ended(stage, nngp), None if ntk is None else _ended(stage, ntk)
    assert source is not None
    last = staged.stages[-1]
    after = trace(last.layers, Signal((*last.sizes, last.channels)))
    assert isinstance(after, Signal)
    channels = after.channels * (prod(last.sizes) if isinstance(last.end, Flatten) else 1)
    nngp, ntk = source
    state = Covariance(
        nngp, ntk, first.last[:, None], second.last[None, :], None, doubt, (channels,), False, True, False,
        wants_ntk,
    )  # fmt: skip
    return propagate(staged.rest, state)


def _ended(stage: Stage, k: Array) -> Array:
    """Covariances (displacements, h, w, n1, n2) after the end of their stage."""
    end, (height, width) = stage.end, stage.sizes
    if isinstance(end, Flatten):
        return jnp.sum(k, axis=(0, 1, 2)) / (height * width)
    if isinstance(end, (GlobalAvgPool, GlobalSumPool)):
        return jnp.sum(k, axis=(0, 1, 2)) / ((height * width) ** 2 if isinstance(end, GlobalAvgPool) else 1)
    assert isinstance(end, (AvgPool, SumPool))
    k = k.reshape(height, width, height, width, *k.shape[3:])
    for axis, s in enumerate(end.window_shape):
        # Of positions s a + t and s b + u the displacement is s (a − b) + t − u.
        parts = [
            lax.slice_in_dim(
                jnp.roll(lax.slice_in_dim(k, t, None, s, axis + 2), u - t, axis), 0, None, s, axis
            )
            for t in range(s)
            for u in range(s)
        ]
        k = functools.reduce(jnp.add, parts)
    k = k.reshape(-1, *k.shape[2:])
    return k / float(prod(end.window_shape)) ** 2 if isinstance(end, AvgPool) else k
