"""How fast one worker is: measured by a calibration, otherwise assumed from the kind of machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Device = Literal["cpu", "v100", "a100", "h100"]

READ_RATE = 1.5e9
"""Bytes a second at which stored tiles are read and checked, where nothing was measured."""

WRITE_RATE = 0.4e9
"""Bytes a second at which one worker makes tiles durable, where nothing was measured."""

STARTUP_SECONDS = 6.0
"""From the start of the workers to their first tile: imports and compilation, where nothing was measured."""

TASK_OVERHEAD = 0.005
"""Seconds of a worker that a task costs beyond its work."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Operations a second in float64.

    Attributes:
        products: of matrix products.
        elementwise: of everything else in a kernel, as `ntk.analytic.cost` counts it. What bounds this is memory, so
            float32 runs at twice the rate of either.
    """

    products: float
    elementwise: float


# One CPU thread: measured here (OpenBLAS; nonlinearities in blocks that fit the cache). V100: matrix products from its
# data sheet at 70 %; elementwise from the 316 GPU-hours that Myrtle-5 on 60,000 CIFAR-10 images took in float64 with
# neural-tangents (its README). A100, H100: the same, times the ratio of the memory bandwidths (0.9, 2.0, 3.35 TB/s).
_SPEEDS: dict[Device, Speed] = {
    "cpu": Speed(32e9, 8e9),
    "v100": Speed(5e12, 0.38e12),
    "a100": Speed(13e12, 0.85e12),
    "h100": Speed(40e12, 1.4e12),
}


@dataclass(frozen=True, slots=True)
class Rates:
    """What one worker does in a second, and how long it takes to begin.

    Attributes:
        pair_seconds: one entry of a whole tile, computed and stored, all kernels wanted.
        diagonal_seconds: the same of a tile on the diagonal.
        products: float64 operations a second of matrix products.
        read, write: bytes a second.
        startup: seconds until the workers compute.
        measured: whether a calibration on the workers found these; otherwise they are assumed.
        device: what a worker computes with.
        task_overhead: seconds that a task costs a worker beyond its work.
    """

    pair_seconds: float
    diagonal_seconds: float
    products: float
    read: float
    write: float
    startup: float
    measured: bool
    device: Device
    task_overhead: float = TASK_OVERHEAD


def assumed(
    flops_per_pair: float, row_size: int, itemsize: int, *, device: Device = "cpu", threads: int = 1
) -> Rates:
    """Rates of a worker on which nothing was measured.

    Args:
        flops_per_pair: of the kernel; 2·row_size of them are the product of the two inputs.
        row_size: numbers in one input.
        itemsize: bytes of a number, 4 or 8: the precision that the kernel is computed in.
        threads: CPU threads of the worker; a GPU counts as a whole.
    """
    speed = _SPEEDS[device]
    scale = 8 / itemsize
    cores = threads if device == "cpu" else 1
    product = 2.0 * row_size
    seconds = product / speed.products + max(flops_per_pair - product, 0.0) / speed.elementwise
    pair = seconds / scale / cores
    return Rates(pair, pair, speed.products * cores, READ_RATE, WRITE_RATE, STARTUP_SECONDS, False, device)
