"""The one integrator that runs all laws, and the steps that laws are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64
from scipy.linalg import expm

from neuralmech.laws.system import Array, Hyperparameters, Law, PerRow, Transition


class Integration:
    """A law run over a record in blocks; memory does not grow with the record.

    Each call to `advance` takes the next rows and returns the law's charges there.
    """

    def __init__(self, law: Law, *, translation: bool, signals: Sequence[str] = ()) -> None:
        self._law = law
        self._translation = translation
        order = law.in_order(translation=translation)
        self._columns = [order.index(signal) for signal in signals]
        self._state: Array | None = None
        self._work: Array | None = None

    def advance(
        self,
        h: Hyperparameters,
        value: Float64[Array, " charges"],
        inputs: Float64[Array, "rows inputs charges"],
        following: Float64[Array, " charges"] | None = None,
    ) -> Float64[Array, "rows charges"]:
        """Charges predicted at the block's rows.

        Parameters
        ----------
        h
            Hyperparameters of the rows.
        value
            Measured charges at the block's first row; used once, at the first row of the record or of a window.
        inputs
            Drives, shape (rows, inputs, charges), in the order of `signals`.
        following
            Where a window of the record starts in the middle of the run: the measured charges at its second row.
        """
        return self._law.observe(self.states(h, value, inputs, following)[:, 0].copy())

    def states(
        self,
        h: Hyperparameters,
        value: Float64[Array, " charges"],
        inputs: Float64[Array, "rows inputs charges"],
        following: Float64[Array, " charges"] | None = None,
    ) -> Float64[Array, "rows states charges"]:
        """All states at the block's rows: a view, good until the next block.

        State and inputs lie together, so that a step is one product: x_{k+1} = [Φ_k Γ_k] (x_k, w_k).
        """
        phi, gamma = self._law.matrices(h, translation=self._translation)
        step = np.concatenate([phi, gamma[:, :, self._columns]], axis=2)
        if self._state is None or following is not None:
            self._state = self._law.initial(value, inputs[0], h[:1], translation=self._translation)
        if following is not None:
            _set_in_motion(self._state, step[0], inputs[0], following)
        states, charges = self._state.shape
        shape = (len(h) + 1, states + inputs.shape[1], charges)
        if self._work is None or self._work.shape != shape:
            self._work = np.zeros(shape)
        work = self._work
        work[:-1, states:] = inputs
        work[0, :states] = self._state
        for matrix, now, new in zip(step, work, work[1:, :states], strict=False):
            np.matmul(matrix, now, out=new)
        self._state = work[-1, :states].copy()
        return work[:-1, :states]


def _set_in_motion(state: Array, step: Array, inputs: Array, following: Array) -> None:
    """Choose the last number of a law's state so that its first step ends at the measured charge.

    In the middle of a run the momentum buffer is not empty. A law of second order needs a position and a velocity,
    and the first two rows of a window are both; from there on it is on its own.
    """
    if len(state) > 1:
        weight, state[-1] = step[0, len(state) - 1], 0.0
        rest = following - step[0] @ np.concatenate([state, inputs])
        state[-1] = rest / weight if weight else 0.0


def zero_order_hold(
    a: Float64[Array, "rows states states"], b: Float64[Array, "rows states inputs"], duration: PerRow
) -> Transition:
    """Exact step of x' = a x + b w over `duration` with w held.

    ``expm([[a, b], [0, 0]]·duration) = [[Φ, Γ], [0, 1]]``, so over-, critically and under-damped systems and
    singular a need no branches.

    Examples
    --------
    >>> phi, gamma = zero_order_hold(np.array([[[-1.0]]]), np.array([[[1.0]]]), np.array([2.0]))
    >>> np.allclose([phi[0, 0, 0], gamma[0, 0, 0]], [np.exp(-2), 1 - np.exp(-2)])
    True
    """
    rows, states, inputs = b.shape
    system = np.zeros((rows, states + inputs, states + inputs))
    system[:, :states, :states] = a
    system[:, :states, states:] = b
    system *= duration[:, None, None]
    flat = system.reshape(rows, -1)
    constant = bool((flat == flat[0]).all())  # then one exponential serves all rows
    step = np.broadcast_to(expm(system[0]), system.shape) if constant else expm(system)
    return step[:, :states, :states], step[:, :states, states:]


def repeat(step: Callable[[Hyperparameters], Transition], h: Hyperparameters) -> Transition:
    """Compose a law's one-step map over each row's span, the inputs held; only its first step can be the run's."""
    phi, gamma = step(h)
    if (h.span == 1).all():
        return phi, gamma
    rest = joined(*step(replace(h, first=np.zeros_like(h.first))))
    powers = np.stack([np.linalg.matrix_power(m, max(int(n) - 1, 0)) for m, n in zip(rest, h.span, strict=True)])
    states = phi.shape[1]
    out = powers @ joined(phi, gamma)
    out[h.span == 0] = np.eye(out.shape[1])
    return out[:, :states, :states], out[:, :states, states:]


def joined(
    phi: Float64[Array, "rows states states"], gamma: Float64[Array, "rows states inputs"]
) -> Float64[Array, "rows states+inputs states+inputs"]:
    """[[Φ, Γ], [0, 1]]: the step with its inputs, held, in the state."""
    states, inputs = gamma.shape[1:]
    step = np.zeros((len(phi), states + inputs, states + inputs))
    step[:, :states, :states], step[:, :states, states:] = phi, gamma
    step[:, states:, states:] = np.eye(inputs)
    return step
