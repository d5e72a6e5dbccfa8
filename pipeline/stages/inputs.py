"""The prepared inputs and targets in the store, where every worker finds them."""

from __future__ import annotations

from pipeline.stages.session import Session


def store_inputs(session: Session) -> None:
    """Put the prepared data into the store, in blocks of one tile's rows; what is there already is left alone.

    Every stage that has work to do does this first: targets and held-out rows may be others than when the Gram matrix,
    which does not depend on them, was finished.
    """
    tile = session.grid.tile
    for name, array in session.inputs.arrays.items():
        full = f"inputs/{name}"
        dtype = session.spec.precision if name.startswith("x") else str(array.dtype)
        session.create(
            full, array.shape, (tile, *array.shape[1:]), fingerprint=session.inputs.fingerprints[name],
            dtype=dtype,
        )  # fmt: skip
        have = session.journal.records(full)
        for block in range(-(-len(array) // tile)):
            key = (block, *(0,) * (array.ndim - 1))
            if key not in have:
                session.put(full, key, array[block * tile : (block + 1) * tile].astype(dtype, copy=False))
