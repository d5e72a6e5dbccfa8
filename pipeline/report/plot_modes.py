"""Leading eigenvectors: rows of the data as points coloured by class, or, of images, the image each mode stands for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.report import canvas
from pipeline.report.data import Modes, ReportData
from pipeline.report.figure import ReportFigure, identifier, kernel_title

_PANELS = 3
_IMAGES = 8
_MOST_CLASSES = 20
_DIVERGING = "RdBu_r"


def mode_figures(data: ReportData) -> list[ReportFigure]:
    """One figure per kernel with at least two stored eigenvectors."""
    return [
        _images(kernel, modes) if modes.images is not None else _scatter(kernel, modes, data)
        for kernel, modes in data.modes.items()
        if modes.vectors.shape[1] > 1
    ]


def _scatter(kernel: str, modes: Modes, data: ReportData) -> ReportFigure:
    vectors = np.asarray(modes.vectors, np.float64)
    panels = list(pairwise(range(vectors.shape[1])))[::2][:_PANELS]
    figure = Figure(figsize=(canvas.FULL_WIDTH, 3.9))
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (first, second) in zip(grid, panels, strict=True):
        _points(axes, vectors[:, first], vectors[:, second], modes.target, data.class_names)
        axes.set_xlabel(f"mode {first + 1}")
        axes.set_ylabel(f"mode {second + 1}")
        axes.set_xticks([])
        axes.set_yticks([])
    coloured = "."
    if modes.target is not None:
        named = 1 < len(data.class_names) <= _MOST_CLASSES
        coloured = ", coloured by class." if named else ", coloured by target."
        if named:
            handles, labels = grid[0].get_legend_handles_labels()
            figure.legend(
                handles, labels, loc="outside right center", markerscale=1.6, handletextpad=0.1, title="class"
            )
    caption = (
        f"The leading eigenvectors of the {kernel_title(kernel)} as functions on the data: a point for each of"
        f" {len(vectors):,} rows{coloured} Classes that lie apart in a panel are told apart by these modes, which"
        " gradient descent fits first."
    )
    svg = canvas.to_svg(figure, name=f"modes-{identifier(kernel)}", alt=caption)
    return ReportFigure(f"Leading eigenvectors, {kernel_title(kernel)}", svg, caption, wide=True)


def _points(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    target: NDArray[np.floating] | None,
    names: tuple[str, ...],
) -> None:
    style = {"linestyle": "none", "marker": "o", "markersize": 3.2, "markeredgewidth": 0, "alpha": 0.8}
    if target is None:
        axes.plot(x, y, color=canvas.SERIES[0], **style)
    elif 1 < len(names) <= _MOST_CLASSES:
        colours = colormaps["tab10" if len(names) <= 10 else "tab20"]
        for index, name in enumerate(names):
            of = target == index
            axes.plot(x[of], y[of], color=to_hex(colours(index)), label=name, **style)
    else:
        # A few steps of a colour map, so that points of equal colour are drawn together.
        step = np.digitize(target, np.quantile(target, np.linspace(0, 1, 9)[1:-1]))
        for index in range(8):
            axes.plot(
                x[step == index], y[step == index], color=to_hex(colormaps["viridis"](index / 7)), **style
            )


def _images(kernel: str, modes: Modes) -> ReportFigure:
    assert modes.images is not None
    images = np.asarray(modes.images, np.float64)[:_IMAGES]
    figure = Figure(figsize=(canvas.FULL_WIDTH, 1.9))
    for index, (axes, image) in enumerate(
        zip(figure.subplots(1, len(images), squeeze=False)[0], images, strict=True)
    ):
        bound = float(np.abs(image).max()) or 1.0
        axes.imshow(image, cmap=_DIVERGING, vmin=-bound, vmax=bound, interpolation="none")
        axes.set_axis_off()
        axes.set_title(f"mode {index + 1}", fontsize=9.2)
    caption = (
        f"The image that each leading eigenvector of the {kernel_title(kernel)} stands for, Σ vₖ(i) xᵢ over all rows,"
        " the mean over its channels: red adds to the mode, blue takes from it."
    )
    svg = canvas.to_svg(figure, name=f"modes-{identifier(kernel)}", alt=caption)
    return ReportFigure(f"Leading eigenvectors, {kernel_title(kernel)}", svg, caption, wide=True)
