"""What commands print: data on stdout, talk on stderr, and one way for errors to end a process."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import typer

from pipeline.errors import PipelineError


def say(text: str) -> None:
    """A line for the person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def emit(document: dict[str, Any], *, as_json: bool, text: str) -> None:
    """The result of a command: one JSON document, or text, on stdout."""
    print(json.dumps(plain(document), indent=2, allow_nan=False) if as_json else text)


def plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: both stand as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextlib.contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Within, a PipelineError ends the process with its exit code after one clear message, and warnings about the
    data are lines on stderr."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except PipelineError as error:
            if as_json:
                document = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
                print(json.dumps({"error": document}, indent=2))
            say(f"error: {error.message}")
            if error.hint:
                say(f"hint: {error.hint}")
            raise typer.Exit(error.exit_code) from None


def _show_warning(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
    say(
        f"warning: {message}"
        if "pipeline" in category.__module__
        else f"warning: {category.__name__}: {message}"
    )
