"""The table of injected failures that a test run prints at its end: one row a fault, and what came of it."""

from __future__ import annotations

ROWS: list[tuple[str, str]] = []


def row(fault: str, outcome: str) -> None:
    """Add a row."""
    ROWS.append((fault, outcome))


def text() -> str:
    """The rows as a table."""
    width = max((len(fault) for fault, _ in ROWS), default=0)
    return "\n".join(f"{fault:<{width}}  {outcome}" for fault, outcome in ROWS)
