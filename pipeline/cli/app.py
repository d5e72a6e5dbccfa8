"""The commands. Each reads its arguments, calls what does the work, and prints; imports wait until they are needed,
so that `--help` and `status` answer at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.options import (
    AllowCode,
    Cluster,
    Directory,
    Insecure,
    Json,
    Out,
    PerformanceReport,
    RunFile,
    Set,
    located,
)
from pipeline.cli.output import emit, reporting, say
from pipeline.errors import InputError
from pipeline.store.place import ObjectPath, Place, place

app = typer.Typer(
    name="ntk",
    help="Neural tangent kernels at scale: tiled Gram matrices, out-of-core solvers and spectra, resumable.\n\n"
    "Start with: ntk init run.yaml, ntk plan run.yaml, ntk run run.yaml. The same command again resumes.",
    epilog="Exit codes: 0 done; 1 a check said no; 2 bad usage, config or input; 3 tasks failed, a rerun resumes; "
    "75 stopped by SIGTERM, a rerun resumes; 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command(epilog="Example: ntk init run.yaml")
def init(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="File to write; an existing one is never replaced.")
    ] = Path("run.yaml"),
    as_json: Json = False,
) -> None:
    """Write a commented run.yaml to start from."""
    with reporting(as_json):
        from pipeline.config.template import write_template

        write_template(path)
        emit({"written": str(path)}, as_json=as_json, text=f"wrote {path}; next: ntk plan {path}")


@app.command(epilog="Example: ntk plan run.yaml --workers 64 --price 2.50")
def plan(
    file: RunFile,
    overrides: Set = None,
    out: Out = None,
    cluster: Cluster = None,
    calibrate: Annotated[bool, typer.Option(help="Measure a few tiles for the time estimate.")] = True,
    workers: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Plan with K workers, each as fast as those here.")
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(metavar="X", min=0, help="Price of a worker for an hour, instead of cluster.yaml's."),
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Show tiles, tasks, bytes, flops, memory and time of a run; nothing is computed beyond a few tiles."""
    with reporting(as_json):
        from pipeline.cli.setup import arguments
        from pipeline.plan import show
        from pipeline.stages.prepare import planned

        config, where, folder = arguments(file, overrides=overrides, out=out, cluster=cluster)
        found = planned(
            config, where, workers=workers, calibrate=calibrate, allow_code=allow_code, folder=folder
        )
        price = found.resources.price if price is None else price
        document, text = show.document(found, price), show.text(found, price)
        if isinstance(place(config.out), ObjectPath):
            document["requests"] = show.requests(found)
            text += show.bucket_text(found)
        emit(document, as_json=as_json, text=text)


@app.command(epilog="Example: ntk run run.yaml --out runs/first --set gram.tile=512")
def run(
    file: RunFile,
    overrides: Set = None,
    out: Out = None,
    cluster: Cluster = None,
    allow_code: AllowCode = False,
    insecure: Insecure = False,
    performance_report: PerformanceReport = False,
    as_json: Json = False,
) -> None:
    """Run all stages in order; the same command again resumes."""
    _stages(
        None, file, overrides, out, cluster, allow_code, as_json, insecure=insecure,
        performance_report=performance_report,
    )  # fmt: skip


