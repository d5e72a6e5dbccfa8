"""`ntk verify`: what it does and what it prints."""

from __future__ import annotations

import sys
from typing import Any

from pipeline.cli.output import say
from pipeline.stages.verify import check, repair
from pipeline.store.faults import TileFault
from pipeline.store.layout import RunLayout
from pipeline.store.place import Place


def verify_command(
    directory: Place, *, repair: bool, cluster: str | None, allow_code: bool
) -> tuple[dict[str, Any], str]:
    """The document and the text of a verification; with `repair` of the state after it."""
    count, faults = check(directory, _progress)
    repaired: list[str] = []
    for line in _lines(faults):
        say(f"bad: {line}")
    if faults and repair:
        repaired = [str(fault) for fault in faults]
        _repair(directory, faults, cluster, allow_code)
        count, faults = check(directory, _progress)
    document = {
        "directory": str(directory),
        "checked": count,
        "faults": [{"array": f.array, "key": list(f.key), "cause": f.cause} for f in faults],
        "repaired": repaired,
        "sound": not faults,
    }
    if faults:
        text = f"{len(faults)} faults; {count:,} chunks are recorded\n"
        text += "\n".join(f"  {line}" for line in _lines(faults))
        text += f"\nhint: ntk verify {directory} --repair"
    else:
        text = f"all {count:,} stored chunks are as recorded"
        if repaired:
            text = f"mended {len(repaired)} faults; " + text
    return document, text


def _lines(faults: list[TileFault]) -> list[str]:
    """One for each fault, and one for all tiles of an array with the same."""
    alike: dict[tuple[str, str], list[TileFault]] = {}
    for fault in faults:
        alike.setdefault((fault.array, fault.cause), []).append(fault)
    return [
        str(same[0]) if len(same) == 1 else f"{array}, {len(same)} tiles, the first {same[0].key}: {cause}"
        for (array, cause), same in alike.items()
    ]


def _repair(directory: Place, faults: list[Any], cluster: str | None, allow_code: bool) -> None:
    from pipeline.cli.setup import prepared, working

    file = RunLayout(directory).config
    ready = prepared(file, overrides=None, out=directory, cluster=cluster, allow_code=allow_code)
    with working(ready) as session:
        repair(session, ready.plan, faults)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 50 == 0 or done == total):
        print(
            f"\rverify: {done:,}/{total:,} chunks",
            end="\n" if done == total else "",
            file=sys.stderr,
            flush=True,
        )
