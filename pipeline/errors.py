"""What can go wrong for a person, and the exit code each kind of failure ends with.

Every message says what, got and remedy; the remedy goes into ``hint``. Exit codes are those of the command line:
0 done, 1 a check said no, 2 bad usage, config or input, 3 tasks failed (a rerun resumes), 75 stopped by SIGTERM
after a clean flush (a rerun resumes), 130 interrupted.
"""

from __future__ import annotations


class PipelineError(Exception):
    """A failure with a message for a person.

    Args:
        message: what was wrong and what was found, with the numbers and the file, field or tile.
        hint: the remedy, shown on a line of its own.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"

    def __reduce__(self):
        # Exceptions pickle by their positional arguments; the hint must survive the way back from a worker.
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[PipelineError], message: str, hint: str | None) -> PipelineError:
    return kind(message, hint=hint)


class InputError(PipelineError):
    """Bad usage, configuration or data; a store of other data; a plan that cannot fit."""


class GateError(PipelineError):
    """A numerical gate or a verification said no."""

    exit_code = 1


class TasksFailed(PipelineError):
    """Tasks failed; what finished is kept and a rerun resumes."""

    exit_code = 3


class Stopped(PipelineError):
    """Stopped by SIGTERM after a clean flush; a rerun resumes."""

    exit_code = 75


class Interrupted(Stopped):
    """Interrupted from the keyboard after a clean flush; a rerun resumes."""

    exit_code = 130
