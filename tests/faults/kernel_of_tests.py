"""A kernel that needs no compilation; a tile takes as long as the environment says."""

from __future__ import annotations

import os
import time

import numpy as np


def smooth(x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
    """exp(x·y), summed in the same order whatever the shape."""
    if len(x1) > 8:
        time.sleep(float(os.environ.get("TILE_SECONDS", "0")))
    return np.exp((x1[:, None] * x2[None]).sum(axis=2))
