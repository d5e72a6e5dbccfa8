"""One who asks a scheduler who it is, with the keys that it has."""

from __future__ import annotations

import json
import subprocess
import sys

_CODE = """
import asyncio, json, sys
from dask import config
from distributed.core import connect
from distributed.security import Security
address, settings = json.loads(sys.argv[1])
async def ask():
    security = Security()
    comm = await connect(address, timeout=2, **security.get_connection_args("client"))
    await comm.write({"op": "identity", "reply": True})
    print((await asyncio.wait_for(comm.read(), 5))["type"])
with config.set(settings):
    try:
        asyncio.run(ask())
    except Exception as error:
        sys.exit(type(error).__name__)
"""


def answer(address: str, settings: dict[str, object], *, on: tuple[str, ...] = ()) -> str:
    """`OK` if the scheduler answers, else the name of the error; `on`: words before the command, for another host."""
    command = [*on, sys.executable, "-c", _CODE, json.dumps([address, settings])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "OK" if done.stdout.strip() == "Scheduler" else done.stderr.strip()
