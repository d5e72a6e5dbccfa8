"""Iterative solvers: the rank of their preconditioner, the memory of the process that iterates, and which solver `auto`
takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.config.model import SolveConfig
from pipeline.config.sizes import human_bytes
from pipeline.plan.memory import PROCESS_WITH_JAX, Need
from pipeline.plan.rates import READ_RATE
from pipeline.plan.resources import ASSUMED_FLOPS, Resources

PROPOSALS = 128
"""Rows proposed as pivots at once, and columns of one product of a Nyström approximation."""

RANK_PER_ROOT = 10
"""`auto` takes no larger rank than this times √n: the arithmetic of building it, n·rank², is then that of some fifty
products."""

PROBES = 4
"""Random right-hand sides that go along to estimate tr (K + λI)⁻¹ for generalised cross-validation."""

PROBE_TOLERANCE = 1e-2
"""Relative residual to which they are solved."""

PRODUCT_SECONDS = 0.05
"""What a product costs however small the matrix is: messages, scratch files, a checkpoint."""

ASSUMED_PRODUCTS = 60
"""Products that a preconditioned solve of one ridge is taken to need before anything is known of the spectrum."""


def coordinator(n: int, columns: int, rank: int) -> Need:
    """The process that iterates: ten blocks of vectors (X, S, Q, M⁻¹Q, A S, B and temporaries), and the
    preconditioner with the copies that its orthogonal factorisation needs, 3·n·rank·8."""
    return Need((
        ("process", PROCESS_WITH_JAX),
        ("vectors", 10 * n * columns * 8),
        ("preconditioner", 3 * n * rank * 8),
    ))  # fmt: skip


def columns_of(solve: SolveConfig, outputs: int) -> int:
    """Right-hand sides that are solved together, probes included."""
    return outputs + (PROBES if len(solve.ridge) > 1 else 0)


def rank_of(solve: SolveConfig, n: int, outputs: int, memory: int) -> int:
    """The largest rank of the preconditioner: as configured, or what `auto` allows in `memory` bytes."""
    if solve.preconditioner == "none":
        return 0
    if solve.rank != "auto":
        return min(solve.rank, n)
    free = memory - coordinator(n, columns_of(solve, outputs), 0).total
    return max(0, min(n // 2, math.ceil(RANK_PER_ROOT * math.sqrt(n)), free // (3 * n * 8)))


LEAST_BLOCK = 256
"""Rows of a step of `askotch` at least, by `auto`: fewer cost more in messages than in kernels."""

BLOCK_RANK = 100
"""Rank of the approximation of a block, by `auto` (Rathore et al. 2024)."""

ASSUMED_PASSES = 100
"""Passes over the matrix that `askotch` is taken to need for a ridge before anything is known of the spectrum."""


def block_of(solve: SolveConfig, n: int) -> tuple[int, int]:
    """Rows of a step of `askotch`, and the rank of the approximation of their block."""
    block = min(n, max(LEAST_BLOCK, -(-n // 100)) if solve.block == "auto" else solve.block)
    return block, min(block, BLOCK_RANK if solve.rank == "auto" else solve.rank)


def descent_coordinator(n: int, columns: int, block: int) -> Need:
    """The process that directs `askotch`: twelve blocks of vectors (W, V, Z before and after a step, B, a checkpoint,
    temporaries), and six copies of a block of the matrix."""
    return Need((
        ("process", PROCESS_WITH_JAX),
        ("vectors", 12 * n * columns * 8),
        ("block", 6 * block * block * 8),
    ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """A method of solving, and the reason in one line."""

    method: Literal["cholesky", "cg", "askotch"]
    why: str

    def __str__(self) -> str:
        return f"{self.method}: {self.why}"


def choose(solve: SolveConfig, rows: int, outputs: int, itemsize: int, resources: Resources) -> Choice:
    """The method that `solve.method` names, or for `auto` the one that should be faster.

    Cholesky costs 2n³/3 a ridge (factor and diagonal of the inverse) whatever the right-hand sides; CG costs some
    products, each of 4·n²/2 flops a right-hand side or one reading of the matrix, whichever takes longer, and the rank
    that `rank_of` allows. Cholesky is exact and knows the exact leave-one-out error: it may take twice as long.
    """
    if solve.method == "cholesky" or solve.method == "cg":
        return Choice(solve.method, f"solve.method is {solve.method}")
    if solve.method == "askotch":
        block, rank = block_of(solve, rows)
        stored = itemsize * rows * (rows + 1) / 2
        return Choice(
            "askotch",
            f"solve.method is askotch: blocks of {block:,} rows, rank {rank:,}, computed when needed; "
            f"{human_bytes(stored)} of Gram matrix are not stored",
        )
    n, ridges = float(rows), len(solve.ridge)
    rate = ASSUMED_FLOPS * resources.threads * resources.workers
    columns, rank = columns_of(solve, outputs), rank_of(solve, rows, outputs, resources.memory)
    direct = ridges * 2 * n**3 / 3 / rate
    reading = n * n / 2 * itemsize / (READ_RATE * resources.workers)
    passes = ridges * ASSUMED_PRODUCTS + rank / PROPOSALS
    iterative = passes * (PRODUCT_SECONDS + max(reading, 2 * n * n * columns / rate)) + 4 * n * rank**2 / rate
    sides = (
        f"{outputs} right-hand side{'s' if outputs > 1 else ''}, {ridges} ridge{'s' if ridges > 1 else ''}"
    )
    if 2 * iterative < direct:
        return Choice(
            "cg",
            f"{sides}: about {passes:.0f} products should take {iterative:.3g} s, Cholesky {direct:.3g} s",
        )
    return Choice("cholesky", f"{sides}: should take {direct:.3g} s, conjugate gradients {iterative:.3g} s")
