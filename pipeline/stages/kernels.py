"""The kernel of a run as a picklable value, built once per process that computes with it."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from pipeline.config.model import KernelConfig
from pipeline.errors import InputError

if TYPE_CHECKING:
    from ntk.analytic import Cost

ASYMMETRY = 1e-5
"""How far, relative to its largest entry, a user's k(x, x) may be from its transpose."""


class TileFunction(Protocol):
    """What computes one tile: rows of the first against rows of the second argument (or against themselves), each as an
    array or as `load` returned it.

    grain: rows of the blocks it is made of; parts of whole blocks equal it bit for bit. divisible: whether smaller
    blocks are worth trying where memory runs out, which may differ from it in the last bit.
    """

    @property
    def grain(self) -> int: ...

    @property
    def divisible(self) -> bool: ...

    def load(self, x: np.ndarray) -> Any:
        """Rows in the form in which tiles take them, to be made once for several tiles."""
        ...

    def __call__(self, x1: Any, x2: Any = None) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """Everything that decides the numbers in a tile.

    Attributes:
        architecture: canonical JSON of the architecture, empty for a function of the user's own.
        function: `package.module:fn`, empty for an architecture.
        code_path: folder that `function` may be imported from.
        input_shape: shape of one input.
        get: kernels to compute.
        precision: `float64` or `float32`.
    """

    architecture: str
    function: str
    code_path: str
    input_shape: tuple[int, ...]
    get: tuple[str, ...]
    precision: Literal["float64", "float32"]

    @property
    def itemsize(self) -> int:
        """Bytes of an entry."""
        return 8 if self.precision == "float64" else 4

    def build(self, tile: int, part_of: int | None = None) -> TileFunction:
        """The tile function for tiles of up to tile × tile entries, or for such parts, in whole blocks, of tiles of
        `part_of` rows; one per process and size."""
        return _build(self, tile, part_of)


def specify(
    config: KernelConfig, input_shape: tuple[int, ...], *, allow_code: bool = False, code_path: str = ""
) -> KernelSpec:
    """Check a kernel configuration against the inputs.

    Raises:
        InputError: an architecture that does not parse or does not fit the inputs, a function without permission.
    """
    if config.function is not None:
        if not allow_code:
            raise InputError(
                f"kernel.function: {config.function} would run code of your own",
                hint="add the flag --allow-code if you trust it",
            )
        if len(config.get) != 1:
            raise InputError(
                f"kernel.get: a function gives one kernel, but get names {', '.join(config.get)}"
            )
        spec = KernelSpec("", config.function, code_path, input_shape, config.get, config.precision)
        _import(spec)
        return spec
    from ntk import analytic, stax
    from ntk.analytic.admission import takes_graphs
    from ntk.errors import ArchitectureError

    try:
        layer = stax.from_spec(config.architecture)
        analytic.cost(layer, input_shape, get=config.get)  # also type-checks every layer against the inputs
        if takes_graphs(layer):
            raise InputError(
                "kernel.architecture: Aggregate needs the graph of every input, which the data of a run do not hold",
                hint="in Python: kernel_fn(x1, x2, pattern=(p1, p2)), or kernel.function with a kernel of your own",
            )
    except ArchitectureError as error:
        raise InputError(f"kernel.architecture: {error}") from None
    except OverflowError as error:
        raise InputError(f"kernel.architecture: numbers too large: {error}") from None
    text = json.dumps(layer.to_spec(), sort_keys=True)
    return KernelSpec(text, "", "", input_shape, config.get, config.precision)


def identity(spec: KernelSpec) -> dict[str, str]:
    """The fields of a kernel that decide its values, each in a form that can be compared and shown."""
    if spec.function:
        source = getattr(sys.modules[_import(spec).__module__], "__file__", None)
        content = b"" if source is None else Path(source).read_bytes()
        return {
            "kernel.function": f"{spec.function} ({hashlib.sha256(content).hexdigest()[:16]})",
            "kernel.precision": spec.precision,
        }
    from ntk import stax

    layer = stax.from_spec(json.loads(spec.architecture))
    return {
        "kernel.architecture": f"{spec.architecture} ({stax.fingerprint(layer)[:16]})",
        "kernel.precision": spec.precision,
    }


