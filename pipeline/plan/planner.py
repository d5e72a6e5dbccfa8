"""From a configuration to the plan of its run: the methods, the tile and the memory of every stage.

`make_plan` refuses what cannot fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.config.model import RunConfig
from pipeline.plan import memory, memory_solve
from pipeline.plan.direct import is_in_memory
from pipeline.plan.gram import rows_kept
from pipeline.plan.iterative import (
    Choice,
    block_of,
    choose,
    columns_of,
    coordinator,
    descent_coordinator,
    rank_of,
)
from pipeline.plan.memory import Need
from pipeline.plan.plan import Plan, Problem
from pipeline.plan.products import Patches
from pipeline.plan.rates import Rates
from pipeline.plan.resources import Resources
from pipeline.plan.stage_costs import plan_stages
from pipeline.plan.tiles import TileGrid

MAX_TILE = 2048
"""Largest tile that `auto` chooses: 32 MB in float64, enough for every product to run at full speed."""

MIN_TILE = 64

FACTOR_BLOCKS = 16
"""`auto` cuts the matrix of a regression into this many blocks a side for two workers, and more by the root of their
number: with fewer they wait for each other along the diagonal (8 blocks cost a quarter more time, 16 a fourteenth)."""

FACTOR_TILE = 512
"""…but not into smaller tiles: their products are slower."""

TILES_PER_WORKER = 8
"""`auto` cuts small matrices into at least this many tiles for each worker."""


def make_plan(
    config: RunConfig,
    problem: Problem,
    resources: Resources,
    *,
    tile: int | None = None,
    mapped: bool = True,
) -> Plan:
    """Plan a run.

    Args:
        config: the run.
        problem: figures of data and kernel.
        resources: workers and memory.
        tile: the tile of an existing run, which `auto` must keep.
        mapped: tiles are pages of files as they lie in memory; else workers keep them, as far as they fit.

    Raises:
        InputError: a stage needs more memory than a worker may use; names the worst part and a tile that fits.
    """
    choice = None
    if config.solves:
        choice = choose(config.solve, problem.rows, problem.outputs, problem.itemsize, resources)
        if choice.method == "cg":
            rank = rank_of(config.solve, problem.rows, problem.outputs, resources.memory)
            columns = columns_of(config.solve, problem.outputs)
            memory.require_fits(
                "conjugate gradients", coordinator(problem.rows, columns, rank), resources.memory
            )
        if choice.method == "askotch":
            columns, (block, _) = (
                columns_of(config.solve, problem.outputs),
                block_of(config.solve, problem.rows),
            )
            memory.require_fits(
                "block coordinate descent",
                descent_coordinator(problem.rows, columns, block),
                resources.memory,
            )
    rates = problem.assumed(resources.device, resources.threads)
    in_memory = is_in_memory(config.solve, problem.rows, problem.outputs, resources)
    needs = _needs(config, problem, rates, choice, in_memory=in_memory)
    chosen = config.gram.tile if config.gram.tile != "auto" else tile
    if chosen is None:
        chosen = _auto_tile(
            problem, resources, needs, factored=choice is not None and choice.method == "cholesky"
        )
    grid = TileGrid(problem.rows, min(chosen, _round_up(problem.rows, MIN_TILE)))
    for name, need in needs.items():
        memory.require_fits(
            f"{name} task", need(grid.tile), resources.memory, tile=grid.tile, need_of_tile=need
        )
    peaks = {name: need(grid.tile).total for name, need in needs.items()}
    stages = tuple(plan_stages(config, problem, resources, grid, peaks, choice, rates, mapped=mapped))
    return Plan(problem, grid, resources, stages, rates)


def _needs(
    config: RunConfig, p: Problem, rates: Rates, choice: Choice | None, *, in_memory: bool
) -> dict[str, Callable[[int], Need]]:
    """Peak memory of each kind of task as a function of the tile; `in_memory`: of the direct method."""
    row_bytes = p.row_size * 8
    columns = p.outputs * config.predictors
    needs: dict[str, Callable[[int], Need]] = {
        "gram": lambda tile: memory.gram_task(
            tile,
            row_size=p.row_size,
            rows_kept=rows_kept(tile, tile * tile * rates.pair_seconds),
            bytes_per_pair=p.bytes_per_pair,
            most_bytes=p.most_bytes,
            outputs=p.kernels,
            itemsize=p.itemsize,
        )
    }
    # A worker that computed Gram tiles before keeps JAX in memory.
    jax = memory.PROCESS_WITH_JAX
    if choice is not None and choice.method == "cg":
        width = columns_of(config.solve, p.outputs)
        needs["product"] = lambda tile: memory_solve.product_task(
            tile, Patches.of(TileGrid(p.rows, tile), p.itemsize).rows_per_side, width, itemsize=p.itemsize
        )
    elif choice is not None and choice.method == "askotch":
        width, (block, _) = columns_of(config.solve, p.outputs), block_of(config.solve, p.rows)
        needs["rows product"] = lambda tile: memory_solve.rows_product_task(
            tile,
            Patches.of(TileGrid(p.rows, tile), p.itemsize).rows_per_side,
            # A look at the residual computes whole tiles.
            max(block, tile),
            width,
            row_size=p.row_size,
            bytes_per_pair=p.bytes_per_pair,
            most_bytes=p.most_bytes,
            itemsize=p.itemsize,
        )
    elif choice is not None and in_memory:
        needs["dense solve"] = lambda tile: memory_solve.dense_solve_task(p.rows, p.outputs, tile)
    elif choice is not None:
        needs["cholesky"] = lambda tile: memory_solve.cholesky_task(tile, process=jax)
        needs["substitution"] = lambda tile: memory_solve.substitution_task(
            p.rows, p.outputs, tile, process=jax
        )
        needs["inverse diagonal"] = lambda tile: memory_solve.inverse_diagonal_task(p.rows, tile, process=jax)
    if config.predicts:
        needs["predict"] = lambda tile: memory_solve.prediction_task(
            tile,
            row_bytes=row_bytes,
            bytes_per_pair=p.bytes_per_pair,
            most_bytes=p.most_bytes,
            n=p.rows,
            columns=columns,
            itemsize=p.itemsize,
        )
        if config.predict.times:
            needs["training time"] = lambda tile: memory_solve.flow(
                p.rows, p.outputs, len(config.predict.times)
            )
    return needs


def _auto_tile(
    p: Problem, resources: Resources, needs: dict[str, Callable[[int], Need]], *, factored: bool
) -> int:
    """The largest tile that fits, up to MAX_TILE, and that leaves every worker several tiles; of a matrix that is
    factored, enough of them along the diagonal."""
    wanted = TILES_PER_WORKER * resources.workers
    blocks = 1
    while blocks * (blocks + 1) // 2 < wanted:
        blocks += 1
    most = max(MIN_TILE, min(MAX_TILE, _round_up(-(-p.rows // blocks), MIN_TILE)))
    if factored:
        side = math.ceil(FACTOR_BLOCKS * math.sqrt(resources.workers / 2))
        most = min(most, max(FACTOR_TILE, _round_up(-(-p.rows // side), MIN_TILE)))
    fitting = [
        memory.largest_tile(resources.memory, need, multiple=MIN_TILE, most=most) for need in needs.values()
    ]
    # Where not even the smallest fits, the refusal that follows says what needs how much.
    return min((tile or MIN_TILE for tile in fitting), default=most)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
