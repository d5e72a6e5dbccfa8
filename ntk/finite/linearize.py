"""A network as a polynomial in its parameters: its Taylor series about given ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def linearize(f: Callable[..., Any], params: Any) -> Callable[..., Any]:
    """The first-order Taylor approximation of ``f(params, *args, **kwargs)`` about `params`:
    f_lin(p, x) = f(params, x) + ∂f/∂params · (p − params).

    `params`: any tree of floating arrays; f may return any tree. f_lin has the signature, tree and shapes of f. Its
    gradient flow under squared error is that of the empirical NTK at `params` (Lee et al. 2019, eq. 2).
    """
    return taylor_expand(f, params, 1)


def taylor_expand(f: Callable[..., Any], params: Any, degree: int) -> Callable[..., Any]:
    """The Taylor approximation of order `degree` ≥ 0 of ``f(params, *args, **kwargs)`` about `params`:
    Σ_{k ≤ degree} (dᵏ/dtᵏ) f(params + t (p − params), x) / k! at t = 0.

    As `linearize`, which is degree 1. Forward mode nests, so time and memory grow as 2^degree.

    Raises ValueError for a degree that is not an integer of at least 0.
    """
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 0:
        raise ValueError(f"degree must be an integer of at least 0, got {degree!r}")

    def expanded(p: Any, *args: Any, **kwargs: Any) -> Any:
        step = jax.tree.map(lambda new, old: jnp.asarray(new - old, jnp.result_type(old)), p, params)

        def derivatives(order: int) -> Callable[[Any], list[Any]]:
            """q ↦ the derivatives of f along `step` at q, of order 0 to `order`."""
            if order == 0:
                return lambda q: [f(q, *args, **kwargs)]

            def extended(q: Any) -> list[Any]:
                values, slopes = jax.jvp(derivatives(order - 1), (q,), (step,))
                return [*values, slopes[-1]]

            return extended

        terms = [
            jax.tree.map(lambda d, k=k: d / math.factorial(k), d)
            for k, d in enumerate(derivatives(degree)(params))
        ]
        return jax.tree.map(lambda *parts: sum(parts[1:], start=parts[0]), *terms)

    return expanded
