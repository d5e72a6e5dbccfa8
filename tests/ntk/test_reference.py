"""Every reference kernel to 1e-10 of its largest entry in float64, by both ways of computing pairs; tiles in float32 to
1e-5 of float64. Evaluated operation by operation, since compilation would take most of the time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk import stax
from ntk.analytic.kernel import outer_kernel, paired_kernel
from tests.ntk.references import CASES, arrays

NAMES = ("nngp", "ntk")


def error(got, expected, among=None):
    # The independent evaluation leaves out the last column of the inputs with extreme rows, and NaN is "not known".
    got = np.asarray(got)[:, : expected.shape[1]]
    assert np.isfinite(got).all()
    known = np.isfinite(expected) & (True if among is None else among[:, : expected.shape[1]])
    return np.max(np.abs(got - expected)[known], initial=0) / np.max(np.abs(expected)[np.isfinite(expected)])


#: Images are slow to compile and quadrature to evaluate: a few of each kind stand for them unless slow tests are asked
#: for.
QUICK = (
    "conv_rect_5x3__img643",
    "convtranspose__img643",
    "attn_posemb_concat__img643",
    "index_crop__img643",
    "fc_num_swish_d1__digits",
)
#: The diagonals of the other library, which subtracts numbers that are equal up to rounding.
WEAK_DIAGONAL = 5e-8
SLOW = re.compile("img|_num_|edge_tanh")
EVERY = [
    pytest.param(
        case,
        id=case["name"],
        marks=[pytest.mark.slow] if SLOW.search(case["name"]) and case["name"] not in QUICK else [],
    )
    for case in CASES
]


@pytest.mark.parametrize("case", EVERY)
def test_float64(case):
    layer, data = stax.from_spec(case["spec"]), arrays(case["name"])
    with jax.enable_x64(True):
        few = 3 if data["x1"].ndim > 2 else None  # images are many pairs of positions each
        data = {key: value[:few, :few] if value.ndim == 2 else value[:few] for key, value in data.items()}
        x1, x2 = jnp.asarray(data["x1"]), jnp.asarray(data["x2"])
        rows, columns = (index.ravel() for index in np.indices((len(x1), len(x2))))
        exact = paired_kernel(layer, x1[rows], x2[columns], NAMES)
        fast, doubt = outer_kernel(layer, x1, x2, NAMES, doubting=True)
        own = paired_kernel(layer, x1, x1, NAMES, itself=True)
    certain = np.asarray(doubt) == 0
    for name in NAMES:
        assert error(exact[name].reshape(len(x1), len(x2)), data[name]) < 1e-10
        assert error(fast[name], data[name], certain) < 1e-10
        diagonal = error(own[name][None], np.diag(data[f"{name}11"])[None])
        assert diagonal < (1e-10 if case["independent"] else WEAK_DIAGONAL)


@pytest.mark.parametrize("case", CASES[:112:16], ids=lambda case: case["name"])
def test_kernel_fn_in_both_precisions(case):
    kernel_fn, data = stax.from_spec(case["spec"]).kernel_fn, arrays(case["name"])
    wide, narrow = kernel_fn(data["x1"]), kernel_fn(data["x1"].astype(np.float32))
    for name in NAMES:
        assert getattr(wide, name).dtype == np.float64 and getattr(narrow, name).dtype == np.float32
        exact = np.asarray(getattr(wide, name))
        assert error(exact, data[f"{name}11"]) < (1e-10 if case["independent"] else WEAK_DIAGONAL)
        assert error(np.asarray(getattr(narrow, name)), exact) < 1e-5
        assert np.array_equal(exact, exact.T)
