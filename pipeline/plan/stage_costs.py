"""Tasks, arithmetic and traffic of every stage, from the sizes of a run."""

from __future__ import annotations

import dataclasses

from pipeline.config.model import RunConfig
from pipeline.plan import memory_spectrum
from pipeline.plan.gram import cross_tasks, supertile, task_count
from pipeline.plan.iterative import (
    ASSUMED_PASSES,
    ASSUMED_PRODUCTS,
    PROPOSALS,
    Choice,
    block_of,
    columns_of,
    coordinator,
    descent_coordinator,
    rank_of,
)
from pipeline.plan.kept import kept_tiles
from pipeline.plan.plan import Problem, StagePlan
from pipeline.plan.products import Patches
from pipeline.plan.rates import Rates
from pipeline.plan.resources import Resources
from pipeline.plan.spectrum import Matrix, resolve_method
from pipeline.plan.tiles import TileGrid


def plan_stages(
    config: RunConfig,
    p: Problem,
    resources: Resources,
    grid: TileGrid,
    peaks: dict[str, int],
    choice: Choice | None,
    rates: Rates,
    *,
    mapped: bool,
) -> list[StagePlan]:
    """The stages of a run in their order.

    `peaks`: memory of a worker by kind of task; `choice`: the method of the solve stage, None without one; `mapped`:
    see `make_plan`.
    """
    n, b = float(p.rows), grid.blocks
    entries = sum(grid.entries(i, j) for i, j in grid.upper()) if b <= 1000 else n * n / 2
    gram_bytes = entries * p.itemsize * p.kernels
    cut = supertile(grid, grid.tile**2 * rates.pair_seconds, resources.workers)
    computed = float(grid.count * grid.tile**2)
    gram_flops = entries * p.flops_per_pair
    tasks = task_count(grid, cut)
    if config.gram.cross:
        pairs = float(p.test_rows) * n
        gram_flops += pairs * p.flops_per_pair
        computed += pairs
        gram_bytes += pairs * p.itemsize * p.kernels
        tasks += len(cross_tasks(-(-p.test_rows // grid.tile), b, ("",), (), cut.side))
    stages = [StagePlan("gram", tasks, gram_flops, 0.0, gram_bytes, peaks["gram"], pairs=computed)]
    if not config.stores_gram:
        stages.clear()
    if choice is not None:
        cost = {"cg": _iterative, "askotch": _descent, "cholesky": _direct}[choice.method]
        solve = cost(config, p, resources, grid, entries, peaks, choice)
        if choice.method == "cg" and not mapped:
            solve = _keeping(solve, p, resources, grid, peaks["product"])
        stages.append(solve)
    if config.predicts:
        pairs = float(p.test_rows) * n
        columns = p.outputs * config.predictors
        tasks = -(-p.test_rows // grid.tile)
        stages.append(
            StagePlan(
                "predict",
                tasks,
                pairs * (p.flops_per_pair + 2 * columns),
                0.0,
                p.test_rows * columns * 8.0,
                max(peaks["predict"], peaks.get("training time", 0)),
                pairs=pairs,
            )
        )
    if config.spectrum.method != "none" and config.stores_gram:
        found = _spectrum(config, Matrix(grid, p.itemsize, p.kernels, mapped), resources)
        stages.append(_with_population(found, p, resources, grid))
    return stages


def _direct(
    config: RunConfig, p: Problem, resources: Resources, grid: TileGrid, entries: float, peaks: dict[str, int],
    choice: Choice,
) -> StagePlan:  # fmt: skip
    """Cholesky: factor n³/3, inverse diagonal n³/3, two triangular solves. In memory the matrix is read for itself and
    for the gates; on tiles a factor tile (i, j) reads 2 i others."""
    n, b, ridges = float(p.rows), grid.blocks, len(config.solve.ridge)
    flops = ridges * (2 * n**3 / 3 + 4 * n * n * p.outputs)
    if "dense solve" in peaks:
        kept = entries * 8 if config.solve.keep_factor else 0.0
        return StagePlan(
            "solve", ridges, flops, ridges * 3 * entries * p.itemsize, ridges * (8 * n * p.outputs + kept),
            peaks["dense solve"], why=f"{choice}; the whole matrix in the memory of a worker",
        )  # fmt: skip
    factor_reads = 8.0 * grid.tile**2 * b * (b + 1) * (b + 2) / 3
    return StagePlan(
        "solve",
        ridges * (grid.count + 2 * b + 2),
        flops,
        ridges * (1.5 * factor_reads + 4 * entries * 8),
        ridges * entries * 8,
        max(peaks["cholesky"], peaks["substitution"], peaks["inverse diagonal"]),
        why=str(choice),
    )


def _iterative(
    config: RunConfig, p: Problem, resources: Resources, grid: TileGrid, entries: float, peaks: dict[str, int],
    choice: Choice,
) -> StagePlan:  # fmt: skip
    """CG: a reading of the matrix and 4 flops an entry and column for each product; n·rank² for the preconditioner."""
    columns = columns_of(config.solve, p.outputs)
    rank = rank_of(config.solve, p.rows, p.outputs, resources.memory)
    products = len(config.solve.ridge) * ASSUMED_PRODUCTS
    patches = Patches.of(grid, p.itemsize)
    passes = products + rank / PROPOSALS
    return StagePlan(
        "solve",
        round(passes * len(patches.upper())),
        products * 4 * entries * columns + 4.0 * p.rows * rank**2,
        passes * entries * p.itemsize,
        # Partial sums and checkpoints of every product.
        products * (patches.sides + 4) * p.rows * columns * 8.0,
        max(peaks["product"], coordinator(p.rows, columns, rank).total),
        why=str(choice),
    )


def _descent(
    config: RunConfig, p: Problem, resources: Resources, grid: TileGrid, entries: float, peaks: dict[str, int],
    choice: Choice,
) -> StagePlan:  # fmt: skip
    """ASkotch: every pass computes all n² entries (rows know nothing of symmetry) and multiplies them once."""
    columns, (block, _) = columns_of(config.solve, p.outputs), block_of(config.solve, p.rows)
    passes = float(len(config.solve.ridge) * ASSUMED_PASSES)
    pairs, steps = passes * p.rows**2, passes * p.rows / block
    sides = Patches.of(grid, p.itemsize).sides
    return StagePlan(
        "solve",
        round(steps * sides),
        pairs * (p.flops_per_pair + 2 * columns),
        steps * p.rows * columns * 8.0,
        steps * (sides * block * (block + columns) + p.rows * columns) * 8.0,
        max(peaks["rows product"], descent_coordinator(p.rows, columns, block).total),
        why=str(choice),
        pairs=pairs,
    )


def _keeping(stage: StagePlan, p: Problem, resources: Resources, grid: TileGrid, product: int) -> StagePlan:
    """The solve stage with what workers keep of the matrix: memory instead of reading."""
    keep = kept_tiles(grid, p.itemsize, product, resources)
    kept = min(grid.count, resources.workers * keep)
    return dataclasses.replace(
        stage,
        kept=kept,
        peak=max(stage.peak, product + keep * grid.tile**2 * p.itemsize),
        reads=stage.reads * (1 - kept / grid.count * (1 - 1 / ASSUMED_PRODUCTS)),
    )


def _spectrum(config: RunConfig, matrix: Matrix, resources: Resources) -> StagePlan:
    found = resolve_method(config.spectrum, matrix, resources)
    return StagePlan(
        "spectrum", found.tasks, found.flops, found.reads, found.writes, found.need.total, found.skipped,
        found.method, found.passes, kept=found.kept, serial=found.serial,
    )  # fmt: skip


def _with_population(stage: StagePlan, p: Problem, resources: Resources, grid: TileGrid) -> StagePlan:
    """The spectrum stage with what labels add to it: learning curve and dynamics of a sample of the rows.

    For each kernel one reading of the matrix, of which the sample is stored, two eigendecompositions and a few
    factorisations of that.
    """
    rows = memory_spectrum.population_rows(p.rows, resources.memory) if p.outputs and not stage.skipped else 0
    if not rows:
        return stage
    return dataclasses.replace(
        stage,
        tasks=stage.tasks + 2 * p.kernels,
        flops=stage.flops + p.kernels * 30.0 * rows**3,
        writes=stage.writes + p.kernels * 8.0 * rows**2,
        reads=stage.reads + Matrix(grid, p.itemsize, p.kernels).bytes,
        peak=max(stage.peak, memory_spectrum.population(rows).total),
    )
