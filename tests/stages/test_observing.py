"""What a run on Dask shows on request: Prometheus counters while it works, a performance report when it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.errors import Stopped
from tests.object_store import free_port, until

RUN = """
data: {train: {x: x.npy, y: y.npy}}
kernel: {function: "slow:kernel"}
gram: {tile: 16}
solve: {ridge: [1e-4]}
spectrum: {method: none}
"""
SLOW = """
import time
import numpy as np

def kernel(x1, x2):
    time.sleep(0.1)
    return np.exp(-0.1 * np.sum((x1[:, None] - (x1 if x2 is None else x2)[None]) ** 2, -1))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((320, 5)))
    np.save(tmp_path / "y.npy", np.arange(320) % 2)
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics(port: int) -> dict[tuple[str, str], float]:
    """Samples of a `/metrics` page by name and the value of their only label."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in families
        for sample in family.samples
        if len(sample.labels) < 2
    }


def test_counters_while_it_works_and_a_report_when_it_is_stopped(folder: Path) -> None:
    port = free_port()
    (folder / "cluster.yaml").write_text(f"two: {{workers: 2, threads: 1, dashboard_port: {port}}}")
    command = [sys.executable, "-P", "-m", "pipeline", "run", "run.yaml", "--out", "out", "--cluster", "two"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--allow-code", "--performance-report"], cwd=folder, stdout=log, stderr=log
        )

    def counted() -> bool:
        with contextlib.suppress(OSError):
            return ("ntk_chunks_stored_total", "gram") in metrics(port) or process.poll() is not None
        return process.poll() is not None

    until(counted, 60)
    found = metrics(port)
    assert found["dask_scheduler_workers_added_total", ""] == 2
    stored = found["ntk_chunks_stored_total", "gram"]
    assert stored >= 1
    assert found["ntk_bytes_stored_total", "gram"] == stored * (16 * 16 * 8 + 4)
    assert found["ntk_tasks_retried_total", ""] == found["ntk_tasks_failed_total", ""] == 0
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == Stopped.exit_code, (folder / "log").read_text()
    page = (folder / "out/performance-report.html").read_text()
    assert "Dask Performance Report" in page
    document = bars(page)
    assert {name.split("-")[0] for name in document["name"]} == {"gram"}
    assert "<script src=" not in page, "it needs nothing from elsewhere"
    again = json.loads(
        subprocess.check_output(
            [sys.executable, "-P", "-m", "pipeline", "status", "out", "--json"], cwd=folder
        )
    )
    assert again["stages"][0]["tiles_done"] >= stored


def bars(page: str) -> dict[str, Any]:
    """The columns of the task stream in a report."""
    begin = page.index('<script type="application/json"')
    text = page[page.index(">", begin) + 1 : page.index("</script>", begin)]
    sources = [
        dict(found["attributes"]["data"]["entries"])
        for found in walk(json.loads(text))
        if found.get("name") == "ColumnDataSource"
    ]
    return next(source for source in sources if "worker_thread" in source)


def walk(value: Any) -> Any:
    """Every object in a JSON document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from walk(item)


def test_without_a_scheduler_there_is_no_report(folder: Path) -> None:
    command = [
        "run",
        "run.yaml",
        "--out",
        "out",
        "--cluster",
        "serial",
        "--allow-code",
        "--performance-report",
    ]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert "a cluster of kind serial computes without Dask" in refused.stderr
    assert not (folder / "out").exists()
