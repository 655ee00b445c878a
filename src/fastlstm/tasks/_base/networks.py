"""The networks of the estimators: layers under names, trained as one.

A network is made of layers and of other networks. Its parameters are theirs under "name.…", and it
begins either with random weights or with those of a file (`Start`), in which case nothing of the
sizes that the file claims is made before its arrays are seen to have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastlstm import init
from fastlstm._validate import Array, check_choice, check_number
from fastlstm.layers import Dropout, Embedding, Linear
from fastlstm.lstm import LSTM
from fastlstm.parameters import Given, Layer, Parameters
from fastlstm.pooling import Pooling
from fastlstm.rnn import RNN

CELLS = ("lstm", "rnn")

Rng = np.random.Generator | None
Start = np.random.Generator | Mapping[str, Array]
Grads = dict[str, Array]
# Of a prediction, and of whatever its target is.
Loss = Callable[[Array, Any], tuple[float, Array]]


class Network:
    """Base of all of them: joins the parameters of its parts."""

    _parameters: Parameters

    def _join(self, **parts: Layer | Network) -> None:
        """Take the parts whose parameters are the network's, after all are made."""
        self._parameters = Parameters.join({k: part.parameters() for k, part in parts.items()})

    def parameters(self) -> Parameters:
        """All weights, under "part.name"."""
        return self._parameters

    def loss_and_grads(self, batch: Any, state: Any, rng: Rng) -> tuple[float, Grads, Any]:
        """What the Trainer asks for; see `fastlstm.training.Model`."""
        raise NotImplementedError


def begin(start: Start, name: str) -> Any:
    """What a layer of this name takes for its `rng`: the generator, or its own given arrays."""
    if isinstance(start, np.random.Generator):
        return start
    return Given(arrays_of(start, name))


def start_of(start: Start, name: str) -> Start:
    """The same for a network within a network."""
    return start if isinstance(start, np.random.Generator) else arrays_of(start, name)


def arrays_of(arrays: Mapping[str, Array], name: str) -> dict[str, Array]:
    """The arrays under "name.…", without that prefix."""
    prefix = f"{name}."
    return {k[len(prefix) :]: a for k, a in arrays.items() if k.startswith(prefix)}


def joined(**parts: Mapping[str, Array]) -> Grads:
    """Gradients of the parts under the names that `parameters()` has."""
    return {f"{part}.{name}": grad for part, named in parts.items() for name, grad in named.items()}


