"""What infinitely wide networks, and networks linearised in their weights, predict: in memory, in closed form.

Every function takes kernels and targets of the training rows and returns a ``predict_fn`` that keeps the decomposition
it needs. Time runs in steps of gradient descent on ½ mean (f − y)², the mean over rows and outputs alike:

    f_t(x) = f_0(x) + Θ(x, X) Θ⁻¹ (I − e^{−η Θ t / y.size}) (y − f_0(X))        (Lee et al. 2019, eq. 9–11)

Arithmetic is float64 whatever comes in. Results have the dtype of the kernels, as JAX arrays where JAX can hold them
and as NumPy arrays while its x64 flag is off. The arguments of a ``predict_fn`` may be traced (jit, grad, vmap), except
for that of `gradient_descent`; the kernel and targets of the training rows may not.

`trace_axes` are the axes of the targets along which a kernel is Θ ⊗ I, so that it lacks them; a kernel over targets of
shape (n, o) has shape (n, n) for ``trace_axes=(-1,)`` and (n, n, o, o) for ``()``. Regularisation is `diag_reg` times
the mean diagonal, or `diag_reg` itself with `diag_reg_absolute_scale`. Nothing else is ever added: a kernel that is
indefinite, or singular where an inverse is needed, raises numpy.linalg.LinAlgError with λ_min and the `diag_reg` that
would do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntk.predict.ensemble import gradient_descent_mse_ensemble
    from ntk.predict.flow import ODEState, gradient_descent
    from ntk.predict.learning_rate import max_learning_rate
    from ntk.predict.mse import gradient_descent_mse
    from ntk.predict.posterior import Gaussian, gp_inference

__all__ = [
    "Gaussian",
    "ODEState",
    "gp_inference",
    "gradient_descent",
    "gradient_descent_mse",
    "gradient_descent_mse_ensemble",
    "max_learning_rate",
]

_HOME = {
    "Gaussian": "ntk.predict.posterior",
    "ODEState": "ntk.predict.flow",
    "gp_inference": "ntk.predict.posterior",
    "gradient_descent": "ntk.predict.flow",
    "gradient_descent_mse": "ntk.predict.mse",
    "gradient_descent_mse_ensemble": "ntk.predict.ensemble",
    "max_learning_rate": "ntk.predict.learning_rate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ntk.predict' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
