"""The leading eigenpairs of a Gram matrix of any size: block Krylov iteration over products that the workers compute.

`ntk.linalg.block_krylov` has the mathematics. After each product the new block and the small matrices are stored, so
that a killed run goes on at its last pass. Pairs that converged are multiplied once more, and checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh

from ntk.linalg import block_krylov
from ntk.linalg.block_krylov import KrylovState
from ntk.linalg.gates import orthogonality_gate, tolerance_gate
from ntk.spectral.stability import noise_floor
from pipeline.errors import GateError
from pipeline.plan.spectrum import KRYLOV_BLOCKS, block_width
from pipeline.stages.operator import GramOperator, stored_operator
from pipeline.stages.session import Session
from pipeline.stages.spectrum_arrays import (
    EIGENVALUES,
    EIGENVECTORS,
    Found,
    Request,
    is_stored,
    make_spectrum_array,
    spectrum_array,
)
from pipeline.stages.spectrum_count import inertia_gate
from pipeline.stages.worker import Stopwatch, stored_record
from pipeline.store.scratch import PASSING

TOLERANCE = 1e-8
"""Residual ‖K v − λ v‖ relative to λ_max at which a pair counts as found; the eigenvalue is then good to its square."""

MAX_BLOCKS = KRYLOV_BLOCKS

MAX_PASSES = 100


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state, where its basis is stored, and which block is next."""

    state: KrylovState
    slots: tuple[int, ...]
    next_slot: int


class Basis:
    """The stored blocks and checkpoints of one iteration.

    Every block has a slot of its own, never written twice; blocks narrower than the first are padded with zeros.
    """

    def __init__(self, session: Session, request: Request, width: int):
        self._session = session
        self._root = f"{PASSING}/{request.kernel}-krylov"
        n, token = session.grid.n, request.print_of(EIGENVALUES)
        most = (MAX_BLOCKS + 1) * width
        self._size, self._width = most, width
        shapes = {
            "blocks": ((2 * MAX_PASSES, n, width), (1, n, width)),
            "projected": ((MAX_PASSES + 1, most, most), (1, most, most)),
            "coupling": ((MAX_PASSES + 1, width, most), (1, width, most)),
        }
        for what, (shape, chunk) in shapes.items():
            session.create(self._name(what), shape, chunk, fingerprint=token)

    def _name(self, what: str) -> str:
        return f"{self._root}/{what}"

    def write(self, slot: int, block: np.ndarray) -> None:
        padded = np.zeros((1, len(block), self._width))
        padded[0, :, : block.shape[1]] = block
        self._session.put(self._name("blocks"), (slot, 0, 0), padded)

    def read(self, slot: int, width: int) -> np.ndarray:
        return self._session.store.view(self._name("blocks"), (slot, 0, 0))[0, :, :width]

    def blocks(self, at: Checkpoint) -> Iterator[np.ndarray]:
        """The blocks of the basis, in order."""
        return (self.read(slot, width) for slot, width in zip(at.slots, at.state.widths, strict=True))

    def save(self, at: Checkpoint) -> None:
        """Store a checkpoint, whose blocks are stored already, and drop what it makes useless."""
        state, session = at.state, self._session
        key = (state.passes, 0, 0)
        projected = np.zeros((1, self._size, self._size))
        projected[0, : state.columns, : state.columns] = state.projected
        coupling = np.zeros((1, self._width, self._size))
        coupling[0, : state.coupling.shape[0], : state.coupling.shape[1]] = state.coupling
        note = {
            "slots": list(at.slots),
            "next": at.next_slot,
            "widths": list(state.widths),
            "coupling": list(state.coupling.shape),
            "norm": state.norm,
        }
        watch, store = Stopwatch(), session.store
        session.record(
            [
                stored_record(store, self._name("projected"), key, projected, watch),
                stored_record(store, self._name("coupling"), key, coupling, watch, note=note),
            ]
        )
        kept = {*at.slots, at.next_slot}
        self._drop("blocks", lambda index: index not in kept)
        for what in ("projected", "coupling"):
            self._drop(what, lambda index: index < state.passes)

    def _drop(self, what: str, useless: Any) -> None:
        name = self._name(what)
        keys = [key for key in self._session.journal.records(name) if useless(key[0])]
        if keys:
            self._session.discard(name, keys)

    def load(self) -> Checkpoint | None:
        """The last checkpoint."""
        records = self._session.journal.records(self._name("coupling"))
        if not records:
            return None
        key = max(records)
        note, store = records[key].note, self._session.store
        widths, (rows, columns) = tuple(note["widths"]), note["coupling"]
        total = sum(widths)
        projected = store.read(self._name("projected"), key)[0, :total, :total]
        coupling = store.read(self._name("coupling"), key)[0, :rows, :columns]
        state = KrylovState(projected, coupling, widths, note["norm"], key[0])
        return Checkpoint(state, tuple(note["slots"]), note["next"])

    def remove(self) -> None:
        for what in ("blocks", "projected", "coupling"):
            self._session.remove(self._name(what))


