"""What commands print: data on stdout, talk on stderr, and one way for errors to end a process."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import typer

from pipeline.documents import strict_json
from pipeline.errors import InputError, PipelineError, TasksFailed

TRACEBACK = "NTK_TRACEBACK"
"""Environment variable that shows where an error came from."""


def say(text: str) -> None:
    """A line for the person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def emit(document: dict[str, Any], *, as_json: bool, text: str) -> None:
    """The result of a command: one JSON document, or text, on stdout."""
    if as_json:
        _document(document)
    else:
        _print(text)


@contextlib.contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Within, an error ends the process with its exit code after one clear message (and one document with `--json`),
    and warnings about the data are lines on stderr."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
            return
        except PipelineError as error:
            failure = error
        except (typer.Exit, BrokenPipeError):  # whoever reads has seen enough: Typer ends quietly
            raise
        except OSError as error:
            failure = InputError(f"{error.filename or 'a file'}: {error.strerror or error}")
        except Exception as error:
            if os.environ.get(TRACEBACK):
                raise
            hint = (
                f"this is a defect of ntk: please report it with what ${TRACEBACK}=1 shows; a rerun resumes"
            )
            failure = TasksFailed(f"{type(error).__name__}: {error}", hint=hint)
        fail(failure, as_json)
        raise typer.Exit(failure.exit_code) from None


def fail(error: PipelineError, as_json: bool) -> None:
    """Print an error: a document on stdout when asked for, the message and its hint on stderr."""
    if as_json:
        with contextlib.suppress(InputError):  # that nobody can read it does not hide what happened
            _document({"error": {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}})
    say(f"error: {error.message}")
    if error.hint:
        say(f"hint: {error.hint}")
    for note in getattr(error, "__notes__", ()):
        if os.environ.get(TRACEBACK):
            say(note)


def close_document(code: object) -> None:
    """With `--json`, the document for a command line that could not be read: its explanation is on stderr."""
    if code == 2 and "--json" in sys.argv and not _printed:
        _document(
            {"error": {"message": "the command line could not be read", "hint": "ntk --help", "exit_code": 2}}
        )


def _document(content: dict[str, Any]) -> None:
    _printed.append(True)
    _print(strict_json(content))


def _print(text: str) -> None:
    """Raises InputError where stdout takes no more."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is left of it must not fail again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise InputError(
            f"stdout: cannot be written: {error.strerror}", hint="what was computed is stored"
        ) from None


_printed: list[bool] = []


def _show_warning(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
    say(
        f"warning: {message}"
        if "pipeline" in category.__module__
        else f"warning: {category.__name__}: {message}"
    )
