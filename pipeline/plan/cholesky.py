"""Tasks of the blocked Cholesky factorisation A = UᵀU on upper tiles, of U⁻ᵀ Y beside it, and of the diagonal of A⁻¹.

Left-looking: tile (i, j) is written once, by one task that reads A_ij and the tiles above it in columns i, j:

    U_ij = U_ii⁻ᵀ (A_ij − Σ_{k<i} U_kiᵀ U_kj)   (i < j),      U_iiᵀ U_ii = A_ii − Σ_{k<i} U_kiᵀ U_ki,

(Golub & Van Loan, Matrix Computations, 4th ed., §4.2.9). A tile that is done is therefore done for good: none
is updated in place, and a killed factorisation goes on from any set of finished tiles.
"""

from __future__ import annotations

from collections.abc import Collection

from pipeline.plan.tasks import Chunk, Task, chunk_name

FACTOR_KIND = "cholesky"
FORWARD_KIND = "forward"
INVERSE_KIND = "inverse-diagonal"


def factor_reads(i: int, j: int) -> tuple[tuple[int, int], ...]:
    """The tiles of U that the task of tile (i, j) reads, in the order in which it may stream them."""
    above = tuple((k, column) for k in range(i) for column in ((i,) if i == j else (i, j)))
    return above if i == j else (*above, (i, i))


def cholesky_tasks(blocks: int, array: str, done: Collection[Chunk], prefix: str) -> tuple[Task, ...]:
    """One task for each upper tile of U that is not done.

    Invariant: in whatever order the dependencies allow, every tile that a task reads (``factor_reads``) is
    either in ``done`` or written before. This holds for any ``done``, also one with holes (a tile lost after
    later ones were made): a task waits for the *nearest* tile above it, in each column it reads, that is not
    done, which itself waits for the next one above.

    Args:
        blocks: tiles along one side.
        array: name of U in the store, as ``solution/factor-0``.
        done: chunks with a record.
        prefix: start of the task keys, as ``cholesky/0``; tile (i, j) becomes ``cholesky/0/i.j``.

    Returns:
        Tasks of kind ``cholesky``, ``args = (array, i, j)``, in row order. ``priority`` is minus the work on
        the longest path to the last tile, in tile products: what holds up the end most goes first.

    Raises:
        ValueError: blocks is not positive.
    """
    if blocks < 1:
        raise ValueError(f"a factorisation needs at least one block, got {blocks}")
    # Of each column: key of the lowest tile so far that is not done.
    nearest: list[str | None] = [None] * blocks
    tasks = []
    for i in range(blocks):
        for j in range(i, blocks):
            if (array, (i, j)) in done:
                continue
            key = f"{prefix}/{chunk_name((i, j))}"
            # nearest[i] is U_ii itself by now if that is not done, otherwise what is missing above it.
            waits = (nearest[i],) if i == j else (nearest[i], nearest[j])
            deps = tuple(dep for dep in waits if dep is not None)
            tasks.append(
                Task(key, FACTOR_KIND, (array, i, j), deps, ((array, (i, j)),), -_longest_path(i, j, blocks))
            )
            nearest[j] = key
    return tuple(tasks)


def _longest_path(i: int, j: int, blocks: int) -> int:
    """Work from tile (i, j) to the last one, a tile of row k costing k + 1 tile products.

    Down column j to the diagonal, then by (j, j+1), (j+1, j+1), … to the corner:
    Σ_{k=i..j} (k+1) + Σ_{m=j+1..blocks−1} (m + (m+1)).
    """
    column = (j + 1) * (j + 2) // 2 - i * (i + 1) // 2
    staircase = blocks * blocks - (j + 1) * (j + 1)
    return column + staircase


def forward_tasks(
    blocks: int, array: str, forward: str, done: Collection[Chunk], prefix: str, factoring: str
) -> tuple[Task, ...]:
    """One task for each block of Z = U⁻ᵀ Y that is not done: Z_i = U_ii⁻ᵀ (Y_i − Σ_{k<i} U_kiᵀ Z_k).

    Y is one more column of the matrix, behind the last: block i needs column i of U alone, so that the forward
    substitution runs beside the factorisation, in the time that workers would wait along its diagonal.

    Args:
        blocks: tiles along one side of U.
        array: name of U in the store.
        forward: name of Z, in chunks of one block and all columns.
        done: chunks with a record.
        prefix: start of the task keys; block i becomes ``prefix/i``.
        factoring: start of the keys of the tasks that make what is missing of U.

    Returns:
        Tasks of kind ``forward``, ``args = (array, forward, i)``, in order; each waits for the one before and for
        the nearest tile of its column that is not done, which waits for those above it.
    """
    tasks: list[Task] = []
    for i in range(blocks):
        if (forward, (i, 0)) in done:
            continue
        missing = (k for k in reversed(range(i + 1)) if (array, (k, i)) not in done)
        above = [f"{factoring}/{chunk_name((k, i))}" for k in missing][:1]
        deps = (*(task.key for task in tasks[-1:]), *above)
        writes = ((forward, (i, 0)),)
        priority = -_longest_path(i, blocks - 1, blocks)
        tasks.append(Task(f"{prefix}/{i}", FORWARD_KIND, (array, forward, i), deps, writes, priority))
    return tuple(tasks)


def inverse_diagonal_tasks(blocks: int, array: str, done: Collection[Chunk], prefix: str) -> tuple[Task, ...]:
    """One task for each block j of diag A⁻¹ that is not done; to be driven once U is complete.

    With Uᵀ Y = E_j (the unit columns of block j), (A⁻¹)_jj = Yᵀ Y, so that the diagonal is the column sums
    of Y². Y_i vanishes for i < j, Y_j = U_jj⁻ᵀ and Y_i = −U_ii⁻ᵀ Σ_{j≤k<i} U_kiᵀ Y_k. The early blocks are
    the long ones and go first.

    Args:
        blocks: tiles along one side of U.
        array: name of the stored diagonal, a vector in chunks of one block.
        done: chunks with a record.
        prefix: start of the task keys; block j becomes ``prefix/j``.

    Returns:
        Tasks of kind ``inverse-diagonal`` without dependencies, ``args = (array, j)``.
    """
    return tuple(
        Task(f"{prefix}/{j}", INVERSE_KIND, args=(array, j), writes=((array, (j,)),), priority=j)
        for j in range(blocks)
        if (array, (j,)) not in done
    )
