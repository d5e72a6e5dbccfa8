"""What compression gains on tiles of a Gram matrix, and what it costs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numcodecs.blosc import Blosc
from sklearn.datasets import load_digits

from pipeline.config.model import KernelConfig
from pipeline.stages.kernels import specify
from scripts.benchmarks import report, runs

CODECS = {"lz4": ("lz4", 5), "zstd": ("zstd", 1), "zstd level 5": ("zstd", 5)}
SHUFFLES = {"no": Blosc.NOSHUFFLE, "byte": Blosc.SHUFFLE, "bit": Blosc.BITSHUFFLE}


def measure(tile: int, repeats: int) -> dict[str, Any]:
    """For tiles of a fully connected kernel: ratio, and MB of values a second in and out, by codec and shuffle."""
    result: dict[str, Any] = {"tile": tile}
    for precision in ("float32", "float64"):
        for name, block in _tiles(tile, precision).items():
            began = time.perf_counter()
            copied = b""
            for _ in range(repeats):
                copied = bytes(memoryview(block).cast("B"))
            rate = block.nbytes * repeats / (time.perf_counter() - began) / 1e6
            result[f"{precision}, {name}, none (a copy)"] = f"ratio 1.00, {rate:.0f} MB/s"
            for codec, (kind, level) in CODECS.items():
                for shuffle, number in SHUFFLES.items():
                    ratio, into, out = _through(
                        Blosc(cname=kind, clevel=level, shuffle=number), copied, block, repeats
                    )
                    result[f"{precision}, {name}, {codec}, {shuffle} shuffle"] = (
                        f"ratio {ratio:.2f}, {into:.0f} MB/s in, {out:.0f} MB/s out"
                    )
    return result


def _tiles(tile: int, precision: str) -> dict[str, np.ndarray]:
    """A tile beside the diagonal, of normal inputs and of digits with their repetitions."""
    rng = np.random.default_rng(0)
    digits = np.resize(load_digits().data, (2 * tile, 64)) + rng.standard_normal((2 * tile, 64))
    found = {}
    for name, x in (("normal", rng.standard_normal((2 * tile, 784))), ("digits", digits)):
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(precision)
        config = KernelConfig.model_validate({"architecture": runs.RELU3, "precision": precision})
        kernel = specify(config, x.shape[1:]).build(tile)
        found[name] = np.ascontiguousarray(kernel(x[:tile], x[tile:])["ntk"])
    return found


def _through(codec: Blosc, data: bytes, block: np.ndarray, repeats: int) -> tuple[float, float, float]:
    into, out = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        packed = codec.encode(block)
        into.append(time.perf_counter() - began)
        began = time.perf_counter()
        unpacked = codec.decode(packed)
        out.append(time.perf_counter() - began)
        assert bytes(unpacked) == data
    size = block.nbytes / 1e6
    return block.nbytes / len(packed), size / report.median(into), size / report.median(out)
