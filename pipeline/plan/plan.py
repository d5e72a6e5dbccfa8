"""The plan of a run as a value: what each stage will do, cost and need, known before anything is computed.

It knows the mathematics only by four figures (flops and bytes a pair of inputs, size of an input, number of outputs),
so that planning needs neither JAX nor the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.plan.iterative import PRODUCT_SECONDS
from pipeline.plan.rates import Device, Rates, assumed
from pipeline.plan.resources import Resources
from pipeline.plan.tiles import TileGrid


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
