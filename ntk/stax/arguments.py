"""Bringing an argument to the type that its field declares."""

from __future__ import annotations

import contextlib
import math
import numbers
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin


class Mismatch(Exception):
    """The value does not fit; str() says what would have fitted ("a number", "two integers", ...)."""


def coerce(value: Any, kind: Any) -> Any:
    """`value` as the declared type `kind`.

    Knows int, float, bool, str, Literal, X | None, tuple[X, ...], tuple[X, X] and Callable; any other declared type
    is left to the layer itself. Raises Mismatch.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        with contextlib.suppress(TypeError):  # traced: it has no value, as the declared type will say
            value = value.item()  # a scalar of NumPy or JAX, as jnp.sqrt(2.) is
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _any_of(value, get_args(kind))
    if origin is Literal:
        if value not in get_args(kind):
            raise Mismatch("one of " + ", ".join(map(str, get_args(kind))))
        return value
    if origin is tuple:
        return _tuple(value, get_args(kind))
    scalar = {bool: _bool, int: _int, float: _float, str: _str, types.NoneType: _none}.get(kind)
    if scalar is not None:
        return scalar(value)
    if kind is Callable or (origin is not None and callable(value)):
        if not callable(value):
            raise Mismatch("a function")
        return value
    if origin is not None:
        raise Mismatch("a function")
    return value


def _any_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    wanted = []
    for kind in kinds:
        try:
            return coerce(value, kind)
        except Mismatch as mismatch:
            wanted.append(str(mismatch))
    raise Mismatch(" or ".join(dict.fromkeys(wanted)))


def _tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    many = len(kinds) == 2 and kinds[1] is Ellipsis
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise Mismatch("a list" if many else f"a list of {len(kinds)}")
    items = tuple(value)
    if not many and len(items) != len(kinds):
        raise Mismatch(f"a list of {len(kinds)}")
    try:
        return tuple(
            coerce(item, kinds[0] if many else kind)
            for item, kind in zip(items, items if many else kinds, strict=True)
        )
    except Mismatch as mismatch:
        raise Mismatch(f"a list, each {mismatch}") from None


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Mismatch("true or false")
    return value


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise Mismatch("an integer")
    return int(value)


def _float(value: Any) -> float:
    try:
        if not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer above every float
        pass
    raise Mismatch("a finite number")


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch("a word")
    return value


def _none(value: Any) -> None:
    if value is not None:
        raise Mismatch("null")
