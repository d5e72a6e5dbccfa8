"""What can be wrong with what a person asks of the library."""

from __future__ import annotations


class ArchitectureError(ValueError):
    """An architecture that cannot be: the message names the layer by position, what it got and what it wants."""
