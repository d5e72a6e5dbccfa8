from __future__ import annotations

from collections.abc import Iterator

import pytest
from driven import Driven

from pipeline.runtime.cluster import LocalSettings, SerialSettings, open_executor
from pipeline.runtime.dask_executor import DaskExecutor
from pipeline.runtime.executor import Executor


@pytest.fixture(scope="session")
def cluster() -> Iterator[DaskExecutor]:
    """A real cluster of two workers, for all tests that leave it as they find it."""
    with open_executor(LocalSettings(workers=2, dashboard=False)) as executor:
        assert isinstance(executor, DaskExecutor)
        yield executor


@pytest.fixture(scope="session")
def serial() -> Iterator[Executor]:
    with open_executor(SerialSettings()) as executor:
        yield executor


@pytest.fixture(params=["serial", "dask"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.getfixturevalue({"serial": "serial", "dask": "cluster"}[request.param])


@pytest.fixture
def driven() -> Driven:
    return Driven()
