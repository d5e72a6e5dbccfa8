"""`./scripts/bench NAME [--json]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts.benchmarks import report

app = typer.Typer(
    help="Benchmarks; each prints medians over repeats and ratios within the same run. See docs/performance.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Repeats = Annotated[int, typer.Option(min=1, help="Repeats of which the median counts.")]


@app.command()
def gram(
    rows: Annotated[int, typer.Option(min=64, help="Rows of the matrix.")] = 50_000,
    features: Annotated[int, typer.Option(min=8, help="Numbers in an input.")] = 3072,
    repeats: Repeats = 1,
    as_json: Json = False,
) -> None:
    """The gram stage end to end, against its matrix products and activations alone."""
    from scripts.benchmarks.gram import measure

    report.show(measure(rows, features, repeats), as_json)


@app.command()
def plan(
    rows: Annotated[int, typer.Option(min=64, help="Rows of the matrix.")] = 16_384,
    features: Annotated[int, typer.Option(min=8, help="Numbers in an input.")] = 3072,
    repeats: Repeats = 1,
    as_json: Json = False,
) -> None:
    """The gram stage as a calibrated plan foretells it, and as it is."""
    from scripts.benchmarks.plan import measure

    report.show(measure(rows, features, repeats), as_json)


@app.command()
def cluster(
    tasks: Annotated[int, typer.Option(min=100, help="Tasks that do nothing.")] = 4_000,
    repeats: Repeats = 3,
    as_json: Json = False,
) -> None:
    """Workers of this machine and such as come from others: seconds to the first task, and for each task."""
    from scripts.benchmarks.cluster import measure

    report.show(measure(tasks, repeats), as_json)


@app.command()
def device(
    rows: Annotated[int, typer.Option(min=256, help="Rows of the square matrices.")] = 8192,
    repeats: Repeats = 5,
    as_json: Json = False,
) -> None:
    """What JAX's device does at most: copies, ways to it and from it, matrix products, a Cholesky factor."""
    from scripts.benchmarks.device import measure

    report.show(measure(rows, repeats), as_json)


@app.command()
def sizing() -> None:
    """Hours, bytes and cost on machines that are not there, from the planner: the table of docs/clusters.md."""
    from scripts.benchmarks.sizing import measure, table

    typer.echo(table(measure()))


@app.command()
def compression(
    tile: Annotated[int, typer.Option(min=64, help="Rows of a tile.")] = 1024,
    repeats: Repeats = 3,
    as_json: Json = False,
) -> None:
    """What compression gains on kernel tiles and what it costs, by codec and shuffle."""
    from scripts.benchmarks.compression import measure

    report.show(measure(tile, repeats), as_json)


