"""The clusters a run may use (`cluster.yaml`): each entry is a name and how to get workers there."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, RootModel, model_validator

from pipeline.config.model import Model
from pipeline.config.sizes import parse_bytes


def _readable(value: str) -> str:
    if value != "auto":
        parse_bytes(value)
    return value


def _size(value: str) -> str:
    parse_bytes(value)
    return value


SCRATCH_VARIABLE = "NTK_SCRATCH"
"""Environment variable of workers with the directory on a disk of their node, where they keep copies of the inputs."""

MemoryLimit = Annotated[str, AfterValidator(_readable)]
"""A size such as `2 GB`, or `auto`."""


def _one_word(value: str) -> str:
    # It becomes part of a line that sbatch reads.
    if not re.fullmatch(r"[\w.,:=+\-\[\]&|*()!@/]+", value):
        raise ValueError("must be one word of letters, digits and .,:=+-[]&|*()!@/_")
    return value


def _one_line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be one line of text")
    return value


def _walltime(value: str) -> str:
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", value):
        raise ValueError(
            "must be a time limit as Slurm reads it: minutes, hours:minutes:seconds or days-hours"
        )
    return value


def _directory(value: str) -> str:
    _one_line(value)
    if not value.startswith("/"):
        raise ValueError("must be an absolute path")
    return value


def _host_name(value: str) -> str:
    # It becomes an argument of ssh.
    if not re.fullmatch(r"[\w][\w.@:\-\[\]]*", value):
        raise ValueError("must be the name of a host, as ssh takes it")
    return value


def _address(value: str) -> str:
    if not re.fullmatch(r"(tls|tcp)://[^\s/]+:\d+", value):
        raise ValueError("must be tls://HOST:PORT (or tcp://HOST:PORT)")
    return value


Size = Annotated[str, AfterValidator(_size)]
"""A size such as `2 GB`."""

Word = Annotated[str, AfterValidator(_one_word)]
Line = Annotated[str, AfterValidator(_one_line)]
Folder = Annotated[str, AfterValidator(_directory)]
Host = Annotated[str, AfterValidator(_host_name)]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=0, le=65535)]


def _sequence(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Lines = Annotated[tuple[Line, ...], BeforeValidator(_sequence)]


class LocalCluster(Model):
    """Worker processes on this machine, on the loopback interface only."""

    kind: Literal["local"] = "local"
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Worker processes; `auto`: one for every `threads` cores."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Threads a worker computes with; `auto`: 1 up to 8 cores, 4 beyond."""
    memory: MemoryLimit = "auto"
    """Memory limit per worker, e.g. `2 GB`; `auto`: an equal share of 80 % of this machine's memory."""
    scratch: Folder | None = None
    """Folder on a disk of this machine for one copy of the inputs; without it workers read the run directory."""
    dashboard: bool = True
    """Whether Dask's dashboard is served, on the loopback interface."""
    dashboard_port: Port = 0
    """Port of the dashboard, and of `/metrics`; 0: any that is free."""


class SerialCluster(Model):
    """No cluster: every task in the calling process."""

    kind: Literal["serial"]
    memory: MemoryLimit = "auto"
    """Memory limit of the process, e.g. `2 GB`; `auto`: 80 % of this machine's memory."""


class HypotheticalCluster(Model):
    """Machines that are not there: for plans only."""

    kind: Literal["hypothetical"]
    workers: Annotated[int, Field(ge=1)]
    """Worker processes; of GPUs, one on each."""
    device: Literal["cpu", "v100", "a100", "h100"] = "cpu"
    """What a worker computes with; its rates are assumed (pipeline/plan/rates.py)."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of a worker."""
    memory: Size = "16 GB"
    """Memory of a worker, of a GPU its own."""


class LocalGpuCluster(Model):
    """One worker on each GPU of this machine that is visible (`CUDA_VISIBLE_DEVICES`), on loopback only."""

    kind: Literal["local-gpu"]
    threads: Count = 2
    """CPU threads of a worker."""
    memory: MemoryLimit = "auto"
    """Memory a worker may use, e.g. `60 GB`; `auto`: 75 % of the smallest GPU's, which JAX takes at its start, or an
    equal share of 80 % of this machine's where that is less."""
    scratch: Folder | None = None
    """Folder on a disk of this machine for one copy of the inputs; without it workers read the run directory."""
    dashboard: bool = True
    """Whether Dask's dashboard is served, on the loopback interface."""
    dashboard_port: Port = 0
    """Port of the dashboard, and of `/metrics`; 0: any that is free."""


