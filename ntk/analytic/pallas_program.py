"""The GPU kernel of a few layers at every displacement: see `ntk.analytic.pallas_displacement`, which runs it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from ntk.analytic.dual.angle import doubtful_gap, folded, tiny
from ntk.analytic.rules_piecewise import slopes
from ntk.analytic.staging import Stage
from ntk.stax.layer import Layer
from ntk.stax.spatial import Conv

#: Rows of x2 in a program, at most: one for each thread.
LANES = 128
#: Columns of the images in a program, and its warps, found by trial on an H200.
_COLUMNS, _WARPS = 4, 4

Pages = list[Array]
"""One value a column, each a vector of pairs."""


@dataclass(frozen=True, slots=True)
class Step:
    """A convolution or activation of a stage: its place there and the channels before it."""

    layer: Layer
    place: int
    channels: int

    @property
    def reach(self) -> tuple[int, int]:
        """How far the window goes to either side."""
        h, w = self.layer.filter_shape if isinstance(self.layer, Conv) else (1, 1)
        return h // 2, w // 2


class Run:
    """The kernel of some steps of a stage for rows of x1 and of x2, of which the ledgers of the stage are known."""

    def __init__(
        self, stage: Stage, steps: tuple[Step, ...], ledger1: Any, ledger2: Any, wants_ntk: bool
    ) -> None:
        self.stage, self.steps, self.wants_ntk = stage, steps, wants_ntk
        self.height, self.width = stage.sizes
        activations = [step.place for step in steps if not isinstance(step.layer, Conv)]
        self.slots = {place: 2 * i for i, place in enumerate(activations)}
        roots1, roots2 = (
            _roots(stage, [ledger[place] for place in activations]) for ledger in (ledger1, ledger2)
        )
        self.dtype = roots1.dtype
        self.n1, self.n2 = roots1.shape[-1], roots2.shape[-1]
        self.lanes = min(LANES, self.n2)
        self.columns = math.gcd(self.width, _COLUMNS)
        # Columns at either side that enter, and that are known after each step: none where a program has them all.
        whole = self.columns == self.width
        self.wide = 0 if whole else sum(step.reach[1] for step in steps)
        beside = self.wide
        self.beside: list[int] = []
        for step in steps:
            beside -= 0 if whole else step.reach[1]
            self.beside.append(beside)
        self.w1, self.w2 = self.width + 2 * self.wide, 2 * (self.width + self.wide)
        self.channels = 0
        self.roots = self._around(roots1).reshape(-1), self._again(roots2).reshape(-1)

    def _around(self, k: Array) -> Array:
        """(…, h, w, n) of x1 with the last columns repeated at either side, never used."""
        return jnp.pad(k, [(0, 0)] * (k.ndim - 2) + [(self.wide, self.wide), (0, 0)], mode="edge")

    def _again(self, k: Array) -> Array:
        """(…, h, w, n) of x2 at columns (q − wide) mod M, for every q that any displacement asks for."""
        return jnp.take(k, np.arange(-self.wide, 2 * self.width + self.wide) % self.width, axis=-2)

    def of_inputs(self, x1: Array, x2: Array) -> tuple[Array, ...]:
        """Inputs (h, w, channels, n) as the kernel reads them: (h, w, n, channels), their number a power of two."""
        self.channels = 1 << (self.stage.channels - 1).bit_length()
        scale, missing = self.stage.channels**-0.5, self.channels - self.stage.channels

        def last(x: Array, spread: Any) -> Array:
            channels = jnp.pad(jnp.moveaxis(x * scale, 2, 0), [(0, missing), (0, 0), (0, 0), (0, 0)])
            return jnp.moveaxis(spread(channels), 0, 3).reshape(-1)

        return last(x1, self._around), last(x2, self._again)

    def of_covariances(self, nngp: Array, ntk: Array | None) -> tuple[Array, ...]:
        """Covariances (displacements, h, w, n1, n2) as the kernel reads them."""
        return tuple(k.reshape(len(k), -1) for k in (nngp, ntk) if k is not None)

    def __call__(self, sources: tuple[Array, ...], interpret: bool) -> tuple[Array, Array | None, Array]:
        """nngp and ntk (displacements, h, w, n1, n2) after the steps, and the doubt (n1, n2) they add."""
        displacements = np.asarray(self.stage.steps, np.int32)
        count, tiles = len(displacements), self.width // self.columns
        positions = self.height * self.width
        out = [jax.ShapeDtypeStruct((count, positions * self.n1 * self.n2), self.dtype)] * (
            1 + self.wants_ntk
        )
        doubts = jax.ShapeDtypeStruct((count, tiles * self.n1 * self.n2), self.dtype)
        *found, doubt = pl.pallas_call(
            self._kernel,
            out_shape=[*out, doubts],
            grid=(count, self.n1 * (self.n2 // self.lanes), tiles),
            interpret=interpret,
            compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=1),
        )(jnp.asarray(displacements.reshape(-1)), *self.roots, *sources)
        doubt = jnp.sum(doubt.reshape(-1, self.n1, self.n2), axis=0) / (positions * count)
        nngp, *ntk = (k.reshape(count, *self.stage.sizes, self.n1, self.n2) for k in found)
        return nngp, ntk[0] if ntk else None, doubt

    def _kernel(self, shifts: Any, roots1: Any, roots2: Any, *others: Any) -> None:
        outputs = 2 + self.wants_ntk
        sources, outs, doubts = others[:-outputs], others[-outputs:-1], others[-1]
        program = Program(self, shifts, sources, (roots1, roots2))

        def down(h: Array, carry: Any) -> Any:
            pasts, doubt = carry
            nngp, ntk = program.entering(h)
            before, kept = self.wide, []
            for step, beside, past in zip(self.steps, self.beside, pasts, strict=True):
                if isinstance(step.layer, Conv):
                    h = h - step.reach[0]
                    sums, past_nngp = program.box(step, beside, before, nngp, past[0], h)
                    if ntk is not None:
                        ntk, past_ntk = program.box(step, beside, before, ntk, past[1], h)
                    else:
                        past_ntk = None
                    nngp, ntk = _weighted(step, sums, ntk, self.wants_ntk)
                    past = past_nngp, past_ntk
                else:
                    nngp, ntk, share = program.activated(step, beside, nngp, ntk, h)
                    doubt = doubt + share
                kept.append(past)
                before = beside

            @pl.when(h >= 0)
            def _() -> None:
                for k in range(self.columns):
                    outs[0][program.at, program.pair_index(h, k)] = nngp[k]
                    if self.wants_ntk:
                        found = jnp.zeros_like(nngp[k]) if ntk is None else ntk[k]
                        outs[1][program.at, program.pair_index(h, k)] = found

            return kept, doubt

        zero = jnp.zeros(self.lanes, self.dtype)
        pasts: list[Any] = []
        has_ntk = not self.channels and len(sources) == 2
        for step, beside in zip(self.steps, self.beside, strict=True):
            rows = [[zero] * (self.columns + 2 * beside)] * (2 * step.reach[0])
            pasts.append((rows, rows if has_ntk else None) if isinstance(step.layer, Conv) else ())
            has_ntk = has_ntk or (self.wants_ntk and isinstance(step.layer, Conv))
        rows_in = self.height + sum(step.reach[0] for step in self.steps)
        _, doubt = lax.fori_loop(np.int32(0), np.int32(rows_in), down, (pasts, zero))
        doubts[program.at, (program.tile * self.n1 + program.i) * self.n2 + program.j] = doubt


class Program:
    """One program of the kernel: a displacement, a row of x1, some rows of x2, some columns."""

    def __init__(self, run: Run, shifts: Any, sources: tuple[Any, ...], roots: tuple[Any, Any]) -> None:
        self.run, self.sources, self.roots = run, sources, roots
        self.at, pair, self.tile = (pl.program_id(axis) for axis in range(3))
        groups = run.n2 // run.lanes
        self.i, self.j = pair // groups, (pair % groups) * run.lanes + jnp.arange(run.lanes, dtype=np.int32)
        self.dh, self.dw = shifts[2 * self.at], shifts[2 * self.at + 1]
        self.left = self.tile * run.columns
        self.left2 = lax.rem(self.left - self.dw + run.width, np.int32(run.width)) + run.wide
        self.across = {
            (a, b): self._together(self.left + a, self.left + b, self.dw, run.width)
            for step, beside in zip(run.steps, run.beside, strict=True)
            for a in range(-beside - step.reach[1], run.columns + beside + step.reach[1])
            for b in range(a + 1, a + step.reach[1] + 1)
            if self._used(a) and self._used(b)
        }

    def _used(self, column: int) -> bool:
        """Whether a column may count: where a program has all of them, those outside are zero."""
        return bool(self.run.wide) or 0 <= column < self.run.columns

    def _together(self, a: Any, b: Any, d: Any, size: int) -> Array:
        """1 where a and b lie inside both images with nothing between, else 0."""
        inside = (a >= 0) & (b >= 0) & (a < size) & (b < size) & ((a < d) == (b < d))
        return inside.astype(self.run.dtype)

    def _clipped(self, h: Any) -> Any:
        return jnp.clip(h, np.int32(0), np.int32(self.run.height - 1))

    def _index1(self, h: Any, k: int, before: int = 0) -> Any:
        """Of column k of row h of x1, after `before` whole images."""
        run = self.run
        # Constants last: all columns then share one address.
        return ((h * run.w1 + self.left + run.wide) * run.n1 + self.i) + (
            before * run.height * run.w1 + k
        ) * run.n1

    def _index2(self, h: Any, k: int, before: int = 0) -> Any:
        run = self.run
        second = jnp.where(h >= self.dh, h - self.dh, h - self.dh + run.height)
        return ((second * run.w2 + self.left2) * run.n2 + self.j) + (
            before * run.height * run.w2 + k
        ) * run.n2

    def pair_index(self, h: Any, k: Any) -> Any:
        run = self.run
        return ((h * run.width + self.left) * run.n1 + self.i) * run.n2 + self.j + k * (run.n1 * run.n2)

    def entering(self, h: Any) -> tuple[Pages, Pages | None]:
        """nngp and ntk of row h (of another one outside the image, never used)."""
        run, h = self.run, self._clipped(h)
        span = range(-run.wide, run.columns + run.wide)
        if run.channels:
            one, other = self.sources
            # A thread reads 16 bytes at once.
            many = min(run.channels, 16 // run.dtype.itemsize)
            channel = jnp.broadcast_to(jnp.arange(many, dtype=np.int32)[None, :], (run.lanes, many))

            def product(k: int) -> Array:
                at1, at2 = self._index1(h, k) * run.channels, self._index2(h, k) * run.channels
                parts = [
                    jnp.sum(one[at1 + (c + channel)] * other[at2[:, None] + (c + channel)], axis=1)
                    for c in range(0, run.channels, many)
                ]
                return functools.reduce(jnp.add, parts)

            return [product(k) for k in span], None

        def read(ref: Any) -> Pages:
            inside = [jnp.clip(k, -self.left, np.int32(run.width - 1) - self.left) for k in span]
            return [ref[self.at, self.pair_index(h, k)] for k in inside]

        nngp, *ntk = map(read, self.sources)
        return nngp, ntk[0] if ntk else None

    def box(
        self, step: Step, beside: int, before: int, row: Pages, past: list[Pages], h: Any
    ) -> tuple[Pages, list[Pages]]:
        """Sums over windows centred on row h, `row` the last of them, and the rows that the next one wants.

        before, beside: columns at either side that `row` and the sums have."""
        down, wide = step.reach

        def summed(a: int) -> Array:
            near = [b for b in range(a - wide, a + wide + 1) if self._used(b)]
            terms = [
                row[b + before] if a == b else self.across[min(a, b), max(a, b)] * row[b + before]
                for b in near
            ]
            return functools.reduce(jnp.add, terms)

        rows = [*past, [summed(a) for a in range(-beside, self.run.columns + beside)]]
        inside = [self._together(h, h + t, self.dh, self.run.height) for t in range(-down, down + 1)]
        inside[down] = None  # type: ignore[call-overload]
        total = [
            functools.reduce(
                jnp.add, [k if m is None else m * k for m, k in zip(inside, column, strict=True)]
            )
            for column in zip(*rows, strict=True)
        ]
        return total, rows[1:]

    def activated(
        self, step: Step, beside: int, nngp: Pages, ntk: Pages | None, h: Any
    ) -> tuple[Pages, Pages | None, Array]:
        """After α |x| + β x (`ntk.analytic.dual.arccosine`), and in how many columns a pair is in doubt."""
        alpha, beta = slopes(step.layer)
        run, here = self.run, self._clipped(h)
        roots1, roots2 = self.roots
        single, slot = run.dtype.itemsize == 4, run.slots[step.place]
        after: Pages = []
        tangent: Pages = []
        doubt = jnp.zeros(run.lanes, run.dtype)
        for n, k in enumerate(range(-beside, run.columns + beside)):
            first, second = (
                lambda slot, k=k: roots1[self._index1(here, k, slot)],
                lambda slot, k=k: roots2[self._index2(here, k, slot)],
            )
            scale = first(slot) * second(slot)
            # A root in float32 is cheaper than two more loads, in float64 dearer.
            inverse = lax.rsqrt(scale) ** 2 if single else first(slot + 1) * second(slot + 1)
            cos = nngp[n] * inverse
            theta, excess, gap = folded(cos)
            after.append((alpha**2 * scale) * ((1 - gap) + (2 / math.pi) * excess) + beta**2 * nngp[n])
            if ntk is not None:
                sign = 1 - (2 / math.pi) * theta
                tangent.append(ntk[n] * (alpha**2 * jnp.where(cos < 0, -sign, sign) + beta**2))
            if 0 <= k < run.columns:
                doubt = doubt + (gap < doubtful_gap(run.dtype)).astype(run.dtype)
        inside = ((h >= 0) & (h < run.height)).astype(run.dtype)
        return after, None if ntk is None else tangent, inside * doubt


def _roots(stage: Stage, variances: list[Array]) -> Array:
    """√var and 1 / √var of every one, (2 times their number, h, w, n)."""
    found = []
    for var in variances:
        root = jnp.sqrt(jnp.maximum(jnp.broadcast_to(var, (*stage.sizes, var.shape[-1])), tiny(var.dtype)))
        found += [root, 1 / root]
    return jnp.stack(found)


def _weighted(step: Step, nngp: Pages, ntk: Pages | None, wants_ntk: bool) -> tuple[Pages, Pages | None]:
    """After the weights of a convolution, of sums over its windows (`ntk.analytic.rules_dense.affine`)."""
    layer = step.layer
    assert isinstance(layer, Conv)
    size = prod(layer.filter_shape)
    weight, bias = layer.W_std**2 / size, layer.b_std
    after = [weight * k if bias is None else weight * k + bias**2 for k in nngp]
    if not wants_ntk:
        return after, None
    own = after
    if layer.parameterization != "ntk":
        width = size * step.channels // layer.s[0]
        own = [(width / size) * k + (0.0 if bias is None else 1.0) for k in nngp]
    return after, own if ntk is None else [weight * t + k for t, k in zip(ntk, own, strict=True)]
