"""A plan for people and for programs."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from pipeline.config.sizes import human_bytes, human_seconds
from pipeline.plan.plan import Plan


def document(plan: Plan, price: float | None = None) -> dict[str, Any]:
    """Plain values; with a price (per worker and hour) the cost too."""
    stages = [asdict(stage) | {"seconds": plan.seconds(stage)} for stage in plan.stages]
    total = sum(stage["seconds"] for stage in stages)
    read, compute = plan.pass_seconds
    hours = total * plan.resources.workers / 3600
    found = {
        "rows": plan.grid.n,
        "test_rows": plan.problem.test_rows,
        "tile": plan.grid.tile,
        "tiles": plan.grid.count,
        "workers": plan.resources.workers,
        "threads_per_worker": plan.resources.threads,
        "memory_per_worker": plan.resources.memory,
        "device": plan.rates.device,
        "store_bytes": plan.store_bytes,
        "input_bytes": plan.problem.input_bytes,
        "scratch": plan.resources.scratch,
        "calibrated": plan.rates.measured,
        "rates": asdict(plan.rates),
        "stages": stages,
        "seconds": total,
        "worker_hours": hours,
        "pass": {
            "bytes": plan.pass_bytes,
            "read_seconds": read,
            "recompute_seconds": compute,
            "advice": plan.advice,
        },
    }
    if plan.rates.device != "cpu":
        found["gpu_hours"] = hours
    if price is not None:
        found["cost"] = price * hours
    return found


def _staged(plan: Plan) -> list[str]:
    if plan.resources.scratch is None:
        return []
    size = human_bytes(plan.problem.input_bytes)
    return [
        f"inputs of {size} are copied once to {plan.resources.scratch} on each node, as workers need them"
    ]


def requests(plan: Plan) -> dict[str, int]:
    """About how many tiles each stage reads and writes: requests, where the run is in a bucket."""
    tile = plan.grid.tile**2 * plan.problem.itemsize
    return {
        stage.name: math.ceil((stage.reads + stage.writes) / tile)
        for stage in plan.stages
        if not stage.skipped
    }


def bucket_text(plan: Plan) -> str:
    """What a plan says of a run in a bucket, where every tile is a request."""
    counts = ", ".join(f"{name} {count:,}" for name, count in requests(plan).items() if count)
    return (
        f"\nin a bucket: {plan.grid.count:,} objects for each kernel; requests by stage about: {counts}\n"
        "factors and values that pass between workers lie there too; what iterates reads less (docs/stores.md)"
    )


def text(plan: Plan, price: float | None = None) -> str:
    """A table for a person."""
    r, p, found = plan.resources, plan.problem, document(plan, price)
    machine = f"{r.threads} threads" if plan.rates.device == "cpu" else f"one {plan.rates.device.upper()}"
    lines = [
        f"{p.rows:,} training rows of {p.row_size:,} numbers, {p.test_rows:,} held out, {p.outputs} outputs",
        f"{plan.grid.count:,} tiles of {plan.grid.tile:,} × {plan.grid.tile:,}, store about "
        f"{human_bytes(plan.store_bytes)}",
        f"{r.workers:,} workers × {machine} ({r.kind}), {human_bytes(r.memory)} allowed for each",
        *_staged(plan),
        "",
        f"{'stage':<10}{'tasks':>9}{'Gflop':>20}{'reads':>10}{'writes':>10}{'peak/worker':>13}{'about':>14}",
    ]
    for stage in plan.stages:
        lines.append(
            f"{stage.name:<10}{stage.tasks:>9,}{stage.flops / 1e9:>20,.0f}{human_bytes(stage.reads):>10}"
            f"{human_bytes(stage.writes):>10}{human_bytes(stage.peak):>13}{human_seconds(plan.seconds(stage)):>14}"
            if not stage.skipped
            else f"{stage.name:<10}  not done: {stage.skipped}"
        )
    spectrum = plan.stage("spectrum")
    if spectrum is not None and spectrum.method and not spectrum.skipped:
        lines += [
            "",
            f"spectrum by {spectrum.method}: {spectrum.passes:.3g} passes over each stored matrix",
        ]
    lines += [f"{stage.name} by {stage.why}" for stage in plan.stages if stage.why]
    lines += [
        f"{stage.name}: workers keep {stage.kept:,} of {plan.grid.count:,} tiles in memory between products"
        for stage in plan.stages
        if stage.kept is not None and not stage.skipped
    ]
    basis = "from measured tiles" if plan.rates.measured else "from assumed rates (not calibrated)"
    hours = "GPU-hours" if plan.rates.device != "cpu" else "worker-hours"
    read, compute = plan.pass_seconds
    lines += [
        "",
        f"a tile takes a worker about {human_seconds(plan.grid.tile**2 * plan.rates.pair_seconds)}",
        f"one pass over a stored matrix (a solver iteration) reads {human_bytes(plan.pass_bytes)} in about "
        f"{human_seconds(read)}, computing it again takes {human_seconds(compute)}: {plan.advice} it",
        f"in all about {human_seconds(found['seconds'])}, {found['worker_hours']:,.3g} {hours}, {basis}",
    ]
    if price is not None:
        lines.append(f"cost about {found['cost']:,.2f} at {price:g} a worker-hour")
    return "\n".join(lines)
