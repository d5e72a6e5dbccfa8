"""The Gram matrix as a heat map."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure

from pipeline.report import canvas
from pipeline.report.data import GramImage, ReportData
from pipeline.report.figure import ReportFigure, identifier, kernel_title
from pipeline.report.numbers import quantity

_MOST_LABELS = 16


def gram_figures(data: ReportData) -> list[ReportFigure]:
    """One heat map per kernel; colours span the central 99 % of the entries, so that a few do not dim the
    rest."""
    return [_gram_figure(kernel, image) for kernel, image in data.gram_image.items() if image.values.size]


def _gram_figure(kernel: str, image: GramImage) -> ReportFigure:
    values = np.ma.masked_invalid(np.asarray(image.values, np.float64))
    low, high = np.percentile(values.compressed(), (0.5, 99.5)) if values.count() else (0.0, 1.0)
    figure = Figure(figsize=(canvas.HALF_WIDTH, 4.5))
    axes = figure.subplots()
    shown = axes.imshow(
        values,
        cmap=_colours(),
        vmin=low,
        vmax=high,
        extent=(0, image.rows, image.rows, 0),
        interpolation="none",
    )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for boundary in image.boundaries:
        axes.axhline(boundary, color="#ffffff", linewidth=0.5, alpha=0.55)
        axes.axvline(boundary, color="#ffffff", linewidth=0.5, alpha=0.55)
    sorted_rows = bool(image.boundaries) and len(image.labels) == len(image.boundaries) + 1
    if sorted_rows and len(image.labels) <= _MOST_LABELS:
        edges = np.array([0, *image.boundaries, image.rows])
        centres = (edges[:-1] + edges[1:]) / 2
        axes.set_xticks(centres, image.labels)
        axes.set_yticks(centres, image.labels)
        axes.tick_params(length=0)
        axes.set_xlabel("class")
    else:
        axes.xaxis.set_major_locator(canvas.few_ticks())
        axes.yaxis.set_major_locator(canvas.few_ticks())
        axes.xaxis.set_major_formatter(lambda row, _: f"{row:,.0f}")
        axes.yaxis.set_major_formatter(lambda row, _: f"{row:,.0f}")
        axes.set_xlabel("row")
    bar = figure.colorbar(shown, ax=axes, shrink=0.82, aspect=32, pad=0.02, extend="both")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    bar.ax.tick_params(length=0)
    bar.locator = canvas.few_ticks()
    order = "rows sorted by class" if image.boundaries else "rows in the order of the data"
    caption = (
        f"{kernel_title(kernel)} of {image.rows:,} rows, {order}. Colours span the central 99 % of the entries,"
        f" {quantity(float(low))} to {quantity(float(high))}."
    )
    svg = canvas.to_svg(
        figure, name=f"gram-{identifier(kernel)}", alt=f"Heat map of the Gram matrix. {caption}"
    )
    return ReportFigure(f"Gram matrix, {kernel_title(kernel)}", svg, caption)


def _colours() -> Colormap:
    """Dark blue to pale green, monotone in lightness for every kind of colour vision, and never as light as
    paper."""
    return ListedColormap(colormaps["YlGnBu_r"](np.linspace(0, 0.94, 256)))
