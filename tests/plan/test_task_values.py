import json
import pickle

from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.tasks import Record, Task

names = st.text(min_size=1, max_size=8)
sizes = st.lists(st.integers(0, 1000), max_size=3).map(tuple)
records = st.builds(
    Record,
    array=names,
    key=sizes,
    digest=names,
    shape=sizes,
    dtype=names,
    seconds=st.integers(0, 10**6).map(lambda n: n / 2**10),
    nbytes=st.integers(0, 2**60),
    worker=names,
    started=st.integers(0, 10**9).map(float),
    task=st.text(max_size=8),
    note=st.dictionaries(names, st.floats(allow_nan=False) | st.integers() | names, max_size=3),
)


@given(records)
def test_a_record_survives_json(record):
    again = Record.from_json(json.loads(json.dumps(record.to_json())))
    rounded = record.to_json() | {"seconds": round(record.seconds, 6)}
    assert again.to_json() == rounded
    assert (again.chunk, again.note, again.shape) == (record.chunk, record.note, record.shape)


def test_fields_of_a_newer_version_are_ignored():
    record = Record("a", (0,), "d", (1,), "float64", 0.5, 8, "h:1", 0.0)
    assert Record.from_json(record.to_json() | {"attempt": 3}) == record


def test_values_travel():
    task = Task("k", "gram", ((0, 1, ("ntk",)),), writes=(("gram/ntk", (0, 1)),))
    assert pickle.loads(pickle.dumps(task)) == task
    assert hash(task) == hash(pickle.loads(pickle.dumps(task)))
