"""The pipeline around the neural tangent kernel: plan, tiles, store, solvers, spectrum, report, command line.

from pipeline import open_run
run = open_run("runs/digits")
run.gram("ntk").block(0, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.opened import Run, open_run

__all__ = ["Run", "open_run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pipeline import opened

        return getattr(opened, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
