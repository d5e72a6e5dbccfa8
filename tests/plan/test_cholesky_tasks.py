import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.cholesky import cholesky_tasks, factor_reads, forward_tasks, inverse_diagonal_tasks

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


@given(
    st.integers(1, 6),
    st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5))),
    st.sets(st.integers(0, 5)),
    st.randoms(),
)
def test_forward_substitution_reads_only_what_is_written(blocks, some, blocks_done, rng: random.Random):
    written = some & set(upper(blocks))
    done = {(ARRAY, tile) for tile in written} | {("z", (i, 0)) for i in blocks_done}
    factor = cholesky_tasks(blocks, ARRAY, done, "c")
    forward = forward_tasks(blocks, ARRAY, "z", done, "f", "c")
    assert [task.writes for task in forward] == [
        (("z", (i, 0)),) for i in range(blocks) if i not in blocks_done
    ]
    waiting, solved = {task.key: task for task in (*factor, *forward)}, set(blocks_done)
    while waiting:
        task = rng.choice([task for task in waiting.values() if not any(dep in waiting for dep in task.deps)])
        if task.kind == "forward":
            i = task.args[2]
            assert all((k, i) in written and (k == i or k in solved) for k in range(i + 1))
            solved.add(i)
        else:
            written.add(task.args[1:])
        del waiting[task.key]


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
