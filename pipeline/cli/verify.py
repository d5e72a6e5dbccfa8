"""`ntk verify`: what it does and what it prints."""

from __future__ import annotations

import sys
from typing import Any

from pipeline.cli.output import say
from pipeline.stages.verify import check, repair
from pipeline.store.layout import RunLayout
from pipeline.store.place import Place


def verify_command(
    directory: Place, *, repair: bool, cluster: str | None, allow_code: bool
) -> tuple[dict[str, Any], str]:
    """The document and the text of a verification; with `repair` of the state after it."""
    count, faults = check(directory, _progress)
    repaired: list[str] = []
    for fault in faults:
        say(f"bad: {fault}")
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
        text = f"{len(faults)} of {count:,} stored chunks are bad\n" + "\n".join(
            f"  {fault}" for fault in faults
        )
        text += f"\nhint: ntk verify {directory} --repair"
    else:
        text = f"all {count:,} stored chunks are as recorded"
        if repaired:
            text = f"repaired {len(repaired)} chunks; " + text
    return document, text


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
