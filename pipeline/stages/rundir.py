"""The run directory as a whole: made, recognised, refused; its run.yaml written and read."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import Any

from pipeline.config import yaml
from pipeline.config.load import RESOLVED
from pipeline.config.model import RunConfig
from pipeline.errors import InputError
from pipeline.stages.depends import Depends, differences, fingerprint
from pipeline.store.faults import disk_error
from pipeline.store.files import replace_file
from pipeline.store.journal import Journal, StageRecord
from pipeline.store.layout import RunLayout
from pipeline.store.place import Place

_FACTS = {"identity", "fields", "stages", "rows", "tile"}

REPAIRING, REPLACING = "repairing", "replacing"
"""Status of a stage that was recorded, and then begun for another configuration."""

_VERSIONED = ("ntk-pipeline", "jax", "numpy", "scipy", "zarr", "distributed")


def resolved(directory: Place) -> dict[str, Any] | None:
    """What a run directory says about itself (`resolved` in its run.yaml), None when there is no run yet.

    Raises:
        InputError: the directory holds something else, or a run.yaml that cannot be read.
    """
    file = RunLayout(directory).config
    if not file.exists():
        # A run killed in its first moment leaves its lease folder and nothing else; one that waits has its jobs'.
        ours = {RunLayout(directory).leases.name, RunLayout(directory).jobs.name}
        if directory.is_dir() and any(entry.name not in ours for entry in directory.iterdir()):
            raise InputError(
                f"{directory}: not empty, and not a run directory (no {file.name})",
                hint="choose another --out",
            )
        if directory.exists() and not directory.is_dir():
            raise InputError(f"{directory}: is a file, expected a directory", hint="choose another --out")
        return None
    data = yaml.read(file)
    found = data.get(RESOLVED) if isinstance(data, dict) else None
    if not isinstance(found, dict) or not found.keys() >= _FACTS:
        raise InputError(f"{file}: not written by a run (no `{RESOLVED}` in it)", hint="choose another --out")
    return found


def refuse_other(directory: Place, stored: dict[str, Any], identity: Depends) -> None:
    """Stop when a directory holds a Gram matrix of other inputs or another kernel.

    Raises:
        InputError: naming the fields that differ.
    """
    changed = differences(stored_fields(stored, stored["identity"]), identity)
    if changed:
        raise InputError(
            f"{directory}: holds a run of other data or another kernel; nothing was changed\n  "
            + "\n  ".join(changed),
            hint="give another --out, or remove that directory if you no longer need it; "
            "`ntk gram --extend` adds rows to a run",
        )


def refuse_stale(directory: Place, facts: dict[str, Any], journal: Journal, stage: str) -> None:
    """Stop when what is stored of a stage, or part of it, was computed for another configuration than the present one.

    Raises:
        InputError: naming the fields that differ.
    """
    record = journal.stage(stage)
    changed = changes(facts, stage, record) if record is not None else []
    if changed:
        raise InputError(
            f"{directory}: what is stored of the {stage} stage is stale\n  " + "\n  ".join(changed),
            hint=f"`ntk {stage} RUN.yaml` computes it again",
        )


def changes(facts: dict[str, Any], stage: str, record: StageRecord) -> list[str]:
    """The fields that changed since a stage was recorded, one line each; none while what is stored is of the present
    configuration."""
    if stage not in facts["stages"]:
        return [f"this run has no {stage} stage"]
    now = stored_fields(facts, facts["stages"][stage])
    if record.fingerprint == fingerprint(now):
        return ["part of it was replaced for another configuration"] * (record.status == REPLACING)
    # A stage that is being repaired is recorded by its fingerprint alone.
    return differences(record.metrics.get("depends", {}), now)


def stored_fields(facts: dict[str, Any], names: list[str]) -> Depends:
    """Those of the fields a stored run depends on, with their values."""
    return {name: facts["fields"][name] for name in names}


def facts_of(identity: Depends, stages: dict[str, Depends]) -> dict[str, Any]:
    """What every stage depends on, each field written once: the inverse of `stored_fields`."""
    fields = {name: value for depends in (identity, *stages.values()) for name, value in depends.items()}
    return {
        "fields": fields,
        "identity": list(identity),
        "stages": {name: list(d) for name, d in stages.items()},
    }


def write_run_yaml(directory: Place, config: RunConfig, facts: dict[str, Any]) -> None:
    """Write run.yaml (atomically, and only when it says something new): the configuration with every default filled
    in, and under `resolved` the versions, fingerprints and figures that a later reader needs."""
    content = json.loads(config.model_dump_json()) | {RESOLVED: facts | {"versions": versions()}}
    text = yaml.write(content, "The configuration of this run with every default filled in; written by ntk.")
    file = RunLayout(directory).config
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    replace_text(file, text)


def replace_text(file: Place, text: str) -> None:
    """Replace a file's text in one step: a reader sees the old text or the new one.

    Raises:
        InputError: the disk is full or read-only.
    """
    try:
        replace_file(file, text.encode())
    except OSError as error:
        raise disk_error(error, file, "write") from None


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
