"""The command line: the only place that knows Typer, and the only one that prints."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `ntk` executable."""
    from pipeline.cli.app import app

    app()
