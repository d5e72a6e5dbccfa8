"""Architectures as plain data and back, and their fingerprint.

A list is `serial`; a layer is its ``Name``, or ``{Name: {argument: value}}``; a lone argument may be given as
``{Name: value}`` for ``parallel`` only (a list of branches). ``{repeat: {layer: …, n: …}}`` and the named architectures
of `ntk.zoo`, ``{zoo.myrtle: {depth: 5}}``, are written out in full.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from difflib import get_close_matches
from typing import Any

from ntk.errors import ArchitectureError
from ntk.stax.combinators import Parallel, Serial, parallel, repeat, serial
from ntk.stax.layer import REGISTRY, Layer

_COMBINATORS = ("serial", "parallel", "repeat")


def to_spec(layer: Layer) -> Any:
    """`layer` as lists, dicts, strings and numbers, only arguments that differ from their default.

    Raises ArchitectureError for a layer that holds a function of the user's own.
    """
    if isinstance(layer, Serial):
        return [to_spec(inner) for inner in layer.layers]
    if isinstance(layer, Parallel):
        return {"parallel": [to_spec(branch) for branch in layer.layers]}
    arguments = {
        field.name: _plain(getattr(layer, field.name), f"{type(layer).__name__}.{field.name}")
        for field in dataclasses.fields(layer)  # type: ignore[arg-type]
        if getattr(layer, field.name) != field.default
    }
    return {type(layer).__name__: arguments} if arguments else type(layer).__name__


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, tuple):
        return [_plain(item, name) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ArchitectureError(f"{name}: {value!r} cannot be written down. hint: give a function by its name")


def from_spec(spec: Any, at: str = "architecture") -> Layer:
    """The architecture that `spec` describes; `at` is the name of its position in messages.

    Raises ArchitectureError naming the position for an unknown layer (with the nearest valid name), for unknown,
    missing or ill-typed arguments.
    """
    if isinstance(spec, Layer):
        return spec
    if isinstance(spec, (list, tuple)):
        return serial(*[from_spec(item, f"{at}[{i}]") for i, item in enumerate(spec)])
    if isinstance(spec, str):
        return _build(spec, {}, at)
    if isinstance(spec, dict) and len(spec) == 1:
        ((name, arguments),) = spec.items()
        return _build(name, {} if arguments is None else arguments, at)
    raise ArchitectureError(
        f"{at}: a layer is written Name or {{Name: {{argument: value}}}}, and a list is serial; got {spec!r}"
    )


def _build(name: Any, arguments: Any, at: str) -> Layer:
    if name == "serial":
        return from_spec(_branches(name, arguments, at), f"{at}.serial")
    if name == "parallel":
        branches = _branches(name, arguments, at)
        return parallel(*[from_spec(item, f"{at}.parallel[{i}]") for i, item in enumerate(branches)])
    if name == "repeat":
        if not isinstance(arguments, dict) or arguments.keys() != {"layer", "n"}:
            raise ArchitectureError(
                f"{at}: repeat is written {{repeat: {{layer: …, n: …}}}}, got {arguments!r}"
            )
        return _at(at, repeat, from_spec(arguments["layer"], f"{at}.repeat"), arguments["n"])
    if isinstance(name, str) and name.startswith("zoo."):
        return _named(name, arguments, at)
    if name not in REGISTRY:
        from ntk.zoo import ARCHITECTURES

        named = [f"zoo.{known}" for known in ARCHITECTURES]
        raise ArchitectureError(
            f"{at}: unknown layer {name!r}" + _nearest(name, [*REGISTRY, *_COMBINATORS, *named])
        )
    _mapping(name, arguments, at)
    fields = {field.name: field for field in dataclasses.fields(REGISTRY[name])}  # type: ignore[arg-type]
    for argument in arguments:
        if argument not in fields:
            raise ArchitectureError(
                f"{at}: {name} has no argument {argument!r}" + _nearest(argument, list(fields))
            )
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in arguments]
    if missing:
        raise ArchitectureError(f"{at}: {name} needs {', '.join(missing)}")
    return _at(at, REGISTRY[name], **{key: _frozen(value) for key, value in arguments.items()})


def _named(name: str, arguments: Any, at: str) -> Layer:
    """An architecture of `ntk.zoo`, written out."""
    from ntk.zoo import ARCHITECTURES

    valid = {f"zoo.{known}": make for known, make in ARCHITECTURES.items()}
    if name not in valid:
        raise ArchitectureError(f"{at}: unknown architecture {name!r}" + _nearest(name, list(valid)))
    _mapping(name, arguments, at)
    return _at(at, valid[name], **{key: _frozen(value) for key, value in arguments.items()})


def _mapping(name: str, arguments: Any, at: str) -> None:
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        raise ArchitectureError(
            f"{at}: the arguments of {name} are written {{argument: value}}, got {arguments!r}"
        )


def _at(at: str, make: Any, *args: Any, **kwargs: Any) -> Layer:
    try:
        return make(*args, **kwargs)
    except ArchitectureError as error:
        raise ArchitectureError(f"{at}: {error}") from None


def _branches(name: str, arguments: Any, at: str) -> list[Any]:
    if not isinstance(arguments, (list, tuple)):
        raise ArchitectureError(f"{at}: {name} takes a list of layers, got {arguments!r}")
    return list(arguments)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _nearest(name: Any, valid: list[str]) -> str:
    by_lower = {candidate.lower().removeprefix("zoo."): candidate for candidate in valid}
    close = get_close_matches(str(name).lower().removeprefix("zoo."), by_lower, n=1, cutoff=0.5)
    return (
        f". hint: did you mean {by_lower[close[0]]}?"
        if close
        else f". hint: one of {', '.join(sorted(valid))}"
    )


def fingerprint(layer: Layer) -> str:
    """SHA-256 (hex) of the canonical specification: equal exactly for equal architectures, the same on every
    machine and in every version that writes the same specification."""
    text = json.dumps(to_spec(serial(layer)), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
