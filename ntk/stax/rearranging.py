"""Fixed linear maps of positions: choosing, resizing, products with a constant array."""

from __future__ import annotations

import math
import numbers
from dataclasses import InitVar
from typing import Any, Literal

from ntk.errors import ArchitectureError
from ntk.stax.layer import Layer

DimensionNumbers = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]


class _Slice:
    """``Slice[:, 1:5, 0]`` is the index of ``x[:, 1:5, 0]``, for `Index`."""

    def __getitem__(self, idx: Any) -> Any:
        return idx


Slice = _Slice()


class Index(Layer):
    """x[idx], as `Slice` writes it: ``Index(Slice[:, :4, ::2])`` crops and strides, ``Index(Slice[:, 0])`` removes an
    axis.

    Integers, slices and ``...``; the batch and the channels must be left whole. In a specification a slice is the list
    of its arguments, ``[1, 5, 2]`` for 1:5:2 and ``[null]`` for ``:``, and ``...`` is "...".
    """

    idx: Any
    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1

    def check(self) -> None:
        items = self.idx if isinstance(self.idx, (tuple, list)) else (self.idx,)
        try:
            object.__setattr__(self, "idx", tuple(map(_index, items)))
        except (TypeError, ValueError):
            raise self.wrong("idx", "made of integers, slices and at most one ...") from None
        if self.idx.count("...") > 1:
            raise self.wrong("idx", "made of integers, slices and at most one ...")

    def items(self, ndim: int) -> tuple[int | slice, ...] | None:
        """The index of every one of `ndim` axes; None where there are fewer axes than it names."""
        given = self.idx if "..." in self.idx else (*self.idx, "...")
        at = given.index("...")
        missing = ndim - (len(given) - 1)
        if missing < 0:
            return None
        whole = (*given[:at], *[(None,)] * missing, *given[at + 1 :])
        return tuple(item if isinstance(item, int) else slice(*item) for item in whole)


def _index(item: Any) -> Any:
    """An item of an index as plain data: an integer, a tuple of the arguments of a slice, or "..."."""
    if item is Ellipsis or (isinstance(item, str) and item == "..."):
        return "..."
    if isinstance(item, slice):
        item = (item.start, item.stop, item.step)
    if isinstance(item, (tuple, list)):
        if not 1 <= len(item) <= 3 or (len(item) == 3 and item[2] == 0):
            raise ValueError
        return _shortest(tuple(None if part is None else _integer(part) for part in item))
    return _integer(item)


def _shortest(arguments: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """One writing for each slice, so that equal layers are equal values: ``(None,)`` for ``:``, else all three."""
    start, stop, step = (None, *arguments, None) if len(arguments) == 1 else (*arguments, None)[:3]
    step = None if step == 1 else step
    return (None,) if (start, stop, step) == (None, None, None) else (start, stop, step)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError
    return int(value)


class ImageResize(Layer):
    """Positions resized to `shape` by interpolation, as `jax.image.resize` does.

    shape: of the batch array, −1 for axes left as they are (the batch and the channels must be). antialias: use a wider
    filter when making smaller (nearest has none).
    """

    shape: tuple[int, ...]
    method: Literal[
        "nearest",
        "linear",
        "bilinear",
        "trilinear",
        "triangle",
        "cubic",
        "bicubic",
        "tricubic",
        "lanczos3",
        "lanczos5",
    ]
    antialias: bool = True
    precision: InitVar[Any] = None
    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1

    def check(self) -> None:
        if len(self.shape) < 3 or any(size != -1 and size < 1 for size in self.shape):
            raise self.wrong("shape", "sizes of at least 1, or -1, for batch, spatial axes and channels")


class DotGeneral(Layer):
    """The product with a constant array, `jax.lax.dot_general(x, rhs, dimension_numbers)` where `rhs` is given and
    ``dot_general(lhs, x, …)`` where `lhs` is; the identity where neither is.

    The batch axis of the result is then brought to the front and the channels to the end, where `dot_general` would
    leave them elsewhere. dimension_numbers: ((contracted axes of lhs, of rhs), (batched axes of lhs, of rhs)); neither
    the batch nor the channels of x may be among them. The constant: a number or (nested lists of) numbers or an array.
    """

    lhs: Any = None
    rhs: Any = None
    dimension_numbers: DimensionNumbers = (((), ()), ((), ()))
    precision: InitVar[Any] = None
    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1

    def check(self) -> None:
        if self.lhs is not None and self.rhs is not None:
            raise ArchitectureError(
                "DotGeneral: one of lhs and rhs must be null, since the other factor is the input"
            )
        for argument in ("lhs", "rhs"):
            try:
                object.__setattr__(self, argument, _constant(getattr(self, argument)))
            except (TypeError, ValueError):
                raise ArchitectureError(
                    f"DotGeneral: {argument} must be a number or an array of finite numbers"
                ) from None
        if self.lhs is None and self.rhs is None and self.dimension_numbers != (((), ()), ((), ())):
            raise ArchitectureError("DotGeneral: dimension_numbers need lhs or rhs")

    @property
    def is_lhs(self) -> bool:
        """Whether the constant is the left factor."""
        return self.rhs is None

    @property
    def constant(self) -> Any:
        """The constant factor, a number or nested tuples of numbers; None for the identity."""
        return self.lhs if self.is_lhs else self.rhs

    @property
    def contracted(self) -> tuple[int, ...]:
        """The axes of the input that are summed over."""
        return self.dimension_numbers[0][self.is_lhs]

    def axes(self, ndim: int) -> tuple[tuple[str, int], ...]:
        """What the axes of `dot_general` of an input with `ndim` axes are: ("input", axis) or ("constant", axis)."""
        mine, other = int(self.is_lhs), int(not self.is_lhs)
        contracted, batched = self.dimension_numbers
        count = {mine: ndim, other: len(sizes(self.constant))}
        names = {mine: "input", other: "constant"}
        free = [
            (names[side], axis)
            for side in (0, 1)
            for axis in range(count[side])
            if axis not in (*contracted[side], *batched[side])
        ]
        return (*(("input", axis) for axis in batched[mine]), *free)


def _constant(value: Any) -> Any:
    """An array as nested tuples of numbers, all rows of one length."""
    if value is None:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        inner = tuple(map(_constant, value))
        if not inner or len({sizes(item) for item in inner}) > 1 or None in inner:
            raise ValueError
        return inner
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError
    return float(value)


def sizes(constant: Any) -> tuple[int, ...]:
    """The shape of nested tuples."""
    return (len(constant), *sizes(constant[0])) if isinstance(constant, tuple) else ()
