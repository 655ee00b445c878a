"""The network of the translator: an encoder, and a decoder that attends to it.

Luong et al. 2015, "Effective approaches to attention-based neural machine translation", without
input feeding: the decoder's LSTM does not see what attention found, so that in training it runs
over all steps of the right translation in one call, and attention serves all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastlstm._validate import Array, check_size
from fastlstm.attention import Attention, Memory
from fastlstm.layers import Dropout, Linear
from fastlstm.losses import softmax_cross_entropy
from fastlstm.tasks._base.networks import (
    Encoder,
    Grads,
    Network,
    Rng,
    Start,
    begin,
    joined,
    start_of,
    valid_rows,
)

State = tuple[Array, ...]  # h, and c of an LSTM: each (layers, B, H)


class TranslationBatch:
    """Pairs of sentences: source ids (S, B), and target ids (T, B) from begin to end.

    Attributes
    ----------
    source, source_lengths : ndarray (S, B), (B,)
    read, lengths : ndarray (T, B), (B,)
        What the decoder reads, from begin to the last token.
    targets : ndarray (N,)
        What it has to say at each valid step, sentence by sentence: each ends with end.
    """

    def __init__(self, source: tuple[Array, Array], target: tuple[Array, Array]) -> None:
        self.source, self.source_lengths = source
        padded, lengths = target
        self.read, self.lengths = padded[:-1], lengths - 1
        self.targets, _ = valid_rows(padded[1:], self.lengths)


class TranslationNetwork(Network):
    """Encoder, bridge, decoder, attention, and a softmax over the words of the target.

    Parameters
    ----------
    source_vocabulary, target_vocabulary : int
    embedding_size : int
        Of a token's vector.
    hidden_size : int
        Units of the decoder's layers, and of the encoder's: half of them for each direction.
    num_layers : int
        Of the encoder, and of the decoder.
    bidirectional : bool
        Of the encoder.
    dropout : float
    cell : {"lstm", "rnn"}
    attention : {"dot", "general", "additive"}
    label_smoothing : float
        Of the loss that is trained.
    start : Generator or mapping
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        *,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        dropout: float,
        cell: str,
        attention: str,
        label_smoothing: float,
        start: Start,
        dtype: DTypeLike = np.float32,
    ) -> None:
        directions = 2 if bidirectional else 1
        if hidden_size % directions:
            raise ValueError(
                f"hidden_size: expected an even number, for two directions, got {hidden_size}"
            )
        self.encoder = Encoder(
            embedding_size, hidden_size // directions, vocabulary=source_vocabulary,
            num_layers=num_layers, bidirectional=bidirectional, dropout=dropout, cell=cell,
            dtype=dtype, start=start_of(start, "encoder"),
        )  # fmt: skip
        self.decoder = Encoder(
            embedding_size, hidden_size, vocabulary=target_vocabulary, num_layers=num_layers,
            dropout=dropout, cell=cell, dtype=dtype, start=start_of(start, "decoder"),
        )  # fmt: skip
        # One for each part of the state: what the encoder read last in each direction and layer.
        width = check_size("num_layers", num_layers) * check_size("hidden_size", hidden_size)
        self._bridges = {
            f"bridge_{name}": Linear(width, width, dtype=dtype, rng=begin(start, f"bridge_{name}"))
            for name in ("hc" if cell == "lstm" else "h")[: 2 if bidirectional else 0]
        }
        self.attention = Attention(
            hidden_size, hidden_size, attention, dtype=dtype, rng=begin(start, "attention")
        )
        self.combine = Linear(
            2 * hidden_size, embedding_size, dtype=dtype, rng=begin(start, "combine")
        )
        self.head = Linear(embedding_size, target_vocabulary, dtype=dtype, rng=begin(start, "head"))
        self._dropout = Dropout(dropout)
        self._layers, self._hidden, self._pair = num_layers, hidden_size, cell == "lstm"
        self._label_smoothing = label_smoothing
        self._join(
            encoder=self.encoder, decoder=self.decoder, attention=self.attention,
            combine=self.combine, head=self.head, **self._bridges,
        )  # fmt: skip

    # --- training ---------------------------------------------------------------------------------

    def loss_and_grads(
        self, batch: TranslationBatch, _state: object, rng: Rng
    ) -> tuple[float, Grads, None]:
        """For the Trainer: mean cross-entropy of a target's token, in nats."""
        memory, encoded, encoder_tapes = self.encoder.run_forward(
            batch.source, batch.source_lengths, rng
        )
        state, bridge_tapes = self._bridge_forward(self.as_parts(encoded))
        output, _, decoder_tapes = self.decoder.run_forward(
            batch.read, batch.lengths, rng, self.as_state(state)
        )
        context, _, attention_tape = self.attention.forward(output, memory, batch.source_lengths)
        rows, valid = valid_rows(np.concatenate([context, output], axis=2), batch.lengths)
        combined, combine_tape = self.combine.forward(rows)
        features = np.tanh(combined)
        dropped, dropout_tape = self._dropout.forward(features, rng)
        logits, head_tape = self.head.forward(dropped)
        loss, d_logits = softmax_cross_entropy(
            logits, batch.targets, label_smoothing=self._label_smoothing
        )

        d_dropped, head = self.head.backward(head_tape, d_logits)
        d_combined, _ = self._dropout.backward(dropout_tape, d_dropped)
        d_combined *= 1 - features * features
        d_rows, combine = self.combine.backward(combine_tape, d_combined)
        d_both = np.zeros((*valid.shape, 2 * self._hidden), d_rows.dtype)
        d_both[valid] = d_rows
        d_context, d_output = np.split(d_both.swapaxes(0, 1), 2, axis=2)
        d_query, d_memory, attention = self.attention.backward(attention_tape, d_context)
        _, d_state, decoder = self.decoder.run_backward(decoder_tapes, d_output + d_query)
        d_encoded, bridges = self._bridge_backward(bridge_tapes, self.as_parts(d_state))
        _, _, encoder = self.encoder.run_backward(encoder_tapes, d_memory, self.as_state(d_encoded))
        grads = joined(
            encoder=encoder, decoder=decoder, attention=attention, combine=combine, head=head,
            **bridges,
        )  # fmt: skip
        return loss, grads, None

    # --- inference --------------------------------------------------------------------------------

    def read(self, source: Array, lengths: Array) -> tuple[Memory, State]:
        """Sources (S, B) -> what attention reads, and the decoder's initial state."""
        output, encoded = self.encoder.run(source, lengths)
        state, _ = self._bridge_forward(self.as_parts(encoded))
        return self.attention.memory(output, lengths), state

    def say(
        self, read: Array, lengths: Array | None, memory: Memory, state: State
    ) -> tuple[Array, Array, State]:
        """Ids (T, B) -> features (T, B, E) for `head`, weights (B, T, S), and the state after."""
        output, after = self.decoder.run(read, lengths, self.as_state(state))
        features, weights = self.attend(output, memory)
        return features, weights, self.as_parts(after)

    def attend(self, output: Array, memory: Memory) -> tuple[Array, Array]:
        """The decoder's outputs (T, B, H) -> features (T, B, E), and weights (B, T, S)."""
        context, weights = self.attention(output, memory)
        return np.tanh(self.combine(np.concatenate([context, output], axis=2))), weights

    def log_probs(self, batch: TranslationBatch) -> Array:
        """Of each target's token, (N,) of float64, sentence by sentence."""
        memory, state = self.read(batch.source, batch.source_lengths)
        features, _, _ = self.say(batch.read, batch.lengths, memory, state)
        rows, _ = valid_rows(features, batch.lengths)
        normalised = log_softmax(self.head(rows))
        return normalised[np.arange(len(rows)), batch.targets].astype(np.float64)

    # --- states -----------------------------------------------------------------------------------

    def as_parts(self, state: Any) -> State:
        return tuple(state) if self._pair else (state,)

    def as_state(self, parts: Sequence[Array]) -> Any:
        return tuple(parts) if self._pair else parts[0]

    def _bridge_forward(self, encoded: State) -> tuple[State, list[Any]]:
        """The encoder's final states (layers · directions, B, H/2) -> (layers, B, H), and tapes."""
        if not self._bridges:
            return encoded, []
        made: list[Array] = []
        tapes: list[Any] = []
        for bridge, part in zip(self._bridges.values(), encoded, strict=True):
            mapped, tape = bridge.forward(_side_by_side(part))
            hidden = np.tanh(mapped) if not made else mapped  # h is bounded, c is not
            made.append(self._stacked(hidden, self._layers))
            tapes.append((tape, hidden, len(part)))
        return tuple(made), tapes

    def _bridge_backward(self, tapes: list[Any], d_state: State) -> tuple[State, dict[str, Grads]]:
        if not tapes:
            return d_state, {}
        d_encoded: list[Array] = []
        grads: dict[str, Grads] = {}
        for (name, bridge), (tape, hidden, runs), part in zip(
            self._bridges.items(), tapes, d_state, strict=True
        ):
            d_mapped = _side_by_side(part)
            if not d_encoded:
                d_mapped *= 1 - hidden * hidden
            d_joined, grads[name] = bridge.backward(tape, d_mapped)
            d_encoded.append(self._stacked(d_joined, runs))
        return tuple(d_encoded), grads

    @staticmethod
    def _stacked(joined: Array, runs: int) -> Array:
        """(B, runs · H) -> (runs, B, H)."""
        return np.ascontiguousarray(joined.reshape(len(joined), runs, -1).swapaxes(0, 1))


