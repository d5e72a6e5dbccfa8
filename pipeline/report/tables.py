"""The numbers of a report: headline, ridge path, spectrum, provenance, as rows of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.data import ReportData
from pipeline.report.figure import kernel_title
from pipeline.report.numbers import MISSING, duration, percent, quantity, setting


@dataclass(frozen=True, slots=True)
class Fact:
    """A headline figure: its name, its value and a remark below it."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text, the first column naming the row; `marked` is the index of a row to set off, or None."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: int | None = None


def headline(data: ReportData) -> tuple[Fact, ...]:
    """What a reader looks for first; figures that were not computed are left out."""
    return tuple(fact for fact in _headline(data) if fact.value != MISSING)


def ridge_table(data: ReportData) -> Table | None:
    """A row per ridge with every error known of it; columns without any value are left out."""
    solve = data.metrics.get("solve", {})
    held_out = {row.get("ridge"): row for row in data.metrics.get("predict", {}).get("ridges", ())}
    dimensions = {
        row.get("ridge"): row.get("value")
        for row in data.metrics.get("spectrum", {})
        .get(solve.get("kernel"), {})
        .get("effective_dimension", ())
    }
    solved = list(solve.get("ridges", ()))
    if not solved:
        return None
    columns: dict[str, list[str]] = {
        "ridge": [setting(row.get("ridge")) for row in solved],
        "λ": [quantity(row.get("lambda")) for row in solved],
        "leave-one-out accuracy": [percent(row.get("loo_accuracy"), 2) for row in solved],
        "leave-one-out RMSE": [quantity(row.get("loo_rmse"), 4) for row in solved],
    }
    tested = [held_out.get(row.get("ridge"), {}) for row in solved]
    columns["held-out accuracy"] = [percent(row.get("accuracy"), 2) for row in tested]
    columns["held-out RMSE"] = [quantity(row.get("rmse"), 4) for row in tested]
    columns["held-out R²"] = [quantity(row.get("r2"), 4) for row in tested]
    columns["effective dimension"] = [quantity(dimensions.get(row.get("ridge")), 4) for row in solved]
    columns["log det"] = [quantity(row.get("log_determinant"), 5) for row in solved]
    kept = {name: cells for name, cells in columns.items() if any(cell != MISSING for cell in cells)}
    chosen = solve.get("chosen", {}).get("ridge")
    ridges = [row.get("ridge") for row in solved]
    return Table(
        tuple(kept),
        tuple(zip(*kept.values(), strict=True)),
        ridges.index(chosen) if chosen in ridges else None,
    )


def time_table(data: ReportData) -> Table | None:
    """A row per training time; columns without any value are left out."""
    rows = list(data.metrics.get("predict", {}).get("times", ()))
    if not rows:
        return None
    columns: dict[str, list[str]] = {
        "time": [setting(row.get("time")) for row in rows],
        "held-out accuracy": [percent(row.get("accuracy"), 2) for row in rows],
        "held-out RMSE": [quantity(row.get("rmse"), 4) for row in rows],
        "held-out R²": [quantity(row.get("r2"), 4) for row in rows],
    }
    kept = {name: cells for name, cells in columns.items() if any(cell != MISSING for cell in cells)}
    return Table(tuple(kept), tuple(zip(*kept.values(), strict=True)))


