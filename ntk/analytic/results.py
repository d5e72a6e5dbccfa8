"""What `get` asks of a kernel function, and the form in which it answers. No JAX."""

from __future__ import annotations

from typing import Any, NamedTuple

NAMES = ("nngp", "ntk")


class Kernels:
    """The kernels asked for: a named tuple in the order of `get`, each (n1, n2). One that was not asked for is no item
    of the tuple, and None as an attribute."""

    __slots__ = ()
    nngp: Any = None
    ntk: Any = None


class _NngpFields(NamedTuple):
    nngp: Any


class _NtkFields(NamedTuple):
    ntk: Any


class _NngpNtkFields(NamedTuple):
    nngp: Any
    ntk: Any


class _NtkNngpFields(NamedTuple):
    ntk: Any
    nngp: Any


# Classes by name, rather than made when asked for, so that results can be pickled.
class NngpKernels(_NngpFields, Kernels):
    """get = ("nngp",)."""

    __slots__ = ()


class NtkKernels(_NtkFields, Kernels):
    """get = ("ntk",)."""

    __slots__ = ()


class NngpNtkKernels(_NngpNtkFields, Kernels):
    """get = ("nngp", "ntk") or None."""

    __slots__ = ()


class NtkNngpKernels(_NtkNngpFields, Kernels):
    """get = ("ntk", "nngp")."""

    __slots__ = ()


_FORMS: dict[tuple[str, ...], Any] = {
    kind._fields: kind for kind in (NngpKernels, NtkKernels, NngpNtkKernels, NtkNngpKernels)
}


def asked(get: Any) -> tuple[str, ...]:
    """The kernels that `get` names, in its order and in lower case; both for None.

    Raises ValueError for any other name, for none, and for a name given twice.
    """
    given = NAMES if get is None else tuple(get) if isinstance(get, tuple | list) else (get,)
    if not given:
        raise ValueError(f"get must name at least one of 'nngp' and 'ntk', got {get!r}")
    names = tuple(name.lower() for name in given if isinstance(name, str))
    if len(names) < len(given) or not set(names) <= set(NAMES):
        raise ValueError(f"get must be 'nngp', 'ntk', a tuple of these or None, got {get!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"get must name each kernel once, got {get!r}")
    return names


def chosen(get: Any, values: dict[str, Any]) -> Any:
    """What `kernel_fn` returns for `get`, of values by name: an array for a name, `Kernels` otherwise."""
    names = asked(get)
    return values[names[0]] if isinstance(get, str) else _FORMS[names](*(values[name] for name in names))
