import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.store.faults import disk_error
from pipeline.store.files import replace_file


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "writable"),
        (errno.EIO, "rerun"),
    ],
)
def test_a_failed_write_names_path_cause_and_remedy(number, remedy):
    error = disk_error(OSError(number, os.strerror(number)), Path("runs/a/journal"), "append to the journal")
    assert error.exit_code == 2
    assert error.message == f"runs/a/journal: cannot append to the journal: {os.strerror(number)}"
    assert remedy in (error.hint or "")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    replace_file(path, b"old")
    with pytest.raises(TypeError):
        replace_file(path, "text is not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    replace_file(path, memoryview(b"new"))
    assert path.read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]


def test_reading_a_journal_or_a_lease_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from pipeline.store import Journal, JournalWriter, Lease, RunLayout, TileError\n"
        "print([m for m in ('numpy', 'zarr', 'jax', 'dask', 'pydantic') if m in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout == "[]\n"


def test_every_name_of_the_package_is_there():
    import pipeline.store as package

    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError):
        _ = package.nothing
