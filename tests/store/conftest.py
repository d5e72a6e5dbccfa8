import pytest

from tests.store.stored_arrays import create, fill, open_store


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path)
    create(store)
    fill(store)
    return store
