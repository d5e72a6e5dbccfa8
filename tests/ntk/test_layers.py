"""Every layer of the vocabulary: a rule in both interpreters, a specification that round-trips, and a closed form that
agrees with sampled networks. A layer without a case here fails `test_every_layer_has_a_case`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk.analytic.rules
import ntk.finite.rules
from ntk import stax
from ntk.analytic.kernel import outer_kernel
from ntk.errors import ArchitectureError
from ntk.finite.monte_carlo import monte_carlo_kernel_fn
from ntk.stax.layer import REGISTRY
from ntk.stax.spec import from_spec
from tests.ntk.layer_cases import CASES, SHAPES

ALL = [pytest.param(name, i, id=f"{name}-{i}") for name, cases in CASES.items() for i in range(len(cases))]
#: Cases that repeat others, for slow tests only: the first of Dense is that of Relu; the other case of ConvLocal,
#: Conv-0 and the reference kernels show what the first of ConvLocal does; the law of attention weights of another
#: function is that of the first.
SLOW = (("Dense", 0), ("ConvLocal", 0), ("GlobalSelfAttention", 1), ("GlobalSelfAttention", 2))
SAMPLED = [
    pytest.param(*case.values, id=case.id, marks=[pytest.mark.slow] if case.values in SLOW else [])
    for case in ALL
]


def test_every_layer_has_a_case():
    assert set(CASES) == set(REGISTRY)
    assert CASES["Dense"][0].network == CASES["Relu"][0].network
    assert {case.values[0] for case in SAMPLED if not case.marks} == set(REGISTRY)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_layer_has_rules(name):
    kind = REGISTRY[name]
    assert ntk.analytic.rules.propagate.dispatch(kind) is not ntk.analytic.rules.propagate.dispatch(object)
    assert ntk.finite.rules.apply.dispatch(kind) is not ntk.finite.rules.apply.dispatch(object)


@pytest.mark.parametrize(("name", "i"), ALL)
def test_specification_round_trips(name, i):
    network = CASES[name][i].network
    if CASES[name][i].writable:
        assert from_spec(network.to_spec()) == network
        assert stax.fingerprint(network) == stax.fingerprint(from_spec(network.to_spec()))
    else:
        with pytest.raises(ArchitectureError, match="written down"):
            network.to_spec()


@pytest.mark.parametrize(("name", "i"), SAMPLED)
def test_agrees_with_sampled_networks(name, i):
    case = CASES[name][i]
    rng = np.random.default_rng(i)
    x1 = rng.standard_normal((2, *SHAPES[case.inputs])).astype(np.float32)
    x2 = np.concatenate([x1[:1], rng.standard_normal((1, *SHAPES[case.inputs])).astype(np.float32)])
    extra = case.extra(rng) if case.extra else {}
    # The key is an argument of the compiled loop: as a constant XLA would draw all networks at compile time.
    sampled = monte_carlo_kernel_fn(
        case.network.init_fn, case.network.apply_fn, jax.random.key(7), case.samples
    )(x1, x2, **extra)
    if case.exact is not None:
        with pytest.raises(ArchitectureError, match="hint"):
            case.network.kernel_fn(x1, x2)
        exact = case.exact(x1, x2)
    elif case.whole:
        exact = case.network.kernel_fn(x1, x2)._asdict()
    else:
        exact, _ = outer_kernel(
            case.network, jnp.asarray(x1), jnp.asarray(x2), ("nngp", "ntk"), graphs=extra.get("pattern")
        )
    for name in ("nngp", "ntk"):
        expected, got = np.asarray(exact[name]), np.asarray(getattr(sampled, name))
        assert np.max(np.abs(got - expected)) < case.tolerance * np.max(np.abs(expected)) + 1e-6, (
            name,
            got,
            expected,
        )
