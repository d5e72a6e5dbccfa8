"""Band → narrower band, in memory: bandwidth b to d < b by blocks of d columns, each bulge chased to the end.

A sweep takes the columns [j, j + d): the QR factorisation of their b rows below the new band is applied from both sides
to the b rows and columns it touches; that fills a b × b block further down, whose first d columns are factored in turn,
and so on to the end of the matrix (Bischof, Lang & Sun 2000, algorithm 2). What fills beyond the first d columns is
left for the next sweep, so that no more than 2 b diagonals below the main one are ever occupied. About 6 n² b flops,
in matrix products of inner size d.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ntk.linalg.bulge import BulgeChaser

SWEEPS_APART = 3
"""A sweep may take its step k when the one before it has taken so many more: step k touches no column beyond those of
two bulges."""

SLACK = 4
"""A sweep that has to wait waits for so many steps more: two threads in step would wait at every one."""

ALL = sys.maxsize


def narrow(band: NDArray[np.float64], bandwidth: int, *, threads: int = 1) -> NDArray[np.float64]:
    """The band of bandwidth d similar to that of bandwidth b.

    Args:
        band: ab[i, j] = A[j + i, j], (b + 1, n), not changed.
        bandwidth: d, 1 ≤ d ≤ b.
        threads: sweeps under way at once, each following the one before; the result does not depend on it.

    Returns:
        (d + 1, n), in the same layout. Memory: 16 b n bytes besides.
    """
    b, n, d = len(band) - 1, band.shape[1], bandwidth
    if d >= b:
        return band.copy()
    work = np.zeros((2 * b, n), order="F")
    work[: b + 1] = band
    progress = _Progress(len(range(0, n - d, d)))

    def sweeps(first: int) -> None:
        chaser = BulgeChaser(work, d)
        for sweep in range(first, len(progress.steps), threads):
            for step, (rows, columns) in enumerate(_blocks(sweep, n, b, d)):
                progress.wait(sweep - 1, step + SWEEPS_APART)
                chaser.eliminate(rows, columns)
                progress.tell(sweep, step + 1)
            progress.tell(sweep, ALL)

    with ThreadPoolExecutor(threads, "narrow") as pool:
        for future in [pool.submit(progress.guarded, sweeps, first) for first in range(threads)]:
            future.result()
    return np.asfortranarray(work[: d + 1])


def _blocks(sweep: int, n: int, b: int, d: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the blocks that a sweep eliminates, down to the end of the matrix."""
    columns, first = slice(sweep * d, (sweep + 1) * d), (sweep + 1) * d
    while first < n:
        rows = slice(first, min(first + b, n))
        yield rows, columns
        columns, first = slice(first, min(first + d, n)), rows.stop


class _Progress:
    """How many steps each sweep has taken, for the thread of the next one to wait for."""

    def __init__(self, sweeps: int):
        self.steps = [0] * sweeps
        self._changed = threading.Condition()
        self._failed = False

    def wait(self, sweep: int, steps: int) -> None:
        if sweep >= 0 and self.steps[sweep] < steps:
            with self._changed:
                self._changed.wait_for(lambda: self.steps[sweep] >= steps + SLACK or self._failed)
        if self._failed:
            raise RuntimeError("another sweep failed")

    def tell(self, sweep: int, steps: int) -> None:
        with self._changed:
            self.steps[sweep] = steps
            self._changed.notify_all()

    def guarded(self, work: Callable[[int], None], argument: int) -> None:
        """Do something; when it fails nobody waits for it."""
        try:
            work(argument)
        except BaseException:
            with self._changed:
                self._failed = True
                self._changed.notify_all()
            raise
