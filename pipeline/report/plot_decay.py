"""Eigenvalue decay: λ_k against rank, log–log, with the power-law fit and the noise floor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pipeline.report import canvas
from pipeline.report.data import ReportData
from pipeline.report.figure import ReportFigure, kernel_title
from pipeline.report.numbers import quantity, with_error

_POINTS = 240


def decay_figure(data: ReportData) -> ReportFigure | None:
    """All kernels in one plot, or None when no spectrum was computed."""
    spectra = {
        kernel: np.asarray(values, np.float64)
        for kernel, values in data.eigenvalues.items()
        if np.any(np.asarray(values) > 0)
    }
    if not spectra:
        return None
    figure, axes = canvas.half_logarithmic()
    sentences = []
    for position, (kernel, values) in enumerate(spectra.items()):
        metrics = data.metrics.get("spectrum", {}).get(kernel, {})
        sentences.append(_draw(axes, kernel, values, metrics, canvas.SERIES[position % len(canvas.SERIES)]))
    floors = [
        floor
        for kernel in spectra
        if (floor := data.metrics.get("spectrum", {}).get(kernel, {}).get("noise_floor"))
    ]
    if floors and _draw_floor(axes, max(floors)):
        sentences.append("What lies below the floor is rounding and is not interpreted.")
    axes.set_xlabel("rank k")
    axes.set_ylabel("eigenvalue λₖ")
    axes.legend(loc="upper right")
    caption = " ".join(sentences)
    return ReportFigure(
        "Eigenvalue decay",
        canvas.to_svg(figure, name="decay", alt=f"Eigenvalues against rank. {caption}"),
        caption,
    )


def log_spaced(n: int, count: int = _POINTS) -> NDArray[np.intp]:
    """At most `count` indices of 0 … n − 1, all of the first, then evenly in log k, the last one included."""
    return np.unique(np.geomspace(1, n, count).round().astype(np.intp)) - 1


def _draw(
    axes: Axes, kernel: str, values: NDArray[np.float64], metrics: Mapping[str, Any], colour: str
) -> str:
    ranks = np.arange(1, values.size + 1)
    positive = values > 0
    floor = metrics.get("noise_floor") or 0.0
    shown = log_spaced(values.size)
    shown = shown[positive[shown]]
    known = shown[values[shown] > floor]
    rounding = shown[values[shown] <= floor]
    marker: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "markersize": 3,
        "markeredgewidth": 0,
        "color": colour,
    }
    axes.plot(ranks[known], values[known], label=kernel_title(kernel), **marker)
    axes.plot(ranks[rounding], values[rounding], alpha=0.3, **marker)
    above = np.count_nonzero(values > floor)
    counted = f"all {above:,}" if above == values.size else f"{above:,} of {values.size:,}"
    where = f"lie above the noise floor n ε λ₁ = {quantity(floor)}" if floor else "are positive"
    sentence = f"{kernel_title(kernel)}: {counted} eigenvalues {where}."
    if negative := np.count_nonzero(values < 0):
        sentence += f" {negative:,} negative ones, down to {quantity(float(values.min()))}, are not drawn."
    law = metrics.get("power_law")
    if law:
        sentence += " " + _draw_law(axes, values, law, colour)
    return sentence


def _draw_law(axes: Axes, values: NDArray[np.float64], law: Mapping[str, Any], colour: str) -> str:
    if not law["straight"]:
        return "No power law describes them: on no range of ranks do they stay within 10 % of a line."
    first, last, exponent = int(law["first"]), int(law["last"]), float(law["exponent"])
    ranks = np.arange(first, last + 1)[values[first - 1 : last] > 0]
    if not ranks.size:
        return ""
    # The weighted fit passes through the weighted mean of the logarithms (weights 1/k, as in the fit itself).
    offset = np.average(np.log(values[ranks - 1]) + exponent * np.log(ranks), weights=1 / ranks)
    ends = np.array([first, last], np.float64)
    if law.get("interval"):
        # Lines of other slopes pass through the same mean; the band is widest at the ends.
        centre = np.average(np.log(ranks), weights=1 / ranks)
        drawn = np.geomspace(first, last, 40)
        turn = np.abs(np.log(drawn) - centre) * (float(law["interval"][1]) - exponent)
        middle = np.exp(offset) * drawn**-exponent
        axes.fill_between(
            drawn, middle * np.exp(-turn), middle * np.exp(turn), color=colour, alpha=0.18, linewidth=0,
            label="95 % interval",
        )  # fmt: skip
    axes.plot(
        ends,
        np.exp(offset) * ends**-exponent,
        color=colour,
        linewidth=1.2,
        label=f"power law, α = {quantity(exponent)}",
    )
    return (
        f"The line is λₖ ∝ k⁻ᵅ with α = {with_error(exponent, law.get('standard_error'))}, fitted to ranks {first:,} to"
        f" {last:,} (r² = {quantity(law.get('r2'), 4)})."
    )


def _draw_floor(axes: Axes, floor: float) -> bool:
    """Whether the floor lies within the plot and was drawn."""
    low, high = axes.get_ylim()
    if floor <= low:
        return False
    axes.axhspan(low, floor, color=canvas.FAINT, linewidth=0)
    axes.axhline(floor, color=canvas.MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(
        "noise floor n ε λ₁",
        (0.015, floor),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, -3),
        textcoords="offset points",
        va="top",
        color=canvas.MUTED,
        fontsize=9.2,
    )
    axes.set_ylim(low, high)
    return True
