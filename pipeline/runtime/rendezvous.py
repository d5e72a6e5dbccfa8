"""Where workers on other machines find the scheduler: one small file in the run directory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.runtime.tls import write_private

VARIABLE = "NTK_RENDEZVOUS"
"""Environment variable with the file's path: the same in the coordinator and its workers, another in each attempt, so
that nobody ever finds the scheduler of an earlier one."""

THREADS_VARIABLE = "NTK_WORKER_THREADS"
"""Environment variable with the number of threads that a worker computes with."""

NAME_VARIABLE = "NTK_WORKER_NAME"
"""Environment variable with what is added to the host's name for a worker's, without `-`, where no batch system numbers
them."""

_MUST_AGREE = ("ntk-pipeline", "jax", "jaxlib", "distributed")


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """What a worker must know.

    Attributes:
        address: of the scheduler, as `tls://10.0.0.1:45123`.
        keys: folder of the run's keys; empty: nothing is encrypted, which somebody asked for.
        versions: of what must be the same in all processes.
    """

    address: str
    keys: str
    versions: dict[str, str]

    def write(self, path: Path) -> None:
        write_private(path, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, path: Path) -> Rendezvous | None:
        """None when nobody is there, yet or any more."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None


def place() -> Path:
    """The file's path.

    Raises:
        InputError: this process is not part of a submitted job.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        raise InputError(
            "a cluster of kind slurm is used by jobs only",
            hint="ntk submit RUN.yaml --cluster NAME; or choose another cluster with --cluster",
        )
    return Path(path)


def own_versions() -> dict[str, str]:
    """Versions of what must be the same in all processes of a run: tasks are pickled, and kernels must agree."""
    major = ".".join(platform.python_version_tuple()[:2])
    return {"python": major} | {name: importlib.metadata.version(name) for name in _MUST_AGREE}


def differences(theirs: dict[str, str], ours: dict[str, str]) -> list[str]:
    """One line for every version that differs."""
    return [
        f"{name} is {ours.get(name, 'absent')} here and {theirs.get(name, 'absent')} on the coordinator"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]


def own_address(interface: str | None, toward: str | None = None) -> str:
    """IPv4 address to listen on: of an interface, or the one from which a host `toward` is reached, or the one this
    machine's name stands for.

    Raises:
        InputError: there is none.
    """
    if interface is None and toward is not None:
        # Nothing is sent: a datagram socket that is connected knows its own end.
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((toward, 9))
            return probe.getsockname()[0]
    if interface is None:
        try:
            return socket.gethostbyname(socket.gethostname())
        except OSError as error:
            raise InputError(
                f"this machine's name {socket.gethostname()} stands for no address: {error}",
                hint="name a network interface in cluster.yaml (`interface`)",
            ) from None
    import psutil

    known = psutil.net_if_addrs()
    for address in known.get(interface, ()):
        if address.family == socket.AF_INET:
            return address.address
    raise InputError(
        f"network interface {interface} is not there or has no IPv4 address; known are {', '.join(sorted(known))}",
        hint="correct `interface` in cluster.yaml",
    )