def decompose(session: Session, request: Request) -> Found:
    """Store the leading eigenpairs of a kernel.

    Raises:
        GateError: they did not converge, or a verified pair is not one.
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    if not is_stored(session, request):
        make_spectrum_array(session, request, EIGENVALUES, (request.count,))
        _find(session, request, stored_operator(session, request.kernel, "spectrum"))
    note = session.journal.records(spectrum_array(request.kernel, EIGENVALUES))[(0,)].note
    gates = note["gates"] | inertia_gate(session, request)
    # Below a Ritz value there is an eigenvalue; that none was seen says nothing.
    seen = {"indefinite": True} if note["indefinite"] else {}
    return Found(gates, figures={"passes": note["passes"]} | seen)


def _find(session: Session, request: Request, operator: GramOperator) -> None:
    n, count = session.grid.n, request.count
    width = block_width(count, n)
    basis = Basis(session, request, width)
    at = basis.load()
    if at is None:
        basis.write(0, block_krylov.start(n, width))
        at = Checkpoint(block_krylov.initial(width), (), 0)
    while not _done(at.state, count):
        if at.state.passes >= MAX_PASSES:
            pairs = block_krylov.ritz_pairs(at.state, count)
            found = int(np.count_nonzero(pairs.residuals <= TOLERANCE * pairs.values[0]))
            raise GateError(
                f"spectrum: {request.kernel}: {found} of {count} pairs converged in {MAX_PASSES} passes",
                hint="ask for fewer (spectrum.count), or use spectrum.method band or density",
            )
        at = _advance(basis, at, operator, width)
    pairs = block_krylov.ritz_pairs(at.state, count)
    vectors = block_krylov.combine(basis.blocks(at), pairs.coefficients)
    products = operator.matvec(vectors)
    least = float(eigh(at.state.projected, eigvals_only=True, subset_by_index=(0, 0))[0])
    largest = float(np.max(np.abs(pairs.values)))
    found = tolerance_gate(products, pairs.values, vectors, lambda_max=largest, tolerance=TOLERANCE)
    orthogonality = orthogonality_gate(vectors, dtype=np.float64)
    note = {
        "passes": at.state.passes + 1,
        "indefinite": least < -noise_floor(largest, n, session.spec.precision),
        "gates": {"pairs": found.to_dict(), "orthogonality": orthogonality.to_dict()},
    }
    if request.vectors:
        name = make_spectrum_array(session, request, EIGENVECTORS, (n, request.vectors))
        session.put(name, (0, 0), np.ascontiguousarray(vectors[:, : request.vectors]))
    name = spectrum_array(request.kernel, EIGENVALUES)
    values = np.ascontiguousarray(pairs.values)
    session.record([stored_record(session.store, name, (0,), values, Stopwatch(), note=note)])
    basis.remove()


def _done(state: KrylovState, count: int) -> bool:
    if state.columns < count:
        return False
    pairs = block_krylov.ritz_pairs(state, count)
    return not len(state.coupling) or block_krylov.converged(
        pairs, count, TOLERANCE, float(np.max(np.abs(pairs.values)))
    )


def _advance(basis: Basis, at: Checkpoint, operator: GramOperator, width: int) -> Checkpoint:
    """One pass: a product, a longer basis, and perhaps a compressed one."""
    state, slots, free = at.state, at.slots, at.next_slot + 1
    block = basis.read(at.next_slot, len(state.coupling))
    if len(slots) >= MAX_BLOCKS:
        state, coefficients = block_krylov.restart(state, width)
        basis.write(free, block_krylov.combine(basis.blocks(at), coefficients))
        slots, free = (free,), free + 1
    now = Checkpoint(state, slots, at.next_slot)
    product = operator.matvec(block)
    state, following = block_krylov.step(state, lambda: basis.blocks(now), block, product)
    basis.write(free, following)
    after = Checkpoint(state, (*slots, at.next_slot), free)
    basis.save(after)
    return after
