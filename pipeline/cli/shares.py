"""Shares of the Gram matrix for job arrays: `K/M` on the command line."""

from __future__ import annotations

import re

from pipeline.errors import InputError


def parse_share(text: str) -> tuple[int, int]:
    """`3/16` → (3, 16).

    Raises:
        InputError: not of that form, or K outside 1 … M.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard {text}: expected K/M with 1 <= K <= M", hint="for example --shard 3/16")
    return int(match[1]), int(match[2])


def share_lease(share: tuple[int, int]) -> str:
    """Name of the lease under which a share is computed: shares may run beside each other, not beside a whole run."""
    return f"shard-{share[0]}-of-{share[1]}"