def spectrum_table(data: ReportData) -> Table | None:
    """A row per quantity, a column per kernel."""
    kernels = {name: content for name, content in data.metrics.get("spectrum", {}).items() if content}
    if not kernels:
        return None
    rows = {
        "largest eigenvalue λ₁": lambda m: quantity(m.get("lambda_max"), 4),
        "smallest eigenvalue": lambda m: quantity(m.get("lambda_min"), 4),
        "largest residual of a checked pair": lambda m: quantity(m.get("lambda_error"), 2),
        "condition number": _condition,
        "power-law exponent α, 95 % interval": lambda m: _interval(m.get("power_law")),
        "label exponent β, 95 % interval": lambda m: _interval(m.get("label_law")),
        "participation ratio (Σλ)² / Σλ²": lambda m: quantity(m.get("participation_ratio"), 4),
        "stable rank Σλ² / λ₁²": lambda m: quantity(m.get("stable_rank"), 4),
        "kernel–target alignment, centred": lambda m: quantity(m.get("label_alignment")),
        "modes for half the label power": lambda m: quantity(m.get("modes_for_half_label_power")),
        "yᵀK⁻¹y, the largest of the outputs": lambda m: quantity(_largest(m.get("label_complexity"))),
        "bound on the error of an output": lambda m: quantity(_largest(m.get("generalisation_bound"))),
        "RKHS norm of the fit, smallest ridge": lambda m: quantity(
            (m.get("rkhs_norm") or [{}])[0].get("value"), 4
        ),
        "largest stable learning rate 2 / λ₁": lambda m: quantity(m.get("max_learning_rate")),
        "steps at that rate to fit the slowest mode to 1/e": _slowest,
    }
    cells = [(name, *(value(content) for content in kernels.values())) for name, value in rows.items()]
    return Table(
        ("", *(kernel_title(name) for name in kernels)),
        tuple(row for row in cells if any(cell != MISSING for cell in row[1:])),
    )


def provenance_rows(data: ReportData) -> tuple[tuple[str, str], ...]:
    """The provenance as (name, text), nested mappings flattened."""
    return tuple(_flattened(data.provenance))


def _headline(data: ReportData) -> Iterator[Fact]:
    solve, predict = data.metrics.get("solve", {}), data.metrics.get("predict", {})
    if data.rows is not None:
        yield Fact(
            "Training rows N",
            quantity(data.rows),
            f"{quantity(data.test_rows)} held out" if data.test_rows else "",
        )
    chosen = solve.get("chosen", {}).get("ridge")
    at_chosen = next((row for row in solve.get("ridges", ()) if row.get("ridge") == chosen), {})
    if data.task == "classification":
        remark = percent(at_chosen.get("loo_accuracy"))
        yield Fact(
            "Held-out accuracy",
            percent(predict.get("accuracy"), 2),
            f"{remark} leave-one-out" if remark != MISSING else "",
        )
    elif data.task == "regression":
        yield Fact("Held-out R²", quantity(predict.get("r2"), 4))
        yield Fact("Held-out RMSE", quantity(predict.get("rmse"), 4))
    yield Fact("Chosen ridge", setting(chosen), "relative to the mean diagonal")
    spectrum = data.metrics.get("spectrum", {})
    kernel = solve.get("kernel") if solve.get("kernel") in spectrum else next(iter(spectrum), None)
    if kernel is not None:
        leading = spectrum[kernel]
        yield Fact("Largest eigenvalue", quantity(leading.get("lambda_max")), kernel_title(kernel))
        yield Fact("Condition number", _condition(leading))
        yield Fact(
            "Largest learning rate",
            quantity(leading.get("max_learning_rate")),
            "for ½‖f − y‖²",
        )
    yield Fact("Wall time", duration(data.wall_seconds))


def _condition(metrics: Mapping[str, Any]) -> str:
    value = quantity(metrics.get("condition_number"))
    # λ_min below the noise floor bounds the condition number from one side only.
    return value if value == MISSING or metrics.get("condition_number_resolved", True) else f"≥ {value}"


def _interval(law: Mapping[str, Any] | None) -> str:
    if not law or not law.get("straight", True):
        return MISSING
    if not law.get("interval"):
        return quantity(law.get("exponent"))
    low, high = law["interval"]
    return f"{quantity(law['exponent'])} ({quantity(low)} to {quantity(high)})"


def _largest(values: list[float | None] | None) -> float | None:
    return max((value for value in values or () if value is not None), default=None)


def _slowest(metrics: Mapping[str, Any]) -> str:
    """1 / (η λ_min) at η = 2 / λ_max: half the condition number."""
    if metrics.get("condition_number") is None:
        return MISSING
    steps = quantity(metrics["condition_number"] / 2)
    return steps if metrics.get("condition_number_resolved", True) else f"≥ {steps}"


def _flattened(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{name}: ")
        elif value is not None:
            yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
