"""Matplotlib figures as inline SVG whose colours are those of the page.

Colours are drawn as placeholder hex values and replaced by CSS variables, so that one drawing follows the
light, dark and printed scheme of the page; text stays text, in the page's own font. Figures are made without
pyplot, hence without global state or a display.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

from pipeline.report.numbers import power_of_ten, quantity

INK = "#010203"
MUTED = "#010204"
RULE = "#010205"
FAINT = "#010206"
SERIES = ("#010211", "#010212", "#010213", "#010214", "#010215", "#010216")

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    FAINT: "var(--faint)",
    **{colour: f"var(--series-{k})" for k, colour in enumerate(SERIES, start=1)},
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9.6,
    "axes.labelsize": 9.6,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9.2,
    "ytick.labelsize": 9.2,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.2,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.use": True,
}
HALF_WIDTH = 5.4
FULL_WIDTH = 11.2


@contextmanager
def style() -> Iterator[None]:
    """The look of all plots, for the time of drawing; the caller's Matplotlib settings are left alone."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def to_svg(figure: Figure, *, name: str, alt: str) -> str:
    """The figure as an ``<svg>`` element for HTML.

    Args:
        name: prefix that makes the ids unique on the page: letters, digits and hyphens.
        alt: what the picture shows, for those who do not see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    # Fonts are the page's: drop the family that Matplotlib measured with, keep the size.
    svg = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?px) [^;\"]*", r"font-size: \2", svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda match: _VARIABLES.get(match.group(), match.group()), svg)
    svg = re.sub(r"(data:image/png;base64,)([^\"]+)", lambda match: match[1] + _paletted(match[2]), svg)
    opening = svg[: svg.index(">")]
    box = re.search(r'viewBox="[^"]+"', opening)
    if box is None:
        raise ValueError("Matplotlib wrote an SVG without a viewBox")
    return f'<svg {box.group()} role="img" aria-label="{escape(alt)}">{svg[len(opening) + 1 :]}'


def _paletted(image: str) -> str:
    """A base64 PNG with a palette in place of four bytes a pixel: a quarter of the size, equal pixels.

    The colour maps drawn here have at most 256 colours and no transparency.
    """
    buffer = io.BytesIO()
    pixels = Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")
    pixels.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def half_logarithmic() -> tuple[Figure, Axes]:
    """An empty figure of half the page's width with two logarithmic axes."""
    figure = Figure(figsize=(HALF_WIDTH, 3.7))
    axes = figure.subplots()
    plain_logarithmic(axes, "x")
    plain_logarithmic(axes, "y")
    return figure, axes


def plain_logarithmic(axes: Axes, which: str) -> None:
    """A logarithmic axis ("x" or "y") labelled 1, 10, 100 or, outside those, with powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda x, _: _decade(x)))
    axis.set_minor_locator(NullLocator())


def few_ticks() -> MaxNLocator:
    """At most five round numbers."""
    return MaxNLocator(nbins=5)


def _decade(x: float) -> str:
    exponent = round(math.log10(x))
    if not math.isclose(x, 10.0**exponent):
        return quantity(x)
    return f"{10**exponent:,}" if 0 <= exponent <= 4 else power_of_ten(exponent)
