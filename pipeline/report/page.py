"""Joins words, tables and plots into one HTML page."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.report.canvas import style
from pipeline.report.data import ReportData
from pipeline.report.figure import ReportFigure
from pipeline.report.gates import collect_gates, summarise
from pipeline.report.numbers import quantity, share_of_limit
from pipeline.report.plot_convergence import convergence_figure
from pipeline.report.plot_decay import decay_figure
from pipeline.report.plot_density import density_figure
from pipeline.report.plot_gram import gram_figures
from pipeline.report.plot_labels import label_figures
from pipeline.report.plot_learning import learning_figures
from pipeline.report.plot_modes import mode_figures
from pipeline.report.plot_ridge import ridge_figure
from pipeline.report.plot_timeline import timeline_figure
from pipeline.report.tables import headline, provenance_rows, ridge_table, spectrum_table, time_table


def render(data: ReportData) -> str:
    """The report as one self-contained HTML document (UTF-8): no scripts, no fonts, nothing from elsewhere.

    Equal data give equal text. All text in `data` is escaped.
    """
    folder = files("pipeline.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(quantity=quantity, share=share_of_limit, svg=Markup)
    template = environment.from_string((folder / "report.html").read_text(encoding="utf-8"))
    gates = collect_gates(data.metrics)
    return template.render(
        data=data,
        css=Markup((folder / "report.css").read_text(encoding="utf-8")),
        headline=headline(data),
        figures=draw_figures(data),
        ridge_table=ridge_table(data),
        time_table=time_table(data),
        spectrum_table=spectrum_table(data),
        gates=summarise(gates),
        gate_count=len(gates),
        failed=sum(not gate.passed for gate in gates),
        provenance=provenance_rows(data),
    )


def draw_figures(data: ReportData) -> list[ReportFigure]:
    """Every plot for which there are data, in the order of the page."""
    with style():
        figures = [
            decay_figure(data),
            density_figure(data),
            *label_figures(data),
            *learning_figures(data),
            ridge_figure(data),
        ]
        figures += [convergence_figure(data), *gram_figures(data), *mode_figures(data), timeline_figure(data)]
    return [figure for figure in figures if figure is not None]
