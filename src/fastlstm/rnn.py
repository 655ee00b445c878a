"""The plain tanh RNN: the baseline that forgets, where an LSTM does not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from fastlstm import _core
from fastlstm._products import matmul, sum_rows
from fastlstm._random import uniform_arrays
from fastlstm._sequences import Sequences, check_sequences, check_state, state_shape
from fastlstm._validate import (
    Array,
    Shape,
    check_array,
    check_dtype,
    check_extent,
    check_flag,
    check_size,
)
from fastlstm.packing import Packing
from fastlstm.parameters import Layer
from fastlstm.tape import Tape, check_tape


class RNN(Layer):
    """A recurrent layer without gates (Elman 1990), with the parameters of ``torch.nn.RNN``.

    For each step t::

        h = tanh(W_ih x + b_ih + W_hh h + b_hh)

    Its gradient through T steps is a product of T Jacobians diag(1 - h²)·W_hh, which vanishes or
    explodes (Bengio, Simard & Frasconi 1994); the LSTM was made against that.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of a step of the input (I) and of the hidden state (H).
    bias : bool
        Whether the biases b_ih and b_hh are there.
    batch_first : bool
        Whether x and the output are (B, T, features) instead of (T, B, features).
    dtype : numpy.float32 or numpy.float64
        Of parameters, inputs and outputs.
    rng : numpy.random.Generator or int, optional
        Draws the initial parameters from U(-1/√H, 1/√H); an int is a seed.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0 : numpy.ndarray
        Of shapes (H, I), (H, H), (H,), (H,). Read-only: see `editing`, `load_state_dict`.

    Examples
    --------
    >>> import numpy as np
    >>> rnn = RNN(3, 4, rng=0)
    >>> output, h_n = rnn(np.ones((5, 2, 3), np.float32))
    >>> output.shape, h_n.shape, bool((output[-1] == h_n[0]).all())
    ((5, 2, 4), (1, 2, 4), True)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.bias = check_flag("bias", bias)
        self.batch_first = check_flag("batch_first", batch_first)
        self.dtype = check_dtype("dtype", dtype)
        hidden = self.hidden_size
        check_extent("input_size", hidden, self.input_size)
        check_extent("hidden_size", hidden, hidden)
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih_l0": (hidden, self.input_size),
            "weight_hh_l0": (hidden, hidden),
        }
        if self.bias:
            shapes |= {"bias_ih_l0": (hidden,), "bias_hh_l0": (hidden,)}
        bound = 1 / math.sqrt(hidden)
        self._begin(
            rng, shapes, self.dtype, lambda rng: uniform_arrays(rng, shapes, bound, self.dtype)
        )

    def __call__(
        self,
        x: Array,
        state: Array | None = None,
        *,
        lengths: Array | int | None = None,
        mask: Array | None = None,
    ) -> tuple[Array, Array]:
        """Infer: run the sequences and keep nothing for backward.

        Parameters
        ----------
        x : ndarray (T, B, I), or (B, T, I) with batch_first, or (T, I) for a single sequence
            The sequences, of the layer's dtype, in any memory layout.
        state : ndarray (1, B, H), optional
            Initial h_0; without the axis B for a single sequence. Zeros by default.
        lengths : ndarray of integers (B,), optional
            Valid steps of each sequence, in any order, from 0 to T. What lies past an end is never
            read; the output there is zero. An int for a single sequence.
        mask : ndarray of bool (T, B), or (B, T) with batch_first, or (T,), optional
            Instead of `lengths`: which steps are valid, wherever they are. At a hole x is never
            read, and h and the output of the valid step before are held, as in `LSTM`.

        Returns
        -------
        output : ndarray (T, B, H), or (B, T, H), or (T, H)
            h at each step.
        state : ndarray (1, B, H)
            h_n: h after the last valid step of each sequence; the initial state where there is
            none.

        Raises
        ------
        TypeError
            If an argument is no array, or has another dtype; nothing is cast silently.
        ValueError
            If a shape or a length does not fit, or both `lengths` and `mask` are given.
        """
        rows, h, sequences = self._check_batch(x, state, lengths, mask)
        output = self._run(sequences.packing, rows, h[0])
        return sequences.unpack_output(output), sequences.unpack_state(h)

    def forward(
        self,
        x: Array,
        state: Array | None = None,
        *,
        lengths: Array | int | None = None,
        mask: Array | None = None,
    ) -> tuple[Array, Array, Tape]:
        """Run the sequences, to the same bits as a call, and keep what `backward` needs.

        Parameters and exceptions are those of a call.

        Returns
        -------
        output, state
            As for a call.
        tape : Tape
            For one `backward`. Holds copies: what was handed in and out may be changed.
        """
        rows, h, sequences = self._check_batch(x, state, lengths, mask)
        if np.may_share_memory(rows, x):
            rows = rows.copy()
        h_0 = h[0].copy()
        output = self._run(sequences.packing, rows, h[0])
        unpacked = sequences.unpack_output(output.copy())
        saved = (sequences, rows, output, h_0)
        tape = Tape(self, self._parameters.version, saved, unpacked.shape)
        return unpacked, sequences.unpack_state(h), tape

    def backward(
        self, tape: Tape, d_output: Array | None, d_state: Array | None = None
    ) -> tuple[Array, Array, dict[str, Array]]:
        """Carry a loss's gradients back through time.

        Parameters
        ----------
        tape : Tape
            Of the `forward` to differentiate; used up by this call.
        d_output : ndarray like the output, or None
            Gradient of the loss with respect to the output. What lies past an end of `lengths`
            is never read; that of a mask's hole goes to the step whose output it has. None stands
            for zeros.
        d_state : ndarray like h_n, optional
            Gradient with respect to the final state. None stands for zeros.

        Returns
        -------
        d_x : ndarray like x
            Zero past the ends, and at a mask's holes.
        d_state : ndarray like h_0
        grads : dict of str to ndarray
            Gradient of every parameter under its name. All arrays are fresh.

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
        if d_output is not None:
            d_output = check_array("d_output", d_output, self.dtype, tape.d_shape)
        shape = self._state_shape(tape.d_shape)
        given = check_state("d_state", d_state, self.dtype, shape, required=False)
        sequences, rows, output, h_0 = tape.take(self._parameters.version)
        packing = sequences.packing
        d_h = self._pack_state(sequences, given)
        d_rows = np.zeros_like(output) if d_output is None else sequences.pack_d_output(d_output)
        d_sums = self._run_back(packing, output, d_rows, d_h[0])

        h_prev = np.empty_like(output)
        _core.previous_h(h_prev, output, h_0, packing.offsets, 0, len(packing.active), False)
        grads = {
            "weight_ih_l0": matmul(d_sums, rows, transpose_a=True),
            "weight_hh_l0": matmul(d_sums, h_prev, transpose_a=True),
        }
        if self.bias:
            grads["bias_ih_l0"] = sum_rows(d_sums)
            grads["bias_hh_l0"] = grads["bias_ih_l0"].copy()
        d_x = sequences.unpack(matmul(d_sums, self._parameters["weight_ih_l0"]))
        return d_x, sequences.unpack_state(d_h), grads

    def _state_shape(self, padded_shape: Shape) -> tuple[int, ...]:
        return state_shape(padded_shape, 1, self.hidden_size, batch_first=self.batch_first)

    def _check_batch(
        self, x: object, state: object, lengths: object, mask: object
    ) -> tuple[Array, Array, Sequences]:
        """Packed rows of x, a copy of the initial state (1, B, H), and the layout of the batch."""
        padded, sequences = check_sequences(
            x, lengths, self.input_size, self.dtype, batch_first=self.batch_first, mask=mask
        )
        shape = self._state_shape(padded.shape)
        given = check_state("state", state, self.dtype, shape, required=False)
        return sequences.pack(padded), self._pack_state(sequences, given), sequences

    def _pack_state(self, sequences: Sequences, state: Array | None) -> Array:
        if state is None:
            return np.zeros((1, sequences.packing.batch, self.hidden_size), self.dtype)
        return sequences.pack_state(state)

    def _run(self, packing: Packing, rows: Array, h: Array) -> Array:
        """(rows, I) -> all h (rows, H); h (B, H) comes as the initial state, becomes the last."""
        weights = self._parameters
        output = np.empty((packing.rows, self.hidden_size), self.dtype)
        output[...] = weights["bias_ih_l0"] + weights["bias_hh_l0"] if self.bias else 0
        matmul(rows, weights["weight_ih_l0"], transpose_b=True, out=output, accumulate=True)
        for start, alive in zip(packing.offsets, packing.active, strict=False):
            step = output[start : start + alive]
            matmul(h[:alive], weights["weight_hh_l0"], transpose_b=True, out=step, accumulate=True)
            np.tanh(step, out=step)
            # Sequences that have ended are no longer among the first ones, and keep their last h.
            h[:alive] = step
        return output

    def _run_back(self, packing: Packing, output: Array, d_output: Array, d_h: Array) -> Array:
        """Gradients (rows, H) of what tanh was taken of.

        d_h (B, H) comes as the gradient of the final state and becomes that of the initial one.
        """
        weight_hh = self._parameters["weight_hh_l0"]
        with np.errstate(all="ignore"):  # gradients explode here, and may be infinite
            d_sums = 1 - output * output
            for start, alive in zip(packing.offsets[-2::-1], packing.active[::-1], strict=True):
                step = d_sums[start : start + alive]
                step *= d_output[start : start + alive] + d_h[:alive]
                matmul(step, weight_hh, out=d_h[:alive])
        return d_sums
