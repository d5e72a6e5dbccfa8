"""Patches stay with their workers, and the work stays balanced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.shares import TOLERATED, measured_speeds, share_out

PATCHES = [(i, j) for j in range(7) for i in range(j + 1)]
WORK = {(i, j): 1.0 if i == j else 2.0 for i, j in PATCHES}

speeds = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.2, 5.0), min_size=1)
owners = st.dictionaries(st.sampled_from(PATCHES), st.sampled_from("abcdefgone"))


def seconds(shares, speeds):
    found = dict.fromkeys(speeds, 0.0)
    for patch, worker in shares.items():
        found[worker] += WORK[patch] / speeds[worker]
    return found


@given(speeds, owners)
def test_every_patch_has_a_worker_and_all_is_balanced_or_cannot_be_by_a_move(speeds, before):
    shares = share_out(WORK, speeds, before)
    assert shares.keys() == WORK.keys()
    assert set(shares.values()) <= set(speeds)
    assert share_out(WORK, speeds, shares) == shares
    took = seconds(shares, speeds)
    if max(took.values()) <= (1 + TOLERATED) * sum(WORK.values()) / sum(speeds.values()):
        return
    last, first = max(took, key=took.__getitem__), min(took, key=took.__getitem__)
    for patch in (patch for patch in shares if shares[patch] == last):
        pair = (took[last] - WORK[patch] / speeds[last], took[first] + WORK[patch] / speeds[first])
        assert max(pair) > (1 - 1e-6) * took[last]


def test_what_is_balanced_stays():
    before = share_out(WORK, {"a": 1.0, "b": 1.0}, {})
    assert share_out(WORK, {"a": 1.0, "b": 1.1}, before) == before


def test_patches_of_who_left_are_shared_and_the_others_stay():
    before = share_out(WORK, dict.fromkeys("abc", 1.0), {})
    after = share_out(WORK, dict.fromkeys("ab", 1.0), before)
    assert all(after[patch] == worker for patch, worker in before.items() if worker != "c")
    assert max(seconds(after, dict.fromkeys("ab", 1.0)).values()) <= sum(WORK.values()) / 2 + 2


def test_who_joins_gets_a_share_of_its_speed():
    before = dict.fromkeys(WORK, "a")
    after = share_out(WORK, {"a": 1.0, "b": 3.0}, before)
    took = seconds(after, {"a": 1.0, "b": 3.0})
    assert took["b"] == pytest.approx(took["a"], rel=2 * TOLERATED)


def test_speed_is_work_over_time_smoothed():
    done = {(0, 0): ("a", 0.5), (0, 1): ("a", 0.5), (1, 1): ("b", 4.0), (0, 2): ("b", 100.0)}
    owners = {patch: worker for patch, (worker, _) in done.items()} | {(0, 2): "a"}
    assert measured_speeds(WORK, done, owners, {}) == {"a": 3.0, "b": 0.25}, "what is new to a worker is slow"
    assert measured_speeds(WORK, done, owners, {"a": 1.0, "c": 7.0}) == {"a": 1.5, "b": 0.25, "c": 7.0}
    assert measured_speeds(WORK, done, {}, {}) == {}
