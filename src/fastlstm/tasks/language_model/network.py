"""The network of a language model: ids in, logits of what comes next out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastlstm import _scratch, init
from fastlstm._products import linear, matmul, sum_rows
from fastlstm._random import dropout_mask
from fastlstm._validate import Array, check_choice, check_flag, check_number, compact
from fastlstm._weights import PanelCache
from fastlstm.layers import Embedding, Linear
from fastlstm.losses import softmax_cross_entropy, softmax_log_prob
from fastlstm.lstm import LSTM
from fastlstm.parameters import Layer, Parameters
from fastlstm.rnn import RNN
from fastlstm.tasks._base.networks import CELLS, Grads, Network, Rng, Start, begin, joined
from fastlstm.tasks.language_model.segments import Segments, begun
from fastlstm.tasks.language_model.segments import State as State

Batch = tuple[Array, ...]

# Embeddings of words begin in U(-0.1, 0.1) (Zaremba, Sutskever & Vinyals 2014): where they are the
# output's weights too, those of N(0, 1) would make a young model very sure of anything.
_RANGE = 0.1


class LanguageNetwork(Network):
    """Embedding, LSTM or RNN, and Linear, with dropout before and behind each recurrent layer.

    Parameters
    ----------
    inputs, outputs : int
        Ids that can be read, and the first of these that can come next. An id that can only be
        read is embedded as zeros and never trained: "nothing that I know".
    start : Generator, or mapping of str to ndarray
        See `fastlstm.tasks._base.networks.Start`.
    embedding_size, hidden_size, num_layers : int
    cell : {"lstm", "rnn"}
    tied : bool
        The embeddings are the weights of the output, too, and get the gradients of both (Press &
        Wolf 2017; Inan, Khosravi & Socher 2017).
    dropout : float
        Of what leaves each recurrent layer.
    input_dropout : float
        Of the embeddings.
    locked_dropout : bool
        The same features at all steps of a batch (Gal & Ghahramani 2016).
    weight_dropout : float
        Of the recurrent weights (Merity, Keskar & Socher 2018).
    small : bool
        Whether embeddings begin in U(-0.1, 0.1), not N(0, 1).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        start: Start,
        embedding_size: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: str = "lstm",
        tied: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        locked_dropout: bool = False,
        weight_dropout: float = 0.0,
        small: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.outputs = outputs
        self._dropout = check_number("dropout", dropout, least=0, below=1)
        self._input_dropout = check_number("input_dropout", input_dropout, least=0, below=1)
        self._locked = check_flag("locked_dropout", locked_dropout)
        if check_flag("tied", tied) and embedding_size != hidden_size:
            raise ValueError(
                f"tied: embeddings that are the output's weights, too, have hidden_size = "
                f"{hidden_size} numbers, got embedding_size = {embedding_size}"
            )
        self.embedding = Embedding(
            inputs, embedding_size, dtype=dtype, rng=begin(start, "embedding")
        )
        self.recurrent = self._recurrent(
            cell, embedding_size, hidden_size, num_layers, weight_dropout, dtype, start
        )
        self.head: _Head | _TiedHead
        if tied:
            self.head = _TiedHead(self.embedding, outputs, start)
        else:
            self.head = _Head(hidden_size, outputs, dtype=dtype, rng=begin(start, "head"))
        self._join(embedding=self.embedding, recurrent=self.recurrent, head=self.head)
        if isinstance(start, np.random.Generator):
            self._initialise(start, small)

    def _recurrent(
        self,
        cell: str,
        features: int,
        hidden_size: int,
        num_layers: int,
        weight_dropout: float,
        dtype: DTypeLike,
        start: Start,
    ) -> LSTM | RNN:
        between = self._dropout if num_layers > 1 else 0.0
        rng = begin(start, "recurrent")
        if check_choice("cell", cell, CELLS) == "lstm":
            return LSTM(
                features, hidden_size, num_layers, dropout=between,
                locked_dropout=self._locked, weight_dropout=weight_dropout, dtype=dtype, rng=rng,
            )  # fmt: skip
        if self._locked or weight_dropout:
            raise ValueError("locked_dropout, weight_dropout: cell='rnn' has neither")
        return RNN(features, hidden_size, num_layers, dropout=between, dtype=dtype, rng=rng)

    def _initialise(self, rng: np.random.Generator, small: bool) -> None:
        """What differs from the layers' own beginnings."""
        if isinstance(self.recurrent, LSTM):
            init.forget_bias(self.recurrent, 1.0)
        with self.embedding.editing() as parameters:
            weight = parameters["weight"]
            if small:
                weight[...] = rng.uniform(-_RANGE, _RANGE, weight.shape)
            weight[self.outputs :] = 0

    # --- training ---------------------------------------------------------------------------------

    def loss_and_grads(
        self, batch: Batch, state: State | None, rng: Rng
    ) -> tuple[float, Grads, State]:
        """Mean cross-entropy in nats over a window, its gradients, and the state after it.

        Parameters
        ----------
        batch : tuple of ndarray (T, B)
            Inputs and targets, integers. Targets that cannot come (`outputs` and above) do not
            count; where none does, loss and gradients are zero. If there is a third array, of
            bool, it says where a text begins: the state there is zero.
        state : tuple of ndarray (num_layers, B, H), or None
            From the window before.
        rng : numpy.random.Generator or None
            Draws the dropout masks; without it no dropout acts.
        """
        inputs, targets = batch[:2]
        begins = batch[2] if len(batch) > 2 else None
        segments, state = Segments.of(begins), begun(state, begins)
        embedded, embedding_tape = self.embedding.forward(inputs)
        embedded, input_mask = self._drop(embedded, self._input_dropout, rng)
        output, state, tape = self._forward(embedded, state, segments, rng)
        output, output_mask = self._drop(output, self._dropout, rng)
        loss, d_output, head = self._head_loss(output, targets)
        d_output = d_output if output_mask is None else d_output * output_mask
        d_output = d_output if segments is None else segments.cut(d_output)
        d_embedded, _, recurrent = self.recurrent.backward(tape, d_output)
        d_embedded = d_embedded if segments is None else segments.join(d_embedded)
        d_embedded = d_embedded if input_mask is None else d_embedded * input_mask
        _, embedding = self.embedding.backward(embedding_tape, d_embedded)
        embedding["weight"][self.outputs :] = 0
        if isinstance(self.head, _TiedHead):
            embedding["weight"][: self.outputs] += head.pop("weight")
        return loss, joined(embedding=embedding, recurrent=recurrent, head=head), state

    def _drop(self, x: Array, p: float, rng: Rng) -> tuple[Array, Array | None]:
        """x (T, B, features) with some elements zeroed, and the mask; itself where none acts."""
        if rng is None or not p:
            return x, None
        shape = (1, *x.shape[1:]) if self._locked else x.shape
        mask = dropout_mask(rng, shape, p, x.dtype)
        return x * mask, mask

    def _forward(
        self, x: Array, state: State | None, segments: Segments | None, rng: Rng
    ) -> tuple[Array, State, Any]:
        """Vectors (T, B, E) -> outputs (T, B, H), the state, and a tape."""
        lengths = None if segments is None else segments.lengths
        if segments is not None:
            x, state = segments.cut(x), segments.first(state)
        output, after, tape = self.recurrent.forward(
            x, self._given(state), lengths=lengths, rng=rng
        )
        state = self._tuple(after)
        if segments is None:
            return output, state, tape
        return segments.join(output), segments.last(state), tape

    def _given(self, state: State | None) -> Any:
        """A state as the recurrent layer takes it."""
        return state if state is None or isinstance(self.recurrent, LSTM) else state[0]

    def _tuple(self, state: Any) -> State:
        """A state as the recurrent layer gives it, as a tuple."""
        return state if isinstance(self.recurrent, LSTM) else (state,)

    def _head_loss(self, output: Array, targets: Array) -> tuple[float, Array, Grads]:
        """Outputs (T, B, H) -> loss, their gradient, and those of the head's parameters.

        With a large vocabulary the logits and their gradient are most of the memory of a step, so
        it is kept for the next one.
        """
        weight, bias, panels = self.head.product()
        counts = targets.reshape(-1) < self.outputs
        if not counts.any():
            zeros = {"weight": np.zeros_like(weight), "bias": np.zeros_like(bias)}
            return 0.0, np.zeros_like(output), zeros
        rows = compact(output).reshape(-1, output.shape[2])
        shape = len(rows), self.outputs
        logits, d_logits = (_scratch.take(shape, output.dtype) for _ in range(2))
        linear(rows, weight, bias, panels, out=logits)
        loss, _ = softmax_cross_entropy(
            logits,
            np.where(counts, targets.reshape(-1), self.outputs),
            ignore_index=self.outputs,
            out=d_logits,
        )
        d_rows = matmul(d_logits, weight)
        grads = {"weight": matmul(d_logits, rows, transpose_a=True), "bias": sum_rows(d_logits)}
        _scratch.give(logits, d_logits)
        return loss, d_rows.reshape(output.shape), grads

    # --- use --------------------------------------------------------------------------------------

    def read(
        self, ids: Array, state: State | None = None, begins: Array | None = None
    ) -> tuple[Array, State]:
        """ids (T,) or (T, B) -> outputs of the last recurrent layer (T, …, H), and the state."""
        segments, x, state = Segments.of(begins), self.embedding(ids), begun(state, begins)
        if segments is None:
            output, after = self.recurrent(x, self._given(state))
            return output, self._tuple(after)
        output, after = self.recurrent(
            segments.cut(x), self._given(segments.first(state)), lengths=segments.lengths
        )
        return segments.join(output), segments.last(self._tuple(after))

    def log_prob(
        self, inputs: Array, targets: Array, state: State | None, begins: Array | None = None
    ) -> tuple[Array, State]:
        """Log-probabilities of targets (T,) or (T, B), each after its input; and the state.

        float64, in nats; 0 for a target that cannot come.
        """
        output, state = self.read(inputs, state, begins)
        known = targets < self.outputs
        found = softmax_log_prob(self.head(output), np.where(known, targets, 0))
        return np.where(known, found, 0.0), state

    def mean_loss(self, batches: Iterable[Batch]) -> float:
        """What `loss_and_grads` gives without dropout, over all windows of parallel streams."""
        state: State | None = None
        total, count = 0.0, 0
        for inputs, targets, *begins in batches:
            found, state = self.log_prob(inputs, targets, state, *begins)
            total -= float(found.sum())
            count += int((targets < self.outputs).sum())
        return total / max(1, count)


