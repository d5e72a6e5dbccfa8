"""Who does which patch of the products of an iteration: the one who did it last, so that its tiles stay there.

Only time and traffic depend on it, never a number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

TOLERATED = 0.2
"""Patches change their workers only when one of them would take longer than all together need by more than this share:
their tiles have to be read again."""

LATEST_WEIGHT = 0.25
"""Weight of the latest product in the speed of a worker."""

Patch = tuple[int, int]


def share_out(
    work: Mapping[Patch, float], speeds: Mapping[str, float], before: Mapping[Patch, str]
) -> dict[Patch, str]:
    """A worker for every patch.

    Patches stay where they were. Those whose worker left go, the largest first, to whoever would be done with them
    first; then, unless all is well balanced, patches move from the worker that would be done last to the one that would
    be done first: to one who has just come, or is faster than it was taken to be.

    Args:
        work: of each patch, in any unit.
        speeds: of the workers that are there, in that unit a second; at least one.
        before: workers of the last product, present or not.
    """
    owners = {patch: before[patch] for patch in work if before.get(patch) in speeds}
    seconds = dict.fromkeys(speeds, 0.0)
    for patch, worker in owners.items():
        seconds[worker] += work[patch] / speeds[worker]

    def after(worker: str, patch: Patch) -> float:
        return seconds[worker] + work[patch] / speeds[worker]

    for patch in sorted(work.keys() - owners.keys(), key=lambda patch: (-work[patch], patch)):
        worker = min(speeds, key=lambda worker: (after(worker, patch), worker))
        owners[patch] = worker
        seconds[worker] = after(worker, patch)
    balanced = (1 + TOLERATED) * sum(work.values()) / sum(speeds.values())
    while seconds[last := max(seconds, key=seconds.__getitem__)] > balanced:
        first = min(seconds, key=seconds.__getitem__)
        ends = {
            patch: max(seconds[last] - work[patch] / speeds[last], after(first, patch))
            for patch, worker in owners.items()
            if worker == last
        }
        patch = min(ends, key=lambda patch: (ends[patch], patch))
        if ends[patch] > (1 - 1e-9) * seconds[last]:
            break
        seconds[last] -= work[patch] / speeds[last]
        seconds[first] = after(first, patch)
        owners[patch] = first
    return owners


def measured_speeds(
    work: Mapping[Patch, float],
    done: Mapping[Patch, tuple[str, float]],
    owners: Mapping[Patch, str],
    before: Mapping[str, float],
) -> dict[str, float]:
    """Work a second of each worker, smoothed, since one product is a short time to judge by.

    Patches that are new to their worker do not count: there it had to fetch the tiles first.

    Args:
        work: of each patch.
        done: who did it in how many seconds.
        owners: who did it in the product before.
        before: speeds as they were measured until then.
    """
    totals: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for patch, (worker, seconds) in done.items():
        if owners.get(patch) == worker:
            totals[worker][0] += work[patch]
            totals[worker][1] += seconds
    found = {worker: amount / max(seconds, 1e-9) for worker, (amount, seconds) in totals.items()}
    return dict(before) | {
        worker: speed + (1 - LATEST_WEIGHT) * (before.get(worker, speed) - speed)
        for worker, speed in found.items()
    }