@app.command(epilog="Example (a job array): ntk gram run.yaml --shard $((SLURM_ARRAY_TASK_ID+1))/16")
def gram(
    file: RunFile,
    overrides: Set = None,
    out: Out = None,
    cluster: Cluster = None,
    shard: Annotated[
        str | None, typer.Option(metavar="K/M", help="Only the K-th of M disjoint shares, in this process.")
    ] = None,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="The data have new rows at the end: keep the tiles of the old ones."),
    ] = False,
    allow_code: AllowCode = False,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Compute and store the tiles of the Gram matrix."""
    _stages("gram", file, overrides, out, cluster, allow_code, as_json, shard, extend, insecure)


def _stage_command(name: str, does: str, example: str) -> None:
    """Add the command of one stage; all take the same arguments."""

    def command(
        file: RunFile,
        overrides: Set = None,
        out: Out = None,
        cluster: Cluster = None,
        allow_code: AllowCode = False,
        insecure: Insecure = False,
        as_json: Json = False,
    ) -> None:
        _stages(name, file, overrides, out, cluster, allow_code, as_json, insecure=insecure)

    app.command(name, help=does, epilog=f"Example: {example}")(command)


_stage_command(
    "solve",
    "Kernel regression on the stored Gram matrix, for every ridge.",
    "ntk solve run.yaml --set solve.ridge=[1e-6,1e-4]",
)
_stage_command("predict", "Predict the held-out inputs and score them.", "ntk predict run.yaml")


@app.command(epilog="Examples: ntk spectrum run.yaml; ntk spectrum --compare runs/shallow runs/deep#nngp")
def spectrum(
    file: Annotated[
        Any,
        typer.Argument(
            metavar="RUN.yaml", parser=located, help="Configuration of the run, unless --compare."
        ),
    ] = None,
    overrides: Set = None,
    out: Out = None,
    cluster: Cluster = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Two run directories, each perhaps with #KERNEL: how they differ."),
    ] = None,
    allow_code: AllowCode = False,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Eigenvalues of the stored Gram matrix and what they say; or the spectra of two runs compared."""
    if (file is None) == (compare is None):
        raise typer.BadParameter("give either RUN.yaml or --compare A B")
    if compare is None:
        assert file is not None
        _stages("spectrum", file, overrides, out, cluster, allow_code, as_json, insecure=insecure)
        return
    with reporting(as_json):
        from pipeline.stages import compare as comparison

        document = comparison.compare(*compare)
        emit(document, as_json=as_json, text=comparison.to_text(document))


_stage_command("report", "Write the HTML report of the finished stages.", "ntk report run.yaml")


