"""Outputs that cannot be written and names that cannot be: one clear error, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [("schema",), ("status", "nowhere", "--json")])
def test_a_full_stdout(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    expected = (
        b"stdout: cannot be written: No space left" if arguments == ("schema",) else b"nowhere: no run here"
    )
    assert done.stderr.startswith(b"error: " + expected)
    assert len(done.stderr.splitlines()) == 2


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    command = [os.fsencode(sys.executable), b"-m", b"pipeline", b"status", b"x\xff"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 2
    assert b"a name that is not UTF-8" in done.stderr
