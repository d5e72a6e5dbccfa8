import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.cholesky import cholesky_tasks, factor_reads, inverse_diagonal_tasks

ARRAY = "solution/factor-0"


def upper(blocks):
    return [(i, j) for i in range(blocks) for j in range(i, blocks)]


def execute(tasks, written, choose):
    """Runs the tasks in some order that their dependencies allow; returns the order."""
    waiting = {task.key: task for task in tasks}
    order = []
    while waiting:
        ready = [task for task in waiting.values() if not any(dep in waiting for dep in task.deps)]
        assert ready, "a cycle"
        task = choose(ready)
        _, i, j = task.args
        unwritten = [tile for tile in factor_reads(i, j) if tile not in written]
        assert not unwritten, f"{(i, j)} reads {unwritten}"
        written.add((i, j))
        order.append(waiting.pop(task.key))
    return order


@given(st.integers(1, 7), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6))), st.randoms())
def test_no_order_reads_an_unwritten_tile_whatever_is_done(blocks, some, rng: random.Random):
    tiles = set(upper(blocks))
    done = some & tiles
    tasks = cholesky_tasks(blocks, ARRAY, {(ARRAY, tile) for tile in done}, "cholesky/0")
    assert {task.writes for task in tasks} == {((ARRAY, tile),) for tile in tiles - done}
    keys = {task.key for task in tasks}
    assert all(dep in keys for task in tasks for dep in task.deps)
    written = set(done)
    execute(tasks, written, rng.choice)
    assert written == tiles


@given(st.integers(1, 7), st.randoms())
def test_resuming_after_any_interruption_finishes(blocks, rng: random.Random):
    tasks = cholesky_tasks(blocks, ARRAY, set(), "c")
    written: set[tuple[int, int]] = set()
    order = execute(tasks, written, rng.choice)
    done = {chunk for task in order[: rng.randrange(len(order) + 1)] for chunk in task.writes}
    rest = cholesky_tasks(blocks, ARRAY, done, "c")
    execute(rest, {tile for _, tile in done}, rng.choice)


def test_dependencies_are_direct():
    by_tile = {task.args[1:]: task for task in cholesky_tasks(5, ARRAY, set(), "c")}
    assert by_tile[0, 0].deps == ()
    assert by_tile[2, 2].deps == ("c/1.2",)
    assert by_tile[2, 4].deps == ("c/2.2", "c/1.4")


def test_priority_grows_along_every_dependency():
    tasks = {task.key: task for task in cholesky_tasks(9, ARRAY, set(), "c")}
    assert all(tasks[dep].priority < task.priority for task in tasks.values() for dep in task.deps)
    assert max(tasks.values(), key=lambda task: task.priority).args[1:] == (8, 8)


def test_inverse_diagonal_has_one_task_a_block():
    array = "solution/inverse-diagonal"
    tasks = inverse_diagonal_tasks(4, array, {(array, (1,))}, "inv")
    assert [task.key for task in tasks] == ["inv/0", "inv/2", "inv/3"]
    assert [task.writes for task in tasks] == [((array, (j,)),) for j in (0, 2, 3)]


def test_refuses_an_empty_factor():
    with pytest.raises(ValueError, match="at least one block"):
        cholesky_tasks(0, ARRAY, set(), "c")