@app.command(epilog="Examples: ntk status runs/first --watch; ntk status runs/first --check && echo complete")
def status(
    directory: Directory,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 unless every stage is done.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep showing it while a process is at work there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what is done, partial or stale (and why), and what a process at work there is doing."""
    with reporting(as_json):
        from pipeline.stages import status as stages_status

        if watch:
            from pipeline.cli.watch import watch as watch_run

            watch_run(directory)
        document = stages_status.status(directory)
        emit(document, as_json=as_json, text=stages_status.to_text(document))
        if check and not document["complete"]:
            raise typer.Exit(1)


@app.command(epilog="Example: ntk verify runs/first --repair")
def verify(
    directory: Directory,
    repair: Annotated[bool, typer.Option("--repair", help="Recompute what is damaged or missing.")] = False,
    cluster: Cluster = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Read every stored tile again and check it against its record."""
    with reporting(as_json):
        from pipeline.cli.verify import verify_command

        document, text = verify_command(directory, repair=repair, cluster=cluster, allow_code=allow_code)
        emit(document, as_json=as_json, text=text)
        if not document["sound"]:
            raise typer.Exit(1)


@app.command(epilog="Example: ntk submit run.yaml --cluster slurm --array 16")
def submit(
    file: RunFile,
    overrides: Set = None,
    out: Out = None,
    cluster: Cluster = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Show the batch scripts, submit nothing.")
    ] = False,
    array: Annotated[
        int | None,
        typer.Option(metavar="M", min=1, help="Compute the Gram matrix as a job array of M shares first."),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Show the jobs of this run.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show them until none is active.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End them; what is stored stays.")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="Show the end of their logs.")] = False,
    allow_code: AllowCode = False,
    performance_report: PerformanceReport = False,
    as_json: Json = False,
) -> None:
    """Submit a whole run to a batch system, or see to the jobs of one; what is stopped is requeued and resumes."""
    with reporting(as_json):
        from pipeline.cli import submit as command

        chosen = [
            name
            for name, on in (("show", status), ("watch", watch), ("cancel", cancel), ("logs", logs))
            if on
        ]
        if len(chosen) > 1 or (chosen and (only_print or array)):
            raise InputError("--print, --array, --status, --watch, --cancel and --logs: give one of them")
        if chosen:
            act = {
                "show": command.show,
                "watch": command.watch,
                "cancel": command.cancel,
                "logs": command.logs,
            }
            document, text = act[chosen[0]](command.directory_of(file, overrides, out))
        else:
            document, text = command.submit_command(
                file, overrides=overrides, out=out, cluster=cluster, allow_code=allow_code, array=array,
                only_print=only_print, performance_report=performance_report,
            )  # fmt: skip
        emit(document, as_json=as_json, text=text)


@app.command(epilog="Example: ntk doctor --cluster local --out runs/first")
def doctor(
    out: Annotated[
        Any,
        typer.Option("--out", metavar="DIR", parser=located, help="Where a run would be, which is probed."),
    ] = ".",
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="NAME", help="Probe a worker of this cluster as well.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Probe this machine, its file system and a cluster; the exit code is 1 when something is wrong."""
    with reporting(as_json):
        from pipeline.stages import doctor as stages_doctor

        document = stages_doctor.examine(out, cluster)
        emit(document, as_json=as_json, text=stages_doctor.to_text(document))
        if not document["sound"]:
            raise typer.Exit(1)


@app.command(hidden=True)
def attempt(
    directory: Directory,
    ended: Annotated[
        int | None, typer.Option("--ended", metavar="CODE", help="It ended, with this exit code.")
    ] = None,
) -> None:
    """For batch scripts: note that an attempt at a run begins or ended, and requeue the job where that helps."""
    with reporting(False):
        from pipeline.stages import submit as stages_submit

        if ended is None:
            stages_submit.begin_attempt(directory)
        else:
            stages_submit.end_attempt(directory, ended)
            raise typer.Exit(ended)


@app.command(epilog="Example: ntk schema > ntk.schema.json")
def schema(as_json: Json = True) -> None:
    """JSON Schema of run.yaml and cluster.yaml (always JSON)."""
    with reporting(as_json):
        from pipeline.config.cluster import Clusters
        from pipeline.config.model import RunConfig

        document = {"run.yaml": RunConfig.model_json_schema(), "cluster.yaml": Clusters.model_json_schema()}
        emit(document, as_json=True, text="")


def _stages(
    only: str | None,
    file: Place,
    overrides: list[str] | None,
    out: Place | None,
    cluster: str | None,
    allow_code: bool,
    as_json: bool,
    shard: str | None = None,
    extend: bool = False,
    insecure: bool = False,
    performance_report: bool = False,
) -> None:
    """Run one stage or all of them, and print the figures."""
    with reporting(as_json):
        from pipeline.cli.setup import prepared, working
        from pipeline.cli.shares import parse_share, share_lease
        from pipeline.cli.summary import summary_text
        from pipeline.stages.order import run_stages

        share = None if shard is None else parse_share(shard)
        if share is not None and extend:
            raise InputError(
                "--extend and --shard do not go together", hint="extend first, then compute shares"
            )
        ready = prepared(
            file, overrides=overrides, out=out, cluster=cluster, allow_code=allow_code, alone=share is not None
        )  # fmt: skip
        for stage in ready.plan.stages:
            if stage.skipped and only in (None, stage.name):
                say(f"{stage.name}: not done: {stage.skipped}")
        lease = "run" if share is None else share_lease(share)
        with working(
            ready, lease=lease, extend=extend, insecure=insecure, performance_report=performance_report
        ) as session:
            document: dict[str, Any] = run_stages(session, ready.plan, only=only, shard=share)
            if performance_report and not session.has_workers:
                say("no performance report: there was nothing left for workers to do")
        emit(document, as_json=as_json, text="" if as_json else summary_text(document))
