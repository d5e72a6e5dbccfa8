"""The journal's file format: segments of lines, each line with its own checksum.

A segment has one writer in its whole life and is never written again after that: a torn line can only be its
last. Its name is ``{epoch}-{host}-{pid}-{random}.jsonl``; the epoch is one more than the highest one present
when the writer was opened, which orders the segments without asking any clock. A line is the CRC-32 of the
rest (8 hex digits), a space, one JSON object and a newline. Where segments lie, and how a line gets there, is
``segment_files`` and ``segment_objects``.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from collections.abc import Iterable
from typing import Any
from zlib import crc32

SUFFIX = ".jsonl"

# Where a segment stands among all: (epoch, file name). The name decides between writers of one epoch.
Rank = tuple[int, str]

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def new_name(epoch: int) -> str:
    """A name for a new segment of this process."""
    host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())
    return f"{epoch:06d}-{host}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"


def rank_of(name: str) -> Rank | None:
    """Rank of a segment by its file name; None for a file that is not one."""
    epoch, dash, _ = name.partition("-")
    if not (dash and epoch.isdecimal() and name.endswith(SUFFIX)):
        return None
    return int(epoch), name


def encode_lines(entries: Iterable[dict[str, Any]]) -> bytes:
    """Lines for the entries, in order."""
    bodies = [_encode(entry).encode() for entry in entries]
    return b"".join(b"%08x %s\n" % (crc32(body), body) for body in bodies)


def decode_lines(data: bytes) -> tuple[list[bytes | None], int]:
    """JSON texts of the whole lines in ``data``, None for a damaged one, and the number of bytes they take.

    Bytes after the last newline are a line still being written, or torn for good; they are left for later.
    """
    end = data.rfind(b"\n") + 1
    return [_body(line) for line in data[:end].split(b"\n")[:-1]], end


def _body(line: bytes) -> bytes | None:
    body = line[9:]
    return body if line[8:10] == b" {" and line[:8] == b"%08x" % crc32(body) else None
