"""The ridge path: leave-one-out and held-out error against the ridge, the chosen one marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report import canvas
from pipeline.report.data import ReportData
from pipeline.report.figure import ReportFigure
from pipeline.report.numbers import percent, quantity, setting

Points = list[tuple[float, float]]


def ridge_figure(data: ReportData) -> ReportFigure | None:
    """None when fewer than two ridges were tried: a path needs two points."""
    solved = data.metrics.get("solve", {}).get("ridges", ())
    predicted = data.metrics.get("predict", {}).get("ridges", ())
    panels = [
        (
            "misclassified",
            _points(solved, "loo_accuracy", wrong=True),
            _points(predicted, "accuracy", wrong=True),
        ),
        ("RMSE", _points(solved, "loo_rmse"), _points(predicted, "rmse")),
    ]
    panels = [panel for panel in panels if max(len(panel[1]), len(panel[2])) > 1]
    if not panels:
        return None
    figure = Figure(figsize=(canvas.HALF_WIDTH, 3.7))
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    chosen = data.metrics.get("solve", {}).get("chosen", {})
    for axes, (label, leave_one_out, held_out) in zip(rows, panels, strict=True):
        _draw(axes, label, leave_one_out, held_out, chosen.get("ridge"))
    rows[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3)
    rows[-1].set_xlabel("ridge, relative to the mean diagonal")
    caption = _caption(panels, chosen)
    svg = canvas.to_svg(figure, name="ridge", alt=f"Error against ridge. {caption}")
    return ReportFigure("Ridge path", svg, caption)


def _draw(axes: Axes, label: str, leave_one_out: Points, held_out: Points, chosen: float | None) -> None:
    canvas.plain_logarithmic(axes, "x")
    for points, colour, marker, name in (
        (leave_one_out, canvas.SERIES[0], "o", "leave-one-out"),
        (held_out, canvas.SERIES[1], "s", "held-out"),
    ):
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4.5, label=name)
    if label == "misclassified":
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.3g} %")
    axes.margins(y=0.15)
    if chosen:
        axes.axvline(chosen, color=canvas.INK, linewidth=0.9, linestyle=(0, (2, 2)), label="chosen", zorder=1)
    axes.set_ylabel(label)


def _caption(panels: list[tuple[str, Points, Points]], chosen: Mapping[str, Any]) -> str:
    by = {
        "loo": "the smallest leave-one-out error",
        "gcv": "the smallest generalised cross-validation error",
        "held_out": "the smallest held-out error",
    }.get(chosen.get("by", ""))
    text = ""
    if chosen.get("ridge") is not None:
        text = f"The dotted line marks the chosen ridge, {setting(chosen['ridge'])}"
        text += f", the one with {by}." if by else "."
    for label, leave_one_out, held_out in panels[:1]:
        for name, points in (("leave-one-out", leave_one_out), ("held-out", held_out)):
            if points:
                ridge, value = min(points, key=lambda point: point[1])
                figure = (
                    percent(value, 2) + " misclassified"
                    if label == "misclassified"
                    else f"an RMSE of {quantity(value)}"
                )
                text += f" Best {name}: {figure} at {setting(ridge)}."
    return text.strip()


def _points(rows: Sequence[Mapping[str, Any]], key: str, *, wrong: bool = False) -> Points:
    """(ridge, value) ascending; a ridge of zero has no place on a logarithmic axis."""
    found = [(row.get("ridge"), row.get(key)) for row in rows]
    return sorted(
        (float(ridge), 1 - float(value) if wrong else float(value))
        for ridge, value in found
        if ridge and ridge > 0 and value is not None
    )
