"""The plan of a run as a value: what each stage will do, cost and need, known before anything is computed.

`make_plan` refuses what cannot fit. It knows the mathematics only by four figures (flops and bytes a pair of inputs,
size of an input, number of outputs), so that planning needs neither JAX nor the data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.model import RunConfig
from pipeline.plan import memory
from pipeline.plan.direct import is_in_memory
from pipeline.plan.gram import cross_tasks, rows_kept, supertile, task_count
from pipeline.plan.iterative import (
    ASSUMED_PASSES,
    ASSUMED_PRODUCTS,
    PRODUCT_SECONDS,
    PROPOSALS,
    Choice,
    block_of,
    choose,
    columns_of,
    coordinator,
    descent_coordinator,
    rank_of,
)
from pipeline.plan.kept import kept_tiles
from pipeline.plan.memory import Need
from pipeline.plan.products import Patches
from pipeline.plan.rates import Device, Rates, assumed
from pipeline.plan.resources import Resources
from pipeline.plan.spectrum import Matrix, resolve_method
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


@dataclass(frozen=True, slots=True)
class Problem:
    """What a plan has to know of the data and the kernel.

    Attributes:
        rows, test_rows: inputs.
        outputs: columns of the targets.
        row_size: numbers in one input.
        flops_per_pair, bytes_per_pair: of the kernel, from its architecture.
        most_bytes: of temporaries, however many pairs: where the kernel takes them in blocks.
        kernels: how many are stored.
        itemsize: bytes of a stored entry.
    """

    rows: int
    test_rows: int
    outputs: int
    row_size: int
    flops_per_pair: float
    bytes_per_pair: float
    kernels: int
    itemsize: int
    most_bytes: float = math.inf

    @property
    def input_bytes(self) -> int:
        """Of the inputs and the training targets as they are stored."""
        inputs = (self.rows + self.test_rows) * self.row_size * self.itemsize
        return inputs + self.rows * self.outputs * 8

    def assumed(self, device: Device, threads: int) -> Rates:
        """Rates of a worker on which nothing was measured."""
        return assumed(self.flops_per_pair, self.row_size, self.itemsize, device=device, threads=threads)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage: how many tasks, arithmetic, traffic with the store and the peak memory of a worker.

    `pairs` of the flops' inputs go through the kernel. `skipped` says why a stage that was asked for with `auto` will
    not be done; `method` is what a stage with several will use, and `passes` how often that reads a stored matrix;
    `why` says what the method of the solve stage is and why. `kept`: tiles that all workers together keep from one
    product to the next; None where files are mapped, or nothing is multiplied again and again. `serial`: operations of
    one process for which all others wait, not among `flops`.
    """

    name: str
    tasks: int
    flops: float
    reads: float
    writes: float
    peak: int
    skipped: str = ""
    method: str = ""
    passes: float = 0.0
    why: str = ""
    pairs: float = 0.0
    kept: int | None = None
    serial: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """All stages of a run on given resources, at given rates."""

    problem: Problem
    grid: TileGrid
    resources: Resources
    stages: tuple[StagePlan, ...]
    rates: Rates

    def seconds(self, stage: StagePlan) -> float:
        """Projected wall time of a stage: kernels, other arithmetic, reading and writing, spread over the workers.

        A worker writes a Gram tile while it computes the next; the slower of the two counts.
        """
        if stage.skipped:
            return 0.0
        rates, workers = self.rates, min(self.resources.workers, max(stage.tasks, 1))
        kernel = stage.pairs * rates.pair_seconds
        other = (stage.flops - stage.pairs * self.problem.flops_per_pair) / rates.products
        reads, writes = stage.reads / rates.read, stage.writes / rates.write
        if stage.name == "gram":
            # Padded tiles cost what whole ones do.
            extra = self.grid.blocks * self.grid.tile**2 * (rates.diagonal_seconds - rates.pair_seconds)
            busy = max(kernel + extra, writes)
            return rates.startup + (busy + rates.task_overhead * stage.tasks) / workers
        alone = stage.serial / rates.products + stage.passes * PRODUCT_SECONDS
        return (
            alone + (kernel + max(other, 0.0) + reads + writes + rates.task_overhead * stage.tasks) / workers
        )

    @property
    def pass_bytes(self) -> float:
        """Bytes that one pass over a stored matrix reads: one iteration of a solver, all right-hand sides together."""
        return self.grid.count * self.grid.tile**2 * float(self.problem.itemsize)

    @property
    def pass_seconds(self) -> tuple[float, float]:
        """Of one pass over the matrix: read from the store, and computed again instead."""
        entries = self.grid.count * self.grid.tile**2
        workers = self.resources.workers
        return self.pass_bytes / self.rates.read / workers, entries * self.rates.pair_seconds / workers

    @property
    def advice(self) -> str:
        """`store` the matrix or `recompute` it in every pass, whichever is faster."""
        read, compute = self.pass_seconds
        return "store" if read <= compute else "recompute"

    def stage(self, name: str) -> StagePlan | None:
        """The stage of that name, if the run has it."""
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def store_bytes(self) -> float:
        """Bytes in the store when the run is complete."""
        inputs = (
            8.0
            * (self.problem.rows + self.problem.test_rows)
            * (self.problem.row_size + self.problem.outputs)
        )
        gram = self.stage("gram")
        return inputs + (gram.writes if gram else 0.0)


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
    stages = tuple(_stages(config, problem, resources, grid, peaks, choice, rates, mapped=mapped))
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
        needs["product"] = lambda tile: memory.product_task(
            tile, Patches.of(TileGrid(p.rows, tile), p.itemsize).rows_per_side, width, itemsize=p.itemsize
        )
    elif choice is not None and choice.method == "askotch":
        width, (block, _) = columns_of(config.solve, p.outputs), block_of(config.solve, p.rows)
        needs["rows product"] = lambda tile: memory.rows_product_task(
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
        needs["dense solve"] = lambda tile: memory.dense_solve_task(p.rows, p.outputs, tile)
    elif choice is not None:
        needs["cholesky"] = lambda tile: memory.cholesky_task(tile, process=jax)
        needs["substitution"] = lambda tile: memory.substitution_task(p.rows, p.outputs, tile, process=jax)
        needs["inverse diagonal"] = lambda tile: memory.inverse_diagonal_task(p.rows, tile, process=jax)
    if config.predicts:
        needs["predict"] = lambda tile: memory.prediction_task(
            tile,
            row_bytes=row_bytes,
            bytes_per_pair=p.bytes_per_pair,
            most_bytes=p.most_bytes,
            n=p.rows,
            columns=columns,
            itemsize=p.itemsize,
        )
        if config.predict.times:
            needs["training time"] = lambda tile: memory.flow(p.rows, p.outputs, len(config.predict.times))
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


def _stages(
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

    For each kernel one reading of the matrix, two eigendecompositions and a few factorisations of the sample.
    """
    rows = memory.population_rows(p.rows, resources.memory) if p.outputs and not stage.skipped else 0
    if not rows:
        return stage
    return dataclasses.replace(
        stage,
        tasks=stage.tasks + p.kernels,
        flops=stage.flops + p.kernels * 30.0 * rows**3,
        reads=stage.reads + Matrix(grid, p.itemsize, p.kernels).bytes,
        peak=max(stage.peak, memory.population(rows).total),
    )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
