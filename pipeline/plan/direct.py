"""Whether the direct method holds the whole matrix in the memory of one worker, or works on tiles in the store.

In memory nothing is written but the solution, and LAPACK does all in one call; tiles know no limit but the disk's, are
shared out over workers on many machines, and a killed factorisation goes on from those that are done.
"""

from __future__ import annotations

from pipeline.config.model import SolveConfig
from pipeline.plan import memory, memory_solve
from pipeline.plan.resources import ASSUMED_FLOPS, Resources

MOST_SECONDS = 60.0
"""Work of one ridge, by assumed rates, that `auto` may lose with a worker."""

HERE = ("local", "serial")
"""Kinds of clusters whose workers share the cores of this machine."""


def is_in_memory(solve: SolveConfig, n: int, outputs: int, resources: Resources) -> bool:
    """Whether one worker solves a ridge by itself, with the whole n×n matrix in its memory."""
    if solve.in_memory != "auto":
        return solve.in_memory
    if resources.kind not in HERE or resources.device != "cpu":
        return False
    seconds = 2 * float(n) ** 3 / 3 / (ASSUMED_FLOPS * resources.threads * resources.workers)
    fits = memory_solve.dense_solve_task(n, outputs, memory.TILE_MULTIPLE).total <= resources.memory
    return fits and seconds <= MOST_SECONDS


def threads_of(ridges: int, resources: Resources) -> int:
    """Threads with which a worker solves a ridge in memory: those of the workers that have none to solve as well.

    It depends on the run alone, not on what is left of it: the last digits of a factor depend on it.
    """
    if resources.kind not in HERE:
        return resources.threads
    return resources.threads * (resources.workers // min(ridges, resources.workers))
