"""The base of every layer: a frozen value that the two interpreters read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, dataclass_transform, get_type_hints

from ntk.errors import ArchitectureError
from ntk.stax.arguments import Mismatch, coerce
from ntk.stax.layout import FIXED

if TYPE_CHECKING:
    from ntk.analytic.kernel import KernelFn

#: Every layer that a specification may name, by that name; filled as the classes are defined.
REGISTRY: dict[str, type[Layer]] = {}


@dataclass_transform(frozen_default=True)
class Layer:
    """A layer of an architecture: hashable, comparable, printable data.

    Unpacks into ``init_fn, apply_fn, kernel_fn``: the finite-width network of this layer and its infinite-width
    kernel. Arguments are checked and brought to their declared type on construction, so that equal layers are
    equal values (``Dense(8, W_std=1) == Dense(8, W_std=1.0)``).

    Raises ArchitectureError for an argument of the wrong type or an impossible value.
    """

    def __init_subclass__(cls, *, named: bool = True, **kwargs: Any) -> None:
        """`named`: whether a specification may name this class (kinds of layers and combinators are not)."""
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True)(cls)
        if named:
            REGISTRY[cls.__name__] = cls

    def __post_init__(self, *fixed: Any) -> None:
        hints = get_type_hints(type(self))
        names = [name for name, kind in hints.items() if isinstance(kind, dataclasses.InitVar)]
        for name, value in zip(names, fixed, strict=True):
            fits, wanted, hint = FIXED[name]
            if not fits(value):
                raise ArchitectureError(
                    f"{type(self).__name__}: {name} must be {wanted}, got {value!r}. {hint}"
                )
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            try:
                coerced = coerce(value, hints[field.name])
            except Mismatch as mismatch:
                raise ArchitectureError(
                    f"{type(self).__name__}: {field.name} must be {mismatch}, got {value!r}"
                ) from None
            object.__setattr__(self, field.name, coerced)
        self.check()

    def check(self) -> None:
        """Raise ArchitectureError for arguments that are well typed but impossible together."""

    def wrong(self, argument: str, wanted: str) -> ArchitectureError:
        """The error of an argument with an impossible value."""
        return ArchitectureError(
            f"{type(self).__name__}: {argument} must be {wanted}, got {getattr(self, argument)!r}"
        )

    def __iter__(self) -> Iterator[Any]:
        return iter((self.init_fn, self.apply_fn, self.kernel_fn))

    def __getitem__(self, index: Any) -> Any:
        """``layer[0]``, ``layer[1]``, ``layer[2]``: what it unpacks into."""
        return tuple(self)[index]

    @property
    def init_fn(self) -> Callable[..., Any]:
        """``init_fn(key, input_shape) -> (output_shape, params)``; input_shape leads with the batch size or -1."""
        from ntk.finite.network import initializer

        return initializer(self)

    @property
    def apply_fn(self) -> Callable[..., Any]:
        """``apply_fn(params, x, **kwargs) -> outputs`` for x of shape (batch, \\*input_shape)."""
        from ntk.finite.network import forward

        return forward(self)

    @property
    def kernel_fn(self) -> KernelFn:
        """``kernel_fn(x1, x2=None, get=None)``: see `ntk.analytic.kernel.KernelFn`."""
        from ntk.analytic.kernel import KernelFn

        return KernelFn(self)

    def to_spec(self) -> Any:
        """This architecture as plain data (lists, dicts, strings, numbers), the inverse of `stax.from_spec`."""
        from ntk.stax.spec import to_spec

        return to_spec(self)
