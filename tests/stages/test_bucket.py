"""What cannot be in a bucket is refused with a remedy; what is there is probed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.submit import directory_of
from pipeline.errors import InputError
from pipeline.estimators.in_directory import fit_in_directory
from pipeline.stages.doctor import disk_probe
from pipeline.store.place import ObjectPath
from tests.object_store import bucket, server  # noqa: F401


def test_a_bucket_is_probed_and_left_as_it_was(bucket: ObjectPath) -> None:  # noqa: F811
    probe = disk_probe(bucket)
    assert probe.ok, probe.problem
    assert probe.facts["exclusive_creation"] and probe.facts["write_bytes_per_second"] > 0
    assert not bucket.parent.is_dir()


def test_a_bucket_that_is_not_there_is_a_problem(bucket: ObjectPath) -> None:  # noqa: F811
    probe = disk_probe(ObjectPath("there-is-no-such-bucket", "runs/a"))
    assert not probe.ok and "NoSuchBucket" in probe.problem


@pytest.mark.parametrize("arguments", [["status", "gs://bucket/a"], ["run", "run.yaml", "--out", "s3://b"]])
def test_a_url_that_names_no_place_is_refused(arguments: list[str]) -> None:
    from typer.testing import CliRunner

    from pipeline.cli.app import app

    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2 and "s3://BUCKET/PREFIX" in found.output


def test_what_needs_a_directory_says_so() -> None:
    where = ObjectPath("bucket", "runs/a")
    with pytest.raises(InputError, match="must be a directory") as caught:
        directory_of(Path("run.yaml"), None, where)
    assert "--shard" in str(caught.value.hint)
    with pytest.raises(InputError, match="takes a directory"):
        fit_in_directory(None, str(where), "serial")  # type: ignore[arg-type]
