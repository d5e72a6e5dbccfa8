"""What a person wants to know of a machine and a cluster before a long run: probes that measure and say so."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.cluster import SCRATCH_VARIABLE, AnyCluster, SlurmCluster
from pipeline.config.load import load_cluster
from pipeline.config.sizes import human_bytes
from pipeline.errors import InputError, PipelineError
from pipeline.plan.resources import Resources, machine_memory, resolve
from pipeline.plan.tasks import Record, Task
from pipeline.runtime import slurm
from pipeline.runtime.cluster import LocalSettings, Settings, SshSettings, open_executor
from pipeline.runtime.drive import drive
from pipeline.runtime.executor import worker_name
from pipeline.runtime.slurm_script import one_task
from pipeline.stages import rundir
from pipeline.stages.workers import settings
from pipeline.store.files import replace_file
from pipeline.store.folder import folder_at
from pipeline.store.place import ObjectPath, Place, place, temporary_beside

PROBE_BYTES = 32 * 2**20
"""Size of the file that bandwidths are measured with."""

SKEW_SECONDS = 5.0
"""Clocks that differ by more than this are a failed probe; only people and plots read them, nothing decides by them."""

LEAST_FREE = 2**30
"""Bytes of free space below which the probe of it fails."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing looked at.

    Attributes:
        name: of the probe.
        ok: whether a run can rely on it.
        facts: what was found, JSON values; numbers of bytes, seconds and bytes per second.
        problem: what is wrong and the remedy, if not ok.
    """

    name: str
    ok: bool
    facts: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ProbeWork:
    """A task for a worker: the probes of its own machine, and of the file system as it sees it."""

    folder: str

    def __call__(self, task: Task) -> list[Record]:
        found = [*machine_probes(), disk_probe(place(self.folder))]
        note = {"probes": [asdict(probe) for probe in found], "clock": time.time()}
        return [Record("probe", (0,), "", (), "", 0.0, 0, worker_name(), time.time(), task.key, note)]


def examine(out: Place, cluster: str | None) -> dict[str, Any]:
    """All probes, as a document.

    Args:
        out: where a run directory would be.
        cluster: a name in cluster.yaml, or None for this machine alone.

    Raises:
        InputError: no such cluster; a file is where a run directory would be.
    """
    if isinstance(out, Path) and out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, expected a directory", hint="choose another --out")
    where = None if cluster is None else load_cluster(cluster, Path.cwd())
    found = [*machine_probes(), disk_probe(out)] + ([] if where is None else cluster_probes(where, out))
    return {"sound": all(probe.ok for probe in found), "probes": [asdict(probe) for probe in found]}


def machine_probes() -> list[Probe]:
    """Versions, JAX and its arithmetic, cores and memory of this process's machine, and its scratch directory."""
    probes = _MACHINE | ({"scratch": _scratch} if os.environ.get(SCRATCH_VARIABLE) else {})
    return [_guarded(name, probe) for name, probe in probes.items()]


def disk_probe(folder: Place) -> Probe:
    """What a store in this folder can rely on: atomic replacement, exclusive creation, flushing; bandwidth, free space
    and clock; of a bucket, creation by conditional writes, and bandwidth. Nothing is left there."""
    if isinstance(folder, ObjectPath):
        return _guarded("object store", lambda: _bucket(folder))
    return _guarded("file system", lambda: _disk(folder))


def cluster_probes(cluster: AnyCluster, folder: Place) -> list[Probe]:
    """One worker of a cluster, started for this, and what it finds."""
    if isinstance(cluster, SlurmCluster):
        return _in_a_job(cluster, folder)
    resources = resolve(cluster)
    facts: dict[str, Any] = {"kind": resources.kind, "workers": resources.workers, "threads": resources.threads,
             "memory_per_worker": resources.memory}  # fmt: skip
    records: list[Record] = []
    began = time.monotonic()
    try:
        with _one_worker(resources, folder) as chosen, open_executor(chosen) as executor:
            executor.bind(ProbeWork(str(folder.resolve())))
            drive([Task("probe", "probe")], executor, on_records=records.extend)
    except PipelineError as error:
        return [Probe("cluster", False, facts, str(error))]
    facts["seconds_to_first_task"] = time.monotonic() - began
    (record,) = records
    skew = abs(time.time() - record.note["clock"])
    ok = skew < SKEW_SECONDS
    problem = "" if ok else f"the worker's clock differs by {skew:.0f} s; let both use NTP"
    found = [Probe("cluster", ok, facts | {"worker": record.worker}, problem)]
    return found + [Probe(**{**probe, "name": f"worker: {probe['name']}"}) for probe in record.note["probes"]]


