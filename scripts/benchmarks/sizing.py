"""Hours, bytes and cost of runs on machines that are not there, from the planner; a table in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.cluster import HypotheticalCluster
from pipeline.config.load import load_run
from pipeline.config.sizes import human_bytes
from pipeline.plan import show
from pipeline.stages.prepare import planned

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNS = {"four fully connected layers": "cifar10_size.yaml", "Myrtle-5": "million.yaml"}
"""Architectures, by the example that has them."""

ROWS = (50_000, 200_000, 1_000_000)
DEVICES = {"a100": ("80 GB", 2.0), "h100": ("80 GB", 4.0)}
"""Memory of a worker, and a price of an hour that is about what clouds ask."""

WORKERS = 64


def measure() -> list[dict[str, Any]]:
    """One entry for each architecture, number of rows and device: the Gram matrix and a regression."""
    found = []
    for name, file in RUNS.items():
        for rows in ROWS:
            for device, (memory, price) in DEVICES.items():
                found.append({"architecture": name} | _plan(file, rows, device, memory, WORKERS, price))
    return found


def _plan(file: str, rows: int, device: str, memory: str, workers: int, price: float) -> dict[str, Any]:
    overrides = [
        f"data.train={{rows: {rows}, features: 3072, classes: 10}}", "data.test=null", "spectrum.method=none",
        "solve.ridge=[1e-4]", "gram.tile=2048",
    ]  # fmt: skip
    config = load_run(EXAMPLES / file, overrides)
    config = config.model_copy(update={"out": f"/nowhere/{file}"})
    entry = {"kind": "hypothetical", "workers": workers, "device": device, "memory": memory}
    cluster = HypotheticalCluster.model_validate(entry)
    document = show.document(planned(config, cluster, calibrate=False, folder=EXAMPLES), price)
    return {
        "rows": rows,
        "workers": f"{workers} × {device.upper()}",
        "hours": document["seconds"] / 3600,
        "store": human_bytes(document["store_bytes"]),
        "gpu_hours": document["worker_hours"],
        "cost": document["cost"],
    }


def table(entries: list[dict[str, Any]]) -> str:
    lines = [
        "| architecture | N | workers | hours | store | GPU-hours | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for e in entries:
        lines.append(
            f"| {e['architecture']} | {e['rows']:,} | {e['workers']} | {e['hours']:,.3g} | {e['store']} | "
            f"{e['gpu_hours']:,.3g} | {e['cost']:,.2f} |"
        )
    return "\n".join(lines)
