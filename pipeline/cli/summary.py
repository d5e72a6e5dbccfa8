"""What a run prints when it ends: the few figures a person wants first."""

from __future__ import annotations

from typing import Any

from pipeline.config.sizes import human_bytes, human_seconds


def summary_text(document: dict[str, Any]) -> str:
    """Lines of `name: figures` for each finished stage."""
    lines = []
    if (gram := document.get("gram")) and "shard" in gram:
        return f"share {gram['shard']}: {gram['tasks']} tasks done in {document['directory']}"
    if gram:
        lines.append(f"gram      {gram['tiles']} tiles of {gram['tile']}, {human_bytes(gram['bytes'])}")
    if solve := document.get("solve"):
        chosen = next(entry for entry in solve["ridges"] if entry["ridge"] == solve["chosen"]["ridge"])
        figures = ", ".join(
            f"leave-one-out {name[4:]} {chosen[name]:.4g}" for name in chosen if name.startswith("loo_")
        )
        if not figures and "gcv_rmse" in chosen:
            figures = f"generalised cross-validation rmse {chosen['gcv_rmse']:.4g}"
        figures = figures or f"solved by {solve['method']}"
        lines.append(f"solve     ridge {chosen['ridge']:g} of {len(solve['ridges'])}: {figures}")
        lines += [
            f"          ridge {entry['ridge']:g} was factored in float64: {entry['fallback']}"
            for entry in solve["ridges"]
            if "fallback" in entry
        ]
    if predict := document.get("predict"):
        figures = ", ".join(
            f"test {name} {predict[name]:.4g}" for name in ("accuracy", "rmse", "r2") if name in predict
        )
        lines.append(
            f"predict   {predict['rows']} held-out rows: {figures or 'stored (no targets to score)'}"
        )
    for kernel, found in (document.get("spectrum") or {}).items():
        figures = [f"λ_max {found['lambda_max']:.4g}"]
        if "condition_number" in found:
            bound = "" if found["condition_number_resolved"] else "at least "
            figures.append(f"condition number {bound}{found['condition_number']:.3g}")
        figures.append(f"largest stable learning rate {found['max_learning_rate']:.3g}")
        lines.append(f"spectrum  {kernel} ({found['method']}): {', '.join(figures)}")
    if "report" in document:
        lines.append(f"report    {document['report']}")
    lines.append(f"done in {human_seconds(document['seconds'])}: {document['directory']}")
    return "\n".join(lines)
