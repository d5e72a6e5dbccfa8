"""Growing an array along its axes: the chunks that stay whole are kept, with their records."""

from __future__ import annotations

from pipeline.store.arrays import ArrayStore
from pipeline.store.faults import disk_error
from pipeline.store.format import Spec
from pipeline.store.writer import JournalWriter


def grow(
    store: ArrayStore,
    name: str,
    old: tuple[int, ...],
    shape: tuple[int, ...],
    fingerprint: str,
    writer: JournalWriter,
) -> None:
    """Make an array of shape ``old`` one of ``shape``, nowhere smaller. Killed halfway, it may be called again.

    Chunks that the old edge cuts off are removed first, and then what was recorded of them.

    Args:
        name: of the array; where there is none, nothing happens.
        fingerprint: of everything that the values depend on from now on.
        writer: for the invalidation.

    Raises:
        InputError: the array's metadata is damaged, or the disk refuses.
    """
    if not store.exists(name):
        return
    array = store.array(name)
    spec = Spec.of(array)
    if spec.shape == shape and spec.fingerprint == fingerprint:
        return
    known = {*store.journal.records(name), *store.unrecorded(name)}
    edge = [key for key in sorted(known) if _is_cut_off(key, old, shape, spec.chunks)]
    store.discard(name, edge, writer)
    store.journal.refresh()
    try:
        array.resize(shape)
        array.update_attributes({"fingerprint": fingerprint})
    except OSError as error:
        raise disk_error(error, store.directory / name, "grow the array") from error
    store.forget(name)


def _is_cut_off(
    key: tuple[int, ...], old: tuple[int, ...], shape: tuple[int, ...], chunks: tuple[int, ...]
) -> bool:
    """Whether the chunk has another valid shape in the grown array."""
    return any(
        min((index + 1) * size, extent) != min((index + 1) * size, grown)
        for index, size, extent, grown in zip(key, chunks, old, shape, strict=True)
    )
