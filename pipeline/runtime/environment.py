"""The environment of a worker process: how many threads it may use, where compiled kernels are shared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.plan.resources import GPU_SHARE

# CPU time ÷ wall time of a 1500² float32 product and of a chain of exp and sin, jaxlib 0.12 on two cores:
#   nothing set                                       1.96  1.98  two XLA threads
#   XLA_FLAGS=--xla_cpu_multi_thread_eigen=false      1.95  1.99  nor does intra_op_parallelism_threads=1 help
#   OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1          1.98  1.91  not XLA's; NumPy's eigvalsh: 2.0 → 1.0
#   NPROC=1                                           0.98  1.00  one thread in each of XLA's pools
#   sched_setaffinity to one core before the import   1.00  1.00  but slower as soon as cores are shared
# So NPROC sizes XLA's pools, the others those of the libraries; processes stay free to move between cores.
_THREAD_VARIABLES = (
    "NPROC",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


AUTOTUNING = "xla_gpu_autotune_level"
"""XLA's option that says how algorithms for products on a GPU are tried out."""


def thread_limits(threads: int) -> dict[str, str]:
    """Variables that hold XLA and BLAS to ``threads`` CPU threads, if set before NumPy or JAX is imported."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def cache_directory() -> Path:
    """Where this program keeps what it can always make again: ``$XDG_CACHE_HOME/ntk-pipeline``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ntk-pipeline"


def compilation_cache() -> dict[str, str]:
    """Variables for a JAX compilation cache shared by all workers and runs; a person's own setting wins."""
    directory = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_directory() / "jax")
    return {
        "JAX_COMPILATION_CACHE_DIR": directory,
        # Every kernel: even one that compiles in 0.2 s is compiled by each worker of each run otherwise.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def prompt_release() -> dict[str, str]:
    """Variables that make glibc give the memory of a tile back when it is freed; a person's own setting wins.

    Left alone it raises its threshold with every large block freed and keeps tiles in its arenas. A worker that solved
    8,192 rows in tiles of 13 MB then peaked at 465-522 MB, differently in every run, and at 394-412 MB with these.
    Smaller blocks, the strips of a tile, stay with the process: mapping them anew costs as much as computing them.
    """
    wanted = {
        "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
        "MALLOC_ARENA_MAX": "2",
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def gpu_settings(share: float = GPU_SHARE) -> dict[str, str]:
    """Variables with which JAX takes this share of a GPU's memory at its start, so that what a plan promised is there,
    and does not try algorithms for products out, so that the next worker takes the same ones.

    A person's own setting wins; without a GPU they mean nothing."""
    wanted = {"XLA_PYTHON_CLIENT_PREALLOCATE": "true", "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{share:.3f}"}
    found = {name: os.environ.get(name, value) for name, value in wanted.items()}
    flags = os.environ.get("XLA_FLAGS", "")
    return found | {"XLA_FLAGS": flags if AUTOTUNING in flags else f"{flags} --{AUTOTUNING}=0".strip()}


def gpu_slot(gpu: str, share: float) -> dict[str, str]:
    """Variables of the worker of one GPU, which sees no other, and takes a share of its memory."""
    return {"CUDA_VISIBLE_DEVICES": gpu} | gpu_settings(share)


def worker_environment(threads: int, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with a worker's limits and cache, overridden by ``extra``."""
    own = thread_limits(threads) | compilation_cache() | prompt_release() | gpu_settings()
    return {**os.environ, **own, **(extra or {})}