def cost(spec: KernelSpec) -> Cost:
    """Flops and bytes of temporaries for each pair of inputs."""
    from ntk import analytic, stax

    if spec.function:
        # Unknown to us: a matrix product and four temporaries.
        return analytic.Cost(2.0 * math.prod(spec.input_shape), 32.0)
    return analytic.cost(stax.from_spec(json.loads(spec.architecture)), spec.input_shape, get=spec.get)


@functools.lru_cache(maxsize=8)
def _build(spec: KernelSpec, tile: int, part_of: int | None) -> TileFunction:
    if spec.function:
        return FunctionTile(spec, _import(spec))
    from ntk import stax
    from ntk.analytic import TileKernel

    layer = stax.from_spec(json.loads(spec.architecture))
    return TileKernel(
        layer, spec.input_shape, get=spec.get, precision=spec.precision, tile=tile, part_of=part_of
    )


def _import(spec: KernelSpec) -> Any:
    module, _, name = spec.function.partition(":")
    if spec.code_path and spec.code_path not in sys.path:
        sys.path.insert(0, spec.code_path)
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # code of the user's: anything may be wrong with it
        raise InputError(f"kernel.function: {spec.function}: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise InputError(f"kernel.function: {spec.function} is not callable, it is a {type(found).__name__}")
    return found


FUNCTION_ROWS = 256
"""Rows that a user's function is given at once: always as many, since a product of another shape may add in another
order."""


@dataclass(frozen=True, slots=True)
class FunctionTile:
    """A user's function as a tile function; what it returns is checked, because nothing else vouches for it."""

    spec: KernelSpec
    function: Any

    @property
    def grain(self) -> int:
        return FUNCTION_ROWS

    @property
    def divisible(self) -> bool:
        return True

    def load(self, x: np.ndarray) -> np.ndarray:
        return x

    def __call__(self, x1: np.ndarray, x2: np.ndarray | None = None) -> dict[str, np.ndarray]:
        x1 = np.require(x1, requirements="W")  # what is stored is read-only, which not every function takes
        other = x1 if x2 is None else np.require(x2, requirements="W")
        whole = np.empty((len(x1), len(other)), self.spec.precision)
        for top in range(0, len(x1), FUNCTION_ROWS):
            for left in range(top if x2 is None else 0, len(other), FUNCTION_ROWS):
                rows, columns = slice(top, top + FUNCTION_ROWS), slice(left, left + FUNCTION_ROWS)
                same = x2 is None and top == left
                block = whole[rows, columns] = self._block(x1[rows], None if same else other[columns])
                if x2 is None and not same:
                    whole[columns, rows] = block.T
        return {self.spec.get[0]: whole}

    def _block(self, x1: np.ndarray, x2: np.ndarray | None) -> np.ndarray:
        other = x1 if x2 is None else x2
        value = np.asarray(self.function(x1, other))
        if value.shape != (len(x1), len(other)):
            raise InputError(
                f"kernel.function: {self.spec.function} returned shape {value.shape}, "
                f"expected ({len(x1)}, {len(other)})"
            )
        if value.dtype.kind not in "fiub":
            raise InputError(
                f"kernel.function: {self.spec.function} returned dtype {value.dtype}, expected real numbers"
            )
        value = value.astype(self.spec.precision)
        if x2 is None:
            gap, size = float(np.abs(value - value.T).max()), float(np.abs(value).max())
            if gap > ASYMMETRY * size:
                raise InputError(
                    f"kernel.function: {self.spec.function} is not symmetric: k(x, x) and its transpose differ by "
                    f"{gap:.3g} where entries reach {size:.3g}"
                )
            upper = np.triu(value)
            value = upper + np.triu(value, 1).T  # symmetric bit for bit, whatever the function's rounding
        return value
