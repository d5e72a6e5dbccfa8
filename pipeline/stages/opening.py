"""Taking a run directory for work: whose it is, its lease, what is in it, and the session that all stages share."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pipeline import data
from pipeline.config.model import RunConfig
from pipeline.errors import InputError
from pipeline.plan.resources import Resources
from pipeline.plan.tiles import TileGrid
from pipeline.stages import extend as extending
from pipeline.stages import rundir
from pipeline.stages.depends import Depends, depends
from pipeline.stages.kernels import KernelSpec
from pipeline.stages.prepare import Prepared
from pipeline.stages.session import Progress, Session
from pipeline.store.arrays import ArrayStore
from pipeline.store.journal import Journal
from pipeline.store.lease import Lease
from pipeline.store.place import place


@contextlib.contextmanager
def open_session(
    config: RunConfig,
    inputs: data.Inputs,
    spec: KernelSpec,
    identity: Depends,
    grid: TileGrid,
    resources: Resources,
    *,
    lease: str = "run",
    listener: Callable[[Progress], None] | None = None,
    stop: Any = None,
    waiting: Callable[[str], None] | None = None,
    folder: Path = Path(),
    extend: bool = False,
) -> Iterator[Session]:
    """Take the run directory `config.out` and open it for work.

    `folder` is what names in the configuration are relative to; with `extend` a run whose rows are the first of these
    is grown; `waiting` is told when another holder must be watched before it can be called dead.

    Raises:
        InputError: the directory is another run's, or another process is at work on it.
    """
    # Workers on other machines stand somewhere else.
    directory = place(config.out) if resources.entry is None else place(config.out).resolve()
    stored_facts = rundir.resolved(directory, adopting=True)
    grown_from: int | None = None
    if stored_facts is not None:
        if extend:
            grown_from = extending.old_rows(directory, stored_facts, identity, inputs)
        else:
            rundir.refuse_other(directory, stored_facts, identity)
        grown_from = grown_from or stored_facts.get(extending.EXTENDING)
    if isinstance(directory, Path):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{directory}: cannot be made: {error.strerror}", hint="choose another --out"
            ) from None
    stages = depends(config, identity, inputs.fingerprints)
    with Lease(directory, lease, waiting=waiting) as held:
        journal = Journal(directory).load()
        store = ArrayStore(directory, journal, writable=True)
        if stored_facts is None:
            rundir.refuse_unlike(store, identity, grid)
        if lease == "run" or stored_facts is None:
            facts = rundir.facts_of(identity, stages) | {
                "folder": str(folder),
                "rows": {"train": grid.n, "test": len(inputs.x_test)},
                "outputs": inputs.outputs,
                "classes": list(inputs.classes),
                "tile": grid.tile,
            }
            # Said before anything is changed: whoever finds a half-grown run finishes that first.
            growing = {} if grown_from is None else {extending.EXTENDING: grown_from}
            rundir.write_run_yaml(directory, config, facts | growing)
        if lease == "run":
            store.sweep()
        session = Session(
            config, directory, inputs, spec, grid, identity, stages, resources, journal, store, held, listener, stop
        )  # fmt: skip
        with session._stack:
            if lease == "run":
                session._stack.callback(store.remove_scratch)
                if gone := session.forget_missing():
                    names = ", ".join(gone[:4]) + (", …" if len(gone) > 4 else "")
                    warnings.warn(
                        f"{directory}: {len(gone)} arrays are not in the store any more ({names}): what a stage needs "
                        "of them is computed again",
                        data.DataWarning,
                        stacklevel=3,
                    )
            if grown_from is not None:
                extending.extend(session, grown_from)
                rundir.write_run_yaml(directory, config, facts)
            yield session


def open_prepared(
    ready: Prepared, resources: Resources | None = None, **how: Any
) -> AbstractContextManager[Session]:
    """`open_session` for a prepared run, on other resources than those of its plan if need be; `how`: its keywords."""
    plan = ready.plan
    return open_session(
        ready.config, ready.inputs, ready.spec, ready.identity, plan.grid, resources or plan.resources, **how
    )
