"""Gradient flow on any loss, by integrating its ordinary differential equation in function space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.integrate import DOP853
from scipy.linalg import eigh

from ntk.arrays import function, within
from ntk.predict.axes import Targets, floating, matrix, one_kernel, returned, wide
from ntk.predict.mse import asked_times, check_asked, check_learning_rate, finite, starting
from ntk.predict.training import checked, resolution
from ntk.tracing import concrete

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-10, 1e-12
"""Of the integration, per step; absolute in units of the largest starting output or target."""
STILL = 1e-9
"""Infinite time is reached when speed and gradient have fallen to this share of the largest they were."""
MAX_STEPS = 100_000


class ODEState(NamedTuple):
    """Outputs on training and test rows, and their velocities where there is momentum."""

    fx_train: Any = None
    fx_test: Any = None
    qx_train: Any = None
    qx_test: Any = None


def gradient_descent(
    loss: Callable[[Any, Any], Any],
    k_train_train: Any,
    y_train: Any,
    learning_rate: float = 1.0,
    momentum: float | None = None,
    trace_axes: int | Sequence[int] = (-1,),
) -> Callable[..., Any]:
    """Outputs of a network, linear in its weights, that follows gradient flow on `loss`, with heavy-ball momentum m.

        without  df/dt = −η Θ(·, X) ∇loss(f(X))                                    (Lee et al. 2019, eq. 2)
        with     dq/ds = (m − 1)/√η q − Θ(·, X) ∇loss(f(X)),  df/ds = q,  s = √η t

    Integrated by an explicit Runge–Kutta method of order 8 with steps chosen for a relative error of 1e-10 each; it
    takes a number of steps in proportion to η t λ_max(Θ) times the curvature of the loss.

    Args:
        loss: loss(f, y), a scalar, written in JAX; its gradient is taken in float64.
        k_train_train: Θ, axes in pairs, without `trace_axes`.
        y_train: targets (n, \\*outputs).
        learning_rate: η. momentum: m in [0, 1), None for none.
        trace_axes: see `ntk.predict`.

    Returns:
        ``predict_fn(t=None, fx_train_or_state_0=0., fx_test_0=None, k_test_train=None)``: outputs as in
        `gradient_descent_mse`, the axes of t first, at times t of any order. t None integrates until nothing moves any
        more and the gradient has fallen to 1e-9 of the largest it was, but along eigenvectors of Θ whose eigenvalues
        are zero to working precision, where nothing ever moves: in as many steps as the condition of Θ. An `ODEState`
        (with its own test outputs; `fx_test_0` None) is answered by an `ODEState`.

    Raises:
        ValueError: kernels, targets or states of wrong shapes, not finite or not symmetric; negative times.
        RuntimeError: the integration does not come to an end: the loss has no finite minimum or Θ is too
            ill-conditioned (t None), η t is too large, or outputs diverge.
    """
    y, k_train_train = finite(y_train, "y_train"), one_kernel(k_train_train, "k_train_train")
    targets, dtype = Targets.of(y, trace_axes), floating(k_train_train)
    theta = checked(k_train_train, targets.rows, "kernel")
    function(loss, "loss")
    check_learning_rate(learning_rate)
    if not (momentum is None or within(0, momentum, 1)):
        raise ValueError(f"momentum must be in [0, 1), or None, got {momentum!r}")
    unit, friction = (learning_rate, None) if momentum is None else (math.sqrt(learning_rate), 0.0)
    if momentum is not None:
        friction = (momentum - 1.0) / math.sqrt(learning_rate)
    slope = jax.jit(jax.grad(lambda f: loss(f, y)))

    def force(f_train: NDArray[np.float64]) -> NDArray[np.float64]:
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            return targets.columns(np.asarray(slope(f_train.reshape(y.shape))))

    def predict_fn(
        t: Any = None, fx_train_or_state_0: Any = 0.0, fx_test_0: Any = None, k_test_train: Any = None
    ) -> Any:
        concrete(
            (t, fx_train_or_state_0, fx_test_0, k_test_train),
            "what gradient_descent starts from",
            "call predict_fn outside of jit, grad and vmap: the loss and the arguments decide on its steps",
        )
        stateful = isinstance(fx_train_or_state_0, ODEState)
        if stateful and fx_test_0 is not None:
            raise ValueError("fx_test_0 belongs into the ODEState")
        given = fx_train_or_state_0 if stateful else ODEState(fx_train_or_state_0, fx_test_0)
        check_asked(given.fx_train, given.fx_test, k_test_train)
        if momentum is None and (given.qx_train is not None or given.qx_test is not None):
            raise ValueError("the ODEState has velocities (qx_train, qx_test), but momentum is None")
        kernels, shapes = [theta], [y.shape]
        if given.fx_test is not None:
            k_test_train = one_kernel(k_test_train, "k_test_train")
            kernels.append(matrix(wide(k_test_train)))
            if kernels[1].shape[1] != len(theta) or not np.isfinite(kernels[1]).all():
                raise ValueError(
                    f"k_test_train must be finite with {len(theta)} columns, got {k_test_train.shape}"
                )
            shapes.append(targets.output_shape(k_test_train.shape[::2]))
        flow = _Flow(targets, kernels, shapes, force, friction, dtype)
        times = asked_times(np.inf if t is None else t)
        start, ends_at = flow.packed(given), times.ravel() * unit
        ends = integrate(flow, start, ends_at, flow.scale(y, given))
        parts = [returned(part.reshape(*times.shape, *part.shape[1:]), dtype) for part in flow.unpacked(ends)]
        state = flow.state(parts)
        if stateful:
            return state
        asked = [f for f, start in zip(state[:2], given[:2], strict=True) if start is not None]
        return tuple(asked) if len(asked) > 1 else asked[0]

    return predict_fn


class _Flow:
    """The differential equation on one long vector: outputs (train, then test), then velocities likewise."""

    def __init__(
        self,
        targets: Targets,
        kernels: list[NDArray[np.float64]],
        shapes: list[tuple[int, ...]],
        force: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        friction: float | None,
        dtype: np.dtype,
    ) -> None:
        self.targets, self.kernels, self.shapes, self.force, self.friction = (
            targets,
            kernels,
            shapes,
            force,
            friction,
        )
        self.dtype = dtype
        self.sizes = [math.prod(shape) for shape in shapes]
        self.rows = [kernel.shape[0] for kernel in kernels]

    def velocity(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        gradient = self.force(state[: self.sizes[0]])
        pulls = [
            -self.targets.outputs(kernel @ gradient, self._row_shape(shape)).ravel()
            for kernel, shape in zip(self.kernels, self.shapes, strict=True)
        ]
        pull = np.concatenate(pulls)
        if self.friction is None:
            return pull
        moving = state[len(state) // 2 :]
        return np.concatenate([moving, pull + self.friction * moving])

    def speed(self, velocity: NDArray[np.float64]) -> float:
        """How fast the training outputs move along eigenvectors of Θ whose eigenvalues are not zero to rounding."""
        rates = velocity[: self.sizes[0]].reshape(self.shapes[0])
        return float(np.abs(self._moving.T @ self.targets.columns(rates)).max(initial=0.0))

    def gradient(self, state: NDArray[np.float64]) -> float:
        """The largest component of the gradient along the same eigenvectors."""
        return float(np.abs(self._moving.T @ self.force(state[: self.sizes[0]])).max(initial=0.0))

    @cached_property
    def _moving(self) -> NDArray[np.float64]:
        values, vectors = eigh(self.kernels[0], driver="evd")
        return vectors[:, np.abs(values) > resolution(values[-1], len(values), self.dtype)]

    def packed(self, state: ODEState) -> NDArray[np.float64]:
        outputs, velocities = (state.fx_train, state.fx_test), (state.qx_train, state.qx_test)
        count = len(self.shapes)
        parts = dict(zip(("fx_train", "fx_test")[:count], outputs, strict=False))
        if self.friction is not None:
            parts |= dict(zip(("qx_train", "qx_test")[:count], velocities, strict=False))
        shapes = self.shapes * (1 if self.friction is None else 2)
        return np.concatenate(
            [
                np.broadcast_to(starting(0.0 if part is None else part, name, shape), shape).ravel()
                for (name, part), shape in zip(parts.items(), shapes, strict=True)
            ]
        )

    def unpacked(self, states: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        count = 1 if self.friction is None else 2
        cuts = np.cumsum(self.sizes * count)[:-1]
        parts = np.split(states, cuts, axis=1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes * count, strict=True)]

    def state(self, parts: list[Any]) -> ODEState:
        both = len(self.shapes) == 2
        outputs = (parts[0], parts[1] if both else None)
        if self.friction is None:
            return ODEState(*outputs)
        return ODEState(*outputs, parts[2 if both else 1], parts[3] if both else None)

    def scale(self, y: NDArray[np.float64], state: ODEState) -> float:
        """The size of the outputs, in whose units absolute errors are measured."""
        start = self.packed(state)
        return max(
            float(np.abs(y).max()), float(np.abs(start[: sum(self.sizes)]).max()), np.finfo(float).tiny
        )

    def _row_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        keep = [axis for axis in range(-len(shape), 0) if axis not in self.targets.trace]
        return tuple(shape[axis] for axis in keep)


def integrate(
    flow: _Flow, start: NDArray[np.float64], times: NDArray[np.float64], scale: float
) -> NDArray[np.float64]:
    """The solution of u' = flow.velocity(u), u(0) = start, at every one of `times`: (times, len(start)).

    An infinite time is reached when the flow's speed and gradient have fallen to `STILL` of the largest seen.

    Raises:
        RuntimeError: more than `MAX_STEPS` steps, or the step size vanishes.
    """
    ends = np.tile(start, (len(times), 1))
    order = np.argsort(times, kind="stable")
    waiting = [index for index in order if times[index] > 0]
    if not waiting:
        return ends
    first = flow.velocity(start)
    if not first.any():
        return ends
    endless = np.isinf(times).any()
    fastest, steepest = (flow.speed(first), flow.gradient(start)) if endless else (0.0, 0.0)
    solver = DOP853(
        lambda _, u: flow.velocity(u), 0.0, start, float(times[waiting[-1]]),
        rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE * scale,
    )  # fmt: skip
    for _ in range(MAX_STEPS):
        message = solver.step()
        if solver.status == "failed":
            raise RuntimeError(f"gradient flow cannot be followed beyond t = {solver.t:.3g}: {message}")
        between = None
        while waiting and times[waiting[0]] <= solver.t:
            between = between or solver.dense_output()
            ends[waiting[0]] = solver.y if times[waiting[0]] == solver.t else between(times[waiting[0]])
            waiting.pop(0)
        if waiting and np.isinf(times[waiting[0]]):
            speed = flow.speed(solver.f)
            fastest = max(fastest, speed)
            if speed <= STILL * fastest:
                steep = flow.gradient(solver.y)
                steepest = max(steepest, steep)
                if steep <= STILL * steepest:
                    ends[waiting] = solver.y
                    return ends
        if not waiting:
            return ends
    raise RuntimeError(
        f"gradient flow is not at its end after {MAX_STEPS:,} steps, at t = {solver.t:.3g}\n"
        "hint: ask for a smaller t; for infinite time the loss must have a finite minimum and the kernel no eigenvalue "
        "that is tiny beside the largest (gradient_descent_mse takes any)"
    )
