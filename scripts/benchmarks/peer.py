"""Times neural-tangents on one case; run by its own interpreter, reads a request on stdin, prints seconds as JSON.

python3.11 -m venv PEER && PEER/bin/pip install neural-tangents==0.6.5 jax==0.5.3 jaxlib==0.5.3
"""

import json
import sys
import time

request = json.load(sys.stdin)

import jax  # noqa: E402

jax.config.update("jax_enable_x64", request["precision"] == "float64")

import numpy as np  # noqa: E402
from neural_tangents import stax  # noqa: E402


def layer(entry):
    if isinstance(entry, str):
        return getattr(stax, entry)()
    ((name, arguments),) = entry.items()
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    return getattr(stax, name)(**lists)


rows, shape = request["rows"], request["shape"]
x = np.random.default_rng(0).standard_normal((rows, *shape))
x = (x / np.linalg.norm(x.reshape(rows, -1), axis=1).reshape(rows, *[1] * len(shape))).astype(
    request["precision"]
)
_, _, kernel_fn = stax.serial(*map(layer, request["spec"]))
kernel = jax.jit(lambda x: kernel_fn(x, None, "ntk"))
kernel(x).block_until_ready()
times = []
for _ in range(request["repeats"]):
    began = time.perf_counter()
    kernel(x).block_until_ready()
    times.append(time.perf_counter() - began)
print(json.dumps({"seconds": sorted(times)[len(times) // 2]}))
