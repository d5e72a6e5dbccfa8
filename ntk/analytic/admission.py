"""Which architectures have a scalar kernel for each pair of inputs. No JAX."""

from __future__ import annotations

from ntk.errors import ArchitectureError
from ntk.stax.attention import GlobalSelfAttention
from ntk.stax.combinators import Parallel, Serial
from ntk.stax.elementwise import Nonlinearity
from ntk.stax.graph import Aggregate
from ntk.stax.layer import Layer
from ntk.stax.linear import Dense
from ntk.stax.normalization import BatchNorm
from ntk.stax.signal import Signal, Signals
from ntk.stax.spatial import Conv, ConvLocal, ConvTranspose


def check_output(layer: Layer, after: Signals) -> None:
    """Raise ArchitectureError unless `layer`, whose output is `after`, has one infinite-width kernel entry a pair."""
    if not isinstance(after, Signal):
        raise ArchitectureError(
            f"the architecture ends in {len(after)} branches. hint: join them with FanInSum"
        )
    if after.clash:
        raise ArchitectureError(f"no infinite-width kernel: {after.clash}")
    _check_batches(layer)
    if after.spatial:
        raise ArchitectureError(
            f"the architecture ends with positions of shape {after.spatial}; hint: add Flatten or "
            "GlobalAvgPool"
        )


def _check_batches(layer: Layer) -> None:
    """Raise ArchitectureError for a BatchNorm inside branches or before a nonlinearity."""
    before = ""
    for i, inner in enumerate(layer.layers if isinstance(layer, Serial) else (layer,)):
        if isinstance(inner, BatchNorm):
            before = before or f"architecture[{i}] (BatchNorm)"
        elif any(isinstance(leaf, BatchNorm) for leaf in leaves(inner)):
            raise ArchitectureError(
                f"no infinite-width kernel: architecture[{i}] has BatchNorm in one of its branches. hint: put it after "
                "they are joined"
            )
        elif before and any(isinstance(leaf, Nonlinearity) for leaf in leaves(inner)):
            raise ArchitectureError(
                f"no infinite-width kernel: {before} must come after the last nonlinearity, and architecture[{i}] "
                f"({type(inner).__name__}) follows. hint: LayerNorm, or ntk.monte_carlo_kernel_fn, which samples "
                "finite networks"
            )


def check_rows_alone(layer: Layer) -> None:
    """Raise ArchitectureError where an entry of the kernel depends on more than its two rows."""
    if any(isinstance(leaf, BatchNorm) for leaf in leaves(layer)):
        raise ArchitectureError(
            "with BatchNorm an entry depends on all rows of its batch, so that there are no tiles of the kernel. "
            "hint: LayerNorm, or kernel_fn on whole batches in memory"
        )


def check_weights(layer: Layer, names: tuple[str, ...]) -> None:
    """Raise ArchitectureError where the NTK is wanted of an architecture for which it is zero."""
    if "ntk" in names and not has_weights(layer):
        raise ArchitectureError(
            "the architecture has no layer with weights: its NTK is zero. hint: add Dense or Conv, "
            "or ask for the NNGP alone"
        )


def has_weights(layer: Layer) -> bool:
    """Whether any layer in `layer` has weights."""
    return any(
        isinstance(leaf, (Dense, Conv, ConvLocal, ConvTranspose, GlobalSelfAttention))
        for leaf in leaves(layer)
    )


def takes_graphs(layer: Layer, form: str | None = None) -> bool:
    """Whether any layer in `layer` works on a graph given beside each input, of any form or DENSE or SPARSE."""
    graphs = [leaf for leaf in leaves(layer) if isinstance(leaf, Aggregate)]
    return any(form in (None, leaf.implementation) for leaf in graphs)


def leaves(layer: Layer) -> list[Layer]:
    """The layers in `layer` that are made of no others, in order."""
    if isinstance(layer, (Serial, Parallel)):
        return [leaf for inner in layer.layers for leaf in leaves(inner)]
    return [layer]
