"""The bar of a set of tasks on a terminal, with lines below it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text


class Bars(Progress):
    """A bar on stderr that is gone when it stops.

    Args:
        lines: gives the lines below it, asked for at every refresh.
    """

    def __init__(self, lines: Callable[[], list[str]]):
        self._below = lines
        super().__init__(
            TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TextColumn("left"), TimeRemainingColumn(compact=True),
            console=Console(stderr=True), transient=True, refresh_per_second=4,
        )  # fmt: skip

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for line in self._below():
            yield Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis")
