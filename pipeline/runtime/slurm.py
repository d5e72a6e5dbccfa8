"""Slurm's own commands: the only place that calls them."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

from pipeline.errors import GateError, InputError, TasksFailed

_CALL_SECONDS = 120.0
# A small job waits and runs for so long at most.
_JOB_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """The job that this process is part of.

    Attributes:
        job: its id; of an element of a job array `ARRAY_TASK`.
        restart: how often it was requeued.
    """

    job: str
    restart: int


def this_job() -> Attempt | None:
    """None outside of a job."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        job = f"{array}_{task}"
    return Attempt(job, int(os.environ.get("SLURM_RESTART_COUNT") or 0))


def submit(script: str, *, after: str | None = None) -> str:
    """Give a script to sbatch; its job id.

    Args:
        after: id of a job (or array) that must have ended well before this one begins; should it not, this one is
            cancelled.

    Raises:
        InputError: there is no Slurm here, or it refuses the job.
    """
    dependency = [] if after is None else [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"]
    answer = _call(["sbatch", "--parsable", *dependency], script)
    job = answer.strip().split(";")[0]
    if not job.isdigit():
        raise InputError(f"sbatch answered {answer!r}, expected a job id")
    return job


def state(job: str) -> str:
    """Slurm's word for what a job is doing, as `RUNNING`; `UNKNOWN` when Slurm has forgotten it.

    Of a job array whose elements differ the words of all of them, joined by commas.
    """
    text = _call(["scontrol", "--oneliner", "show", "job", job], codes=(0, 1))
    found = re.findall(r"JobState=(\S+)", text)
    return ",".join(dict.fromkeys(found)) or "UNKNOWN"


def cancel(jobs: list[str]) -> None:
    _call(["scancel", *jobs])


def requeue(job: str) -> None:
    """Puts a running job back into the queue, which ends it here.

    Raises:
        TasksFailed: Slurm refuses.
    """
    try:
        _call(["scontrol", "requeue", job])
    except InputError as error:
        raise TasksFailed(
            f"job {job} could not be requeued: {error.message}", hint="submit the run again"
        ) from None


def run_one(command: list[str]) -> str:
    """Standard output of a small job that is waited for, ten minutes at most.

    Raises:
        InputError: it did not run, or ended with an error.
    """
    return _call(command, seconds=_JOB_SECONDS, codes=(0, GateError.exit_code))


def _call(
    command: list[str], text: str = "", *, codes: tuple[int, ...] = (0,), seconds: float = _CALL_SECONDS
) -> str:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=seconds, check=False
        )
    except FileNotFoundError:
        raise InputError(
            f"{command[0]}: not found: there is no Slurm on this machine", hint="submit from a login node"
        ) from None
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{command[0]}: no answer within {seconds:g} s", hint="is slurmctld up? try sinfo"
        ) from None
    if done.returncode not in codes:
        raise InputError(f"{command[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
