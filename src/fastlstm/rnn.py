"""The plain tanh RNN: the baseline that forgets, where an LSTM does not."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from fastlstm import _core
from fastlstm._dropout import NO_MASKS, Dropouts, Masks, RowMask
from fastlstm._products import linear, matmul, sum_rows
from fastlstm._random import uniform_arrays
from fastlstm._sequences import Sequences, check_sequences, check_state, state_shape
from fastlstm._validate import (
    Array,
    Shape,
    check_array,
    check_dtype,
    check_extent,
    check_flag,
    check_given_generator,
    check_number,
    check_size,
)
from fastlstm._weights import PanelCache, is_packed
from fastlstm.packing import Packing
from fastlstm.parameters import Layer
from fastlstm.tape import Tape, check_tape
from fastlstm.threads import team


@dataclass(frozen=True)
class _LayerRun:
    """What backward needs of one layer."""

    x: Array  # (rows, features), after the mask
    mask: RowMask | None
    outputs: list[Array]  # (rows, H) of each direction


class RNN(Layer):
    """A recurrent layer without gates (Elman 1990), with the parameters of ``torch.nn.RNN``.

    For each step t, layer and direction::

        h = tanh(W_ih x + b_ih + W_hh h + b_hh)

    The input of a layer above the first is the output of the layer below it.
    Its gradient through T steps is a product of T Jacobians diag(1 - h²)·W_hh, which vanishes or
    explodes (Bengio, Simard & Frasconi 1994); the LSTM was made against that.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of a step of the input (I) and of the hidden state (H).
    num_layers : int
        Layers, one on top of another.
    bias : bool
        Whether the biases b_ih and b_hh are there.
    batch_first : bool
        Whether x and the output are (B, T, features) instead of (T, B, features). States are
        (layers · directions, B, H) either way.
    dropout : float
        Probability with which an output of every layer but the last is zeroed (the others are
        scaled by 1 / (1 - dropout)) in a `forward` that is given a generator.
    bidirectional : bool
        Whether each layer also has a second direction, which runs from the last valid step to the
        first and whose h stands behind that of the first direction in the output.
    dtype : numpy.float32 or numpy.float64
        Of parameters, inputs and outputs.
    rng : numpy.random.Generator or int, optional
        Draws the initial parameters from U(-1/√H, 1/√H); an int is a seed.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, … : numpy.ndarray
        Of shapes (H, I), (H, H), (H,), (H,); l1 and so on for the layers above (with the width of
        the layer below for I), a suffix ``_reverse`` for the second direction. Read-only: see
        `editing`, `load_state_dict`.

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
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        self.bias = check_flag("bias", bias)
        self.batch_first = check_flag("batch_first", batch_first)
        self.dropout = check_number("dropout", dropout, least=0, most=1)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        self.dtype = check_dtype("dtype", dtype)
        hidden = self.hidden_size
        self._directions = 2 if self.bidirectional else 1
        self._width = self._directions * hidden
        check_extent("input_size", hidden, self.input_size)
        check_extent("hidden_size", hidden, self._width)
        widest = max(self.input_size, self._width) + hidden
        check_extent("num_layers", self.num_layers, self._width, widest)
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                "dropout acts between layers: with num_layers=1 it has no effect", stacklevel=2
            )
        shapes = self._parameter_shapes()
        bound = 1 / math.sqrt(hidden)
        self._begin(
            rng, shapes, self.dtype, lambda rng: uniform_arrays(rng, shapes, bound, self.dtype)
        )
        self._panels = PanelCache(self._parameters)

    def __call__(
        self,
        x: Array,
        state: Array | None = None,
        *,
        lengths: Array | int | None = None,
        mask: Array | None = None,
    ) -> tuple[Array, Array]:
        """Infer: run the sequences and keep nothing for backward. Dropout does not act.

        Parameters
        ----------
        x : ndarray (T, B, I), or (B, T, I) with batch_first, or (T, I) for a single sequence
            The sequences, of the layer's dtype, in any memory layout.
        state : ndarray (layers · directions, B, H), optional
            Initial h_0; without the axis B for a single sequence. Zeros by default.
        lengths : ndarray of integers (B,), optional
            Valid steps of each sequence, in any order, from 0 to T. What lies past an end is never
            read; the output there is zero. An int for a single sequence.
        mask : ndarray of bool (T, B), or (B, T) with batch_first, or (T,), optional
            Instead of `lengths`: which steps are valid, wherever they are. At a hole x is never
            read, and h and the output of the valid step before are held, as in `LSTM`.

        Returns
        -------
        output : ndarray (T, B, directions · H), or (B, T, …), or (T, …)
            h of the last layer at each step.
        state : ndarray (layers · directions, B, H)
            h_n: h after the last valid step of each sequence (after the first valid one for the
            second direction); the initial state where there is none.

        Raises
        ------
        TypeError
            If an argument is no array, or has another dtype; nothing is cast silently.
        ValueError
            If a shape or a length does not fit, or both `lengths` and `mask` are given.
        """
        rows, h, sequences = self._check_batch(x, state, lengths, mask)
        output, _ = self._run(sequences.packing, rows, h, NO_MASKS, keep=False)
        return self._unpack_output(sequences, output), sequences.unpack_state(h)

    def forward(
        self,
        x: Array,
        state: Array | None = None,
        *,
        lengths: Array | int | None = None,
        mask: Array | None = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[Array, Array, Tape]:
        """Run the sequences, to the same bits as a call, and keep what `backward` needs.

        Exceptions are those of a call.

        Parameters
        ----------
        x, state, lengths, mask
            As for a call.
        rng : numpy.random.Generator, optional
            Draws the dropout masks; without it no dropout acts.

        Returns
        -------
        output, state
            As for a call.
        tape : Tape
            For one `backward`. Holds copies: what was handed in and out may be changed.
        """
        masks = Masks(Dropouts(between_layers=self.dropout), check_given_generator("rng", rng))
        rows, h, sequences = self._check_batch(x, state, lengths, mask)
        if np.may_share_memory(rows, x):
            rows = rows.copy()
        h_0 = h.copy()
        output, layers = self._run(sequences.packing, rows, h, masks, keep=True)
        unpacked = self._unpack_output(sequences, output if self.bidirectional else output.copy())
        saved = (sequences, layers, h_0)
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
        sequences, layers, h_0 = tape.take(self._parameters.version)
        packing = sequences.packing
        d_h = self._pack_state(sequences, given)
        if d_output is None:
            d_rows = np.zeros((packing.rows, self._width), self.dtype)
        else:
            d_rows = sequences.pack_d_output(d_output, self._backwards)
        grads: dict[str, Array] = {}
        for layer in reversed(range(self.num_layers)):
            own = layers.pop()
            d_x = np.empty(own.x.shape, self.dtype)
            for k in range(self._directions):
                index = layer * self._directions + k
                d_own = d_rows[:, k * self.hidden_size : (k + 1) * self.hidden_size]
                grads |= self._run_back(packing, index, own, d_own, h_0[index], d_h[index], d_x)
            if own.mask is not None:
                own.mask.times(d_x, out=d_x)
            d_rows = d_x
        grads = {name: grads[name] for name in self._parameters}
        return sequences.unpack(d_rows), sequences.unpack_state(d_h), grads

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters, as PyTorch has them and in its order."""
        hidden = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for index in range(self.num_layers * self._directions):
            suffix = self._suffix(index)
            below = self.input_size if index < self._directions else self._width
            shapes[f"weight_ih{suffix}"] = (hidden, below)
            shapes[f"weight_hh{suffix}"] = (hidden, hidden)
            if self.bias:
                shapes[f"bias_ih{suffix}"] = shapes[f"bias_hh{suffix}"] = (hidden,)
        return shapes

    def _suffix(self, index: int) -> str:
        """Of the names of the parameters whose state has this index."""
        layer, k = divmod(index, self._directions)
        return f"_l{layer}" + "_reverse" * k

    @property
    def _backwards(self) -> tuple[bool, ...]:
        """Of each direction: whether it runs from the last step to the first."""
        return (False, True)[: self._directions]

    def _state_shape(self, padded_shape: Shape) -> tuple[int, ...]:
        runs = self.num_layers * self._directions
        return state_shape(padded_shape, runs, self.hidden_size, batch_first=self.batch_first)

    def _check_batch(
        self, x: object, state: object, lengths: object, mask: object
    ) -> tuple[Array, Array, Sequences]:
        """Packed rows of x, a copy of the initial state, and the layout of the batch."""
        padded, sequences = check_sequences(
            x, lengths, self.input_size, self.dtype, batch_first=self.batch_first, mask=mask
        )
        shape = self._state_shape(padded.shape)
        given = check_state("state", state, self.dtype, shape, required=False)
        return sequences.pack(padded), self._pack_state(sequences, given), sequences

    def _pack_state(self, sequences: Sequences, state: Array | None) -> Array:
        """A copy (layers · directions, B, H) in packed order, of zeros for None."""
        if state is None:
            runs = self.num_layers * self._directions
            return np.zeros((runs, sequences.packing.batch, self.hidden_size), self.dtype)
        return sequences.pack_state(state)

    def _unpack_output(self, sequences: Sequences, rows: Array) -> Array:
        return sequences.unpack_output(rows, self._backwards)

    def _run(
        self, packing: Packing, x: Array, h: Array, masks: Masks, *, keep: bool
    ) -> tuple[Array, list[_LayerRun]]:
        """All layers: (rows, I) -> (rows, directions · H), and what backward needs if `keep`.

        h (layers · directions, B, H) comes as the initial state and becomes the final one.
        """
        layers = []
        for layer in range(self.num_layers):
            mask = masks.on_input(packing, x, first=layer == 0)
            if mask is not None:
                x = mask.times(x, out=np.empty_like(x))
            first = layer * self._directions
            outputs = [
                self._run_direction(packing, index, x, h[index])
                for index in range(first, first + self._directions)
            ]
            if keep:
                layers.append(_LayerRun(x, mask, outputs))
            x = np.concatenate(outputs, axis=1) if self.bidirectional else outputs[0]
        return x, layers

    def _run_direction(self, packing: Packing, index: int, x: Array, h: Array) -> Array:
        """(rows, features) -> all h (rows, H); h (B, H) becomes the last one of each sequence."""
        weights, suffix = self._parameters, self._suffix(index)
        ih, hh = f"weight_ih{suffix}", f"weight_hh{suffix}"
        bias = weights[f"bias_ih{suffix}"] + weights[f"bias_hh{suffix}"] if self.bias else None
        output = linear(x, weights[ih], bias, self._panels.transposed(ih))
        for start, alive in _steps(packing, backwards=index % self._directions == 1):
            step = output[start : start + alive]
            self._multiply(h[:alive], hh, out=step, transposed=True, accumulate=True)
            np.tanh(step, out=step)
            # Sequences that are not under way at this step are not among the first ones.
            h[:alive] = step
        return output

    def _run_back(
        self,
        packing: Packing,
        index: int,
        own: _LayerRun,
        d_output: Array,
        h_0: Array,
        d_h: Array,
        d_x: Array,
    ) -> dict[str, Array]:
        """Gradients of one direction's parameters.

        d_h (B, H) comes as the gradient of the final state and becomes that of the initial one.
        The first direction writes d_x, the second adds to it.
        """
        k, suffix = index % self._directions, self._suffix(index)
        backwards, output = k == 1, own.outputs[k]
        ih, hh = f"weight_ih{suffix}", f"weight_hh{suffix}"
        with np.errstate(all="ignore"):  # gradients explode here, and may be infinite
            d_sums = 1 - output * output  # of what tanh was taken of
            for start, alive in _steps(packing, backwards=not backwards):
                step = d_sums[start : start + alive]
                step *= d_output[start : start + alive] + d_h[:alive]
                self._multiply(step, hh, out=d_h[:alive], transposed=False, accumulate=False)
        h_prev = np.empty_like(output)
        _core.previous_h(h_prev, output, h_0, packing.offsets, 0, len(packing.active), backwards)
        matmul(d_sums, self._parameters[ih], out=d_x, accumulate=backwards)
        grads = {
            ih: matmul(d_sums, own.x, transpose_a=True),
            hh: matmul(d_sums, h_prev, transpose_a=True),
        }
        if self.bias:
            grads[f"bias_ih{suffix}"] = sum_rows(d_sums)
            grads[f"bias_hh{suffix}"] = grads[f"bias_ih{suffix}"].copy()
        return grads

    def _multiply(
        self, a: Array, name: str, *, out: Array, transposed: bool, accumulate: bool
    ) -> None:
        """a·W, or a·Wᵀ, of the parameter W of this name, into `out` or added to it."""
        if not is_packed(self.dtype):
            weight = self._parameters[name]
            matmul(a, weight, transpose_b=transposed, out=out, accumulate=accumulate)
        elif len(a):
            panels = self._panels.matrix(name, transposed=transposed)
            with team(2.0 * a.size * out.shape[1], blas=False) as threads:
                _core.matmul_panels(out, None, a, panels, accumulate, threads)


def _steps(packing: Packing, *, backwards: bool) -> list[tuple[int, int]]:
    """The first row of each step and how many sequences have it, in the order of a direction."""
    steps = list(zip(packing.offsets[:-1].tolist(), packing.active.tolist(), strict=True))
    return steps[::-1] if backwards else steps
