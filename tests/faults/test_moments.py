"""Death at every moment between the arithmetic of a tile and its record."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.conftest import FULL, Contents, Run
from tests.faults.injections import MOMENTS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.mark.parametrize("count", (7, 9, 14, 20) if FULL else (9,))
@pytest.mark.parametrize("moment", MOMENTS)
def test_death_between_tile_and_record(
    small_run: Run, small_uninterrupted: Contents, row: Callable[[str, str], None], moment: str, count: int
) -> None:
    """What was recorded is kept, a whole tile without a record is adopted, only what was in flight is computed
    again."""
    small_run.finish("gram", "--cluster", "serial", inject=[("dies", moment, count)], code=-9)
    whole = small_run.tiles()
    before = small_run.recorded()
    small_run.finish("gram", "--cluster", "serial")
    after = small_run.recorded()
    assert all(after[chunk] == times for chunk, times in before.items()), "a recorded tile was computed again"
    assert len(after) - len(before) == 21 - whole, "a finished tile was lost"
    assert small_run.contents() == small_uninterrupted
    assert not list(small_run.out.rglob("*.partial"))
    row(f"death: {moment}", "rerun identical, no finished tile lost")
