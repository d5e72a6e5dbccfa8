import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk.linalg import dense_cholesky
from pipeline.config.sizes import human_bytes, parse_bytes
from pipeline.errors import InputError
from pipeline.plan import memory, memory_solve, memory_spectrum


@pytest.mark.parametrize(
    ("text", "size"),
    [("512 MB", 512 * 10**6), ("1.5GiB", 3 * 2**29), ("8e9", 8 * 10**9), (4096, 4096), ("2 tb", 2 * 10**12)],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1 GB", "0", "12 apples", "1.2.3 MB", "nan", "1e999", True])
def test_what_is_not_a_size(text):
    with pytest.raises(ValueError, match=r"size"):
        parse_bytes(text)


@given(st.integers(1, 10**17))
def test_human_figures_read_back(count):
    assert parse_bytes(human_bytes(count)) == pytest.approx(count, rel=0.0051)


def need_of(tile):
    return memory.gram_task(tile, row_size=64, rows_kept=4 * tile, bytes_per_pair=100.0)


@given(st.integers(memory.PROCESS_WITH_JAX + 10**6, 10**11), st.integers(1, 20_000))
def test_largest_tile_is_the_last_that_fits(limit, most):
    tile = memory.largest_tile(limit, need_of, most=most)
    assert tile is not None
    assert tile % 64 == 0
    assert need_of(tile).total <= limit
    assert need_of(tile + 64).total > limit or tile >= most


def test_no_tile_fits():
    assert memory.largest_tile(10**6, need_of) is None


@given(st.integers(1, 4000))
def test_needs_grow_with_the_tile(tile):
    kernel = {"row_bytes": 64, "bytes_per_pair": 24.0}
    for need in (
        lambda b: memory.gram_task(b, row_size=8, rows_kept=4 * b, bytes_per_pair=24.0),
        lambda b: memory_solve.cholesky_task(b),
        lambda b: memory_solve.substitution_task(8192, 10, b),
        lambda b: memory_solve.inverse_diagonal_task(8192, b),
        lambda b: memory_solve.prediction_task(b, n=8192, columns=10, **kernel),
        lambda b: memory_spectrum.full_eigh(b),
    ):
        assert need(tile).total < need(tile + 1).total


def test_what_fits_passes_and_what_does_not_names_the_worst_part():
    need = need_of(8192)
    memory.require_fits("gram task", need, need.total)
    with pytest.raises(InputError) as caught:
        memory.require_fits("gram task", need, 2 * 10**9, tile=8192, need_of_tile=need_of)
    fitting = memory.largest_tile(2 * 10**9, need_of)
    assert "gram task with tile 8192" in caught.value.message
    assert human_bytes(need.total) in caught.value.message
    assert "kernel temporaries" in caught.value.message
    assert f"gram.tile to {fitting}" in (caught.value.hint or "")


def test_refusal_when_no_tile_fits():
    with pytest.raises(InputError) as caught:
        memory.require_fits("gram task", need_of(64), 10**6, tile=64, need_of_tile=need_of)
    assert "no tile fits" in str(caught.value)


def test_planning_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from pipeline.plan import cholesky, gram, memory, tasks, tiles\n"
        "print([m for m in ('numpy', 'zarr', 'jax', 'dask', 'pydantic') if m in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout == "[]\n"


def test_blocks_of_a_matrix_in_memory_are_those_of_the_factorisation() -> None:
    assert (memory_solve.DENSE_ROWS, memory_solve.DENSE_BLOCK) == (
        dense_cholesky.LAPACK_ROWS,
        dense_cholesky.BLOCK,
    )
