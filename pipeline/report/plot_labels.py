"""Cumulative label power: how much of the labels the leading eigenmodes hold."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.report import canvas
from pipeline.report.data import ReportData
from pipeline.report.figure import ReportFigure, identifier, kernel_title
from pipeline.report.numbers import percent
from pipeline.report.plot_decay import log_spaced

_ENOUGH = 0.9


def label_figures(data: ReportData) -> list[ReportFigure]:
    """One figure per kernel with label power."""
    return [
        _label_figure(kernel, np.asarray(power, np.float64), data)
        for kernel, power in data.label_power.items()
        if np.sum(power) > 0
    ]


def _label_figure(kernel: str, power: NDArray[np.float64], data: ReportData) -> ReportFigure:
    rows = data.rows or len(power)
    total = _climb(power.sum(axis=1, keepdims=True))[:, 0]
    present = [c for c in range(power.shape[1]) if power[:, c].sum() > 0]
    figure = Figure(figsize=(canvas.HALF_WIDTH, 3.7))
    axes = figure.subplots()
    canvas.plain_logarithmic(axes, "x")
    shown = log_spaced(len(power))
    ranks = shown + 1
    half = int(np.searchsorted(total, 0.5)) + 1
    enough = int(np.searchsorted(total, _ENOUGH)) + 1
    caption = (
        f"Share of the label power Σ (vₖᵀy)² in the leading k eigenmodes of the {kernel_title(kernel)}."
        f" Half of it lies in the first {half:,} mode{'s' if half > 1 else ''},"
        f" {percent(_ENOUGH, 0)} in the first {enough:,} of {rows:,};"
        " the dashed line is a target spread evenly over all modes."
    )
    if len(present) > 1:
        caption += " " + _draw_classes(
            axes, _climb(power[:, present]), [_name(data, c) for c in present], shown
        )
    axes.plot(ranks, total[shown], color=canvas.SERIES[0], linewidth=2.2, label="all labels", zorder=3)
    uniform = np.geomspace(1, rows, 200)
    axes.plot(
        uniform, uniform / rows, color=canvas.MUTED, linewidth=1, linestyle=(0, (4, 3)), label="uniform"
    )
    axes.set_xlim(1, rows)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
    axes.set_xlabel("leading modes k")
    axes.set_ylabel("share of label power")
    handles, labels = axes.get_legend_handles_labels()
    first = labels.index("all labels")
    order = [first, *(k for k in range(len(labels)) if k != first)]
    axes.legend([handles[k] for k in order], [labels[k] for k in order], loc="upper left")
    svg = canvas.to_svg(figure, name=f"labels-{identifier(kernel)}", alt=f"Cumulative label power. {caption}")
    return ReportFigure(f"Label power by mode, {kernel_title(kernel)}", svg, caption)


def _draw_classes(axes: Axes, climbs: NDArray[np.float64], names: list[str], shown: NDArray[np.intp]) -> str:
    """Every class as a thin line; the first and the last to be nearly complete get a colour and a name."""
    reached = np.argmax(climbs >= _ENOUGH, axis=0) + 1
    first, last = int(np.argmin(reached)), int(np.argmax(reached))
    ranks = shown + 1
    for c in range(climbs.shape[1]):
        if c not in (first, last):
            axes.plot(ranks, climbs[shown, c], color=canvas.MUTED, linewidth=0.7, alpha=0.55)
    if first == last:
        return f"Thin lines: the {climbs.shape[1]} classes."
    for c, colour in ((first, canvas.SERIES[2]), (last, canvas.SERIES[1])):
        axes.plot(ranks, climbs[shown, c], color=colour, linewidth=1.4, label=f"class {names[c]}")
    return (
        f"Thin lines: the {climbs.shape[1]} classes; class {names[first]} is the first to reach {percent(_ENOUGH, 0)}"
        f" ({reached[first]:,} modes), class {names[last]} the last ({reached[last]:,})."
    )


def _climb(power: NDArray[np.float64]) -> NDArray[np.float64]:
    climb = np.cumsum(power, axis=0)
    return climb / climb[-1]


def _name(data: ReportData, column: int) -> str:
    return data.class_names[column] if column < len(data.class_names) else str(column)
