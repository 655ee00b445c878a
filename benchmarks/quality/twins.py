"""The networks of the estimators in torch, with the same weights.

A twin is made by `twin_of`, for each kind of network; new kinds are registered there. It is what a
user of torch would write: nn.LSTM over packed sequences, autograd, torch.optim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastlstm import losses
from fastlstm.layers import Linear
from fastlstm.pooling import Pooling
from fastlstm.rnn import RNN
from fastlstm.tasks._base import networks, supervision
from fastlstm.tasks.forecasting.network import ForecastNetwork
from fastlstm.tasks.language_model.network import LanguageNetwork
from fastlstm.tasks.recognition import transcripts
from fastlstm.tasks.sequences import whole
from fastlstm.tasks.text.network import TextNetwork, WordVectors
from fastlstm.tasks.text.tokenizer import UNKNOWN
from fastlstm.tasks.text.words import Words
from fastlstm.tasks.translation.network import TranslationBatch, TranslationNetwork

Array = NDArray[Any]


class Twin(nn.Module):
    """Base of the twins: parameters have the names that the network's `parameters()` has."""

    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        """Loss of a batch of NumPy arrays, and the state to carry on, as of `loss_and_grads`."""
        raise NotImplementedError

    def take(self, weights: Mapping[str, Array]) -> None:
        """Take the values of the network's parameters."""
        self.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})

    def give(self) -> dict[str, Array]:
        """Copies of the parameters, for the network's `load_state_dict`."""
        return {name: tensor.numpy().copy() for name, tensor in self.state_dict().items()}


@singledispatch
def twin_of(network: Any) -> Twin:
    """The twin of a network, with its weights."""
    raise TypeError(f"no twin is known of a {type(network).__name__}: register one")


def weighted_cross_entropy(logits: Tensor, target: tuple[Tensor, Tensor | None]) -> Tensor:
    codes, weights = target
    if weights is None:
        return functional.cross_entropy(logits, codes)
    return (functional.cross_entropy(logits, codes, reduction="none") * weights).mean()


def weighted_squared_error(prediction: Tensor, target: tuple[Tensor, Tensor | None]) -> Tensor:
    targets, weights = target
    if weights is None:
        return functional.mse_loss(prediction, targets)
    return (weights[:, None] * (prediction - targets) ** 2).mean()


