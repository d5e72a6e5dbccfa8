"""The run directory: Zarr arrays, journal, lease, checksums. The only place that imports zarr.

Names are loaded on first use: reading a journal (``ntk status``) imports neither numpy nor zarr.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.store.arrays import ArrayStore, worker_name
    from pipeline.store.digest import digest
    from pipeline.store.faults import TileError, TileFault
    from pipeline.store.files import replace_file
    from pipeline.store.journal import Journal, StageRecord
    from pipeline.store.layout import RunLayout
    from pipeline.store.lease import Lease
    from pipeline.store.writer import JournalWriter

_HOME = {
    "ArrayStore": "arrays",
    "Journal": "journal",
    "JournalWriter": "writer",
    "Lease": "lease",
    "RunLayout": "layout",
    "StageRecord": "journal",
    "TileError": "faults",
    "TileFault": "faults",
    "digest": "digest",
    "replace_file": "files",
    "worker_name": "arrays",
}

__all__ = [
    "ArrayStore",
    "Journal",
    "JournalWriter",
    "Lease",
    "RunLayout",
    "StageRecord",
    "TileError",
    "TileFault",
    "digest",
    "replace_file",
    "worker_name",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
