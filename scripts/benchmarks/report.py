"""How a benchmark's result is shown."""

from __future__ import annotations

import datetime
import json
import os
import statistics
from collections.abc import Sequence
from typing import Any

from pipeline.stages.rundir import versions


def median(values: Sequence[float]) -> float:
    """The median, which one disturbed repeat does not move."""
    return statistics.median(values)


def line(result: dict[str, Any]) -> str:
    """The figures of one case on one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in result.items() if isinstance(value, float))


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print a result: name → figure, with the machine and the versions it was measured on."""
    where = {
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions(),
    }
    if as_json:
        print(json.dumps(result | {"where": where}, indent=2))
        return
    width = max(map(len, result))
    for name, value in result.items():
        print(f"{name:<{width}}  {value:.4g}" if isinstance(value, float) else f"{name:<{width}}  {value}")
    installed = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    print(f"({where['date']}, {where['cores']} cores, {installed})")
