"""Fetching workers through ssh: an attendant on each host for each worker, again whenever it ends."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.cluster import SCRATCH_VARIABLE, SshCluster
from pipeline.runtime.attendant import ATTACHED, MISFIT, SILENCE_SECONDS
from pipeline.runtime.rendezvous import NAME_VARIABLE, THREADS_VARIABLE, VARIABLE

if TYPE_CHECKING:
    from pipeline.runtime.dask_executor import DaskExecutor

# An attendant ends when it hears nothing for SILENCE_SECONDS.
_BEAT_SECONDS = SILENCE_SECONDS / 12
# Between two attempts to reach a host, each twice as long as the one before.
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0
# From closing an attendant's input to ending the command that leads to it.
_CLOSE_SECONDS = 3.0
# Of a log, for its last line.
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Post:
    """A place for one worker.

    Attributes:
        host: as ssh knows it.
        number: of the worker on its host, and of its GPU if there are some.
    """

    host: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.host}-{self.number}"


def posts(where: SshCluster) -> list[Post]:
    """The first worker of every host, then the second, …"""
    return [Post(host, number) for number in range(where.workers_on_each) for host in where.hosts]


def worker_script(post: Post, where: SshCluster, meeting: Path, python: str) -> str:
    """What bash is sent on the host. It comes through standard input: nothing of it is seen among the arguments of
    processes, nothing needs quoting for two shells, and what follows it are signs of life for the attendant."""
    variables = {
        VARIABLE: str(meeting),
        THREADS_VARIABLE: str(where.cpus),
        NAME_VARIABLE: post.name.replace("-", "_"),
        "CUDA_VISIBLE_DEVICES": str(post.number) if where.gpus_per_host else None,
        "TMPDIR": where.scratch,
        SCRATCH_VARIABLE: where.scratch,
    }
    command = [where.python or python, "-P", "-m", "pipeline.runtime.attendant", ATTACHED]
    command += [] if where.interface is None else [where.interface]
    lines = [
        "set -e",
        # Braces, so that a line which reads its input does not read what follows it here.
        *(f"{{ {line}\n}} </dev/null" for line in where.setup),
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items() if value is not None),
        f"exec {shlex.join(command)}",
    ]
    return "\n".join(lines) + "\n"


class Reach:
    """Keeps an attendant at every post. A thread for each: what they do is wait.

    Args:
        where: hosts and how to reach them.
        meeting: file that tells workers where to come; the logs go beside it.
        python: interpreter on the hosts, unless the cluster names one.
    """

    def __init__(self, where: SshCluster, meeting: Path, python: str):
        self._where = where
        self._meeting = meeting
        self._python = python
        self._closing = threading.Event()
        self._refused: dict[Post, str] = {}
        self._trouble: dict[Post, str] = {}
        self._posts = posts(where)
        self._threads = [
            threading.Thread(target=self._keep, args=(post,), name=f"ssh-{post.name}", daemon=True)
            for post in self._posts
        ]
        for thread in self._threads:
            thread.start()

    def hopeless(self) -> bool:
        return len(self._refused) == len(self._posts)

    def problems(self) -> list[str]:
        found = {post.name: text for post, text in self._trouble.items()} | {
            post.name: text for post, text in self._refused.items()
        }
        return [f"{name}: {text}" for name, text in sorted(found.items())]

    def close(self) -> None:
        """Ends what runs on the hosts."""
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _keep(self, post: Post) -> None:
        log = self._meeting.parent / f"worker-{post.name}.log"
        script = worker_script(post, self._where, self._meeting, self._python)
        wait = _FIRST_WAIT_SECONDS
        while not self._closing.is_set():
            try:
                status = self._attend(post, script, log)
            except OSError as error:
                status, self._trouble[post] = -1, f"{self._where.ssh_command[0]}: {error.strerror}"
            else:
                self._trouble[post] = f"ended with exit code {status}: {_last_line(log)}"
            if status == MISFIT:
                self._refused[post] = _last_line(log)
                return
            self._closing.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def _attend(self, post: Post, script: str, log: Path) -> int:
        """One attendant from its start to its end; the exit code of the command that leads to it."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*self._where.ssh_command, post.host, "bash"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the coordinator, which lets running tasks finish
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(script.encode())
        while not self._closing.is_set() and process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"\n")
            # In small steps, so that closing does not wait for a beat.
            with contextlib.suppress(subprocess.TimeoutExpired):
                for _ in range(int(_BEAT_SECONDS)):
                    if self._closing.wait(0) or process.wait(1.0) is not None:
                        break
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            return process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


@contextlib.contextmanager
def open_ssh(
    where: SshCluster, meeting: Path, python: str, *, insecure: bool = False
) -> Iterator[DaskExecutor]:
    """A scheduler here and the workers of an ssh cluster. See `open_remote`."""
    from pipeline.runtime.remote import open_remote

    meeting.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        reach = Reach(where, meeting, python)
        stack.callback(reach.close)
        yield stack.enter_context(
            open_remote(
                meeting,
                where.workers,
                where.cpus,
                where.ready_seconds,
                where.interface,
                toward=where.hosts[0].rpartition("@")[2],
                insecure=insecure,
                fetcher=reach,
                dashboard_port=where.dashboard_port,
            )
        )
