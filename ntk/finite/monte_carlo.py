"""Kernels as averages over random networks: the Monte Carlo estimate of the infinite-width kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ntk.analytic.results import asked, chosen
from ntk.arrays import function, random_key
from ntk.finite.axes import KernelAxes, Kind
from ntk.finite.empirical import Axes, NtkImplementation, empirical_kernel_fn, implementation_of
from ntk.finite.examples import checked, traced_and_fixed
from ntk.tracing import traced


class Estimate(NamedTuple):
    """A mean over `n_samples` networks and its standard error, entry by entry (NaN for a single sample)."""

    mean: Any
    standard_error: Any
    n_samples: int


@dataclass(frozen=True, eq=False)
class MonteCarloKernelFn:
    """``kernel_fn(x1, x2=None, get=None, **kwargs)``: see `monte_carlo_kernel_fn`."""

    init_fn: Callable[..., Any]
    apply_fn: Callable[..., Any]
    key: Array
    n_samples: tuple[int, ...]
    generates: bool
    batch_size: int
    devices: tuple[Any, ...]
    store_on_device: bool
    trace_axes: Axes
    diagonal_axes: Axes
    vmap_axes: Any
    implementation: NtkImplementation

    def __call__(self, x1: Any, x2: Any = None, get: Any = None, **apply_fn_kwargs: Any) -> Any:
        """The mean kernel, or a generator of means where a list of `n_samples` was given."""
        means = (estimate.mean for estimate in self.estimates(x1, x2, get, **apply_fn_kwargs))
        return means if self.generates else next(means)

    def estimates(
        self, x1: Any, x2: Any = None, get: Any = None, **apply_fn_kwargs: Any
    ) -> Iterator[Estimate]:
        """Means with standard errors, one `Estimate` for each of `n_samples` in ascending order.

        Means and sums of squared deviations are updated sample by sample (Welford 1962), so memory does not grow.
        """
        names = asked(get)
        x1, x2 = checked(x1, "x1"), None if x2 is None else checked(x2, "x2")
        if "rng" in apply_fn_kwargs:
            raise ValueError(
                "rng: each network draws its own\nhint: monte_carlo_kernel_fn(init_fn, apply_fn, key, n_samples)"
            )
        mean, squares, xp = None, None, np
        for count, sample in enumerate(self._samples(x1, x2, names, apply_fn_kwargs), 1):
            if mean is None:
                xp = self._library(sample)
                mean, squares = sample, jax.tree.map(xp.zeros_like, sample)
            else:
                step = jax.tree.map(lambda new, old: new - old, sample, mean)
                mean = jax.tree.map(lambda old, d, n=count: old + d / n, mean, step)
                squares = jax.tree.map(lambda s, d, n=count: s + d * d * (1 - 1 / n), squares, step)
            if count in self.n_samples:
                error = jax.tree.map(
                    lambda s, n=count, xp=xp: (
                        xp.sqrt(s / (n * (n - 1))) if n > 1 else xp.full_like(s, xp.nan)
                    ),
                    squares,
                )
                yield Estimate(chosen(get, mean), chosen(get, error), count)

    def _samples(
        self, x1: Any, x2: Any, names: tuple[str, ...], kwargs: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """The kernels of one random network after another, by name; networks are spread over the devices."""
        total, width = max(self.n_samples), len(self.devices)

        def drawn(index: int) -> Array:
            return random.fold_in(self.key, index)

        if traced(x1, x2, kwargs, drawn(0)):  # the traced function decides on devices and memory
            for index in range(total):
                yield self._blocks(x1, x2, drawn(index), names, kwargs)
            return

        def one(index: int) -> dict[str, Any]:
            device = self.devices[index % width]
            with jax.default_device(device):
                here1, here2, key = jax.device_put((x1, x2, drawn(index)), device)
                sample = self._blocks(here1, here2, key, names, kwargs)
            return jax.device_put(sample, self.devices[0]) if self.store_on_device else sample

        if width == 1:
            yield from map(one, range(total))
            return
        with ThreadPoolExecutor(width) as pool:
            for start in range(0, total, width):
                yield from pool.map(one, range(start, min(start + width, total)))

    def _blocks(
        self, x1: Any, x2: Any, key: Array, names: tuple[str, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """The kernels of one network, in blocks of `batch_size` rows."""
        other = x1 if x2 is None else x2
        n1, n2 = (jax.tree.leaves(x)[0].shape[0] for x in (x1, other))
        size = self.batch_size or max(n1, n2)

        def keep(kernels: dict[str, Any]) -> dict[str, Any]:
            return jax.tree.map(self._library(kernels).asarray, kernels)

        if max(n1, n2) <= size:
            return keep(self._sample(key, x1, x2, names, kwargs))
        axes = self._axes(key, x1, kwargs)
        starts1, starts2 = range(0, n1, size), range(0, n2, size)

        def rows(x: Any, start: int) -> Any:
            return jax.tree.map(lambda a: a[start : start + size], x)

        done: dict[tuple[int, int], dict[str, Any]] = {}
        for i in starts1:
            for j in starts2:
                if x2 is None and j < i:
                    done[i, j] = {
                        name: [a.mirrored(k) for a, k in zip(axes, done[j, i][name], strict=True)]
                        for name in names
                    }
                    continue
                second = None if x2 is None and i == j else rows(other, j)
                sample = self._sample(key, rows(x1, i), second, names, kwargs)
                done[i, j] = {name: jax.tree.leaves(kernel) for name, kernel in keep(sample).items()}
        xp = self._library(done)
        structure = jax.tree.structure(
            jax.eval_shape(lambda: self._sample(key, rows(x1, 0), None, names[:1], kwargs)[names[0]])
        )
        return {
            name: jax.tree.unflatten(
                structure,
                [
                    xp.concatenate(
                        [xp.concatenate([done[i, j][name][k] for j in starts2], axis=1) for i in starts1]
                    )
                    for k in range(len(axes))
                ],
            )
            for name in names
        }

    def _library(self, kernels: Any) -> Any:
        """NumPy for kernels in host memory, jax.numpy for those on a device or traced."""
        return jnp if self.store_on_device or traced(kernels) else np

    def _sample(
        self, key: Array, x1: Any, x2: Any, names: tuple[str, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """The kernels of the network that `key` draws, by name."""
        traced, fixed = traced_and_fixed(kwargs)
        return self._compiled(key, x1, x2, traced, names=names, fixed=fixed)

    @cached_property
    def _compiled(self) -> Callable[..., dict[str, Any]]:
        kernel_fn = empirical_kernel_fn(
            self.apply_fn, self.trace_axes, self.diagonal_axes, self.vmap_axes, self.implementation
        )
        draws = _takes_rng(self.apply_fn)

        def sample(
            key: Array,
            x1: Any,
            x2: Any,
            traced: dict[str, Any],
            names: tuple[str, ...],
            fixed: tuple[Any, ...],
        ) -> dict[str, Any]:
            params, rng = self._network(key, x1)
            extra = {"rng": rng} if draws else {}
            kernels = kernel_fn(x1, x2, names, params, **extra, **traced, **dict(fixed))
            return {name: getattr(kernels, name) for name in names}

        return jax.jit(sample, static_argnames=("names", "fixed"))

    def _network(self, key: Array, x1: Any) -> tuple[Any, Array]:
        init_key, rng = random.split(key)
        return self.init_fn(init_key, jax.tree.map(lambda a: a.shape, x1))[1], rng

    def _axes(self, key: Array, x1: Any, kwargs: dict[str, Any]) -> list[KernelAxes]:
        outputs = jax.eval_shape(lambda: self.apply_fn(self._network(key, x1)[0], x1, **kwargs))
        axes = [
            KernelAxes.read(out.ndim, self.trace_axes, self.diagonal_axes) for out in jax.tree.leaves(outputs)
        ]
        if any(a.kinds[0] is not Kind.FREE for a in axes):
            raise ValueError(
                "batch_size needs the axis of examples, 0, in neither trace_axes nor diagonal_axes"
            )
        return axes


def monte_carlo_kernel_fn(
    init_fn: Callable[..., Any],
    apply_fn: Callable[..., Any],
    key: Array,
    n_samples: int | Iterable[int],
    batch_size: int = 0,
    device_count: int = -1,
    store_on_device: bool = True,
    trace_axes: Axes = (-1,),
    diagonal_axes: Axes = (),
    vmap_axes: Any = None,
    implementation: NtkImplementation | int | str = NtkImplementation.AUTO,
) -> MonteCarloKernelFn:
    """A ``kernel_fn(x1, x2=None, get=None, **kwargs)`` that averages empirical kernels over random networks.

    init_fn(key, input_shape) -> (output_shape, params) draws a network, apply_fn(params, x, **kwargs) evaluates it; it
    is given a key `rng` if it takes one. get as in `empirical_kernel_fn`: "nngp", "ntk", a tuple of these or None for
    both. Sample i depends on `key` and i alone. With an integer `n_samples` the result is the mean over so many
    networks; with a list, a generator of the means over the first n networks for each n in it, ascending. Standard
    errors: ``kernel_fn.estimates(x1, x2, get)`` yields `Estimate(mean, standard_error, n_samples)`.

    batch_size: kernels are computed in blocks of so many rows of x1 and x2, 0 for all at once; the axis of examples is
    then 0 in inputs and outputs, of which no other example may be part. device_count: networks are spread over so many
    devices; -1 for all there are, 0 for one. store_on_device False keeps samples and means in host memory, as NumPy
    arrays. trace_axes, diagonal_axes, vmap_axes, implementation: as in `empirical_ntk_fn`. Everything is compiled
    here; neither function nor result needs `jax.jit`, inside of which samples stay on its device.

    Raises ValueError for n_samples or batch_size that are no positive integers, more devices than there are, a key that
    is none, inputs that are no arrays, and a keyword argument `rng` of the kernel function.
    """
    for name, value in (("init_fn", init_fn), ("apply_fn", apply_fn)):
        function(value, name)
    random_key(key, "key")
    generates = not isinstance(n_samples, (int, np.integer))
    counts: Sequence[Any] = sorted(set(n_samples)) if generates else [n_samples]  # type: ignore[arg-type]
    if not counts or any(
        isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in counts
    ):
        raise ValueError(f"n_samples must be a positive integer or a list of such, got {n_samples!r}")
    if batch_size < 0:
        raise ValueError(f"batch_size must be at least 0, got {batch_size}")
    devices = jax.local_devices()
    if not -1 <= device_count <= len(devices):
        raise ValueError(f"device_count must be from -1 (all) to {len(devices)}, got {device_count}")
    return MonteCarloKernelFn(
        init_fn,
        apply_fn,
        key,
        tuple(map(int, counts)),
        generates,
        batch_size,
        tuple(devices if device_count == -1 else devices[: max(1, device_count)]),
        store_on_device,
        trace_axes,
        diagonal_axes,
        vmap_axes,
        implementation_of(implementation),
    )


def _takes_rng(apply_fn: Callable[..., Any]) -> bool:
    parameters = inspect.signature(apply_fn).parameters.values()
    return any(p.name == "rng" or p.kind is p.VAR_KEYWORD for p in parameters)
