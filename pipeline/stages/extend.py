"""Adding rows to a run: the tiles of the rows that were there are kept, only new ones are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.data import Inputs
from pipeline.errors import InputError
from pipeline.plan.gram import gram_array
from pipeline.stages import rundir
from pipeline.stages.depends import TRAIN_X, Depends, differences, fingerprint, inputs_identity
from pipeline.store.digest import digest
from pipeline.store.grow import grow
from pipeline.store.place import Place

if TYPE_CHECKING:
    from pipeline.stages.session import Session

EXTENDING = "extending"
"""Key in a run's facts: rows that it had, while its arrays are being grown."""


def old_rows(directory: Place, stored: dict[str, Any], identity: Depends, inputs: Inputs) -> int | None:
    """How many rows a stored run has to which these inputs add some; None when it has these very rows.

    Raises:
        InputError: anything but rows at the end differs.
    """
    before = rundir.stored_fields(stored, stored["identity"])
    if before == identity:
        return None
    rows, now = stored["rows"]["train"], len(inputs.x_train)
    others = differences(before | {TRAIN_X: ""}, identity | {TRAIN_X: ""})
    if others:
        raise InputError(
            f"{directory}: cannot be extended, more than its rows changed\n  " + "\n  ".join(others),
            hint="give another --out",
        )
    same = now > rows and before[TRAIN_X] == inputs_identity(
        digest(inputs.x_train[:rows]), rows, inputs.input_shape
    )
    if not same:
        raise InputError(
            f"{directory}: cannot be extended: its {rows:,} rows are not the first of the {now:,} given now",
            hint="new rows go at the end; data.split and `normalize: standardize` change the old ones: give data.test "
            "and another normalize",
        )
    return rows


def extend(session: Session, rows: int) -> None:
    """Grow the stored arrays from so many rows to the session's; what else depends on the rows is made anew later."""
    n, x = session.grid.n, session.inputs.x_train
    session.lease.check()
    print_of = session.inputs.fingerprints["x_train"]
    grow(session.store, "inputs/x_train", (rows, *x.shape[1:]), x.shape, print_of, session.writer)
    for kernel in ("ntk", "nngp"):
        own = fingerprint(session.identity)
        grow(session.store, gram_array(kernel), (rows, rows), (n, n), own, session.writer)
    session.journal.refresh()