class _Head(Linear):
    """A Linear that shows what its product is made of."""

    def product(self) -> tuple[Array, Array, Array | None]:
        """Weight (V, H), bias (V,), and panels of the weight."""
        return (
            self._parameters["weight"],
            self._parameters["bias"],
            self._panels.transposed("weight"),
        )


class _TiedHead(Layer):
    """The same whose weight is the first rows of an embedding; its own is a bias."""

    def __init__(self, embedding: Embedding, outputs: int, start: Start) -> None:
        self._first = _FirstRows(embedding.parameters(), outputs)
        rows: Any = self._first
        self._panels = PanelCache(rows)
        zeros = {"bias": np.zeros(outputs, embedding.dtype)}
        self._begin(begin(start, "head"), {"bias": (outputs,)}, embedding.dtype, lambda _: zeros)

    def __call__(self, x: Array) -> Array:
        """(..., H) -> (..., outputs)."""
        weight, bias, panels = self.product()
        rows = compact(x).reshape(-1, x.shape[-1])
        return linear(rows, weight, bias, panels).reshape(*x.shape[:-1], len(weight))

    def product(self) -> tuple[Array, Array, Array | None]:
        """Weight (V, H), bias (V,), and panels of the weight."""
        return self._first["weight"], self._parameters["bias"], self._panels.transposed("weight")


class _FirstRows:
    """The parameters of a layer, cut to their first rows, as a PanelCache reads them."""

    def __init__(self, parameters: Parameters, rows: int) -> None:
        self._parameters, self._rows = parameters, rows

    @property
    def version(self) -> int:
        return self._parameters.version

    def __getitem__(self, name: str) -> Array:
        found: Array = self._parameters[name][: self._rows]
        return found


def parameters_of(network: LanguageNetwork) -> int:
    """How many numbers it has learnt."""
    parameters: Parameters = network.parameters()
    return sum(array.size for array in parameters.values())
