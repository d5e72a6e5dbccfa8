"""The run directory as a whole: made, recognised, refused; its run.yaml written and read."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import TYPE_CHECKING, Any

from pipeline.config import yaml
from pipeline.config.load import RESOLVED
from pipeline.config.model import RunConfig
from pipeline.errors import InputError
from pipeline.plan.tiles import TileGrid
from pipeline.stages.depends import Depends, differences, fingerprint
from pipeline.store.faults import disk_error
from pipeline.store.files import replace_file
from pipeline.store.journal import Journal, StageRecord
from pipeline.store.layout import RunLayout
from pipeline.store.place import Place

if TYPE_CHECKING:
    from pipeline.store.reading import ArrayReader

_FACTS = {"identity", "fields", "stages", "rows", "tile"}

REPAIRING = "repairing"
"""Status of a stage that was done, and of which something was lost."""

REPLACING = "replacing"
"""Status of a stage that was recorded, and then begun for another configuration."""

_VERSIONED = ("ntk-pipeline", "jax", "numpy", "scipy", "zarr", "distributed")


def resolved(directory: Place, *, adopting: bool = False) -> dict[str, Any] | None:
    """What a run directory says about itself (`resolved` in its run.yaml), None when there is no run yet.

    Args:
        directory: a run's, or nothing yet.
        adopting: None, too, where a run lost its run.yaml: `refuse_unlike` tells whether it is the caller's.

    Raises:
        InputError: the directory holds something else, or a run whose run.yaml is lost or damaged.
    """
    file = RunLayout(directory).config
    found, fault = _read(file)
    if found is not None:
        return found
    if RunLayout(directory).journal.is_dir():
        if adopting:
            return None
        raise InputError(
            fault or f"{file}: is missing, though there is a run",
            hint=f"`ntk run RUN.yaml --out {directory}` with the configuration of the run writes it again, and keeps "
            "the tiles",
        )
    if fault is not None:
        raise InputError(fault, hint=ANOTHER)
    # A run killed in its first moment leaves its lease folder and nothing else; one that waits has its jobs'.
    ours = {RunLayout(directory).leases.name, RunLayout(directory).jobs.name}
    if directory.is_dir() and any(entry.name not in ours for entry in directory.iterdir()):
        raise InputError(f"{directory}: not empty, and not a run directory (no {file.name})", hint=ANOTHER)
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: is a file, expected a directory", hint=ANOTHER)
    return None


ANOTHER = "give a directory that a run made, or, for a new run, one that is empty or not there"


def _read(file: Place) -> tuple[dict[str, Any] | None, str | None]:
    """The facts in a run.yaml, or what is wrong with it; neither where there is none."""
    if not file.exists():
        return None, None
    try:
        data = yaml.read(file)
    except InputError as error:
        return None, error.message
    found = data.get(RESOLVED) if isinstance(data, dict) else None
    if not isinstance(found, dict) or not found.keys() >= _FACTS:
        return None, f"{file}: not written by a run (no `{RESOLVED}` in it)"
    return found, None


def refuse_unlike(store: ArrayReader, identity: Depends, grid: TileGrid) -> None:
    """Stop when a store whose run.yaml is lost holds another Gram matrix than this one, or other tiles of it.

    Raises:
        InputError: it does; nothing was changed.
    """
    for name in store.journal.arrays():
        if not (name.startswith("gram/") and store.exists(name)):
            continue
        array = store.array(name)
        if array.chunks[0] != grid.tile:
            raise InputError(
                f"{store.directory}: its run.yaml is lost, and {name} there has tiles of {array.chunks[0]} rows, not "
                f"{grid.tile}; nothing was changed",
                hint=f"--set gram.tile={array.chunks[0]}, or give another --out",
            )
        if array.attrs["fingerprint"] != fingerprint(identity) or array.shape != (grid.n, grid.n):
            raise InputError(
                f"{store.directory}: its run.yaml is lost, and {name} there is of other data or another kernel; "
                "nothing was changed",
                hint="give the configuration that the run was made with, or another --out",
            )


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
