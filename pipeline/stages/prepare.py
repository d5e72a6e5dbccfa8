"""From a configuration to a plan, and to everything a session is opened with: data, kernel, identity, plan."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from pipeline import data
from pipeline.config.cluster import AnyCluster, HypotheticalCluster, SlurmCluster, SshCluster
from pipeline.config.model import RunConfig
from pipeline.errors import InputError
from pipeline.plan.plan import Plan, Problem
from pipeline.plan.planner import make_plan
from pipeline.plan.resources import Resources, resolve
from pipeline.stages import kernels, rundir
from pipeline.stages.depends import TRAIN_X, Depends, inputs_identity
from pipeline.stages.kernels import KernelSpec
from pipeline.store.place import place


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
    cluster: AnyCluster,
    *,
    inputs: data.Inputs | None = None,
    allow_code: bool = False,
    folder: Path = Path(),
) -> Prepared:
    """Load the data, check the kernel, plan.

    Args:
        config: the run.
        cluster: where it will run.
        inputs: the data of whoever has them in memory; else they are loaded as `config.data` says.
        allow_code: whether `kernel.function` may be imported, from `folder`.
        folder: what names in the configuration are relative to.

    Raises:
        InputError: anything wrong with the input, a plan that cannot fit, or a cluster that is not there.
    """
    if isinstance(cluster, HypotheticalCluster):
        raise InputError(
            f"cluster: {config.cluster} is hypothetical: its {cluster.workers} workers are not there",
            hint="`ntk plan` plans with it; a run needs another --cluster",
        )
    resources = _resources(cluster)
    inputs = data.load(config.data) if inputs is None else inputs
    spec = _spec(config, inputs.input_shape, allow_code, folder)
    plan = _plan(config, spec, data.Sizes.of(inputs), resources)
    if any(stage.name == "spectrum" and stage.skipped for stage in plan.stages):
        # Asked for with `auto` and too large: the run goes on without it, and is complete without it.
        config = config.model_copy(update={"spectrum": config.spectrum.model_copy(update={"method": "none"})})
    identity = kernels.identity(spec) | {
        TRAIN_X: inputs_identity(inputs.fingerprints["x_train"], len(inputs.x_train), inputs.input_shape),
        "gram.tile": str(plan.grid.tile),
        "gram.compression": config.gram.compression,
    }
    return Prepared(config, inputs, spec, identity, plan, folder)


def planned(
    config: RunConfig,
    cluster: AnyCluster,
    *,
    workers: int | None = None,
    calibrate: bool = True,
    allow_code: bool = False,
    folder: Path = Path(),
) -> Plan:
    """The plan of a run, for which the data need not be there as long as their sizes are in the configuration.

    Args:
        workers: plan with so many workers instead of the cluster's.
        calibrate: measure a few tiles on the cluster's workers, when they are at hand. The rest as in `prepare`.

    Raises:
        InputError: anything wrong with the input, or a plan that cannot fit.
    """
    resources = _resources(cluster)
    sizes, inputs = data.sizes(config.data), None
    if sizes is None:
        inputs = data.load(config.data)
        sizes = data.Sizes.of(inputs)
    spec = _spec(config, sizes.input_shape, allow_code, folder)
    wanted = resources if workers is None else dataclasses.replace(resources, workers=workers)
    plan = _plan(config, spec, sizes, wanted)
    if calibrate and not isinstance(cluster, HypotheticalCluster | SlurmCluster):
        from pipeline.stages.calibrate import measured

        rows = 2 * plan.grid.tile
        x = data.sample(config.data, rows) if inputs is None else inputs.x_train[:rows]
        plan = dataclasses.replace(plan, rates=measured(config, spec, x, plan, resources))
    return plan


def _resources(cluster: AnyCluster) -> Resources:
    resources = resolve(cluster)
    elsewhere = isinstance(cluster, SshCluster) and cluster.gpus_per_host
    if resources.gpus or elsewhere:
        import jax

        jax.config.update("jax_platforms", "cpu")  # in this process: a GPU is its worker's alone
    return resources


def _spec(config: RunConfig, input_shape: tuple[int, ...], allow_code: bool, folder: Path) -> KernelSpec:
    return kernels.specify(config.kernel, input_shape, allow_code=allow_code, code_path=str(folder.resolve()))


def _plan(config: RunConfig, spec: KernelSpec, sizes: data.Sizes, resources: Resources) -> Plan:
    cost = kernels.cost(spec)
    problem = Problem(
        rows=sizes.rows,
        test_rows=sizes.test_rows,
        outputs=sizes.outputs,
        row_size=math.prod(sizes.input_shape),
        flops_per_pair=cost.flops_per_pair,
        bytes_per_pair=cost.bytes_per_pair,
        most_bytes=cost.most_bytes,
        kernels=len(config.kernel.get),
        itemsize=spec.itemsize,
    )
    out = place(config.out)
    stored, mapped = (
        rundir.resolved(out, adopting=True),
        isinstance(out, Path) and config.gram.compression == "none",
    )
    tile = None if stored is None else stored.get("tile")
    return make_plan(config, problem, resources, tile=tile, mapped=mapped)
