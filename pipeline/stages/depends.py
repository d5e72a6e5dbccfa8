"""What each stage's result depends on, by the names a person knows; a stage is stale when one of them changed."""

from __future__ import annotations

import hashlib
import json

from pipeline.config.model import RunConfig

STAGES = ("gram", "solve", "predict", "spectrum", "report")
"""The stages in the order they run."""

STAGE_OF = {
    "inputs": "gram",
    "gram": "gram",
    "cross": "gram",
    "checks": "gram",
    "solution": "solve",
    "predictions": "predict",
    "spectrum": "spectrum",
    "passing": "spectrum",
}
"""Which stage makes the arrays below each name in the store."""

Depends = dict[str, str]

TRAIN_X = "data.train.x"
"""The field that stands for the prepared training inputs."""


def inputs_identity(digest: str, rows: int, shape: tuple[int, ...]) -> str:
    """Value of that field."""
    return f"{digest} ({rows} rows of {shape})"


def depends(config: RunConfig, identity: Depends, prints: dict[str, str]) -> dict[str, Depends]:
    """For each stage of this run the fields that decide its result, as comparable text.

    Args:
        config: the run.
        identity: the fields that decide the numbers in the Gram matrix.
        prints: digests of the prepared data by array name.
    """
    targets = {"data.train.y": prints.get("y_train", "none")}
    held_out = {f"data.test.{axis}": prints.get(f"{axis}_test", "none") for axis in "xy"}
    solve = (
        identity
        | targets
        | {
            "solve.kernel": config.solve_kernel,
            "solve.method": config.solve.method,
            "solve.factor": config.solve.factor,
            "solve.ridge": json.dumps(config.solve.ridge),
        }
    )
    if config.solve.keep_factor:
        solve["solve.keep_factor"] = "true"
    if config.solve.method == "askotch":
        solve["solve.block"] = str(config.solve.block)
    if config.solve.method in ("auto", "cg", "askotch"):
        solve |= {
            f"solve.{field}": str(getattr(config.solve, field))
            for field in ("tolerance", "preconditioner", "rank", "max_iterations")
        }
    select = {"solve.select": config.solve.select}
    square = identity | {"kernel.get": ", ".join(config.kernel.get)}
    cross = {"gram.cross": "true", "data.test.x": held_out["data.test.x"]} if config.gram.cross else {}
    stages = {"gram": square | cross} if config.stores_gram else {}
    if config.solves:
        stages["solve"] = solve
    if config.predicts:
        stages["predict"] = solve | held_out | select
        if config.predict.times:
            stages["predict"]["predict.times"] = json.dumps(config.predict.times)
    if config.spectrum.method != "none" and config.stores_gram:
        stages["spectrum"] = (
            square
            | targets
            | {
                "spectrum.method": config.spectrum.method,
                "spectrum.count": str(config.spectrum.count),
                "spectrum.vectors": str(config.spectrum.vectors),
                "spectrum.smallest": str(config.spectrum.smallest),
                "spectrum.probes": str(config.spectrum.probes),
                "spectrum.steps": str(config.spectrum.steps),
                "solve.ridge": json.dumps(config.solve.ridge),
            }
        )
    stages["report"] = {key: value for fields in stages.values() for key, value in fields.items()} | select
    return stages


METHOD_FIELDS = {
    "eigh": ("count", "vectors"),
    "band": ("count", "vectors"),
    "lanczos": ("count", "vectors"),
    "density": ("probes", "steps"),
}
"""Settings of the spectrum that each of its methods heeds."""


def spectrum_parts(stage: Depends, identity: Depends, method: str, rows: int) -> dict[str, Depends]:
    """For each part of a kernel's spectrum the fields that decide its arrays, so that another ridge, other targets or
    a second kernel leave those alone that do not depend on them.

    `decomposition` is what the method stores, `labels` how the targets lie in it, `sample` a part of the matrix, and
    `curves` what is learned from that.

    Args:
        stage: the fields of the whole stage.
        identity: the fields that decide the numbers in the Gram matrix.
        method: that is used, `auto` resolved.
        rows: of the sample.
    """
    settings = {name: stage[name] for name in (f"spectrum.{field}" for field in METHOD_FIELDS[method])}
    decomposition = identity | {"spectrum.method": method} | settings
    targets = {"data.train.y": stage["data.train.y"]}
    sample = identity | {"sample": str(rows)}
    return {
        "decomposition": decomposition,
        "smallest": decomposition | {"spectrum.smallest": stage["spectrum.smallest"]},
        "labels": decomposition | targets,
        "sample": sample,
        "curves": sample | targets | {"solve.ridge": stage["solve.ridge"]},
    }


def fingerprint(fields: Depends) -> str:
    """One short text for a set of fields."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


def differences(stored: Depends, now: Depends) -> list[str]:
    """The fields that differ, one line each."""
    return [
        f"{name}: stored {stored.get(name, 'nothing')}, now {now.get(name, 'nothing')}"
        for name in sorted(stored.keys() | now.keys())
        if stored.get(name) != now.get(name)
    ]