@contextlib.contextmanager
def _one_worker(resources: Resources, folder: Place) -> Iterator[Settings]:
    """How to open an executor with the first worker of a cluster; what it leaves is removed."""
    with tempfile.TemporaryDirectory(
        prefix=".ntk-doctor-", dir=_existing(folder) if isinstance(folder, Path) else None
    ) as jobs:
        chosen = settings(resources, Path(jobs))
        match chosen:
            case LocalSettings():
                yield dataclasses.replace(
                    chosen, workers=1, dashboard=False, gpus=chosen.gpus[:1], gpu_shares=chosen.gpu_shares[:1]
                )
            case SshSettings(where, meeting):
                one = {
                    "hosts": where.hosts[:1],
                    "workers_per_host": 1,
                    "gpus_per_host": min(1, where.gpus_per_host),
                }
                yield SshSettings(where.model_copy(update=one), meeting)
            case _:
                yield chosen


def _existing(folder: Path) -> Path:
    home = folder.resolve()
    while not home.is_dir():
        home = home.parent
    return home


def _in_a_job(cluster: SlurmCluster, folder: Place) -> list[Probe]:
    """The same probes, by this command in a job of one task."""
    command = ["-m", "pipeline", "doctor", "--json", "--out", str(folder.resolve())]
    facts: dict[str, Any] = {"kind": "slurm", "workers": cluster.workers, "threads": cluster.cpus}
    began = time.monotonic()
    try:
        answer = slurm.run_one(one_task([cluster.python or sys.executable, "-P", *command], cluster))
        probes = json.loads(answer)["probes"]
    except (PipelineError, ValueError, KeyError) as error:
        return [Probe("cluster", False, facts, str(error))]
    facts["seconds_in_queue_and_job"] = time.monotonic() - began
    return [Probe("cluster", True, facts)] + [
        Probe(**{**probe, "name": f"worker: {probe['name']}"}) for probe in probes
    ]


def to_text(document: dict[str, Any]) -> str:
    """A line for every probe, and one for every figure under it."""
    lines = []
    for probe in document["probes"]:
        lines.append(f"{'ok  ' if probe['ok'] else 'FAIL'} {probe['name']}")
        lines += [
            f"       {key.replace('_', ' ')}: {_readable(key, value)}"
            for key, value in probe["facts"].items()
        ]
        if probe["problem"]:
            lines.append(f"       problem: {probe['problem']}")
    return "\n".join(lines)


def _readable(key: str, value: Any) -> str:
    if key.endswith("_per_second"):
        return f"{human_bytes(value)}/s"
    if key in ("memory", "memory_per_worker", "free"):
        return human_bytes(value)
    if isinstance(value, float):
        return f"{value:.3g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _guarded(name: str, probe: Callable[[], Probe]) -> Probe:
    """A probe that raises has found something out as well."""
    try:
        return probe()
    except PipelineError as error:
        return Probe(name, False, problem=str(error))
    except Exception as error:
        return Probe(name, False, problem=f"{type(error).__name__}: {error}")


def _versions() -> Probe:
    return Probe("versions", True, {"system": platform.platform(), **rundir.versions()})


def _machine() -> Probe:
    cores, memory = len(os.sched_getaffinity(0)), machine_memory()
    load = os.getloadavg()[0]
    facts = {"host": platform.node(), "cores": cores, "memory": memory, "load": load}
    ok = memory >= LEAST_FREE
    return Probe("cores and memory", ok, facts, "" if ok else "less than 1 GiB of memory: plans will not fit")