class Hypotheses:
    """What beam search follows: K hypotheses of each of B sentences, in one batch of K·B.

    All hypotheses of a sentence attend to the same memory: they are K queries of it.
    """

    def __init__(
        self, network: TranslationNetwork, memory: Memory, state: State, *, beam_size: int
    ) -> None:
        self._network, self._memory = network, memory
        self._state = tuple(np.tile(part, (1, beam_size, 1)) for part in state)

    def step(self, ids: Array) -> Array:
        """Append ids (K, B) to the hypotheses; log-probabilities (K, B, V) of what follows."""
        network = self._network
        output, after = network.decoder.run(ids.reshape(1, -1), None, network.as_state(self._state))
        self._state = network.as_parts(after)
        features, _ = network.attend(output.reshape(*ids.shape, -1), self._memory)
        return log_softmax(network.head(features))

    def select(self, parents: Array, sentences: Array) -> None:
        """Go on with hypotheses `parents` (K, B') of the sentences with these numbers (B',)."""
        batch = len(self._memory.lengths)
        rows = (parents * batch + sentences).reshape(-1)
        self._state = tuple(part[:, rows] for part in self._state)
        if len(sentences) < batch:
            self._memory = self._memory.take(sentences)


def _side_by_side(states: Array) -> Array:
    """(runs, B, H) -> (B, runs · H), fresh."""
    return np.array(states.swapaxes(0, 1), order="C").reshape(states.shape[1], -1)


def log_softmax(logits: Array) -> Array:
    """Over the last axis, in place."""
    with np.errstate(all="ignore"):  # what is not finite comes out as such
        logits -= logits.max(axis=-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits
