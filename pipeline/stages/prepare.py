"""From a configuration to everything a session is opened with: data, kernel, identity, plan."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline import data
from pipeline.config.cluster import LocalCluster, SerialCluster
from pipeline.config.model import RunConfig
from pipeline.plan.plan import Plan, Problem, make_plan
from pipeline.plan.resources import resolve
from pipeline.runtime.environment import compilation_cache, thread_limits
from pipeline.stages import kernels, rundir
from pipeline.stages.depends import Depends
from pipeline.stages.kernels import KernelSpec

CALIBRATION_TILES = 3


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run that is ready to be opened; nothing has been written yet."""

    config: RunConfig
    inputs: data.Inputs
    spec: KernelSpec
    identity: Depends
    plan: Plan
    folder: Path


def prepare(
    config: RunConfig,
    cluster: LocalCluster | SerialCluster,
    *,
    allow_code: bool = False,
    folder: Path = Path(),
    calibrate: bool = False,
) -> Prepared:
    """Load the data, check the kernel, plan.

    Args:
        config: the run.
        cluster: where it will run.
        allow_code: whether `kernel.function` may be imported, from `folder`.
        folder: what names in the configuration are relative to.
        calibrate: measure a few tiles in this process for the plan's times.

    Raises:
        InputError: anything wrong with the input, or a plan that cannot fit.
    """
    inputs = data.load(config.data)
    spec = kernels.specify(
        config.kernel, inputs.input_shape, allow_code=allow_code, code_path=str(folder.resolve())
    )
    flops, temporaries = kernels.cost(spec)
    problem = Problem(
        rows=len(inputs.x_train),
        test_rows=len(inputs.x_test),
        outputs=inputs.outputs,
        row_size=math.prod(inputs.input_shape),
        flops_per_pair=flops,
        bytes_per_pair=temporaries,
        kernels=len(config.kernel.get),
        itemsize=8 if config.kernel.precision == "float64" else 4,
    )
    stored = rundir.resolved(Path(config.out))
    tile = None if stored is None else stored.get("tile")
    plan = make_plan(config, problem, resolve(cluster), tile=tile)
    if any(stage.name == "spectrum" and stage.skipped for stage in plan.stages):
        # Asked for with `auto` and too large: the run goes on without it, and is complete without it.
        config = config.model_copy(update={"spectrum": config.spectrum.model_copy(update={"method": "none"})})
    identity = kernels.identity(spec) | {
        "data.train.x": f"{inputs.fingerprints['x_train']} ({problem.rows} rows of {inputs.input_shape})",
        "gram.tile": str(plan.grid.tile),
        "gram.compression": config.gram.compression,
    }
    if calibrate:
        plan = dataclasses.replace(plan, gram_seconds_per_tile=_seconds_per_tile(spec, inputs, plan))
    return Prepared(config, inputs, spec, identity, plan, folder)


def _seconds_per_tile(spec: KernelSpec, inputs: data.Inputs, plan: Plan) -> float:
    """Median seconds of a whole tile, computed here after one that pays for the compilation.

    With the threads of a worker: JAX sizes its pools when it is imported, which has not happened yet.
    """
    os.environ.update(thread_limits(plan.resources.threads) | compilation_cache())
    grid = plan.grid
    kernel = spec.build(grid.tile)
    first, last = inputs.x_train[grid.rows(0)], inputs.x_train[grid.rows(max(grid.blocks - 2, 0))]
    times = []
    for _ in range(CALIBRATION_TILES + 1):
        started = time.perf_counter()
        kernel(first, last)
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[CALIBRATION_TILES // 2]
