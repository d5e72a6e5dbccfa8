"""A figure of the report: a drawing with its words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """An inline SVG, a title, a caption that says what is seen, and whether it spans the page."""

    title: str
    svg: str
    caption: str
    wide: bool = False


def identifier(name: str) -> str:
    """`name` as letters, digits and hyphens, for use in ids."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)


def kernel_title(kernel: str) -> str:
    """NTK for ntk: kernels are named by their abbreviations in prose."""
    return kernel.upper() if kernel in ("ntk", "nngp") else kernel
