"""Finding the numerical gates in ``metrics.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.report.numbers import setting

_KEYS = {"value", "limit", "passed"}


@dataclass(frozen=True, slots=True)
class GateRow:
    """One gate: the stage it belongs to, what it was applied to, its name and its outcome."""

    stage: str
    subject: str
    name: str
    value: float | None
    limit: float | None
    passed: bool

    @property
    def share(self) -> float | None:
        """value / limit: how much of what is allowed was used."""
        if self.value is None or not self.limit:
            return None
        return self.value / self.limit


def collect_gates(metrics: Mapping[str, Any]) -> tuple[GateRow, ...]:
    """Every mapping with the keys value, limit and passed, at any depth, in the order of the metrics."""
    return tuple(row for stage, content in metrics.items() for row in _walk(str(stage), (), content))


def summarise(rows: Sequence[GateRow]) -> tuple[GateRow, ...]:
    """Every failed gate, then for each stage and name the one of the passed gates that came nearest its
    limit."""
    failed = [row for row in rows if not row.passed]
    groups: dict[tuple[str, str], list[GateRow]] = {}
    for row in rows:
        if row.passed:
            groups.setdefault((row.stage, row.name), []).append(row)
    nearest = []
    for group in groups.values():
        worst = max(group, key=lambda row: row.share or 0.0)
        note = worst.subject if len(group) == 1 else f"{worst.subject} (worst of {len(group)})".strip()
        nearest.append(replace(worst, subject=note))
    return (*failed, *nearest)


def _walk(stage: str, path: tuple[str, ...], node: Any) -> Iterator[GateRow]:
    if isinstance(node, Mapping):
        if node.keys() >= _KEYS:
            name = path[-1] if path else stage
            # Passing is said by the stage that made the gate, never concluded from a missing or odd value.
            yield GateRow(
                stage,
                ", ".join(path[:-1]),
                name,
                _number(node["value"]),
                _number(node["limit"]),
                bool(node["passed"]),
            )
            return
        for key, child in node.items():
            yield from _walk(stage, path if key in ("gates", "ridges") else (*path, str(key)), child)
    elif isinstance(node, list | tuple):
        for position, child in enumerate(node):
            yield from _walk(stage, (*path, _item(position, child)), child)


def _item(position: int, child: Any) -> str:
    if isinstance(child, Mapping) and isinstance(child.get("ridge"), int | float):
        return f"ridge {setting(child['ridge'])}"
    return str(position)


def _number(x: Any) -> float | None:
    return float(x) if isinstance(x, int | float) and not isinstance(x, bool) else None
