"""Convergence of an iterative solver: the residual of every right-hand side after each product, a panel a ridge."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from pipeline.report import canvas
from pipeline.report.data import ReportData
from pipeline.report.figure import ReportFigure
from pipeline.report.numbers import setting

COLUMNS = 3


def convergence_figure(data: ReportData) -> ReportFigure | None:
    """None when the regression was not iterative."""
    solved = [row for row in data.metrics.get("solve", {}).get("ridges", ()) if row.get("convergence")]
    if not solved:
        return None
    rows = math.ceil(len(solved) / COLUMNS)
    columns = min(COLUMNS, len(solved))
    figure = Figure(figsize=(canvas.FULL_WIDTH if columns > 1 else canvas.HALF_WIDTH, 0.6 + 2.3 * rows))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in panels[len(solved) :]:
        axes.set_visible(False)
    for axes, row in zip(panels, solved, strict=False):
        canvas.plain_logarithmic(axes, "y")
        for position, history in enumerate(row["convergence"]):
            points = [(product, value) for product, value in enumerate(history) if value > 0]
            axes.plot(
                *zip(*points, strict=True), color=canvas.SERIES[position % len(canvas.SERIES)], linewidth=1
            )
        axes.set_title(f"ridge {setting(row['ridge'])}", loc="left")
        axes.set_xlabel("products with the matrix")
    panels[0].set_ylabel("‖residual‖ / ‖target‖")
    counts = ", ".join(f"{row['products']} at {setting(row['ridge'])}" for row in solved)
    first = solved[0]
    caption = f"Products with the matrix until every right-hand side had converged: {counts}."
    if first.get("rank"):
        caption += f" Preconditioner: {first['preconditioner']} of rank {first['rank']:,}."
    svg = canvas.to_svg(figure, name="convergence", alt=f"Residual against products. {caption}")
    return ReportFigure("Convergence", svg, caption, wide=columns > 1)
