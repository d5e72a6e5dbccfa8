"""Reference kernels: values of neural-tangents 0.6.5 and of an independent NumPy evaluation, both in float64.

`tests/data/reference/cases.json` lists name and architecture of each case; `kernels.npz` holds, under `name/`, the
inputs x1, x2 and nngp, ntk (x1 with x2), nngp11, ntk11 (x1 with itself), the independent values where there are any.
Two specifications differ from those the values came with. Quadrature: as many points as the independent values, of an
adaptive rule, ask for. ImageResize: height and width of the new shape are exchanged, as that library does after an odd
number of convolutions (`test_rearranging.py` holds ours against resized inputs).
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).parents[1] / "data" / "reference"
CASES = json.loads((HERE / "cases.json").read_text())


@cache
def _archive() -> dict[str, np.ndarray]:
    with np.load(HERE / "kernels.npz") as archive:
        return dict(archive)


def arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of one case."""
    return {
        key.removeprefix(f"{name}/"): value for key, value in _archive().items() if key.startswith(f"{name}/")
    }
