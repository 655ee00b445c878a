"""A single step of an LSTM, for loops that are the caller's own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import DTypeLike

from fastlstm import _scratch
from fastlstm._random import uniform_arrays
from fastlstm._sequences import check_state
from fastlstm._stack import Stack
from fastlstm._validate import (
    Array,
    check_array,
    check_dtype,
    check_extent,
    check_flag,
    check_pair,
    check_size,
    compact,
)
from fastlstm._weights import WeightCache
from fastlstm.packing import Packing
from fastlstm.parameters import Layer
from fastlstm.tape import Tape, check_tape

State = tuple[Array, Array]


class LSTMCell(Layer):
    """One step of an LSTM, with the parameters and shapes of ``torch.nn.LSTMCell``.

    For networks that do something between the steps, such as a decoder that attends, or one whose
    input depends on its own output. A sequence that is there as a whole is an `LSTM`'s, and
    inference step by step is `LSTM.stream`'s: both take much less time a step. The step is that of
    a layer of `LSTM`, to the bit on the packed kernels.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of the input (I) and of the state (H).
    bias : bool
        Whether the gates have the biases b_ih and b_hh.
    dtype : numpy.float32 or numpy.float64
        Of parameters, inputs and outputs.
    rng : numpy.random.Generator or int, optional
        Draws the initial parameters from U(-1/√H, 1/√H); an int is a seed.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : numpy.ndarray
        Of shapes (4H, I), (4H, H), (4H,), (4H,), rows in the order i, f, g, o. Read-only: see
        `editing`, `load_state_dict`.

    Examples
    --------
    >>> import numpy as np
    >>> cell = LSTMCell(3, 4, rng=0)
    >>> state = None
    >>> for x_t in np.ones((5, 2, 3), np.float32):
    ...     h, c = state = cell(x_t, state)
    >>> h.shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.bias = check_flag("bias", bias)
        self.dtype = check_dtype("dtype", dtype)
        check_extent("hidden_size", 4 * self.hidden_size, self.hidden_size)
        check_extent("input_size", 4 * self.hidden_size, self.input_size)
        self._stack = _Step(self.input_size, self.hidden_size, 1, False, self.bias, self.dtype)
        shapes = self._stack.parameter_shapes()
        bound = 1 / math.sqrt(self.hidden_size)
        self._begin(
            rng, shapes, self.dtype, lambda rng: uniform_arrays(rng, shapes, bound, self.dtype)
        )
        self._weights = WeightCache(self._parameters)

    def __call__(self, x: Array, state: State | None = None) -> State:
        """Infer: make one step and keep nothing for backward.

        Parameters
        ----------
        x : ndarray (B, I), or (I,) for a single sequence
            The input of this step, of the layer's dtype, in any memory layout.
        state : pair of ndarray (B, H), or (H,), optional
            (h, c) after the step before. Zeros by default.

        Returns
        -------
        state : pair of ndarray (B, H), or (H,)
            (h, c) after this step; h is the output.

        Raises
        ------
        TypeError
            If an argument is no array, or has another dtype; nothing is cast silently.
        ValueError
            If a shape does not fit.
        """
        packing, rows, h, c = self._check_step(x, state)
        self._stack.forward(
            self._weights, packing, rows, h, c, zero_state=state is None, keep=False
        )
        return _as_callers(h, x), _as_callers(c, x)

    def forward(self, x: Array, state: State | None = None) -> tuple[State, Tape]:
        """Make one step, to the same bits as a call, and keep what `backward` needs.

        Parameters and exceptions are those of a call.

        Returns
        -------
        state : pair of ndarray (B, H), or (H,)
            (h, c) after this step.
        tape : Tape
            For one `backward`. Holds copies: what was handed in and out may be changed.
        """
        packing, rows, h, c = self._check_step(x, state)
        if np.may_share_memory(rows, x):
            rows = _scratch.copy(rows)
        _, layers = self._stack.forward(
            self._weights, packing, rows, h, c, zero_state=state is None, keep=True
        )
        h, c = _as_callers(h, x), _as_callers(c, x)
        return (h, c), Tape(self, self._parameters.version, (packing, layers), h.shape)

    def backward(
        self, tape: Tape, d_h: Array | None, d_c: Array | None = None
    ) -> tuple[Array, State, dict[str, Array]]:
        """Carry a loss's gradients back through the step.

        Parameters
        ----------
        tape : Tape
            Of the `forward` to differentiate; used up by this call.
        d_h, d_c : ndarray (B, H), or (H,), or None
            Gradients of the loss with respect to h and c after the step: what comes from the step
            that followed, and from whatever else h went into. None stands for zeros.

        Returns
        -------
        d_x : ndarray like x
        d_state : pair of ndarray like (h, c)
            Gradients with respect to the state before the step.
        grads : dict of str to ndarray
            Gradient of every parameter under its name. All arrays are fresh: those of several
            steps are to be added up.

        Raises
        ------
        TypeError
            If `tape` is no tape, or a gradient is no array of the layer's dtype.
        ValueError
            If the tape is another layer's, or a gradient's shape differs from what it belongs to.
        RuntimeError
            If the tape was used before, or the weights have changed since `forward`.
        """
        check_tape(tape, self)
        shape = tuple(map(int, tape.d_shape))
        d_h = check_state("d_h", d_h, self.dtype, shape, required=False)
        d_c = check_state("d_c", d_c, self.dtype, shape, required=False)
        packing, layers = tape.take(self._parameters.version)
        d_output = np.zeros((packing.batch, self.hidden_size), self.dtype)
        d_state = self._begin_state(packing, d_h), self._begin_state(packing, d_c)
        d_x, grads = self._stack.backward(
            self._parameters, self._weights, packing, layers, d_output, *d_state
        )
        d_h_0, d_c_0 = (array.reshape(shape) for array in d_state)
        return d_x.reshape(*shape[:-1], self.input_size), (d_h_0, d_c_0), grads

    def _check_step(self, x: object, state: object) -> tuple[Packing, Array, Array, Array]:
        """The layout of the step, its rows (B, I), and copies of h and c as (1, B, H)."""
        batched = getattr(x, "ndim", 2) != 1
        rows = check_array("x", x, self.dtype, ("B", self.input_size)[not batched :])
        batch = rows.shape[:-1]
        h = c = None
        if state is not None:
            first, second = check_pair("state", state)
            h = check_array("state[0] (h)", first, self.dtype, (*batch, self.hidden_size))
            c = check_array("state[1] (c)", second, self.dtype, (*batch, self.hidden_size))
        packing = _one_step(*batch or (1,))
        rows = compact(rows).reshape(packing.batch, self.input_size)
        return packing, rows, self._begin_state(packing, h), self._begin_state(packing, c)

    def _begin_state(self, packing: Packing, state: Array | None) -> Array:
        """A copy of a state, or zeros, as (1, B, H)."""
        shape = 1, packing.batch, self.hidden_size
        if state is None:
            return np.zeros(shape, self.dtype)
        return np.array(state, order="C").reshape(shape)


@dataclass(frozen=True)
class _Step(Stack):
    """One layer whose parameters are named as those of a cell."""

    def _suffix(self, _layer: int, _k: int) -> str:
        return ""


@lru_cache(maxsize=64)
def _one_step(batch: int) -> Packing:
    check_extent("x, its batch", batch)
    return Packing(1, batch)


def _as_callers(state: Array, x: Array) -> Array:
    """(1, B, H) -> (B, H), or (H,) where x has no axis for a batch."""
    rows: Array = state[0]
    return rows[0] if x.ndim == 1 else rows