class SlurmCluster(Model):
    """Nodes of a Slurm cluster, used by `ntk submit`: one job holds the scheduler and all workers of a run.

    Fields are named as Slurm names them where it has a name.
    """

    kind: Literal["slurm"]
    nodes: Count = 1
    """Nodes of a run."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """GPUs of a node, one worker on each; 0: workers compute on CPUs."""
    workers_per_node: Count = 1
    """Workers on a node that has no GPUs; with GPUs there is one for each."""
    cpus: Count = 1
    """CPUs of a worker (`--cpus-per-task`), the threads that it computes with."""
    memory: Size
    """Memory of a worker, of a GPU worker that of the host; plans respect it, and Slurm is asked for it."""
    gpu_memory: Size | None = None
    """Memory of a GPU, when it is less than `memory`: plans then respect this."""
    coordinator_memory: Size = "2 GB"
    """Memory asked for on each node beside the workers'; the coordinator runs on the first."""
    walltime: Annotated[str, AfterValidator(_walltime)] = "24:00:00"
    """Time limit of a job (`--time`); a run that needs longer is requeued and goes on."""
    grace: Annotated[int, Field(ge=5)] = 120
    """Seconds before the limit at which a run is told to stop (`--signal`)."""
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    gpu_type: Word | None = None
    """Type in `--gres=gpu:TYPE:COUNT`."""
    extra: Lines = ()
    """More lines for sbatch, without `#SBATCH`, as `--mail-type=END`."""
    setup: Lines = ()
    """Lines of shell that prepare the environment on each node, as `module load cuda`."""
    python: Folder | None = None
    """Python interpreter on the nodes, with this package installed; default: the one that runs `ntk submit`."""
    interface: Word | None = None
    """Network interface that scheduler and workers listen on, as `ib0`; default: that of the node's host name."""
    scratch: Folder | None = None
    """Folder on a disk of each node for temporary files (`TMPDIR`), and for one copy of the inputs."""
    dashboard_port: Port = 0
    """Port of Dask's dashboard, and of `/metrics`, on loopback on the first node; 0: any that is free."""
    ready_seconds: Annotated[int, Field(ge=1)] = 600
    """How long to wait for all workers; after that a run begins with those that came, or fails when none did."""
    price: Annotated[float, Field(ge=0)] | None = None
    """Price of a worker for an hour, for `ntk plan`."""

    @property
    def tasks_per_node(self) -> int:
        return self.gpus_per_node or self.workers_per_node

    @property
    def workers(self) -> int:
        return self.nodes * self.tasks_per_node


class SshCluster(Model):
    """Machines that `ssh` reaches from here, with a file system that they share with this one."""

    kind: Literal["ssh"]
    hosts: Annotated[tuple[Host, ...], BeforeValidator(_sequence), Field(min_length=1)]
    """Hosts as `ssh` knows them; each must let this user in without a question."""
    gpus_per_host: Annotated[int, Field(ge=0)] = 0
    """GPUs of a host, one worker on each; 0: workers compute on CPUs."""
    workers_per_host: Count = 1
    """Workers on a host that has no GPUs; with GPUs there is one for each."""
    cpus: Count = 1
    """Threads that a worker computes with."""
    memory: Size
    """Memory of a worker, of a GPU worker that of the host; plans respect it."""
    gpu_memory: Size | None = None
    """Memory of a GPU, when it is less than `memory`: plans then respect this."""
    setup: Lines = ()
    """Lines of shell that prepare the environment on each host, as `module load cuda`."""
    python: Folder | None = None
    """Python interpreter on the hosts, with this package installed; default: the one that runs `ntk`."""
    interface: Word | None = None
    """Network interface that scheduler and workers listen on; default: the one that leads to the other side."""
    scratch: Folder | None = None
    """Folder on a disk of each host for temporary files (`TMPDIR`), and for one copy of the inputs."""
    dashboard_port: Port = 0
    """Port of Dask's dashboard, and of `/metrics`, on loopback here; 0: any that is free."""
    ssh_command: Annotated[tuple[Line, ...], BeforeValidator(_sequence), Field(min_length=1)] = (
        "ssh", "-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
    )  # fmt: skip
    """Command that is followed by a host and by `bash`, which then runs there what it is sent."""
    ready_seconds: Annotated[int, Field(ge=1)] = 120
    """How long to wait for all workers; after that a run goes on with those that came, or fails when none did."""
    price: Annotated[float, Field(ge=0)] | None = None
    """Price of a worker for an hour, for `ntk plan`."""

    @property
    def workers_on_each(self) -> int:
        return self.gpus_per_host or self.workers_per_host

    @property
    def workers(self) -> int:
        return len(self.hosts) * self.workers_on_each


class AddressCluster(Model):
    """A Dask scheduler that somebody else keeps, with its workers; they must reach the run directory, and have this
    package and its dependencies in the versions that are installed here."""

    kind: Literal["address"]
    address: Annotated[str, AfterValidator(_address)]
    """Of the scheduler, as `tls://10.0.0.1:8786`."""
    ca: Folder | None = None
    """Certificate of the authority that signed the cluster's certificates; a file."""
    certificate: Folder | None = None
    """Certificate of this client; a file."""
    key: Folder | None = None
    """Its key; a file that others may not read."""
    workers: Count
    """How many workers plans count on; all that are there are used."""
    cpus: Count = 1
    """Threads that a worker computes with."""
    memory: Size
    """Memory of a worker; plans respect it."""
    ready_seconds: Annotated[int, Field(ge=1)] = 120
    """How long a run waits when there are no workers."""
    price: Annotated[float, Field(ge=0)] | None = None
    """Price of a worker for an hour, for `ntk plan`."""

    @model_validator(mode="after")
    def _tls_has_files(self) -> AddressCluster:
        missing = [name for name in ("ca", "certificate", "key") if getattr(self, name) is None]
        if self.address.startswith("tls://") and missing:
            raise ValueError(f"a tls:// address needs {', '.join(missing)}")
        return self


AnyCluster = (
    LocalCluster
    | LocalGpuCluster
    | SerialCluster
    | SlurmCluster
    | SshCluster
    | AddressCluster
    | HypotheticalCluster
)

Cluster = Annotated[AnyCluster, Field(discriminator="kind")]


class Clusters(RootModel[dict[str, Cluster]]):
    """The content of cluster.yaml: name → cluster; an entry without `kind` is `local`."""

    @model_validator(mode="before")
    @classmethod
    def _kind_is_local(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            name: {"kind": "local"} | entry if isinstance(entry, dict) else entry
            for name, entry in value.items()
        }


DEFAULT: dict[str, AnyCluster] = {
    "local": LocalCluster(),
    "serial": SerialCluster(kind="serial"),
    "local-gpu": LocalGpuCluster(kind="local-gpu"),
}
"""What a run may name whatever cluster.yaml is found."""
