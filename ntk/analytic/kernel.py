"""`kernel_fn`: the kernel of an architecture between two batches of inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ntk.analytic import inputs
from ntk.analytic.admission import check_output, takes_graphs
from ntk.analytic.arguments import floating, given, refuse
from ntk.analytic.batches import normalises_batches, over_batches
from ntk.analytic.costs import BLOCK_BYTES, cost
from ntk.analytic.requirements import needs_full
from ntk.analytic.results import asked, chosen
from ntk.analytic.rules import propagate
from ntk.analytic.state import Covariance
from ntk.arrays import real
from ntk.errors import ArchitectureError
from ntk.stax.combinators import Serial
from ntk.stax.layer import Layer
from ntk.stax.signal import entry, trace
from ntk.tracing import traced


def read_out(state: Any, names: tuple[str, ...]) -> dict[str, Array]:
    """The kernels of a final state, pair axes first where spatial axes are left."""
    pairs = 2 if state.outer else 1
    values = {"nngp": state.nngp, "ntk": jnp.zeros_like(state.nngp) if state.ntk is None else state.ntk}
    rank = state.nngp.ndim - pairs
    return {name: jnp.moveaxis(values[name], range(rank, rank + pairs), range(pairs)) for name in names}


def outer_kernel(
    layer: Layer,
    x1: Array,
    x2: Array,
    names: tuple[str, ...],
    *,
    graphs: tuple[Array, Array] | None = None,
    doubting: bool = False,
    block: tuple[int, int] | None = None,
) -> tuple[dict[str, Array], Array | None]:
    """Kernels of all pairs and, if asked, the doubt (n1, n2) about them. graphs: the patterns of Aggregate.

    block: take so many rows of x1 and of x2 at a time, divisors of theirs, for the memory of their temporaries.
    """
    if block is not None:
        return _in_blocks(layer, x1, x2, names, graphs, doubting, block)
    state = inputs.outer(x1, x2, full=needs_full(layer), wants_ntk="ntk" in names, doubting=doubting)
    state = propagate(layer, replace(state, graphs=graphs))
    return read_out(state, names), state.doubt


def kernel_of_products(
    layer: Layer, products: Array, var1: Array, var2: Array, channels: int, names: tuple[str, ...]
) -> tuple[dict[str, Array], Array]:
    """Kernels of all pairs of vectors of `channels` numbers and the doubt about them, (n1, n2), from what the input
    layer knows of them: x·x'/channels for all pairs, and for each with itself, (n1,) and (n2,)."""
    state = Covariance(
        products, None, var1[:, None], var2[None, :], None, jnp.zeros(products.shape, bool), (channels,), False, True,
        False, "ntk" in names,
    )  # fmt: skip
    state = propagate(layer, state)
    assert state.doubt is not None
    return read_out(state, names), state.doubt


def _in_blocks(
    layer: Layer,
    x1: Array,
    x2: Array,
    names: tuple[str, ...],
    graphs: tuple[Array, Array] | None,
    doubting: bool,
    block: tuple[int, int],
) -> tuple[dict[str, Array], Array | None]:
    """`outer_kernel` in blocks of b1 × b2 pairs, all computed alike, however many there are."""

    def blocks(x: Array, graph: Array | None, size: int) -> tuple[Array, Array | None]:
        return jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), (x, graph))

    graph1, graph2 = graphs or (None, None)
    blocks2 = blocks(x2, graph2, block[1])

    def rows(first: tuple[Array, Any]) -> tuple[dict[str, Array], Array | None]:
        def one(second: tuple[Array, Any]) -> tuple[dict[str, Array], Array | None]:
            # Settled: a loop over a single block is none to XLA, which would fuse it with what stands around it.
            (x1, g1), (x2, g2) = lax.optimization_barrier((first, second))
            both = None if graphs is None else (g1, g2)
            return lax.optimization_barrier(
                outer_kernel(layer, x1, x2, names, graphs=both, doubting=doubting)
            )

        return lax.map(one, blocks2)

    def whole(k: Array) -> Array:  # (blocks of x1, blocks of x2, b1, b2)
        return jnp.swapaxes(k, 1, 2).reshape(x1.shape[0], x2.shape[0], *k.shape[4:])

    return jax.tree.map(whole, lax.map(rows, blocks(x1, graph1, block[0])))


