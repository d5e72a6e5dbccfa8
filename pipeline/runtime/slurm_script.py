"""The batch scripts of a run, as text: pure functions of a cluster's settings and the run's folder."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.cluster import SCRATCH_VARIABLE, SlurmCluster
from pipeline.config.sizes import parse_bytes
from pipeline.runtime.rendezvous import THREADS_VARIABLE, VARIABLE

LOG = "%x-%j.log"
ARRAY_LOG = "%x-%A_%a.log"
WORKER_LOG = "workers-%j-%t.log"


@dataclass(frozen=True, slots=True)
class Job:
    """What a script is made for.

    Attributes:
        name: of the job, as Slurm shows it.
        folder: of the run's jobs; absolute. Logs go there.
        run_file: the run's configuration, absolute.
        cluster: name of the cluster.
        cluster_file: cluster.yaml that has it, absolute.
        directory: the run directory, absolute.
        python: interpreter on the nodes.
        allow_code: whether the run may import a kernel of the person's own.
        performance_report: whether Dask's is written.
    """

    name: str
    folder: Path
    run_file: Path
    cluster: str
    cluster_file: Path
    directory: Path
    python: str
    allow_code: bool = False
    performance_report: bool = False


def run_script(job: Job, where: SlurmCluster) -> str:
    """One job for the whole run: the coordinator on the first node, a worker on every GPU (or share of CPUs)."""
    lines = [
        *_header(job, where, LOG, where.nodes, where.tasks_per_node, parse_bytes(where.coordinator_memory)),
        *_preparation(job, where),
        f'export {VARIABLE}="$PWD/scheduler-$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}.json"',
        f"export {THREADS_VARIABLE}={where.cpus}",
        *_begin(job),
        "",
        "# Workers wait for the scheduler, are started again should they end, and leave when it does.",
        f"{_words(_srun(job, where))} &",
        "",
        *_coordinate(
            job,
            ["run", *(["--performance-report"] if job.performance_report else [])],
            gpus=bool(where.gpus_per_node),
        ),
        *_end(job),
    ]
    return "\n".join(lines) + "\n"


def array_script(job: Job, where: SlurmCluster, shares: int) -> str:
    """A job array that computes the Gram matrix in disjoint shares, with no scheduler at all."""
    lines = [
        *_header(job, where, ARRAY_LOG, 1, 1, 0),
        f"#SBATCH --array=1-{shares}",
        *_preparation(job, where),
        *_begin(job),
        "",
        *_coordinate(job, ["gram", "--shard", f"$SLURM_ARRAY_TASK_ID/{shares}"], gpus=False),
        *_end(job),
    ]
    return "\n".join(lines) + "\n"


def _header(job: Job, where: SlurmCluster, log: str, nodes: int, tasks: int, beside: int) -> list[str]:
    """What sbatch reads. Files are relative to the job's folder, so that no path needs quoting for Slurm."""
    megabytes = math.ceil((tasks * parse_bytes(where.memory) + beside) / 2**20)
    options: dict[str, object | None] = {
        "job-name": job.name,
        "chdir": job.folder,
        "output": log,
        "open-mode": "append",
        "nodes": nodes,
        "ntasks-per-node": tasks,
        "cpus-per-task": where.cpus,
        "mem": f"{megabytes}M",
        "time": where.walltime,
        "signal": f"B:TERM@{where.grace}",
        **_place(where, tasks),
    }
    lines = [
        f"#SBATCH --{name}={shlex.quote(str(value))}" for name, value in options.items() if value is not None
    ]
    return [
        "#!/bin/bash",
        *lines,
        "#SBATCH --requeue",
        "#SBATCH --no-kill",
        *(f"#SBATCH {line}" for line in where.extra),
    ]


def _place(where: SlurmCluster, tasks: int) -> dict[str, str | None]:
    """Which nodes, and so many of their GPUs."""
    kind = f"{where.gpu_type}:" if where.gpu_type else ""
    return {
        "partition": where.partition,
        "account": where.account,
        "qos": where.qos,
        "constraint": where.constraint,
        "gres": f"gpu:{kind}{tasks}" if where.gpus_per_node else None,
    }


def one_task(command: list[str], where: SlurmCluster) -> list[str]:
    """A command as a job of one worker's size, which is waited for."""
    megabytes = math.ceil(parse_bytes(where.memory) / 2**20)
    options = {
        "ntasks": "1",
        "cpus-per-task": str(where.cpus),
        "mem": f"{megabytes}M",
        "time": "10",
        **_place(where, 1),
    }
    lines = [*where.setup, *_scratch(where), f"exec {_words(command)}"]
    return ["srun", *(f"--{k}={v}" for k, v in options.items() if v), "bash", "-c", "\n".join(lines)]


def _preparation(job: Job, where: SlurmCluster) -> list[str]:
    return [
        *where.setup,
        f"export NTK_CLUSTER_FILE={shlex.quote(str(job.cluster_file))}",
        *_scratch(where),
    ]


def _scratch(where: SlurmCluster) -> list[str]:
    if not where.scratch:
        return []
    folder = shlex.quote(where.scratch)
    return [f"export TMPDIR={folder} {SCRATCH_VARIABLE}={folder}", 'mkdir -p "$TMPDIR"']


def _begin(job: Job) -> list[str]:
    """Says that an attempt begins; a run that made no progress in two of them does not begin a third."""
    return [f"{_ntk(job, ['attempt', str(job.directory)])} || exit"]


def _srun(job: Job, where: SlurmCluster) -> list[str]:
    command = [
        "srun", f"--ntasks={where.workers}", f"--ntasks-per-node={where.tasks_per_node}",
        f"--cpus-per-task={where.cpus}", "--mem=0", "--overlap", "--no-kill", "--kill-on-bad-exit=0", "--wait=0",
        f"--output={WORKER_LOG}", "--open-mode=append",
    ]  # fmt: skip
    if where.gpus_per_node:
        command.append("--gpus-per-task=1")
    command += [job.python, "-P", "-m", "pipeline.runtime.attendant"]
    return command if where.interface is None else [*command, where.interface]


def _coordinate(job: Job, command: list[str], *, gpus: bool) -> list[str]:
    """The coordinator, told to stop when the script is, and waited for until it has.

    Beside workers on GPUs it computes on the CPU: a GPU is its worker's alone.
    """
    stage, *options = command
    arguments = [stage, str(job.run_file), "--out", str(job.directory), "--cluster", job.cluster]
    arguments += ["--allow-code"] if job.allow_code else []
    shard = "".join(
        f" {option if option.startswith('--') else chr(34) + option + chr(34)}" for option in options
    )
    return [
        f"{'JAX_PLATFORMS=cpu ' if gpus else ''}{_ntk(job, arguments)}{shard} &",
        "coordinator=$!",
        "# A signal ends `wait`, not the coordinator, which stores what it has first.",
        "signalled=1",
        """trap 'signalled=1; kill -TERM "$coordinator" 2>/dev/null' TERM INT""",
        'while [ "$signalled" = 1 ]; do',
        "  signalled=0 code=0",
        '  wait "$coordinator" || code=$?',
        "done",
    ]


def _end(job: Job) -> list[str]:
    """Requeues the job where that is what it needs."""
    return [f'{_ntk(job, ["attempt", str(job.directory), "--ended"])} "$code"']


def _ntk(job: Job, arguments: list[str]) -> str:
    return _words([job.python, "-P", "-m", "pipeline", *arguments])


def _words(words: list[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