@app.command()
def scheduler(
    tiles: Annotated[list[int] | None, typer.Option(help="Numbers of tiles; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """No-op tiles through the real scheduler and journal: tiles a second, memory, restart."""
    from scripts.benchmarks.scheduler import measure

    report.show(measure(tiles or [10_000, 100_000]), as_json)


@app.command()
def simulate(
    workers: Annotated[int, typer.Option(min=1, help="Simulated workers.")] = 1000,
    milliseconds: Annotated[float, typer.Option(min=0, help="Of the coordinator for each task.")] = 3.0,
    plot: Annotated[Path | None, typer.Option(help="SVG file to draw.")] = None,
    as_json: Json = False,
) -> None:
    """Efficiency of many workers in virtual time, with stragglers and deaths."""
    from scripts.benchmarks.simulate import curves, draw

    found = curves(workers, milliseconds / 1000)
    if plot is not None:
        draw(found, plot)
    lines = {
        f"{name}, tile {point['tile seconds']:g} s": report.line(point) + f", tasks {point['tasks']:,}"
        for name, points in found.items()
        for point in points
    }
    report.show({"curves": found} if as_json else lines, as_json)


solving = typer.Typer(help="Solvers; each case names what it is held against.", no_args_is_help=True)
app.add_typer(solving, name="solve")
SolveRows = Annotated[int, typer.Option(min=64, help="Rows of the matrix.")]
Memory = Annotated[str, typer.Option(help="Limit per worker.")]


@solving.command()
def cholesky(
    rows: SolveRows = 16384, memory: Memory = "1 GB", repeats: Repeats = 1, as_json: Json = False
) -> None:
    """The factor out of core, against scipy.linalg.cho_factor in memory."""
    from scripts.benchmarks.solve_direct import cholesky as measure

    report.show(measure(rows, memory, repeats), as_json)


@solving.command()
def refinement(
    rows: SolveRows = 12288, memory: Memory = "1 GB", repeats: Repeats = 1, as_json: Json = False
) -> None:
    """A float32 factor with float64 refinement, against a float64 factor."""
    from scripts.benchmarks.solve_direct import refinement as measure

    report.show(measure(rows, memory, repeats), as_json)


@solving.command("kernel-ridge")
def kernel_ridge(
    rows: SolveRows = 8192, memory: Memory = "1 GB", repeats: Repeats = 3, as_json: Json = False
) -> None:
    """Coefficients by the solve stage, against scikit-learn's KernelRidge on the matrix in memory."""
    from scripts.benchmarks.solve_direct import kernel_ridge as measure

    report.show(measure(rows, memory, repeats), as_json)


@solving.command()
def agreement(rows: SolveRows = 50_000, memory: Memory = "auto", as_json: Json = False) -> None:
    """examples/cifar10_size.yaml by Cholesky and by conjugate gradients: rates, memory, and whether they agree."""
    from scripts.benchmarks.agreement import measure

    report.show(measure(rows, memory), as_json)


@solving.command()
def askotch(
    rows: SolveRows = 8192,
    precision: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    limit: Annotated[int, typer.Option(min=1, help="Most passes.")] = 1000,
    as_json: Json = False,
) -> None:
    """ASkotch, which stores no matrix, against conjugate gradients on a stored one."""
    from scripts.benchmarks.askotch import measure

    report.show(measure(rows, precision, limit), as_json)


@app.command()
def spectrum(
    rows: Annotated[int, typer.Option(min=64, help="Rows of the matrix.")] = 8192,
    memory: Annotated[str, typer.Option(help="Limit per worker.")] = "256 MB",
    method: Annotated[str, typer.Option(help="band, eigh, lanczos or density.")] = "band",
    count: Annotated[int, typer.Option(min=1, help="Leading pairs, for lanczos.")] = 200,
    tile: Annotated[int, typer.Option(min=64, help="Rows of a tile.")] = 512,
    compare: Annotated[bool, typer.Option(help="Also LAPACK in memory.")] = True,
    repeats: Repeats = 1,
    as_json: Json = False,
) -> None:
    """The spectrum stage within a memory limit, against scipy.linalg.eigvalsh in memory."""
    from scripts.benchmarks.spectrum import measure

    report.show(measure(rows, memory, method, count, tile, compare, repeats), as_json)


@solving.command()
def streaming(
    rows: Annotated[int, typer.Option(min=64, help="Rows of the matrix.")] = 16384,
    tile: Annotated[int, typer.Option(min=64, help="Rows of a tile.")] = 2048,
    columns: Annotated[list[int] | None, typer.Option(help="Vectors of a product; may be repeated.")] = None,
    compression: Annotated[str, typer.Option(help="Of the tiles: none, lz4 or zstd.")] = "none",
    repeats: Repeats = 3,
    as_json: Json = False,
) -> None:
    """Products with a stored float32 Gram matrix, against reading the same chunks with nothing done to them."""
    from scripts.benchmarks.streaming import measure

    report.show(measure(rows, tile, tuple(columns or (1, 10)), compression, repeats), as_json)


@solving.command()
def iterations(
    rows: Annotated[int, typer.Option(min=100, help="Rows of the matrix.")] = 8192,
    rank: Annotated[int, typer.Option(min=0, help="Rank of the preconditioners; 0 for auto.")] = 0,
    precision: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    limit: Annotated[int, typer.Option(min=1, help="Most products of one method.")] = 1000,
    method: Annotated[list[str] | None, typer.Option(help="Preconditioner; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Products that conjugate gradients need on enlarged digits, with each preconditioner and with none."""
    from scripts.benchmarks.iterations import measure

    methods = tuple(method or ("rpcholesky", "nystrom", "none"))
    report.show(measure(rows, rank or "auto", precision, limit, methods), as_json)


@app.command()
def overhead(
    tiles: Annotated[int, typer.Option(min=10, help="Tiles.")] = 2000,
    milliseconds: Annotated[float, typer.Option(min=0, help="Length of a tile.")] = 50.0,
    repeats: Repeats = 1,
    as_json: Json = False,
) -> None:
    """Wall time of the gram stage over (sum of kernel seconds / workers)."""
    from scripts.benchmarks.overhead import measure

    report.show(measure(tiles, milliseconds, repeats), as_json)


@app.command()
def kernels(
    case: Annotated[str | None, typer.Option(help="One case; all by default.")] = None,
    precision: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    peer: Annotated[Path | None, typer.Option(help="Interpreter that has neural-tangents.")] = None,
    repeats: Repeats = 3,
    as_json: Json = False,
) -> None:
    """Kernel functions on whole symmetric matrices, against the matrix product and a peer library."""
    from scripts.benchmarks.kernels import CASES, measure

    names = list(CASES) if case is None else [case]
    results = {name: measure(name, precision, repeats, peer) for name in names}
    if as_json or len(names) > 1:
        report.show(
            {"cases": results} if as_json else {name: report.line(r) for name, r in results.items()}, as_json
        )
    else:
        report.show(results[names[0]], as_json)


@app.command()
def flow(
    rows: Annotated[int, typer.Option(min=64, help="Rows of the matrix.")] = 4096,
    training_time: Annotated[float, typer.Option("--time", min=0, help="Steps times learning rate.")] = 1e6,
    repeats: Repeats = 1,
    as_json: Json = False,
) -> None:
    """Predictions at a training time from a Krylov space, against all eigenpairs."""
    from scripts.benchmarks.flow import measure

    report.show(measure(rows, training_time, repeats), as_json)


if __name__ == "__main__":
    app()
