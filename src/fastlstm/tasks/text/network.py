"""The network of the text classifier: words to vectors, and a PooledNetwork that reads these."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastlstm._products import scatter_add_rows
from fastlstm._validate import Array, check_flag, check_number
from fastlstm.layers import Embedding
from fastlstm.tasks._base.networks import (
    Grads,
    Network,
    PooledNetwork,
    Rng,
    Start,
    begin,
    joined,
    start_of,
)
from fastlstm.tasks._base.supervision import cross_entropy
from fastlstm.tasks.text.tokenizer import UNKNOWN
from fastlstm.tasks.text.words import Words

# Deviation of the vectors at first: words begin near each other, and what is learnt stands out.
SCALE = 0.3


class WordVectors(Network):
    """A vector for each word: its own, or that of unknown ones, and those of its letters.

    Parameters
    ----------
    vocabulary : int
        How many ids there are.
    groups : int
        How many groups of letters; 0 for ids that are known by themselves alone.
    size : int
        Numbers of a vector (D).
    word_dropout : float
        Probability with which a word in training is taken for an unknown one, so that these mean
        something (Iyyer et al. 2015). Half of them lose their letters, too.
    """

    def __init__(
        self,
        vocabulary: int,
        groups: int,
        size: int,
        *,
        start: Start,
        word_dropout: float = 0.0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._word_dropout = check_number("word_dropout", word_dropout, least=0, below=1)
        self.own = Embedding(vocabulary, size, dtype=dtype, rng=begin(start, "own"))
        self.letters: Embedding | None = None
        parts = {"own": self.own}
        if groups:
            self.letters = Embedding(groups, size, dtype=dtype, rng=begin(start, "letters"))
            parts["letters"] = self.letters
        self._join(**parts)
        if isinstance(start, np.random.Generator):
            with self._parameters.editing() as parameters:
                for table in parameters.values():
                    table *= table.dtype.type(SCALE / math.sqrt(len(parameters)))

    def __call__(self, words: Words) -> Array:
        """(T, B, D)."""
        vectors = self.own(words.ids)
        if self.letters is not None:
            vectors = vectors + words.letters @ self.letters.weight
        placed: Array = vectors.take(words.places, axis=0)
        return placed

    def begin_with(self, own: Array, letters: Array | None) -> None:
        """Take these tables instead of random ones."""
        with self._parameters.editing() as parameters:
            parameters["own.weight"][...] = own
            if letters is not None:
                parameters["letters.weight"][...] = letters

    def begin_with_some(self, vectors: Array, which: Array, *, first: int) -> None:
        """Take vectors for some words; which[k] + first is an id.

        The others stay random, as large as these. Letters have nothing to say yet.
        """
        with self._parameters.editing() as parameters:
            own = parameters["own.weight"]
            own *= vectors.std() / own.std()
            own[which + first] = vectors
            if self.letters is not None:
                parameters["letters.weight"][...] = 0

    def unknown(self) -> Array:
        """The vector (D,) of a word of which nothing is known."""
        vector: Array = self.own.weight[UNKNOWN]
        return vector

    def forward(self, words: Words, rng: Rng) -> tuple[Array, Any]:
        """Vectors (T, B, D) with some words dropped, and what `backward` needs."""
        ids, kept = words.ids[words.places], None
        if self._word_dropout and rng is not None:
            drawn = rng.random(ids.shape, np.float32)
            ids = np.where(drawn < self._word_dropout, ids.dtype.type(UNKNOWN), ids)
            kept = drawn >= self._word_dropout / 2
        vectors, tape = self.own.forward(ids)
        if self.letters is not None:
            spelt = (words.letters @ self.letters.weight).take(words.places, axis=0)
            vectors += spelt if kept is None else spelt * kept[..., np.newaxis]
        return vectors, (tape, words, kept)

    def backward(self, tapes: Any, d_vectors: Array) -> Grads:
        """Gradients of the parameters."""
        tape, words, kept = tapes
        grads = {"own": self.own.backward(tape, d_vectors)[1]}
        if self.letters is not None:
            if kept is not None:
                d_vectors = d_vectors * kept[..., np.newaxis]
            d_words = np.zeros((len(words.ids), d_vectors.shape[-1]), d_vectors.dtype)
            rows = np.ascontiguousarray(d_vectors).reshape(-1, d_vectors.shape[-1])
            scatter_add_rows(d_words, words.places.reshape(-1), rows)
            grads["letters"] = {"weight": np.ascontiguousarray(words.letters.T @ d_words)}
        return joined(**grads)


class TextNetwork(Network):
    """WordVectors, and a PooledNetwork: dropout, LSTM or RNN, dropout, pooling, Linear.

    Parameters
    ----------
    outputs : int
        Classes.
    start : generator or mapping
    vocabulary, groups, size, word_dropout
        Those of WordVectors.
    train_vectors : bool
        Whether the words' vectors are trained, and so among the parameters.
    options
        Those of PooledNetwork and Encoder.
    """

    def __init__(
        self,
        outputs: int,
        *,
        start: Start,
        vocabulary: int,
        groups: int = 0,
        size: int,
        word_dropout: float = 0.0,
        train_vectors: bool = True,
        dtype: DTypeLike = np.float32,
        **options: Any,
    ) -> None:
        self._train_vectors = check_flag("train_vectors", train_vectors)
        self.words = WordVectors(
            vocabulary,
            groups,
            size,
            start=start_of(start, "words"),
            word_dropout=word_dropout,
            dtype=dtype,
        )
        self.reader = PooledNetwork(
            outputs,
            loss=cross_entropy,
            start=start_of(start, "reader"),
            features=size,
            dtype=dtype,
            **options,
        )
        parts = {"words": self.words} if self._train_vectors else {}
        self._join(**parts, reader=self.reader)

    def __call__(self, words: Words, lengths: Array) -> Array:
        """Texts -> logits (B, outputs)."""
        return self.reader(self.words(words), lengths)

    def loss(self, batch: Any) -> float:
        """Of a batch (words, lengths, (targets, weights)), without dropout."""
        words, lengths, target = batch
        return self.reader.loss((self.words(words), lengths, target))

    def loss_and_grads(self, batch: Any, _state: object, rng: Rng) -> tuple[float, Grads, None]:
        """For the Trainer; a batch is (words, lengths, (targets, weights))."""
        words, lengths, target = batch
        vectors, tape = self.words.forward(words, rng)
        logits, reader_tapes = self.reader.forward(vectors, lengths, rng)
        loss, d_logits = cross_entropy(logits, target)
        d_vectors, reader = self.reader.backward(reader_tapes, d_logits)
        if not self._train_vectors:
            return loss, joined(reader=reader), None
        return loss, joined(words=self.words.backward(tape, d_vectors), reader=reader), None

    def logits_of(self, vectors: Array) -> Array:
        """Of sequences of vectors (T, B, D), all T long."""
        return self.reader(vectors, _all(vectors))

    def gradient(self, vectors: Array, d_logits: Callable[[Array], Array]) -> tuple[Array, Array]:
        """Of sequences of vectors (T, B, D), all T long: logits, and the gradient of the vectors.

        ``d_logits(logits)`` says what of.
        """
        logits, tapes = self.reader.forward(vectors, _all(vectors), None)
        return logits, self.reader.backward(tapes, d_logits(logits))[0]


def _all(vectors: Array) -> Array:
    return np.full(vectors.shape[1], len(vectors))
