"""The report: one HTML file with every figure of a run, readable without a network.

`ReportData` says what may be shown and `render` draws it; neither reads files. Matplotlib and Jinja are
imported when a report is rendered, not when this package is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.report.data import GramImage, ReportData, TimelineEntry
    from pipeline.report.page import render

__all__ = ["GramImage", "ReportData", "TimelineEntry", "render"]


def __getattr__(name: str) -> object:
    if name == "render":
        from pipeline.report.page import render

        return render
    if name in __all__:
        from pipeline.report import data

        return getattr(data, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
