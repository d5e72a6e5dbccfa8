"""Every reference kernel to 1e-10 of its largest entry in float64, 1e-5 (arc-cosine family) or 1e-4 in float32."""

import numpy as np
import pytest

from ntk import stax
from tests.ntk.references import CASES, arrays


def error(got, expected):
    # The independent evaluation leaves out the last column of the inputs with extreme rows.
    got = np.asarray(got)[:, : expected.shape[1]]
    assert np.isfinite(got).all()
    known = np.isfinite(expected)
    return np.max(np.abs(got - expected)[known], initial=0) / np.max(np.abs(expected)[known], initial=1e-300)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_float64(case):
    kernel_fn = stax.from_spec(case["spec"]).kernel_fn
    data = arrays(case["name"])
    across, own = kernel_fn(data["x1"], data["x2"]), kernel_fn(data["x1"])
    # Where only the other library speaks, its own diagonals are good to 1e-8.
    own_limit = 1e-10 if case["independent"] else 5e-8
    for name in ("nngp", "ntk"):
        assert getattr(across, name).dtype == np.float64
        assert error(getattr(across, name), data[name]) < 1e-10, name
        assert error(getattr(own, name), data[f"{name}11"]) < own_limit, name
        assert np.array_equal(getattr(own, name), getattr(own, name).T)


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: case["name"])
def test_float32(case):
    kernel_fn = stax.from_spec(case["spec"]).kernel_fn
    data = arrays(case["name"])
    x1, x2 = data["x1"].astype(np.float32), data["x2"].astype(np.float32)
    wide = [kernel_fn(x1.astype(float), x2.astype(float)), kernel_fn(x1.astype(float))]
    for got, expected in zip([kernel_fn(x1, x2), kernel_fn(x1)], wide, strict=True):
        for name in ("nngp", "ntk"):
            assert getattr(got, name).dtype == np.float32
            exact = np.asarray(getattr(expected, name))
            assert np.max(np.abs(np.asarray(getattr(got, name)) - exact)) < 1e-5 * np.max(np.abs(exact)), name
