"""The network of the text classifier: a PooledNetwork of ids, with what text needs besides."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm._validate import Array, check_flag, check_number
from fastlstm.layers import Embedding
from fastlstm.parameters import Parameters
from fastlstm.tasks._classes import cross_entropy
from fastlstm.tasks._networks import Grads, PooledNetwork, Rng, Start
from fastlstm.tasks.text import UNKNOWN

# Of a standard normal distribution: words begin near each other, and what is learnt stands out.
_SCALE = 0.3
VECTORS = "encoder.embedding.weight"


class TextNetwork(PooledNetwork):
    """Embedding, dropout, LSTM or RNN, dropout, pooling, Linear.

    Parameters
    ----------
    outputs : int
        Classes.
    start : generator or mapping
    word_dropout : float
        Probability with which a word in training is replaced by the unknown one, which so learns
        what a sentence means that has words nobody knows (Iyyer et al. 2015).
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
        word_dropout: float = 0.0,
        train_vectors: bool = True,
        **options: Any,
    ) -> None:
        self._train_vectors = check_flag("train_vectors", train_vectors)
        self._word_dropout = check_number("word_dropout", word_dropout, least=0, below=1)
        super().__init__(outputs, loss=cross_entropy, start=start, **options)
        if isinstance(start, np.random.Generator):
            with self.embedding.editing() as parameters:
                parameters["weight"] *= np.float32(_SCALE)
        if not self._train_vectors:
            recurrent = Parameters.join({"recurrent": self.encoder.recurrent.parameters()})
            self._parameters = Parameters.join(
                {
                    "encoder": recurrent,
                    "pooling": self.pooling.parameters(),
                    "head": self.head.parameters(),
                }
            )

    @property
    def embedding(self) -> Embedding:
        """The words' vectors."""
        assert self.encoder.embedding is not None
        return self.encoder.embedding

    def loss_and_grads(self, batch: Any, _state: object, rng: Rng) -> tuple[float, Grads, None]:
        """For the Trainer; a batch is (ids, lengths, (targets, weights))."""
        ids, lengths, target = batch
        if self._word_dropout and rng is not None:
            dropped = rng.random(ids.shape, np.float32) < self._word_dropout
            ids = np.where(dropped, ids.dtype.type(UNKNOWN), ids)
        loss, grads, _ = super().loss_and_grads((ids, lengths, target), None, rng)
        if not self._train_vectors:
            del grads[VECTORS]
        return loss, grads, None

    def gradient(self, vectors: Array, d_logits: Any) -> tuple[Array, Array]:
        """Of sequences of vectors (T, B, D), all T long: logits, and the gradient of the vectors.

        ``d_logits(logits)`` says what of.
        """
        output, _, tape = self.encoder.recurrent.forward(vectors)
        pooled, pooling_tape = self.pooling.forward(output)
        logits, head_tape = self.head.forward(pooled)
        d_pooled, _ = self.head.backward(head_tape, d_logits(logits))
        d_output, _ = self.pooling.backward(pooling_tape, d_pooled)
        return logits, self.encoder.recurrent.backward(tape, d_output)[0]

    def logits_of(self, vectors: Array) -> Array:
        """Of sequences of vectors (T, B, D), all T long."""
        return self.head(self.pooling(self.encoder.recurrent(vectors)[0]))
