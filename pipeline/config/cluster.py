"""The clusters a run may use (`cluster.yaml`): each entry is a name and how to get workers there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, RootModel, model_validator

from pipeline.config.model import Model
from pipeline.config.sizes import parse_bytes


def _readable(value: str) -> str:
    if value != "auto":
        parse_bytes(value)
    return value


def _size(value: str) -> str:
    parse_bytes(value)
    return value


MemoryLimit = Annotated[str, AfterValidator(_readable)]
"""A size such as `2 GB`, or `auto`."""


class LocalCluster(Model):
    """Worker processes on this machine, on the loopback interface only."""

    kind: Literal["local"] = "local"
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Worker processes; `auto`: one for every `threads` cores."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Threads a worker computes with; `auto`: 1 up to 8 cores, 4 beyond."""
    memory: MemoryLimit = "auto"
    """Memory limit per worker, e.g. `2 GB`; `auto`: an equal share of 80 % of this machine's memory."""
    dashboard: bool = True
    """Whether Dask's dashboard is served, on the loopback interface."""


class SerialCluster(Model):
    """No cluster: every task in the calling process."""

    kind: Literal["serial"]
    memory: MemoryLimit = "auto"
    """Memory limit of the process, e.g. `2 GB`; `auto`: 80 % of this machine's memory."""


class HypotheticalCluster(Model):
    """Machines that are not there: for plans only."""

    kind: Literal["hypothetical"]
    workers: Annotated[int, Field(ge=1)]
    """Worker processes; of GPUs, one on each."""
    device: Literal["cpu", "v100", "a100", "h100"] = "cpu"
    """What a worker computes with; its rates are assumed (pipeline/plan/rates.py)."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of a worker."""
    memory: Annotated[str, AfterValidator(_size)] = "16 GB"
    """Memory of a worker, of a GPU its own."""


AnyCluster = LocalCluster | SerialCluster | HypotheticalCluster

Cluster = Annotated[AnyCluster, Field(discriminator="kind")]


class Clusters(RootModel[dict[str, Cluster]]):
    """The content of cluster.yaml: name → cluster; an entry without `kind` is `local`."""

    @model_validator(mode="before")
    @classmethod
    def _kind_is_local(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            name: {"kind": "local"} | entry if isinstance(entry, dict) else entry
            for name, entry in value.items()
        }


DEFAULT: dict[str, AnyCluster] = {
    "local": LocalCluster(),
    "serial": SerialCluster(kind="serial"),
}
"""What a run may name when no cluster.yaml is found."""
