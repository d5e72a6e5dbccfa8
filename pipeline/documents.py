"""JSON documents for other programs."""

from __future__ import annotations

import json
import math
from typing import Any


def strict_json(content: Any) -> str:
    """Indented JSON, which has no NaN and no infinity: both stand as null."""
    return json.dumps(_plain(content), indent=2, allow_nan=False)


def finite(value: float) -> float | None:
    """A number of NumPy's or Python's as JSON has it: None for NaN and infinity."""
    return float(value) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return finite(value) if isinstance(value, float) else value