def _jax() -> Probe:
    """Devices, and the error of a product in both precisions as kernels compute it, against extended precision."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    devices = [f"{device.platform} {device.device_kind}" for device in jax.devices()]
    n = 256
    a = np.random.default_rng(0).standard_normal((n, n))
    exact = a.astype(np.longdouble) @ a.T.astype(np.longdouble)
    scale = np.abs(a) @ np.abs(a.T)
    errors: dict[str, float] = {}
    began = time.perf_counter()
    with jax.enable_x64(True):
        for name in ("float32", "float64"):
            rounded = a.astype(name)
            x = jnp.asarray(rounded)
            product = np.asarray(jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST), dtype=np.longdouble)
            true = (
                exact
                if name == "float64"
                else rounded.astype(np.longdouble) @ rounded.T.astype(np.longdouble)
            )
            errors[name] = float(np.max(np.abs(product - true) / scale))
        x64 = jnp.asarray(a).dtype == np.float64
    facts: dict[str, Any] = {"devices": devices, "x64": bool(x64), "default_backend": jax.default_backend()}
    facts |= {f"{name}_product_error": error for name, error in errors.items()}
    facts["seconds"] = time.perf_counter() - began
    # A product of n terms errs by at most n ε of Σ|a||b|; with TF32, ε would be 5e-4.
    poor = [name for name, error in errors.items() if error > n * np.finfo(name).eps]
    problem = f"products in {', '.join(poor)} are less exact than that: " if poor else ""
    if poor:
        problem += "unset JAX_DEFAULT_MATMUL_PRECISION and NVIDIA_TF32_OVERRIDE"
    return Probe("jax", not poor and bool(x64), facts, problem or ("" if x64 else "no 64-bit numbers"))


def _scratch() -> Probe:
    """The directory for copies of the inputs, where this process was given one."""
    folder = Path(os.environ[SCRATCH_VARIABLE])
    facts: dict[str, Any] = {"folder": str(folder), "holds": "one copy of the inputs on each node"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".ntk-doctor-", dir=folder) as probe:
            intact, written, read = _written_and_read(Path(probe) / "file")
    except OSError as error:
        return Probe(
            "scratch", False, facts, f"{error.strerror}: inputs would be read from the store by every worker"
        )
    facts |= {
        "free": shutil.disk_usage(folder).free, "write_bytes_per_second": PROBE_BYTES / written,
        "cached_read_bytes_per_second": PROBE_BYTES / read,
    }  # fmt: skip
    return Probe("scratch", intact, facts, "" if intact else "a file does not read back as it was written")


_MACHINE: dict[str, Callable[[], Probe]] = {"versions": _versions, "cores and memory": _machine, "jax": _jax}


def _disk(folder: Path) -> Probe:
    home = _existing(folder)
    scratch = home / f".ntk-doctor-{uuid.uuid4().hex}"
    scratch.mkdir()
    try:
        return _disk_in(scratch, home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _bucket(folder: ObjectPath) -> Probe:
    with temporary_beside(folder) as scratch:
        assert isinstance(scratch, ObjectPath)
        folder_at(scratch).require_creation("draft")
        block, target = os.urandom(PROBE_BYTES), scratch / "object"
        began = time.perf_counter()
        target.write_bytes(block)
        written = time.perf_counter() - began
        began = time.perf_counter()
        intact = target.read_bytes() == block
        read = time.perf_counter() - began
        began = time.perf_counter()
        target.write_bytes(b"new")
        small = time.perf_counter() - began
    facts = {
        "folder": str(folder), "write_bytes_per_second": PROBE_BYTES / written,
        "read_bytes_per_second": PROBE_BYTES / read, "small_object_seconds": small, "exclusive_creation": True,
    }  # fmt: skip
    return Probe(
        "object store", intact, facts, "" if intact else "an object does not read back as it was written"
    )


def _written_and_read(target: Path) -> tuple[bool, float, float]:
    """Whether a file reads back as it was written, and the seconds for either."""
    block = os.urandom(PROBE_BYTES)
    began = time.perf_counter()
    replace_file(target, block)  # writes, flushes to disk, renames
    written = time.perf_counter() - began
    began = time.perf_counter()
    intact = target.read_bytes() == block
    return intact, written, time.perf_counter() - began


def _disk_in(scratch: Path, home: Path) -> Probe:
    target = scratch / "file"
    intact, written, read = _written_and_read(target)
    skew = target.stat().st_mtime - time.time()
    began = time.perf_counter()
    replace_file(target, b"new")
    small = time.perf_counter() - began
    replaced = target.read_bytes() == b"new" and [entry.name for entry in scratch.iterdir()] == ["file"]
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        exclusive = False
    except FileExistsError:
        exclusive = True
    free = shutil.disk_usage(home).free
    facts = {
        "folder": str(home), "free": free, "write_bytes_per_second": PROBE_BYTES / written,
        "cached_read_bytes_per_second": PROBE_BYTES / read, "small_file_seconds": small, "clock_skew_seconds": skew,
        "atomic_replacement": replaced, "exclusive_creation": exclusive,
    }  # fmt: skip
    problems = []
    if not intact:
        problems.append("a file does not read back as it was written")
    if not (replaced and exclusive):
        problems.append(
            "files are not replaced or created in one step, which the store relies on: choose another --out"
        )
    if free < LEAST_FREE:
        problems.append(f"only {human_bytes(free)} are free")
    if abs(skew) > SKEW_SECONDS:
        problems.append(f"the file system's clock differs by {skew:.0f} s; let both machines use NTP")
    return Probe("file system", not problems, facts, "; ".join(problems))
