"""Where windows lie: sizes, padding and strides along one axis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """A window sliding along one axis of `size` positions: output i covers inputs i·stride − low … + window − 1, of
    which those outside 0 … size − 1 are zero, or wrap around where `circular`."""

    size: int
    window: int
    stride: int
    low: int
    high: int
    circular: bool

    @property
    def out(self) -> int:
        """The number of output positions."""
        return (self.size + self.low + self.high - self.window) // self.stride + 1


def axis(size: int, window: int, stride: int, padding: str) -> Axis:
    """The axis for padding VALID, SAME or CIRCULAR. SAME and CIRCULAR give ⌈size / stride⌉ outputs, the smaller half of
    the padding first."""
    if padding == "VALID":
        return Axis(size, window, stride, 0, 0, False)
    out = -(-size // stride)
    total = max((out - 1) * stride + window - size, 0)
    return Axis(size, window, stride, total // 2, total - total // 2, padding == "CIRCULAR")


def axes(
    spatial: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...] | None, padding: str
) -> tuple[Axis, ...]:
    """One `Axis` for every spatial axis."""
    steps = strides or (1,) * len(window)
    return tuple(axis(n, w, s, padding) for n, w, s in zip(spatial, window, steps, strict=True))


def transposed_axes(
    spatial: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], padding: str
) -> tuple[Axis, ...]:
    """The axes of a transposed convolution: a window of stride 1 over the input dilated by `strides` and padded as
    `jax.lax.conv_transpose` pads: SAME gives size · stride outputs, VALID size · stride + max(window − stride, 0)."""
    found = []
    for n, w, s in zip(spatial, window, strides, strict=True):
        total = w + s - 2 + (max(w - s, 0) if padding == "VALID" else 0)
        low = w - 1 if padding == "VALID" or s > w - 1 else -(-total // 2)
        found.append(Axis((n - 1) * s + 1, w, 1, low, total - low, False))
    return tuple(found)
