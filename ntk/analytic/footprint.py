"""How many pairs of inputs with positions a step of the staged kernel takes, and the memory of that. No JAX."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from ntk.analytic.staging import Stage, Staged, entries
from ntk.stax.combinators import Parallel, Serial
from ntk.stax.layer import Layer

#: Bytes of one array of a step, the covariances of one displacement for a block of pairs: on a CPU some four of them
#: shall stay in a core's cache; an accelerator wants work for all its cores.
_SLICE = {"cpu": 2**17, "accelerator": 2**27}
#: Bytes of all temporaries of a block.
_BLOCK = {"cpu": 2**25, "accelerator": 2**31}
#: The least of each side of a block: below, the loops over positions cost more than their bodies.
_LEAST_PAIRS = 16
#: nngp and ntk before and after a layer, a sum over one axis of a window, the angle between.
_SLICES = 8
#: The exact kernel of single pairs carries three residuals besides, before and after a layer.
EXACT_SLICES = 20


@dataclass(frozen=True, slots=True)
class Block:
    """b1 rows of x1 with b2 rows of x2 at a time, powers of two."""

    b1: int
    b2: int

    @property
    def pairs(self) -> int:
        return self.b1 * self.b2

    def padded(self, rows: int) -> int:
        """`rows` rounded up to whole blocks of either side."""
        step = max(self.b1, self.b2)
        return -(-rows // step) * step


def positions(stage: Stage) -> int:
    """The most positions of one input in a stage, its branches counted together."""
    return max(prod(stage.sizes), prod(stage.sizes_out)) * _branches(stage.layers)


def _branches(layer: Layer) -> int:
    if isinstance(layer, Serial):
        return max((_branches(inner) for inner in layer.layers), default=1)
    if isinstance(layer, Parallel):
        return sum(_branches(branch) for branch in layer.layers)
    return 1


def pooled(staged: Staged) -> int:
    """The most covariances per pair that are kept between stages, those before and after one of them together."""
    kept = [0]
    for after in staged.stages[1:]:
        displacements = prod(len(after.entering(axis)) + 1 for axis in range(len(after.sizes)))
        kept.append(displacements * prod(after.sizes))
    kept.append(0)
    return max(a + b for a, b in pairwise(kept))


def pair_bytes(staged: Staged, itemsize: int, slices: int = _SLICES) -> int:
    """Bytes of the temporaries of each pair in a block."""
    return itemsize * (2 * pooled(staged) + slices * max(positions(stage) for stage in staged.stages))


def block(staged: Staged, itemsize: int, tile: int, device: str = "cpu") -> Block:
    """The block of pairs for tiles of `tile` rows on a "cpu" or an "accelerator"."""
    widest = max(positions(stage) for stage in staged.stages) * itemsize
    most = min(_SLICE[device] // widest, _BLOCK[device] // pair_bytes(staged, itemsize))
    pairs = max(_LEAST_PAIRS, most)
    rows = _power(tile)
    b2 = min(rows, 32)
    b1 = min(rows, max(1, 2 ** ((pairs // b2).bit_length() - 1)))
    return Block(b1, b2)


def fused_block(staged: Staged, itemsize: int, tile: int, lanes: int, memory: int) -> Block:
    """The block of pairs where a kernel takes every displacement of a stage at once
    (`ntk.analytic.pallas_displacement`) on a device of `memory` bytes: as many as an eighth of it holds, 8 GiB at
    most."""
    # nngp and ntk before and after a kernel.
    pair = 4 * itemsize * max(entries(stage) for stage in staged.stages)
    pairs = max(1, min(memory // 8, 2**33) // pair)
    rows = _power(tile)
    b2 = min(rows, lanes, 2 ** (pairs.bit_length() - 1))
    return Block(min(rows, max(1, 2 ** ((pairs // b2).bit_length() - 1))), b2)


def _power(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def rows_at_once(staged: Staged, itemsize: int, rows: int, slices: int = _SLICES, device: str = "cpu") -> int:
    """How many rows alone (or single pairs) are computed together: `rows` or less."""
    fitting = max(_LEAST_PAIRS, _BLOCK[device] // pair_bytes(staged, itemsize, slices))
    return min(rows, 2 ** (fitting.bit_length() - 1))


def tile_bytes(staged: Staged, tile: int) -> int:
    """Bytes of the temporaries of a tile on a CPU, in float64: a block of pairs, of rows or of exact pairs, whichever
    takes the most, and what is known of each row alone."""
    pairs = max(block(staged, 8, tile).pairs, _LEAST_PAIRS)
    blocks = max(
        pairs * pair_bytes(staged, 8), _LEAST_PAIRS * pair_bytes(staged, 8, EXACT_SLICES), _BLOCK["cpu"]
    )
    row = sum(prod(stage.sizes) * (stage.channels + 2 + _leaves(stage.layers)) for stage in staged.stages)
    return blocks + 8 * 4 * tile * row


def _leaves(layer: Layer) -> int:
    return sum(map(_leaves, layer.layers)) if isinstance(layer, (Serial, Parallel)) else 1