def block_within(layer: Layer, shape: tuple[int, ...], itemsize: int, rows: int) -> tuple[int, int]:
    """The block of pairs of inputs with positions for `outer_kernel`, whose sides divide `rows`."""
    per_pair = cost(layer, shape, get=("nngp",)).bytes_per_pair * itemsize / 8
    most = max(1, int(BLOCK_BYTES / per_pair))
    b2 = _divisor(rows, min(most, 16))
    return _divisor(rows, max(1, most // b2)), b2


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n up to `most`."""
    return max(d for d in range(1, most + 1) if n % d == 0)


def paired_kernel(
    layer: Layer,
    x1: Array,
    x2: Array,
    names: tuple[str, ...],
    *,
    graphs: tuple[Array, Array] | None = None,
    itself: bool = False,
) -> dict[str, Array]:
    """Kernels of row i of x1 with row i of x2, (n,), exact also for equal, collinear and antipodal rows."""
    state = inputs.paired(x1, x2, full=needs_full(layer), wants_ntk="ntk" in names, itself=itself)
    return read_out(propagate(layer, replace(state, graphs=graphs)), names)


def check_inputs(layer: Layer, x1: Any, x2: Any) -> None:
    """Raise ArchitectureError for inputs of unequal shapes or that the architecture cannot take."""
    if x1.ndim < 2:
        raise ArchitectureError(f"inputs must have shape (batch, *spatial, channels), got {x1.shape}")
    if x2 is not None and x2.shape[1:] != x1.shape[1:]:
        raise ArchitectureError(f"x1 and x2 must agree but for the batch, got {x1.shape} and {x2.shape}")
    after = trace(layer, entry(tuple(x1.shape[1:])), "architecture" if isinstance(layer, Serial) else "layer")
    check_output(layer, after)


@dataclass(frozen=True)
class KernelFn:
    """``kernel_fn(x1, x2=None, get=None, pattern=None)`` of an architecture.

    x1: (n1, \\*spatial, channels); x2 likewise, or None for x1 with itself. get: "nngp" or "ntk" returns that array
    (n1, n2); a tuple of names returns `Kernels`, a named tuple in that order, and None both. float64 inputs give
    float64 results whether or not JAX's x64 flag is set: as JAX arrays where JAX can hold them, as NumPy arrays while
    the flag is off. Traced inputs (arguments of jit, grad, vmap) are computed in their own precision with no correction
    of nearly parallel pairs; concrete ones are corrected as `TileKernel` does, at once also where a traced function
    closes over them. The NTK of an architecture without weights is zero. With BatchNorm the batches are the rows of x1
    and those of x2.

    pattern: the graphs of x1 and of x2, (p1, p2), for architectures with `Aggregate`, which says their shape; those of
    x1, p1 or (p1, p1), where x2 is None.

    Integers and booleans count as float64. Raises ArchitectureError for inputs that the architecture cannot take, that
    are no real numbers (complex, masked, text, objects) or after which positions are left, and for an edge of a known
    pattern to a vertex that does not exist; ValueError for a `get` that is empty or names another kernel or one twice,
    and for arguments of neural_tangents that are not here.
    """

    layer: Layer

    def __call__(
        self, x1: Any, x2: Any = None, get: Any = None, *, pattern: Any = None, **not_here: Any
    ) -> Any:
        refuse(not_here)
        names = asked(get)
        x1, x2 = given(x1, "x1"), None if x2 is None else given(x2, "x2")
        graphs = self._graphs(pattern, x2 is None)
        if traced(x1, x2, graphs):
            other = None if x2 is None else jnp.asarray(x2)
            return chosen(get, self._traced(jnp.asarray(x1), other, names, graphs))
        with jax.ensure_compile_time_eval():  # inside a traced function too, where they are constants
            return chosen(get, self._concrete(x1, x2, names, graphs))

    def _concrete(
        self, x1: Any, x2: Any, names: tuple[str, ...], graphs: tuple[Any, Any] | None
    ) -> dict[str, Any]:
        from ntk.analytic.blocks import concrete_kernel

        x1, x2 = floating(x1), None if x2 is None else floating(x2)
        check_inputs(self.layer, x1, x2)
        if graphs is not None and takes_graphs(self.layer, "SPARSE"):
            # The rules refuse what is wrong in a pattern that they know, as compiled functions cannot.
            other = x1 if x2 is None else x2
            jax.eval_shape(lambda a, b: outer_kernel(self.layer, a, b, names, graphs=graphs)[0], x1, other)
        dtype = np.result_type(x1, x1 if x2 is None else x2)
        if normalises_batches(self.layer):
            with jax.enable_x64(True):  # centring cancels digits: float64 whatever the inputs
                wide1, wide2 = x1.astype(np.float64), None if x2 is None else x2.astype(np.float64)
                kernels = over_batches(concrete_kernel, self.layer, wide1, wide2, names)
            values = {name: np.asarray(value).astype(dtype) for name, value in kernels.items()}
        else:
            values = concrete_kernel(
                self.layer, x1.astype(dtype), None if x2 is None else x2.astype(dtype), names, graphs
            )
        if jax.dtypes.canonicalize_dtype(dtype) == dtype:
            # The arrays are this call's own: JAX may take them over, where it can, without a copy.
            values = {name: jax.device_put(value, may_alias=True) for name, value in values.items()}
        return values

    def _graphs(self, pattern: Any, symmetric: bool) -> tuple[Any, Any] | None:
        """The patterns of both sides. Raises ArchitectureError for one alone, or where nothing takes them."""
        if pattern is None or (isinstance(pattern, (tuple, list)) and all(p is None for p in pattern)):
            return None
        if not takes_graphs(self.layer):
            raise ArchitectureError("the architecture has no Aggregate to take a pattern")
        if normalises_batches(self.layer):
            raise ArchitectureError("no kernel of graphs with BatchNorm. hint: LayerNorm")
        both = pattern if isinstance(pattern, (tuple, list)) else (pattern, pattern if symmetric else None)
        if len(both) != 2 or both[0] is None or (both[1] is None and not symmetric):
            raise ArchitectureError("pattern must be the graphs of x1 and of x2. hint: pattern=(p1, p2)")
        first, second = (real(both[0] if p is None else p, "pattern", ArchitectureError) for p in both)
        known = not traced(first, second)
        if symmetric and second is not first and known and not np.array_equal(first, second):
            raise ArchitectureError(
                "pattern names two kinds of graphs for x1 alone. hint: pattern=p1, or give x2"
            )
        return first, second

    def _traced(
        self, x1: Array, x2: Array | None, names: tuple[str, ...], graphs: tuple[Any, Any] | None
    ) -> dict[str, Array]:
        check_inputs(self.layer, x1, x2)
        if not jnp.issubdtype(x1.dtype, jnp.floating):
            x1 = x1.astype(float)
        if normalises_batches(self.layer):
            return over_batches(traced_kernel, self.layer, x1, x2, names)
        return traced_kernel(self.layer, x1, x2, names, graphs)


def traced_kernel(
    layer: Layer,
    x1: Array,
    x2: Array | None,
    names: tuple[str, ...],
    graphs: tuple[Any, Any] | None = None,
) -> dict[str, Array]:
    """The kernels of x1 with x2 (None: with itself, its diagonal exact), whose values are not known yet."""
    values, _ = outer_kernel(layer, x1, x1 if x2 is None else x2, names, graphs=graphs)
    if x2 is not None:
        return values
    exact = paired_kernel(layer, x1, x1, names, graphs=graphs, itself=True)
    rows = jnp.arange(x1.shape[0])
    return {name: values[name].at[rows, rows].set(exact[name]) for name in names}
