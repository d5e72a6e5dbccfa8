"""Two runs side by side: eigenvalue ratios, angles between leading eigenspaces, alignment of the centred kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntk.spectral.comparison import centred_kernel_alignment, eigenvalue_ratios, principal_angles
from pipeline.documents import finite
from pipeline.errors import InputError
from pipeline.plan.gram import gram_array
from pipeline.plan.tiles import TileGrid
from pipeline.stages import rundir
from pipeline.stages.spectrum_arrays import EIGENVALUES, EIGENVECTORS, spectrum_array
from pipeline.store.arrays import ArrayStore
from pipeline.store.journal import Journal
from pipeline.store.place import Place, place

RANKS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)
"""Ranks whose eigenvalue ratio is shown; the last one that both know is added."""

ROWS_FIELD = "data.train.x"


@dataclass(frozen=True, slots=True)
class Side:
    """One kernel of one run, opened for reading."""

    directory: Place
    kernel: str
    store: ArrayStore
    grid: TileGrid
    rows: str

    @classmethod
    def open(cls, text: str) -> Side:
        """From `DIR` or `DIR#kernel`; without a kernel the first that the run stores.

        Raises:
            InputError: there is no run, or it does not store that kernel's spectrum.
        """
        path, _, kernel = text.partition("#")
        directory = place(path)
        facts = rundir.resolved(directory)
        if facts is None:
            raise InputError(f"{directory}: no run here", hint="`ntk run RUN.yaml --out DIR` makes one")
        store = ArrayStore(directory, Journal(directory).load())
        arrays = store.journal.arrays()
        found = [
            name.split("/")[1] for name in sorted(arrays, reverse=True) if name.endswith(f"/{EIGENVALUES}")
        ]
        if kernel not in (found if kernel else ["", *found]) or not found:
            stored = f"only of {', '.join(found)}" if found else "none"
            raise InputError(
                f"{directory}: stores no spectrum{f' of {kernel}' if kernel else ''} ({stored})",
                hint="`ntk spectrum` computes the spectra of the kernels in kernel.get",
            )
        rundir.refuse_stale(directory, facts, store.journal, "spectrum")
        grid = TileGrid(facts["rows"]["train"], facts["tile"])
        return cls(directory, kernel or found[0], store, grid, facts["fields"][ROWS_FIELD])

    def eigenvectors(self) -> np.ndarray | None:
        """(n, vectors), None when none are stored."""
        name = spectrum_array(self.kernel, EIGENVECTORS)
        return self.store.read_all(name) if self.store.journal.records(name) else None

    def part(self, rows: slice, columns: slice) -> np.ndarray:
        """K[rows, columns] above or on the diagonal, put together from the tiles that it meets."""
        block = np.empty((rows.stop - rows.start, columns.stop - columns.start))
        tile = self.grid.tile
        for i in range(rows.start // tile, -(-rows.stop // tile)):
            for j in range(columns.start // tile, -(-columns.stop // tile)):
                stored = self.store.view(gram_array(self.kernel), (min(i, j), max(i, j)))
                whole = stored if i <= j else stored.T
                down, across = (_overlap(rows, i, tile), _overlap(columns, j, tile))
                block[down[0], across[0]] = whole[down[1], across[1]]
        return block


def compare(first: str, second: str) -> dict[str, Any]:
    """How the kernel of one run differs from that of another, as a document.

    Args:
        first, second: `DIR` or `DIR#kernel`, as runs/deep#nngp.

    Returns:
        Ratios λ_k(first) / λ_k(second); where both runs have the same rows in the same order also the principal angles
        between their leading eigenvectors (degrees, ascending, each with its rank) and the centred kernel alignment.

    Raises:
        InputError: a run or its spectrum is not there, or the spectrum is of another configuration.
        TileError: a stored tile is missing or damaged.
    """
    a, b = Side.open(first), Side.open(second)
    values = [side.store.read_all(spectrum_array(side.kernel, EIGENVALUES)) for side in (a, b)]
    ratios = eigenvalue_ratios(*values)
    ranks = sorted({rank for rank in RANKS if rank <= len(ratios)} | {len(ratios)})
    same = a.rows == b.rows
    document: dict[str, Any] = {
        "first": {"directory": str(a.directory), "kernel": a.kernel, "rows": a.grid.n},
        "second": {"directory": str(b.directory), "kernel": b.kernel, "rows": b.grid.n},
        "same_rows": same,
        "eigenvalues": [
            {"rank": k, "first": float(at_first), "second": float(at_second), "ratio": finite(ratio)}
            for k, at_first, at_second, ratio in ((k, values[0][k - 1], values[1][k - 1], ratios[k - 1]) for k in ranks)
        ],
    }  # fmt: skip
    if same:
        document["principal_angles_degrees"] = _angles(a, b)
        document["centred_kernel_alignment"] = finite(centred_kernel_alignment(_blocks(a, b), a.grid.n))
    return document


def to_text(document: dict[str, Any]) -> str:
    """The document as a table for a person."""
    names = [f"{document[side]['directory']}#{document[side]['kernel']}" for side in ("first", "second")]
    width = max(14, *(len(name) for name in names))
    lines = [f"{'rank':>8}  {names[0]:>{width}}  {names[1]:>{width}}  {'ratio':>9}"]
    for row in document["eigenvalues"]:
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.4g}"
        lines.append(
            f"{row['rank']:>8,}  {row['first']:>{width}.6g}  {row['second']:>{width}.6g}  {ratio:>9}"
        )
    if not document["same_rows"]:
        lines.append("different rows: angles and alignment need the same inputs in the same order")
        return "\n".join(lines)
    angles = document["principal_angles_degrees"]
    if angles:
        shown = ", ".join(f"{angle:.3g}°" for angle in angles)
        lines.append(f"principal angles of the {len(angles)} leading eigenvectors: {shown}")
    alignment = document["centred_kernel_alignment"]
    lines.append(f"centred kernel alignment: {'–' if alignment is None else f'{alignment:.6f}'}")
    return "\n".join(lines)


def _angles(a: Side, b: Side) -> list[float]:
    first, second = a.eigenvectors(), b.eigenvectors()
    if first is None or second is None:
        return []
    count = min(first.shape[1], second.shape[1])
    return np.degrees(principal_angles(first[:, :count], second[:, :count])).tolist()


def _blocks(a: Side, b: Side) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray]]:
    """The upper tiles of the first matrix, and the same entries of the second, whose tiles may be others."""
    for i, j in a.grid.upper():
        rows, columns = a.grid.rows(i), a.grid.rows(j)
        yield rows, columns, a.part(rows, columns), b.part(rows, columns)


def _overlap(wanted: slice, block: int, tile: int) -> tuple[slice, slice]:
    """Where a block of rows meets the wanted ones: within these, and within the block."""
    start, stop = max(wanted.start, block * tile), min(wanted.stop, (block + 1) * tile)
    return slice(start - wanted.start, stop - wanted.start), slice(start - block * tile, stop - block * tile)
