"""Shared by all tests; warnings are errors (pyproject.toml)."""

import pytest
from hypothesis import settings

from tests.faults import table

# Compilation makes first calls slow; a time limit per example would test the machine.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        table.annotate(item)


def pytest_terminal_summary(terminalreporter) -> None:
    reports = [
        report
        for kind in ("passed", "failed", "skipped", "error")
        for report in terminalreporter.getreports(kind)
    ]
    if text := table.text(reports):
        terminalreporter.section("injected failures")
        terminalreporter.write_line(text)