class Encoder(Network):
    """What reads a batch of sequences: embedding if they are ids, dropout, LSTM or RNN, dropout.

    Parameters
    ----------
    features : int
        Of a step: of what is read, or of an id's vector.
    hidden_size, num_layers, bidirectional
        Of the recurrent layers.
    vocabulary : int, optional
        How many ids there are. Without it steps are vectors.
    dropout : float
        Between the layers, and of the outputs.
    input_dropout : float, optional
        Of the vectors that are read; by default as `dropout`.
    noise : float
        Deviation of the normal noise that is added to the vectors in training (as in Graves 2013,
        "Speech recognition with deep recurrent neural networks").
    cell : {"lstm", "rnn"}
        The forget gates of an LSTM begin with a bias of 1 (Jozefowicz et al. 2015).
    """

    def __init__(
        self,
        features: int,
        hidden_size: int,
        *,
        start: Start,
        vocabulary: int | None = None,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        input_dropout: float | None = None,
        noise: float = 0.0,
        cell: str = "lstm",
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.embedding: Embedding | None = None
        parts: dict[str, Layer] = {}
        if vocabulary is not None:
            self.embedding = Embedding(
                vocabulary, features, dtype=dtype, rng=begin(start, "embedding")
            )
            parts["embedding"] = self.embedding
        check_choice("cell", cell, CELLS)
        layer: Any = LSTM if cell == "lstm" else RNN
        self.recurrent = layer(
            features,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout if num_layers != 1 else 0.0,
            dtype=dtype,
            rng=begin(start, "recurrent"),
        )
        if cell == "lstm" and isinstance(start, np.random.Generator):
            init.forget_bias(self.recurrent, 1.0)
        self._dropout = Dropout(check_number("dropout", dropout, least=0, most=1))
        self._input_dropout = Dropout(dropout if input_dropout is None else input_dropout)
        self._noise = check_number("noise", noise, least=0)
        self.features = hidden_size * (2 if bidirectional else 1)
        self._join(recurrent=self.recurrent, **parts)

    def __call__(self, x: Array, lengths: Array) -> Array:
        """x (T, B, features) or ids (T, B) -> outputs (T, B, F)."""
        return self.run(x, lengths)[0]

    def run(self, x: Array, lengths: Array | None, state: Any = None) -> tuple[Array, Any]:
        """The same from an initial state on, and the final one: as the recurrent layer's."""
        vectors = x if self.embedding is None else self.embedding(x)
        output, state = self.recurrent(vectors, state, lengths=lengths)
        return output, state

    def forward(self, x: Array, lengths: Array, rng: Rng) -> tuple[Array, tuple[Any, ...]]:
        """Outputs with dropout, and the tapes for `backward`."""
        output, _, tapes = self.run_forward(x, lengths, rng)
        return output, tapes

    def run_forward(
        self, x: Array, lengths: Array, rng: Rng, state: Any = None
    ) -> tuple[Array, Any, tuple[Any, ...]]:
        """Outputs with dropout, the final state, and the tapes for `run_backward`."""
        embedding_tape = None
        if self.embedding is not None:
            x, embedding_tape = self.embedding.forward(x)
        if self._noise and rng is not None:
            x = x + x.dtype.type(self._noise) * rng.standard_normal(x.shape, x.dtype)
        vectors, input_tape = self._input_dropout.forward(x, _if_any(self._input_dropout, rng))
        within = rng if self.recurrent.dropout else None
        output, state, tape = self.recurrent.forward(vectors, state, lengths=lengths, rng=within)
        output, output_tape = self._dropout.forward(output, _if_any(self._dropout, rng))
        return output, state, (embedding_tape, input_tape, tape, output_tape)

    def backward(self, tapes: tuple[Any, ...], d_output: Array) -> tuple[Array, Grads]:
        """Gradients of the vectors that were read, or of the ids' ones, and of the parameters."""
        d_vectors, _, grads = self.run_backward(tapes, d_output)
        return d_vectors, grads

    def run_backward(
        self, tapes: tuple[Any, ...], d_output: Array, d_state: Any = None
    ) -> tuple[Array, Any, Grads]:
        """The same for a gradient of the final state too, and that of the initial one."""
        embedding_tape, input_tape, tape, output_tape = tapes
        d_output, _ = self._dropout.backward(output_tape, d_output)
        d_vectors, d_state, recurrent = self.recurrent.backward(tape, d_output, d_state)
        d_vectors, _ = self._input_dropout.backward(input_tape, d_vectors)
        if self.embedding is None:
            return d_vectors, d_state, joined(recurrent=recurrent)
        _, embedding = self.embedding.backward(embedding_tape, d_vectors)
        return d_vectors, d_state, joined(recurrent=recurrent, embedding=embedding)


def _if_any(dropout: Dropout, rng: Rng) -> Rng:
    """The generator, if there is anything to draw from it."""
    return rng if dropout.p else None


class PooledNetwork(Network):
    """One output for each sequence: an Encoder, a Pooling, and a Linear on it.

    Parameters
    ----------
    outputs : int
        Of a sequence: classes, or targets.
    pooling : {"last", "mean", "max", "attention"}
    loss : callable
        ``loss(prediction (B, outputs), target) -> value, d_prediction``.
    options
        Those of Encoder.
    """

    def __init__(
        self, outputs: int, *, pooling: str, loss: Loss, start: Start, **options: Any
    ) -> None:
        self.encoder = Encoder(**options, start=start_of(start, "encoder"))
        dtype = self.encoder.recurrent.dtype
        features = self.encoder.features
        self.pooling = Pooling(
            features,
            pooling,
            bidirectional=options.get("bidirectional", False),
            dtype=dtype,
            rng=begin(start, "pooling"),
        )
        self.head = Linear(features, outputs, dtype=dtype, rng=begin(start, "head"))
        self._loss = loss
        self._join(encoder=self.encoder, pooling=self.pooling, head=self.head)

    def __call__(self, x: Array, lengths: Array) -> Array:
        """Sequences -> predictions (B, outputs)."""
        return self.head(self.pooling(self.encoder(x, lengths), lengths))

    def loss(self, batch: tuple[Array, Array, Any]) -> float:
        """Of a batch (x, lengths, target), without dropout."""
        x, lengths, target = batch
        return self._loss(self(x, lengths), target)[0]

    def loss_and_grads(
        self, batch: tuple[Array, Array, Any], _state: object, rng: Rng
    ) -> tuple[float, Grads, None]:
        """For the Trainer; a batch is (x, lengths, target)."""
        x, lengths, target = batch
        prediction, tapes = self.forward(x, lengths, rng)
        loss, d_prediction = self._loss(prediction, target)
        return loss, self.backward(tapes, d_prediction)[1], None

    def forward(self, x: Array, lengths: Array, rng: Rng) -> tuple[Array, tuple[Any, ...]]:
        """Predictions with dropout, and the tapes for `backward`."""
        output, encoder_tapes = self.encoder.forward(x, lengths, rng)
        pooled, pooling_tape = self.pooling.forward(output, lengths)
        prediction, head_tape = self.head.forward(pooled)
        return prediction, (encoder_tapes, pooling_tape, head_tape)

    def backward(self, tapes: tuple[Any, ...], d_prediction: Array) -> tuple[Array, Grads]:
        """Gradients of the vectors that were read, and of the parameters."""
        encoder_tapes, pooling_tape, head_tape = tapes
        d_pooled, head = self.head.backward(head_tape, d_prediction)
        d_output, pooling = self.pooling.backward(pooling_tape, d_pooled)
        d_vectors, encoder = self.encoder.backward(encoder_tapes, d_output)
        return d_vectors, joined(encoder=encoder, pooling=pooling, head=head)


class StepNetwork(Network):
    """One output for each step: an Encoder, and a Linear on each of its outputs.

    Only valid steps reach the Linear: all of them together are rows (N, …), sequence by sequence.

    Parameters
    ----------
    outputs : int
        Of a step.
    loss : callable
        ``loss(prediction (N, outputs), target) -> value, d_prediction``.
    options
        Those of Encoder.
    """

    def __init__(self, outputs: int, *, loss: Loss, start: Start, **options: Any) -> None:
        self.encoder = Encoder(**options, start=start_of(start, "encoder"))
        dtype = self.encoder.recurrent.dtype
        self.head = Linear(self.encoder.features, outputs, dtype=dtype, rng=begin(start, "head"))
        self._loss = loss
        self._join(encoder=self.encoder, head=self.head)

    def __call__(self, x: Array, lengths: Array) -> Array:
        """Sequences -> predictions (N, outputs)."""
        rows, _ = valid_rows(self.encoder(x, lengths), lengths)
        return self.head(rows)

    def loss(self, batch: tuple[Array, Array, Any]) -> float:
        """Of a batch (x, lengths, target of the valid steps), without dropout."""
        x, lengths, target = batch
        return self._loss(self(x, lengths), target)[0]

    def loss_and_grads(
        self, batch: tuple[Array, Array, Any], _state: object, rng: Rng
    ) -> tuple[float, Grads, None]:
        """For the Trainer; a batch is (x, lengths, target of the valid steps)."""
        x, lengths, target = batch
        output, tapes = self.encoder.forward(x, lengths, rng)
        rows, valid = valid_rows(output, lengths)
        prediction, head_tape = self.head.forward(rows)
        loss, d_prediction = self._loss(prediction, target)
        d_rows, head = self.head.backward(head_tape, d_prediction)
        d_output = np.zeros(output.shape[1::-1] + output.shape[2:], output.dtype)
        d_output[valid] = d_rows
        _, encoder = self.encoder.backward(tapes, d_output.swapaxes(0, 1))
        return loss, joined(encoder=encoder, head=head), None


def valid_rows(output: Array, lengths: Array) -> tuple[Array, Array]:
    """Outputs (T, B, F) -> those of the valid steps (N, F), and which ones of (B, T) these are."""
    valid = np.arange(len(output)) < lengths[:, np.newaxis]
    return output.swapaxes(0, 1)[valid], valid
