"""Arguments of layers in neural_tangents of which one value alone has a meaning here: where axes lie, and how precisely
products are taken.

They are accepted in their old places, so that old calls mean what they meant, and are no part of the layer's value.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any


def _is(wanted: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, numbers.Integral) and value == wanted


def _channels_last(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, (tuple, list)) or len(value) != 3 or not isinstance(value[0], str):
        return False
    inputs = value[0]
    return inputs[:1] == "N" and inputs[-1:] == "C" and tuple(value) == (inputs, f"{inputs[1:-1]}IO", inputs)


_LAYOUT = "hint: inputs are (batch, *spatial, channels), jnp.moveaxis brings others to this"

#: By the name of such an argument: whether a value is the one, what to call it, and what to do instead of others.
FIXED: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "batch_axis": (_is(0), "0", _LAYOUT),
    "batch_axis_out": (_is(0), "0", _LAYOUT),
    "channel_axis": (_is(-1), "-1", _LAYOUT),
    "dimension_numbers": (_channels_last, "None or channels last, as ('NHWC', 'HWIO', 'NHWC')", _LAYOUT),
    "precision": (
        lambda value: value is None or str(value).upper().endswith("HIGHEST"),
        "None or HIGHEST",
        "hint: products are never taken in less; float32 inputs are faster than float64",
    ),
}
