"""The tile timeline: what each worker did when."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from pipeline.report import canvas
from pipeline.report.data import ReportData, TimelineEntry
from pipeline.report.figure import ReportFigure
from pipeline.report.numbers import duration, percent

_RESOLUTION = 1500
_MOST_NAMES = 24


def timeline_figure(data: ReportData) -> ReportFigure | None:
    """A row per worker, a bar per task, a colour per kind; None when nothing was recorded."""
    entries = [entry for entry in data.timeline if entry.seconds >= 0]
    if not entries:
        return None
    begin = min(entry.start for entry in entries)
    span = max(max(entry.start + entry.seconds for entry in entries) - begin, 1e-9)
    workers = sorted({entry.worker for entry in entries}, key=_natural)
    kinds = list(dict.fromkeys(entry.kind for entry in sorted(entries, key=lambda entry: entry.start)))
    figure = Figure(figsize=(canvas.FULL_WIDTH, min(1.15 + 0.3 * len(workers), 6.5)))
    axes = figure.subplots()
    for position, kind in enumerate(kinds):
        colour = canvas.SERIES[position % len(canvas.SERIES)]
        label: str | None = kind
        for row, worker in enumerate(workers):
            mine = [entry for entry in entries if entry.worker == worker and entry.kind == kind]
            bars = [(start - begin, length) for start, length in _merged(mine, span / _RESOLUTION)]
            if bars:
                axes.broken_barh(bars, (row - 0.36, 0.72), facecolors=colour, linewidth=0, label=label)
                label = None
    axes.set_ylim(len(workers) - 0.4, -0.6)
    axes.set_xlim(0, span)
    if len(workers) <= _MOST_NAMES:
        axes.set_yticks(range(len(workers)), workers)
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(workers):,} workers")
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MultipleLocator(_step(span)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g} s" if span < 100 else duration(float(x)))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=6, handlelength=0.9, handleheight=0.9)
    busy = sum(_busy([entry for entry in entries if entry.worker == worker]) for worker in workers)
    share = percent(busy / (span * len(workers)), 0)
    caption = (
        f"{len(entries):,} chunks by {len(workers):,} worker{'s' if len(workers) > 1 else ''} in {duration(span)}: "
        f"workers were busy {share} of the time. A moment in which one chunk is stored while the next is computed "
        "counts once."
    )
    svg = canvas.to_svg(figure, name="timeline", alt=f"Timeline of tasks by worker. {caption}")
    return ReportFigure("Timeline", svg, caption, wide=True)


def _step(span: float) -> float:
    """A round number of seconds, minutes or hours that cuts the span into at most seven."""
    round_numbers = [m * 10.0**e for e in range(-6, 1) for m in (1, 2, 5)]
    round_numbers += [
        10.0,
        15.0,
        30.0,
        *(60.0 * m for m in (1, 2, 5, 10, 15, 30, 60, 120, 240, 480, 720, 1440)),
    ]
    return next((step for step in round_numbers if span / step <= 7), 86400.0 * math.ceil(span / 7 / 86400))


def _merged(entries: Sequence[TimelineEntry], gap: float) -> list[tuple[float, float]]:
    """(start, length) of the entries, those closer than `gap` drawn as one bar: thinner slits cannot be
    seen."""
    bars: list[tuple[float, float]] = []
    for entry in sorted(entries, key=lambda entry: entry.start):
        if bars and entry.start - sum(bars[-1]) < gap:
            start = bars[-1][0]
            bars[-1] = (start, max(sum(bars[-1]), entry.start + entry.seconds) - start)
        else:
            bars.append((entry.start, entry.seconds))
    return bars


def _busy(entries: Sequence[TimelineEntry]) -> float:
    """Seconds in which a worker was at one of its chunks or more."""
    return sum(length for _, length in _merged(entries, 0.0))


def _natural(worker: str) -> tuple[str, int, str]:
    """host:99 before host:100."""
    host, _, number = worker.rpartition(":")
    return (host, int(number), "") if number.isdigit() else (worker, 0, worker)
