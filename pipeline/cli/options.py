"""Arguments and options that several commands share; each stands here once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline.errors import InputError
from pipeline.store.place import Place, place


def located(text: str) -> Place:
    """`place`, whose refusal is one of the command line."""
    try:
        return place(text)
    except InputError as error:
        raise typer.BadParameter(error.message) from None


RunFile = Annotated[
    Any,
    typer.Argument(
        metavar="RUN.yaml", parser=located, help="Configuration of the run (`ntk init` writes one)."
    ),
]
Directory = Annotated[
    Any, typer.Argument(metavar="DIR", parser=located, help="A run directory, or s3://BUCKET/PREFIX.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of text.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override a configuration value; may be repeated."),
]
Out = Annotated[
    Any,
    typer.Option(
        "--out",
        metavar="DIR",
        parser=located,
        help="Run directory or s3://BUCKET/PREFIX, instead of the file's `out`.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="NAME", help="A name in cluster.yaml, instead of the file's `cluster`."
    ),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Permit `kernel.function` to import and run code of your own.")
]

PerformanceReport = Annotated[
    bool,
    typer.Option(
        "--performance-report",
        help="Write Dask's report on its workers to performance-report.html in the run.",
    ),
]

INSECURE = (
    "what goes between machines is neither encrypted nor authenticated: who reaches their network can read it, "
    "and run code as you"
)
Insecure = Annotated[
    bool, typer.Option("--insecure", help=f"Permit plain TCP (kinds ssh, slurm, address): {INSECURE}.")
]
