"""What callers pass, brought to the form it is computed with, or refused."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk.tracing import traced


def real(value: Any, name: str, error: type[ValueError] = ValueError) -> Any:
    """`value` as an array of real numbers: those of NumPy and JAX as they are, anything else as NumPy reads it.

    Raises `error` where something would be lost: for complex numbers, masked entries, text, dates and other objects.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise error(
            f"{name} must have no masked entries, got {np.ma.count_masked(value)}\n"
            "hint: fill them (x.filled(0.0)), or leave their rows out"
        )
    try:
        array = value if isinstance(value, jax.Array) else (jnp if traced(value) else np).asarray(value)
    except (TypeError, ValueError):  # rows of unequal lengths
        raise error(
            f"{name} must be an array of real numbers, got a {type(value).__name__} that NumPy cannot read as one"
        ) from None
    if any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, np.bool)):
        return array
    got, hint = f"{array.dtype} numbers", ""
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        hint = "\nhint: real and imaginary parts side by side"
    elif isinstance(value, np.ndarray | jax.Array):
        got, hint = f"an array of {array.dtype}", "\nhint: x.astype(float), if they are numbers"
    else:
        got = described(value)
    raise error(f"{name} must be an array of real numbers, got {got}{hint}")


def described(value: Any) -> str:
    """How messages call what is no array."""
    return repr(value) if value is None or isinstance(value, str) else f"a {type(value).__name__}"


def axis_numbers(axes: int | Iterable[int], name: str) -> tuple[int, ...]:
    """One axis or several as a tuple. Raises ValueError for anything but integers."""
    try:
        return tuple(map(index, axes if isinstance(axes, Iterable) else (axes,)))
    except TypeError:
        raise ValueError(f"{name} must be an integer or a tuple of such, got {axes!r}") from None


def within(low: float, value: Any, high: float) -> bool:
    """Whether `value` is a number with low ≤ value < high."""
    try:
        return bool(low <= value < high)
    except (TypeError, ValueError):
        return False


def random_key(value: Any, name: str) -> Any:
    """`value` itself. Raises ValueError unless it is an array, as keys of JAX are."""
    if isinstance(value, jax.Array | np.ndarray):
        return value
    raise ValueError(f"{name} must be a key of JAX, got {value!r}\nhint: jax.random.key(0)")


def function(value: Any, name: str, hint: str = "") -> Any:
    """`value` itself. Raises ValueError unless it can be called."""
    if callable(value):
        return value
    raise ValueError(
        f"{name} must be a function, got {type(value).__name__}" + (f"\nhint: {hint}" if hint else "")
    )
