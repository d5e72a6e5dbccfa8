"""The command line: documents on stdout, talk on stderr, exit codes that mean something."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app

RUN = """
data:
  train: {x: x.npy, y: y.npy}
  split: {test: 0.25}
kernel:
  architecture: [{Dense: {out_dim: 8, W_std: 1.5, b_std: 0.05}}, Relu, {Dense: {out_dim: 1}}]
gram: {tile: 32}
solve: {ridge: [1e-4]}
cluster: serial
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((80, 5)))
    np.save(tmp_path / "y.npy", np.arange(80) % 2)
    (tmp_path / "run.yaml").write_text(RUN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def ntk(*arguments: str, code: int = 0) -> Any:
    """Run a command in this process; its result, after checking the exit code."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return result


def test_the_whole_way(folder: Path) -> None:
    ntk("init", "first.yaml")
    assert "exists" in ntk("init", "first.yaml", code=2).stderr
    plan = json.loads(ntk("plan", "run.yaml", "--no-calibrate", "--price", "2", "--json").stdout)
    assert plan["tiles"] == 3
    assert plan["cost"] == pytest.approx(2 * plan["worker_hours"])
    assert [stage["name"] for stage in plan["stages"]] == ["gram", "solve", "predict", "spectrum"]
    assert not (folder / "runs").exists(), "a plan writes nothing"
    document = json.loads(ntk("run", "run.yaml", "--out", "out", "--json").stdout)
    assert 0 <= document["predict"]["accuracy"] <= 1
    again = json.loads(ntk("run", "run.yaml", "--out", "out", "--json").stdout)
    assert {key: again[key] for key in ("gram", "solve", "predict", "spectrum")} == {
        key: document[key] for key in ("gram", "solve", "predict", "spectrum")
    }
    assert json.loads(ntk("status", "out", "--check", "--json").stdout)["complete"]
    assert "all" in ntk("verify", "out").stdout
    assert "3/3 tiles" in ntk("status", "out").stdout


def test_resolved_configuration_runs_again(folder: Path) -> None:
    ntk("gram", "run.yaml", "--out", "out")
    ntk("run", "out/run.yaml", "--out", "out")
    assert json.loads(ntk("status", "out", "--json").stdout)["complete"]


def test_stages_and_shares(folder: Path) -> None:
    for share in ("2/2", "1/2"):
        assert "share" in ntk("gram", "run.yaml", "--out", "out", "--shard", share).stdout
    assert json.loads(ntk("status", "out", "--json").stdout)["stages"][0]["tiles_done"] == 3
    ntk("status", "out", "--check", code=1)
    for stage in ("gram", "solve", "predict", "spectrum", "report"):
        ntk(stage, "run.yaml", "--out", "out")
    ntk("status", "out", "--check")
    for bad in ("0/2", "3/2", "x", "1-2"):
        assert "K/M" in ntk("gram", "run.yaml", "--out", "out", "--shard", bad, code=2).stderr


@pytest.mark.faults(
    "flipped, deleted and zero-length chunks of a finished run",
    "exit 1 naming them; verify --repair identical",
)
def test_verify_and_repair(folder: Path) -> None:
    ntk("run", "run.yaml", "--out", "out")
    chunks = folder / "out/store.zarr/gram/ntk/c"
    original = {
        file: file.read_bytes() for file in folder.glob("out/store.zarr/*/*/c/**/*") if file.is_file()
    }
    flipped = bytearray(original[chunks / "0/1"])
    flipped[9] ^= 4  # in a value: the end of a tile at the edge is padding, which verify alone looks at
    (chunks / "0/1").write_bytes(flipped)
    (folder / "out/store.zarr/solution/alpha/c/0/0/0").unlink()
    (folder / "out/store.zarr/inputs/x_train/c/0/0").write_bytes(b"")
    result = ntk("verify", "out", "--json", code=1)
    assert {fault["array"] for fault in json.loads(result.stdout)["faults"]} == {
        "gram/ntk", "solution/alpha", "inputs/x_train",
    }  # fmt: skip
    assert "gram/ntk, tile (0, 1)" in ntk("verify", "out", code=1).stdout
    # No stage uses a bad tile: here another ridge needs the matrix again.
    shutil.copytree(folder / "out", folder / "copy")
    message = ntk("solve", "run.yaml", "--out", "copy", "--set", "solve.ridge=[1e-3]", code=1).stderr
    assert "gram/ntk, tile (0, 1)" in message
    assert "--repair" in message
    document = json.loads(ntk("verify", "out", "--repair", "--json").stdout)
    assert document["sound"]
    ntk("run", "run.yaml", "--out", "out")
    for file, content in original.items():
        assert file.read_bytes() == content, file
    ntk("verify", "out")


@pytest.mark.parametrize("name", ["gram/ntk", "spectrum/ntk/eigenvalues"])
def test_repair_of_damaged_metadata(folder: Path, name: str) -> None:
    ntk("run", "run.yaml", "--out", "out")
    (folder / "out/store.zarr" / name / "zarr.json").write_text("{")
    assert name in ntk("verify", "out", code=1).stdout
    ntk("verify", "out", "--repair")
    ntk("status", "out", "--check")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "absent.yaml"), "no such file"),
        (("run", "run.yaml", "--set", "gram.tle=3"), "did you mean `tile`"),
        (("run", "run.yaml", "--cluster", "nowhere"), "cluster 'nowhere' is not in"),
        (("run", "run.yaml", "--set", "kernel.architecture=[Rleu]"), "Relu"),
        (("run", "run.yaml", "--set", "kernel={function: 'os:getcwd'}"), "--allow-code"),
        (("run", "run.yaml", "--set", "data.train.x=nope.npy"), "no such file"),
        (("status", "nowhere"), "no run here"),
        (("verify", "nowhere"), "no run here"),
        (("frobnicate",), "No such command"),
        (("run", "run.yaml", "--frob"), "No such option"),
    ],
)
def test_bad_usage_ends_with_two_and_a_message(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = ntk(*arguments, code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "runs").exists()


def test_errors_as_json(folder: Path) -> None:
    error = json.loads(ntk("run", "absent.yaml", "--json", code=2).stdout)["error"]
    assert error["exit_code"] == 2
    assert "no such file" in error["message"]


def test_memory_that_cannot_do(folder: Path) -> None:
    (folder / "cluster.yaml").write_text("tiny: {kind: serial, memory: 300 MB}\n")
    message = ntk("run", "run.yaml", "--cluster", "tiny", code=2).stderr
    assert "the limit is 300 MB" in message


def test_schema(folder: Path) -> None:
    assert set(json.loads(ntk("schema").stdout)) == {"run.yaml", "cluster.yaml"}


def test_help_has_examples(folder: Path) -> None:
    for command in (
        "init",
        "plan",
        "run",
        "gram",
        "solve",
        "predict",
        "spectrum",
        "report",
        "status",
        "verify",
        "schema",
    ):
        text = ntk(command, "--help").stdout
        assert "Example" in text
        assert "--json" in text


@pytest.mark.parametrize("arguments", [["--help"], ["status", "out"]])
def test_quick_answers(folder: Path, arguments: list[str]) -> None:
    """Half a second is promised on a quiet machine; the processor time does not depend on how quiet it is."""
    ntk("gram", "run.yaml", "--out", "out")
    command = [sys.executable, "-m", "pipeline", *arguments]
    best = float("inf")
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best < 0.6


def damage_line(folder: Path, marker: str) -> None:
    """Change one letter inside the first journal line that has the marker."""
    for segment in sorted(folder.glob("out/journal/*.jsonl")):
        lines = segment.read_bytes().split(b"\n")
        for index, line in enumerate(lines):
            if marker.encode() in line:
                lines[index] = line[:30] + b"#" + line[31:]
                segment.write_bytes(b"\n".join(lines))
                return
    raise AssertionError(f"no line has {marker}")


@pytest.mark.parametrize(
    "marker", ['"array":"gram/ntk","key":[0,1]', '"array":"inputs/y_train"', '"stage":"gram"']
)
def test_damaged_journal_is_found_and_healed(folder: Path, marker: str) -> None:
    ntk("run", "run.yaml", "--out", "out")
    damage_line(folder, marker)
    if "stage" not in marker:
        assert "no record" in ntk("verify", "out", code=1).stdout
        ntk("verify", "out", "--repair")
    ntk("run", "run.yaml", "--out", "out", "--set", "solve.ridge=[1e-2]")
    ntk("verify", "out")
    ntk("status", "out", "--check")


@pytest.mark.faults("the journal deleted", "named; repaired from the tiles")
def test_journal_that_is_gone(folder: Path) -> None:
    ntk("run", "run.yaml", "--out", "out")
    shutil.rmtree(folder / "out/journal")
    assert "journal is gone" in ntk("verify", "out", code=1).stdout
    ntk("verify", "out", "--repair")
    ntk("status", "out", "--check")


def test_share_of_a_finished_run(folder: Path) -> None:
    ntk("gram", "run.yaml", "--out", "out")
    assert (
        json.loads(ntk("gram", "run.yaml", "--out", "out", "--shard", "1/2", "--json").stdout)["gram"][
            "tasks"
        ]
        == 0
    )


def test_moved_run_goes_on_where_it_is(folder: Path) -> None:
    ntk("gram", "run.yaml", "--out", "out")
    shutil.move("out", "moved")
    ntk("run", "moved/run.yaml")
    ntk("status", "moved", "--check")
    assert not (folder / "out").exists()


def test_function_run_is_repaired_from_its_own_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "myfunction.py").write_text(
        "import numpy as np\ndef k(x1, x2):\n    return np.exp(x1 @ x2.T)\n"
    )
    ntk("run", "run.yaml", "--out", "out", "--set", "kernel={function: 'myfunction:k'}", "--allow-code")
    (folder / "out/store.zarr/gram/ntk/c/0/1").unlink()
    ntk("verify", "out", "--repair", "--allow-code")
    ntk("status", "out", "--check")


@pytest.mark.parametrize(
    ("sets", "code", "message"),
    [
        (
            [
                "kernel.architecture=[{Dense: {out_dim: 4, W_std: 0.0}}, Relu, {Dense: {out_dim: 1, W_std: 0.0}}]"
            ],
            1,
            "zero",
        ),
        (["solve.ridge=[1e308]"], 2, "solve.ridge.0"),
        (["data.shape=[5,1]"], 2, "Flatten"),
    ],
)
def test_hopeless_runs_are_refused(folder: Path, sets: list[str], code: int, message: str) -> None:
    arguments = [part for text in sets for part in ("--set", text)]
    result = ntk("run", "run.yaml", "--out", "out", *arguments, code=code)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_usage_error_is_a_document_too(folder: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "run", "--frobnicate", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["exit_code"] == 2


def test_two_runs_are_compared(folder: Path) -> None:
    ntk("run", "run.yaml", "--out", "first")
    found = json.loads(ntk("spectrum", "--compare", "first", "first#ntk", "--json").stdout)
    assert found["centred_kernel_alignment"] == pytest.approx(1)
    assert "centred kernel alignment: 1.000000" in ntk("spectrum", "--compare", "first", "first").stdout
    assert "no run here" in ntk("spectrum", "--compare", "first", "second", code=2).stderr
    assert "--compare" in ntk("spectrum", code=2).stderr


ABANDONING = """
import sys, threading, time
import numpy as np
import pipeline.cli, pipeline.cli.app
from ntk.linalg.tile_cholesky import factor
from pipeline.plan.tasks import Task
from pipeline.runtime.serial import SerialExecutor

begun = threading.Event()

def factor_for_long(task):
    matrix = np.eye(9000)
    begun.set()
    factor(matrix)
    factor(np.eye(9000))

def app():
    executor = SerialExecutor()
    executor.bind(factor_for_long)
    executor.submit(Task("t", "factor"))
    begun.wait()
    time.sleep(0.5)
    sys.exit(75)

pipeline.cli.app.app = app
pipeline.cli.main()
"""


def test_a_process_ends_while_blas_computes() -> None:
    """A stop does not wait for a task beyond its grace, also not for the threads of a task in this process."""
    done = subprocess.run([sys.executable, "-c", ABANDONING], timeout=60, check=False)
    assert done.returncode == 75
