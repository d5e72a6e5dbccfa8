"""The table of injected failures that a test run prints at its end: one row a fault, and what came of it.

A row comes from the fixture `row`, or from the mark of a test elsewhere,
`@pytest.mark.faults("flipped tile", "named")`. It travels on the test's report, so that it reaches the table from
whichever process ran the test.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

PROPERTY = "fault"


def annotate(item: pytest.Item) -> None:
    """Give a test that injects failures elsewhere its row; a mark on a parameter comes before one on the test."""
    for mark in item.iter_markers("faults"):
        if mark.args:
            item.user_properties.append((PROPERTY, list(mark.args)))
            return


def text(reports: Iterable[Any]) -> str:
    """The rows of these reports of tests as a table, equal ones once; empty when there is none."""
    rows: dict[tuple[str, str], None] = {}
    for report in reports:
        # A module that fails at its import is reported without properties.
        found = [value for name, value in getattr(report, "user_properties", ()) if name == PROPERTY]
        if report.failed and (found or "/faults/" in report.nodeid):
            rows[found[0][0] if found else report.nodeid, "FAILED"] = None
        elif report.skipped and (found or "/faults/" in report.nodeid):
            rows[found[0][0] if found else report.nodeid, "not tried, see the reasons of skips (-rs)"] = None
        elif report.passed and report.when == "call":
            rows |= {(fault, outcome): None for fault, outcome in found}
    width = max((len(fault) for fault, _ in rows), default=0)
    return "\n".join(f"{fault:<{width}}  {outcome}" for fault, outcome in rows)