def ctc(logits: Tensor, target: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Of padded logits (T, B, C)."""
    lengths, labels, sizes = target
    log_probs = functional.log_softmax(logits, 2)
    return functional.ctc_loss(log_probs, labels, lengths, sizes, blank=transcripts.BLANK)


LOSSES: dict[Any, Callable[[Tensor, Any], Tensor]] = {
    losses.softmax_cross_entropy: functional.cross_entropy,
    losses.mean_squared_error: functional.mse_loss,
    supervision.cross_entropy: weighted_cross_entropy,
    whole._squared_error: weighted_squared_error,
    transcripts.ctc: ctc,
}
# Those that a StepTwin gives its padded outputs, and not the rows of the valid steps.
OF_PADDED = {ctc}


def tensors_of(batch: Any) -> Any:
    """Tensors on the memory of a batch's arrays, in tuples as they are."""
    if isinstance(batch, tuple):
        return tuple(map(tensors_of, batch))
    return None if batch is None else torch.from_numpy(batch)


class EncoderTwin(nn.Module):
    """Of `Encoder`: embedding, dropout, LSTM or RNN over packed sequences, dropout."""

    def __init__(self, encoder: networks.Encoder) -> None:
        super().__init__()
        table, layer = encoder.embedding, encoder.recurrent
        self.embedding = (
            None if table is None else nn.Embedding(table.num_embeddings, table.embedding_dim)
        )
        self.recurrent = recurrent_twin(layer)
        self.dropout = nn.Dropout(encoder._dropout.p)
        self.input_dropout = nn.Dropout(encoder._input_dropout.p)
        self.noise = encoder._noise

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(T, B, features) or ids (T, B) -> (T, B, F), zero past the ends."""
        return self.run(x, lengths)[0]

    def run(self, x: Tensor, lengths: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """The same from an initial state on, and the last one."""
        vectors = x if self.embedding is None else self.embedding(x)
        if self.training and self.noise:
            vectors = vectors + self.noise * torch.randn_like(vectors)
        vectors = self.input_dropout(vectors)
        output, state = run_packed(self.recurrent, vectors, lengths, state)
        return self.dropout(output), state


def run_packed(
    layer: nn.Module, x: Tensor, lengths: Tensor, state: Any = None
) -> tuple[Tensor, Any]:
    """A recurrent layer over sequences (T, B, features) of these lengths: output and last state."""
    steps = len(x)
    if bool((lengths == steps).all()):
        output, state = layer(x, state)
        return output, state
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, state = layer(packed, state)
    return pad_packed_sequence(output, total_length=steps)[0], state


class PoolingTwin(nn.Module):
    """Of `Pooling`."""

    def __init__(self, pooling: Pooling) -> None:
        super().__init__()
        self.how, self.bidirectional = pooling.how, pooling.bidirectional
        for name, array in pooling.parameters().items():
            self.register_parameter(name, nn.Parameter(torch.zeros(array.shape)))

    def forward(self, output: Tensor, lengths: Tensor) -> Tensor:
        """(T, B, F) -> (B, F)."""
        if self.how == "last":
            each = torch.arange(len(lengths))
            last = output[lengths - 1, each]
            if not self.bidirectional:
                return last
            half = output.shape[2] // 2
            return torch.cat([last[:, :half], output[0, :, half:]], 1)
        if self.how == "mean":
            return output.sum(0) / lengths[:, None]
        past = torch.arange(len(output))[:, None] >= lengths
        if self.how == "max":
            return output.masked_fill(past[:, :, None], -math.inf).amax(0)
        hidden = torch.tanh(functional.linear(output, self.weight, self.bias))
        scores = (hidden @ self.query).masked_fill(past, -math.inf)
        return torch.einsum("tb,tbf->bf", scores.softmax(0), output)


def recurrent_twin(layer: Any) -> nn.Module:
    kind = nn.RNN if isinstance(layer, RNN) else nn.LSTM
    return kind(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        dropout=layer.dropout,
        bidirectional=layer.bidirectional,
    )


def linear_twin(layer: Linear) -> nn.Linear:
    return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)


class PooledTwin(Twin):
    """Of `PooledNetwork`."""

    def __init__(self, network: networks.PooledNetwork) -> None:
        super().__init__()
        self.encoder = EncoderTwin(network.encoder)
        self.pooling = PoolingTwin(network.pooling)
        self.head = linear_twin(network.head)
        self.own_loss = LOSSES[network._loss]

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.pooling(self.encoder(x, lengths), lengths))

    def loss(self, batch: tuple[Array, Array, Any], state: Any) -> tuple[Tensor, Any]:
        x, lengths, target = tensors_of(batch)
        return self.own_loss(self(x, lengths), target), state


class WordsTwin(nn.Module):
    """Of `WordVectors`: an Embedding of the words, and an EmbeddingBag of their letters."""

    def __init__(self, words: WordVectors) -> None:
        super().__init__()
        self.own = nn.Embedding(words.own.num_embeddings, words.own.embedding_dim)
        self.letters: nn.EmbeddingBag | None = None
        if words.letters is not None:
            self.letters = nn.EmbeddingBag(
                words.letters.num_embeddings, words.letters.embedding_dim, mode="sum"
            )
        self.word_dropout = words._word_dropout

    def forward(self, words: Words) -> Tensor:
        places = torch.from_numpy(words.places)
        ids = torch.from_numpy(words.ids)[places]
        drawn = torch.rand(ids.shape) if self.training else torch.ones(ids.shape)
        vectors = self.own(ids.masked_fill(drawn < self.word_dropout, UNKNOWN))
        if self.letters is None:
            return vectors
        table = words.letters
        spelt = self.letters(
            torch.from_numpy(table.indices),
            torch.from_numpy(table.indptr[:-1]),
            per_sample_weights=torch.from_numpy(table.data).to(vectors.dtype),
        )
        return vectors + spelt[places] * (drawn >= self.word_dropout / 2)[..., None]


class TextTwin(Twin):
    """Of `TextNetwork`."""

    def __init__(self, network: TextNetwork) -> None:
        if not network._train_vectors:
            raise NotImplementedError("train_vectors: the twin trains them")
        super().__init__()
        self.words = WordsTwin(network.words)
        self.reader = PooledTwin(network.reader)

    def loss(self, batch: tuple[Words, Array, Any], state: Any) -> tuple[Tensor, Any]:
        words, lengths, target = batch
        logits = self.reader(self.words(words), torch.from_numpy(lengths))
        return self.reader.own_loss(logits, tensors_of(target)), state


class StepTwin(Twin):
    """Of `StepNetwork`."""

    def __init__(self, network: networks.StepNetwork) -> None:
        super().__init__()
        self.encoder = EncoderTwin(network.encoder)
        self.head = linear_twin(network.head)
        self.own_loss = LOSSES[network._loss]

    def loss(self, batch: tuple[Array, Array, Any], state: Any) -> tuple[Tensor, Any]:
        x, lengths, target = tensors_of(batch)
        output = self.encoder(x, lengths)
        if self.own_loss not in OF_PADDED:
            valid = torch.arange(len(output)) < lengths[:, None]
            output = output.transpose(0, 1)[valid]
        return self.own_loss(self.head(output), target), state


def _begun(state: Any, begins: Tensor) -> Any:
    """States (layers, B, H), zero for the streams that begin."""
    if isinstance(state, tuple):
        return tuple(_begun(part, begins) for part in state)
    return state.masked_fill(begins[:, None], 0.0)


class LanguageTwin(Twin):
    """Of `LanguageNetwork`, without the dropouts that nn.LSTM lacks."""

    def __init__(self, network: LanguageNetwork) -> None:
        super().__init__()
        table, layer = network.embedding, network.recurrent
        if network._locked or getattr(layer, "weight_dropout", 0):
            raise NotImplementedError("locked_dropout, weight_dropout: nn.LSTM has neither")
        rows, self.outputs = table.num_embeddings, network.outputs
        # What can only be read is never trained.
        self.embedding = nn.Embedding(
            rows, table.embedding_dim, padding_idx=None if rows == self.outputs else self.outputs
        )
        kind = nn.RNN if isinstance(layer, RNN) else nn.LSTM
        self.recurrent = kind(
            layer.input_size, layer.hidden_size, layer.num_layers, dropout=layer.dropout
        )
        self.head = nn.Linear(layer.hidden_size, self.outputs)
        self.tied = "head.weight" not in network.parameters()
        if self.tied:
            del self.head.weight
        self.dropout = nn.Dropout(network._dropout)
        self.input_dropout = nn.Dropout(network._input_dropout)

    def forward(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """ids (T, B) -> logits (T, B, V), and the state."""
        output, state = self.recurrent(self.input_dropout(self.embedding(ids)), state)
        weight = self.embedding.weight[: self.outputs] if self.tied else self.head.weight
        return functional.linear(self.dropout(output), weight, self.head.bias), state

    def loss(self, batch: tuple[Array, Array], state: Any) -> tuple[Tensor, Any]:
        ids, targets, *begins = tensors_of(batch)
        if begins and bool(begins[0][1:].any()):
            raise NotImplementedError("texts that begin in a window: nn.LSTM cannot reset states")
        if begins and state is not None:
            state = _begun(state, begins[0][0])
        logits, state = self(ids, state)
        targets = targets.reshape(-1).clamp(max=self.outputs)
        found = functional.cross_entropy(
            logits.reshape(-1, self.outputs), targets, ignore_index=self.outputs
        )
        return found, state


class ForecastTwin(Twin):
    """Of `ForecastNetwork`."""

    def __init__(self, network: ForecastNetwork) -> None:
        super().__init__()
        self.patch, self.quantiles = network.patch, network.quantiles
        self.mixing, self.horizon = network.mixing, network.horizon
        self.encoder = recurrent_twin(network.encoder)
        self.head = linear_twin(network.head)
        self.highway = linear_twin(network.highway)
        if network.known:
            self.decoder = recurrent_twin(network.decoder)
            self.future = linear_twin(network.future)
        self.dropout = nn.Dropout(network._dropout.p)

    def forward(self, window: Tensor, known: Tensor | None) -> Tensor:
        """(B, L, D) and (B, L + H, K) -> (B, H, D, Q)."""
        batch, lookback, variables = window.shape
        relative = window - window[:, -1:]
        steps = lookback // self.patch
        first = lookback - steps * self.patch

        def patches(values: Tensor) -> Tensor:
            """(B, L, F) -> (S, B, F·P), the newest value of each feature behind the others."""
            cut = values[:, first:lookback].unflatten(1, (steps, self.patch))
            return cut.flatten(2).transpose(0, 1)

        own = relative[:, first:].unflatten(1, (steps, self.patch)).permute(1, 0, 3, 2)
        features = [own]
        if self.mixing:
            features.append(patches(relative)[:, :, None].expand(-1, -1, variables, -1))
        if known is not None:
            features.append(patches(known)[:, :, None].expand(-1, -1, variables, -1))
        if self.mixing:
            which = torch.eye(variables, dtype=window.dtype)
            features.append(which.expand(steps, batch, -1, -1))
        output, state = self.encoder(torch.cat(features, 3).flatten(1, 2))
        rows = self.head(self.dropout(output[-1])) + self.highway(
            relative.transpose(1, 2).flatten(0, 1)
        )
        forecast = rows.view(batch, variables, self.horizon, -1).transpose(1, 2)
        if known is not None:
            inputs = known[:, lookback:].transpose(0, 1).repeat_interleave(variables, 1)
            output, _ = self.decoder(inputs, state)
            further = self.future(torch.cat([self.dropout(output), inputs], 2))
            forecast = forecast + further.unflatten(1, (batch, variables)).transpose(0, 1)
        return forecast + window[:, -1:, :, None]

    def loss(self, batch: tuple[Array, Array | None, Array], state: Any) -> tuple[Tensor, Any]:
        window, known, target = tensors_of(batch)
        prediction = self(window, known)
        if self.quantiles is None:
            return functional.mse_loss(prediction, target[..., None]), state
        levels = torch.tensor(self.quantiles, dtype=target.dtype)
        error = target[..., None] - prediction
        return torch.maximum(levels * error, (levels - 1) * error).mean(), state


class TranslationTwin(Twin):
    """Of `TranslationNetwork` with "dot" or "general": attention as products of batches."""

    def __init__(self, network: TranslationNetwork) -> None:
        super().__init__()
        self.encoder, self.decoder = EncoderTwin(network.encoder), EncoderTwin(network.decoder)
        self.bridges = list(network._bridges)
        for name, bridge in network._bridges.items():
            self.add_module(name, linear_twin(bridge))
        if network.attention.score == "additive":
            raise NotImplementedError("attention: the twin has no additive one")
        own = network.attention
        self.attention = nn.Module()
        if own.score == "general":
            self.attention.weight = nn.Parameter(torch.zeros(own.query_features, own.key_features))
        self.combine, self.head = linear_twin(network.combine), linear_twin(network.head)
        self.dropout = nn.Dropout(network._dropout.p)
        self.smoothing = network._label_smoothing
        self.pair = network._pair

    def loss(self, batch: TranslationBatch, state: Any) -> tuple[Tensor, Any]:
        source, source_lengths, read, lengths, targets = map(
            torch.from_numpy,
            (batch.source, batch.source_lengths, batch.read, batch.lengths, batch.targets),
        )
        keys, encoded = self.encoder.run(source, source_lengths)
        output, _ = self.decoder.run(read, lengths, self.bridged(encoded))
        valid = torch.arange(len(read)) < lengths[:, None]
        queries, keys = output.transpose(0, 1), keys.transpose(0, 1)
        asked = queries @ self.attention.weight if hasattr(self.attention, "weight") else queries
        past = torch.arange(keys.shape[1]) >= source_lengths[:, None]
        scores = (asked @ keys.transpose(1, 2)).masked_fill(past[:, None], -math.inf)
        context = scores.softmax(2) @ keys
        rows = torch.cat([context, queries], 2)[valid]
        logits = self.head(self.dropout(torch.tanh(self.combine(rows))))
        found = functional.cross_entropy(logits, targets.long(), label_smoothing=self.smoothing)
        return found, state

    def bridged(self, encoded: Any) -> Any:
        """The decoder's initial state, of what each direction of the encoder read last."""
        if not self.bridges:
            return encoded
        states = encoded if self.pair else (encoded,)
        made = []
        for name, part in zip(self.bridges, states, strict=True):
            mapped = self.get_submodule(name)(part.transpose(0, 1).flatten(1))
            hidden = mapped if made else torch.tanh(mapped)
            layers = self.decoder.recurrent.num_layers
            made.append(hidden.unflatten(1, (layers, -1)).transpose(0, 1).contiguous())
        return tuple(made) if self.pair else made[0]


def _register(kind: type, twin: Callable[[Any], Twin]) -> None:
    @twin_of.register(kind)
    def make(network: Any) -> Twin:
        weights = network.parameters()
        made = twin(network).to(torch.tensor(next(iter(weights.values()))).dtype)
        made.take(weights)
        return made


_register(networks.PooledNetwork, PooledTwin)
_register(TextNetwork, TextTwin)
_register(networks.StepNetwork, StepTwin)
_register(LanguageNetwork, LanguageTwin)
_register(ForecastNetwork, ForecastTwin)
_register(TranslationNetwork, TranslationTwin)
