"""A change of the configuration that was stopped half way and taken back: nothing of it is believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import open_run
from pipeline.errors import InputError
from pipeline.opened import Run
from pipeline.stages.session import Session
from pipeline.stages.status import status
from tests.stages.conftest import Killed, Runner, interrupted


def results(run: Run) -> list[np.ndarray]:
    return [run.solution, run.predictions, run.eigenvalues()]


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("solve", {"solve": {"ridge": [1e-2, 1e-1]}}),
        ("predict", {"predict": {"times": [1.0]}}),
        ("spectrum", {"spectrum": {"count": 9}}),
    ],
)
def test_results_of_two_configurations_are_not_mixed(
    runner: Runner,
    contents: Callable[[Path], dict[str, bytes]],
    stage: str,
    change: dict[str, Any],
) -> None:
    runner.run()
    directory = runner.folder / "run"
    before, stored = results(open_run(directory)), contents(directory)
    with pytest.MonkeyPatch.context() as patch:
        # All that the stage stores is there.
        interrupted(patch, Session, "finish", 0)
        with pytest.raises(Killed):
            runner.run(**change)
    assert {entry["stage"]: entry["state"] for entry in status(directory)["stages"]}[stage] == "partial"
    with pytest.raises(InputError, match="is stale"):
        results(open_run(directory))
    runner.run("gram")
    with pytest.raises(InputError, match="part of it was replaced for another configuration"):
        results(open_run(directory))
    assert stage not in open_run(directory).metrics
    runner.run()
    assert all(map(np.array_equal, before, results(open_run(directory))))
    assert contents(directory).items() >= stored.items()
    assert status(directory)["complete"]


def test_unfinished_results_of_another_configuration_are_refused(runner: Runner) -> None:
    directory = runner.folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, Session, "finish", 1)
        with pytest.raises(Killed):
            runner.run()
    assert len(open_run(directory).solution) == 2  # A growing run may be read.
    runner.run("gram", solve={"ridge": [1e-2]})
    with pytest.raises(InputError, match=r"is stale\n.*solve\.ridge"):
        _ = open_run(directory).solution
    runner.run(solve={"ridge": [1e-2]})
    assert len(open_run(directory).solution) == 1
