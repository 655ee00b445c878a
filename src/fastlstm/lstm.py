"""The LSTM layer: parameters, layers, directions, lengths and states over the time loop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastlstm import _scratch
from fastlstm._dropout import Dropouts, Masks
from fastlstm._sequences import Sequences, check_sequences, check_state, state_shape
from fastlstm._stack import Stack
from fastlstm._validate import (
    Array,
    Shape,
    check_array,
    check_dtype,
    check_extent,
    check_flag,
    check_given_generator,
    check_number,
    check_pair,
    check_size,
)
from fastlstm._variants import (
    Variant,
    check_activations,
    check_zoneout,
    initial_parameters,
    pair_of,
)
from fastlstm._weights import WeightCache
from fastlstm.parameters import Layer
from fastlstm.stream import Stream, VariantStream
from fastlstm.tape import Tape, check_tape

State = tuple[Array, Array]


class LSTM(Layer):
    """Long short-term memory, with the parameters and shapes of ``torch.nn.LSTM``.

    For each step t, layer and direction::

        i = σ(W_ii x + b_ii + W_hi h + b_hi)      f = σ(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)   o = σ(W_io x + b_io + W_ho h + b_ho)
        c = f ⊙ c + i ⊙ g                         h = o ⊙ tanh(c)

    Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000.
    The input of a layer above the first is the output of the layer below it.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of a step of the input (I) and of the hidden state (H).
    num_layers : int
        Layers, one on top of another.
    bias : bool
        Whether the gates have the biases b_ih and b_hh.
    batch_first : bool
        Whether x and the output are (B, T, features) instead of (T, B, features). States are
        (layers · directions, B, H) either way.
    dropout : float
        Probability with which an output of every layer but the last is zeroed (the others are
        scaled by 1 / (1 - dropout)) in a `forward` that is given a generator.
    bidirectional : bool
        Whether each layer also has a second direction, which runs from the last valid step to the
        first and whose h stands behind that of the first direction in the output.
    reverse : bool
        Whether all layers run from the last valid step to the first. x and the output stay in the
        order of time; h_n and c_n are the states after the first valid step.
    proj_size : int
        Features P < H of a projected h = W_hr (o ⊙ tanh(c)) (Sak, Senior & Beaufays 2014), which
        outputs and states then have instead of H; 0 for none.
    peepholes : bool
        Whether gates see the cell state: i and f see c_{t-1}, o sees c_t, each unit its own, times
        a weight (Gers, Schraudolph & Schmidhuber 2002).
    clip : float, optional
        Pre-activations of the gates stay in [-clip, clip], as ONNX's ``clip`` has it.
    input_forget : bool
        Whether the forget gate is coupled to the input gate, f = 1 - i, as ONNX's ``input_forget``
        has it (Greff et al. 2017); the rows of f in weights and biases then have no effect.
    activations : sequence of three
        In place of σ of the gates, tanh of g, and tanh of c (ONNX's f, g, h). Each is a name or a
        tuple (name, alpha, beta) whose numbers have ONNX's defaults: sigmoid, tanh, relu,
        softsign, softplus; (leaky_relu, 0.01), (thresholded_relu, 1), (elu, 1), (affine, 1, 0),
        (scaled_tanh, 1, 1), (hard_sigmoid, 0.2, 0.5).
    layer_norm : bool
        Layer normalisation N (Ba, Kiros & Hinton 2016, with 1e-5 added to the variance):
        pre-activations are gain_ih ⊙ N(W_ih x) + b_ih + gain_hh ⊙ N(W_hh h) + b_hh, each over all
        four gates, and h = o ⊙ tanh(gain_c ⊙ N(c) + bias_c).
    input_dropout : float
        Probability with which a feature of the first layer's input is zeroed (the others are
        scaled likewise) at all steps of a sequence, as Keras' ``dropout`` does.
    locked_dropout : bool
        Whether `dropout`, too, zeroes the same features at all steps of a sequence (Gal &
        Ghahramani 2016).
    recurrent_dropout : float
        Probability with which a unit of h_{t-1} is zeroed before W_hh (the others are scaled
        likewise) at all steps of a sequence, in each layer and direction (Gal & Ghahramani 2016).
    weight_dropout : float
        Probability with which an element of each weight_hh is zeroed (the others are scaled
        likewise) for a whole `forward` (DropConnect, as Merity, Keskar & Socher 2018 use it).
    zoneout : float or pair of float
        Probability with which a unit of c, and of h, keeps its value of the step before (Krueger
        et al. 2017); a pair is for c and for h. Without a generator the expectation takes its
        place, also in a call.
    dtype : numpy.float32 or numpy.float64
        Of parameters, inputs and outputs.
    rng : numpy.random.Generator or int, optional
        Draws the initial parameters from U(-1/√H, 1/√H); an int is a seed.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, … : numpy.ndarray
        Of shapes (4H, I), (4H, H), (4H,), (4H,), rows in the order i, f, g, o; l1 and so on for
        the layers above (with the width of the layer below for I), a suffix ``_reverse`` for the
        second direction. Read-only: see `editing`, `load_state_dict`. Options bring more of them:
        weight_hr_l0 (P, H); peephole_l0 (3H,), of i, f, o; gain_ih_l0, gain_hh_l0 (4H,), gain_c_l0
        and bias_c_l0 (H,). With proj_size, weight_hh_l0 is (4H, P).

    Examples
    --------
    >>> import numpy as np
    >>> lstm = LSTM(3, 4, rng=0)
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> output, (h_n, c_n) = lstm(x)
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
        reverse: bool = False,
        proj_size: int = 0,
        peepholes: bool = False,
        clip: float | None = None,
        input_forget: bool = False,
        activations: Sequence[str | Sequence[Any]] = ("sigmoid", "tanh", "tanh"),
        layer_norm: bool = False,
        input_dropout: float = 0.0,
        locked_dropout: bool = False,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
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
        self.reverse = check_flag("reverse", reverse)
        if self.reverse and self.bidirectional:
            raise ValueError(
                "reverse: expected False with bidirectional=True, whose second direction is the "
                "reverse one, got True"
            )
        self.proj_size = check_size("proj_size", proj_size, least=0, most=self.hidden_size - 1)
        self.peepholes = check_flag("peepholes", peepholes)
        self.clip = None if clip is None else check_number("clip", clip, above=0)
        self.input_forget = check_flag("input_forget", input_forget)
        self.activations = check_activations(activations)
        self.layer_norm = check_flag("layer_norm", layer_norm)
        self.input_dropout = check_number("input_dropout", input_dropout, least=0, most=1)
        self.locked_dropout = check_flag("locked_dropout", locked_dropout)
        self.recurrent_dropout = check_number(
            "recurrent_dropout", recurrent_dropout, least=0, most=1
        )
        self.weight_dropout = check_number("weight_dropout", weight_dropout, least=0, most=1)
        self.zoneout = check_zoneout(zoneout)
        self.dtype = check_dtype("dtype", dtype)
        self._stack = Stack(
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bidirectional,
            self.bias,
            self.dtype,
            self.reverse,
            Variant(
                self.proj_size,
                self.peepholes,
                self.clip,
                self.input_forget,
                self.activations,
                self.layer_norm,
                pair_of(self.zoneout),
            ),
        )
        check_extent("hidden_size", 4 * self.hidden_size, self._stack.width)
        check_extent("input_size", 4 * self.hidden_size, self.input_size)
        widest = max(self.input_size, self._stack.width) + self.hidden_size
        check_extent("num_layers", self.num_layers, 4 * self._stack.width, widest)
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                "dropout acts between layers: with num_layers=1 it has no effect", stacklevel=2
            )
        self._dropouts = Dropouts(
            self.input_dropout,
            self.dropout,
            self.locked_dropout,
            self.weight_dropout,
            self.recurrent_dropout,
            pair_of(self.zoneout),
        )
        shapes = self._stack.parameter_shapes()
        bound = 1 / math.sqrt(self.hidden_size)
        self._begin(
            rng, shapes, self.dtype, lambda rng: initial_parameters(rng, shapes, bound, self.dtype)
        )
        self._weights = WeightCache(self._parameters)

    @classmethod
    def from_gates(
        cls,
        W_f: Array,
        b_f: Array,
        W_i: Array,
        b_i: Array,
        W_C: Array,
        b_C: Array,
        W_o: Array,
        b_o: Array,
        *,
        batch_first: bool = False,
    ) -> LSTM:
        """One layer from weights over the concatenation [h_{t-1}, x_t], a matrix for each gate.

        Parameters
        ----------
        W_f, W_i, W_C, W_o : ndarray (H, H + I)
            Weights of the forget gate, the input gate, the candidate cell state and the output
            gate; columns for h first, then for x. All of one dtype, float32 or float64.
        b_f, b_i, b_C, b_o : ndarray (H,)
            Their biases. They become bias_ih_l0; bias_hh_l0 is zero.
        batch_first : bool
            As in `LSTM`.

        Raises
        ------
        TypeError
            If an argument is no array, or the dtypes differ.
        ValueError
            If the shapes do not belong together.
        """
        if not isinstance(W_f, np.ndarray):
            raise TypeError(f"W_f: expected a numpy.ndarray, got a {type(W_f).__name__}")
        dtype = check_dtype("W_f", W_f.dtype)
        hidden, width = check_array("W_f", W_f, dtype, ("H", "H + I")).shape
        if hidden == 0 or width <= hidden:
            raise ValueError(f"W_f: expected shape (H, H + I) with H, I >= 1, got {W_f.shape}")
        weights = {"W_i": W_i, "W_f": W_f, "W_C": W_C, "W_o": W_o}
        biases = {"b_i": b_i, "b_f": b_f, "b_C": b_C, "b_o": b_o}
        for name, weight in weights.items():
            check_array(name, weight, dtype, (hidden, width))
        for name, bias in biases.items():
            check_array(name, bias, dtype, (hidden,))
        stacked = np.concatenate(list(weights.values()))
        lstm = cls(width - hidden, hidden, batch_first=batch_first, dtype=dtype, rng=0)
        lstm.load_state_dict(
            {
                "weight_ih_l0": stacked[:, hidden:],
                "weight_hh_l0": stacked[:, :hidden],
                "bias_ih_l0": np.concatenate(list(biases.values())),
                "bias_hh_l0": np.zeros(4 * hidden, dtype),
            }
        )
        return lstm

    # --- the face ---------------------------------------------------------------------------------

    def __call__(
        self,
        x: Array,
        state: State | None = None,
        *,
        lengths: Array | int | None = None,
        mask: Array | None = None,
    ) -> tuple[Array, State]:
        """Infer: run the sequences and keep nothing for backward. Dropout does not act.

        Parameters
        ----------
        x : ndarray (T, B, I), or (B, T, I) with batch_first, or (T, I) for a single sequence
            The sequences, of the layer's dtype, in any memory layout.
        state : pair of ndarray (layers · directions, B, H), optional
            Initial (h_0, c_0); without the axis B for a single sequence. Zeros by default.
        lengths : ndarray of integers (B,), optional
            Valid steps of each sequence, in any order, from 0 to T. What lies past an end is never
            read; the output there is zero. An int for a single sequence.
        mask : ndarray of bool (T, B), or (B, T) with batch_first, or (T,), optional
            Instead of `lengths`: which steps are valid, wherever they are. A step that is not (a
            hole) is left out in all layers, and x is never read there: the state is held, and
            the output is that of the valid step before, in the order in which its direction runs;
            zero where there is none. So does Keras' LSTM; its Bidirectional has zeros at holes
            where it returns sequences: ``output * mask[..., np.newaxis]``.

        Returns
        -------
        output : ndarray (T, B, directions · H), or (B, T, …), or (T, …)
            h of the last layer at each step.
        state : pair of ndarray (layers · directions, B, H)
            (h_n, c_n): the states after the last valid step of each sequence (after the first
            valid one with `reverse`, and for the second direction); the initial state where no
            step is valid.

        Raises
        ------
        TypeError
            If an argument is no array, or has another dtype; nothing is cast silently.
        ValueError
            If a shape or a length does not fit, or both `lengths` and `mask` are given.
        """
        sequences, rows, h, c = self._check_batch(x, state, lengths, mask)
        output, _ = self._stack.forward(
            self._weights, sequences.packing, rows, h, c, zero_state=state is None, keep=False
        )
        unpacked = sequences.unpack_output(output, self._stack.backwards)
        return unpacked, _unpack_states(sequences, h, c)

    def forward(
        self,
        x: Array,
        state: State | None = None,
        *,
        lengths: Array | int | None = None,
        mask: Array | None = None,
        rng: np.random.Generator | None = None,
        checkpoint: bool = False,
    ) -> tuple[Array, State, Tape]:
        """Run the sequences, to the same bits as a call, and keep what `backward` needs.

        Parameters
        ----------
        x, state, lengths, mask
            As for a call.
        rng : numpy.random.Generator, optional
            Draws the dropout masks; without it no dropout acts.
        checkpoint : bool
            Whether `backward` shall make gates and cell states anew, about √T steps at a time, so
            that the tape holds little more than inputs and outputs: of each direction, the cell
            states at √T steps instead of gates and cell states at T. A training step takes about
            a third longer. On the packed kernels gradients have the same bits either way. Serves
            the plain cell: without projection, peepholes, clip, coupled gates, other activations,
            layer normalisation, zoneout, or `recurrent_dropout` that acts.

        Returns
        -------
        output, state
            As for a call.
        tape : Tape
            For one `backward`. Holds copies: what was handed in and out may be changed.

        Raises
        ------
        TypeError, ValueError
            As for a call; a ValueError also for `checkpoint` where it does not serve.
        """
        masks = Masks(self._dropouts, check_given_generator("rng", rng))
        if check_flag("checkpoint", checkpoint) and not self._stack.is_plain(masks):
            raise ValueError(f"checkpoint: serves plain cells alone, see forward; this is {self!r}")
        sequences, rows, h, c = self._check_batch(x, state, lengths, mask)
        if np.may_share_memory(rows, x):
            rows = _scratch.copy(rows)
        output, layers = self._stack.forward(
            self._weights, sequences.packing, rows, h, c,
            zero_state=state is None, keep=True, checkpoint=checkpoint, masks=masks,
        )  # fmt: skip
        unpacked = sequences.unpack_output(output.copy(), self._stack.backwards)
        tape = Tape(self, self._parameters.version, (sequences, layers), unpacked.shape)
        return unpacked, _unpack_states(sequences, h, c), tape

    def backward(
        self,
        tape: Tape,
        d_output: Array | None,
        d_state: tuple[Array | None, Array | None] | None = None,
    ) -> tuple[Array, State, dict[str, Array]]:
        """Carry a loss's gradients back through time (BPTT); docs/backward.md derives it.

        Parameters
        ----------
        tape : Tape
            Of the `forward` to differentiate; used up by this call.
        d_output : ndarray like the output, or None
            Gradient of the loss with respect to the output. What lies past an end of `lengths`
            is never read; that of a mask's hole goes to the step whose output it has. None stands
            for zeros.
        d_state : pair of ndarray like (h_n, c_n), optional
            Gradients with respect to the final states. None, also as a member, stands for zeros.

        Returns
        -------
        d_x : ndarray like x
            Zero past the ends, and at a mask's holes.
        d_state : pair of ndarray like (h_0, c_0)
        grads : dict of str to ndarray
            Gradient of every parameter under its name. All arrays are fresh: nothing is
            accumulated from call to call.

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
            check_array("d_output", d_output, self.dtype, tape.d_shape)
        d_h_n, d_c_n = (None, None) if d_state is None else check_pair("d_state", d_state)
        h_shape, c_shape = self._state_shapes(tape.d_shape)
        d_h = check_state("d_state[0]", d_h_n, self.dtype, h_shape, required=False)
        d_c = check_state("d_state[1]", d_c_n, self.dtype, c_shape, required=False)

        sequences, layers = tape.take(self._parameters.version)
        if d_output is None:
            d_rows = np.zeros((sequences.packing.rows, self._stack.width), self.dtype)
        else:
            d_rows = sequences.pack_d_output(d_output, self._stack.backwards)
        d_h, d_c = self._pack_states(sequences, d_h, d_c)
        d_rows, grads = self._stack.backward(
            self._parameters, self._weights, sequences.packing, layers, d_rows, d_h, d_c
        )
        return sequences.unpack(d_rows), _unpack_states(sequences, d_h, d_c), grads

    def stream(self, batch_size: int | None = None) -> Stream:
        """Open a stream: feed single steps, and let it carry the state, from zeros on.

        Parameters
        ----------
        batch_size : int, optional
            Sequences (B) that run side by side, for steps (B, I). Without it, steps are (I,).

        Returns
        -------
        stream : Stream
            Its `step` takes x_t and returns h of the last layer.

        Raises
        ------
        ValueError
            If the layer is bidirectional, or has `reverse`: it would begin at the last step.
        """
        kind = Stream if self._stack.variant.plain else VariantStream
        return kind(self._stack, self._parameters, self._weights, batch_size)

    def _state_shapes(self, padded_shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of h and c, as the caller has them, beside an x or an output of this shape."""
        c_shape = state_shape(
            padded_shape, self._stack.runs, self.hidden_size, batch_first=self.batch_first
        )
        return (*c_shape[:-1], self._stack.state_size), c_shape

    def _check_batch(
        self, x: object, state: object, lengths: object, mask: object
    ) -> tuple[Sequences, Array, Array, Array]:
        """The layout of the batch, packed rows of x, and copies of h_0 and c_0 (runs, B, H)."""
        padded, sequences = check_sequences(
            x, lengths, self.input_size, self.dtype, batch_first=self.batch_first, mask=mask
        )
        h_shape, c_shape = self._state_shapes(padded.shape)
        h_0: Any = None
        c_0: Any = None
        if state is not None:
            h_0, c_0 = check_pair("state", state)
            h_0 = check_array("state[0] (h_0)", h_0, self.dtype, h_shape)
            c_0 = check_array("state[1] (c_0)", c_0, self.dtype, c_shape)
        return sequences, sequences.pack(padded), *self._pack_states(sequences, h_0, c_0)

    def _pack_states(self, sequences: Sequences, h: Array | None, c: Array | None) -> State:
        """Copies in packed order, of zeros for None."""
        return (
            self._pack_state(sequences, h, self._stack.state_size),
            self._pack_state(sequences, c, self.hidden_size),
        )

    def _pack_state(self, sequences: Sequences, state: Array | None, size: int) -> Array:
        if state is None:
            return np.zeros((self._stack.runs, sequences.packing.batch, size), self.dtype)
        return sequences.pack_state(state)


def _unpack_states(sequences: Sequences, h: Array, c: Array) -> State:
    return sequences.unpack_state(h), sequences.unpack_state(c)
