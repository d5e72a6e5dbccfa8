"""Opening the executor that a run's cluster settings ask for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.cluster import SCRATCH_VARIABLE, AddressCluster, SshCluster
from pipeline.runtime.environment import gpu_slot
from pipeline.runtime.executor import Executor
from pipeline.runtime.serial import SerialExecutor


@dataclass(frozen=True, slots=True)
class SerialSettings:
    """Everything in this process, one task after the other."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """``workers`` processes on this machine, each with ``threads`` BLAS and XLA threads, and one of ``gpus`` if any, of
    whose memory JAX takes ``gpu_shares``; ``scratch``: directory for one copy of the inputs."""

    workers: int
    threads: int = 1
    dashboard: bool = True
    gpus: tuple[str, ...] = ()
    gpu_shares: tuple[float, ...] = ()
    scratch: str | None = None
    dashboard_port: int = 0


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """``workers`` processes on other machines, which come within ``ready_seconds`` or are done without.

    Attributes:
        meeting: file that tells them where the scheduler is.
        interface: network interface that everything listens on; None: the host name's.
        insecure: nothing is encrypted.
        dashboard_port: of the dashboard, on loopback; 0: any.
    """

    meeting: Path
    workers: int
    threads: int
    ready_seconds: float
    interface: str | None = None
    insecure: bool = False
    dashboard_port: int = 0


@dataclass(frozen=True, slots=True)
class SshSettings:
    """Workers that are fetched through ssh.

    Attributes:
        where: the hosts.
        meeting: file on their and our file system that tells workers where the scheduler is.
        insecure: nothing is encrypted.
    """

    where: SshCluster
    meeting: Path
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class AddressSettings:
    """The workers of a scheduler that is there; in plain TCP only if ``insecure`` or on this machine."""

    where: AddressCluster
    insecure: bool = False


Settings = SerialSettings | LocalSettings | RemoteSettings | SshSettings | AddressSettings


@contextlib.contextmanager
def open_executor(settings: Settings, environment: Mapping[str, str] | None = None) -> Iterator[Executor]:
    """The executor for these settings, open for as long as the context lasts.

    Opened once for a whole run and bound to each stage's work in turn (``executor.bind``). Worker processes
    start importing before this returns, so open it before the coordinator's own slow imports.

    Args:
        environment: variables for worker processes, in addition to this process's own.
    """
    match settings:
        case SerialSettings():
            yield SerialExecutor()
        case LocalSettings(workers, threads, dashboard, gpus, shares, scratch, port):
            from pipeline.runtime.local import open_local

            slots = [gpu_slot(gpu, share) for gpu, share in zip(gpus, shares, strict=True)]
            extra = ({SCRATCH_VARIABLE: scratch} if scratch else {}) | dict(environment or {})
            with open_local(
                workers, threads, extra, dashboard=dashboard, dashboard_port=port, gpus=slots
            ) as executor:
                yield executor
        case RemoteSettings(meeting, workers, threads, ready_seconds, interface, insecure, port):
            from pipeline.runtime.remote import open_remote

            with open_remote(
                meeting, workers, threads, ready_seconds, interface, insecure=insecure, dashboard_port=port
            ) as executor:
                yield executor
        case SshSettings(where, meeting, insecure):
            from pipeline.runtime.ssh import open_ssh

            with open_ssh(where, meeting, sys.executable, insecure=insecure) as executor:
                yield executor
        case AddressSettings(where, insecure):
            from pipeline.runtime.address import open_address

            with open_address(where, insecure=insecure) as executor:
                yield executor
