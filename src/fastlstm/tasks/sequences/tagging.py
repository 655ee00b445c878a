"""SequenceTagger: a label for each step of numeric sequences."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from fastlstm._validate import Array
from fastlstm.tasks._base import supervision
from fastlstm.tasks._base.batches import Ragged
from fastlstm.tasks._base.networks import Start, StepNetwork
from fastlstm.tasks._base.numeric import Examples, LabellingEstimator


class SequenceTagger(LabellingEstimator):
    """A label for each step of each sequence, by an LSTM.

    Parameters
    ----------
    hidden_size, num_layers, bidirectional, dropout, noise, cell
    epochs, batch_size, learning_rate, weight_decay, max_norm
    validation_fraction, patience, class_weight, random_state, verbose
        As `SequenceClassifier` has them, but by default without noise.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
    n_features_in_ : int
        Features of a step.
    network_ : object
        The trained layers.
    history_ : History
        Losses of the steps, and validations.

    Examples
    --------
    Which way each number went:

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal(rng.integers(5, 10)) for _ in range(100)]
    >>> y = [np.where(np.diff(x, prepend=x[0]) > 0, "up", "down") for x in X]
    >>> tagger = SequenceTagger(16, epochs=20, random_state=0).fit(X, y)
    >>> tagger.score(X, y) > 0.8
    True
    >>> tagger.predict([np.array([0.0, 1.0, 2.0, -1.0, 0.0])])
    [array(['down', 'up', 'up', 'down', 'up'], dtype='<U4')]
    """

    _kind = "sequence-tagger"

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.2,
        noise: float = 0.0,
        cell: str = "lstm",
        epochs: int = 50,
        batch_size: int = 16,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.01,
        max_norm: float = 1.0,
        validation_fraction: float = 0.0,
        patience: int | None = 10,
        class_weight: Any = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self._keep(locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None) -> Self:
        """Train a new network.

        Parameters
        ----------
        X, lengths
            As `SequenceClassifier.fit` takes them.
        y : list of array_like (T_i,), or array_like (n, T)
            The label of each step: numbers, bools or strings. Of padded sequences, labels past
            their ends are not looked at.
        sample_weight : array_like (n,), optional
            What the losses of each sequence's steps are multiplied by; only the proportions matter.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, KeyboardInterrupt
            As in `SequenceClassifier.fit`.
        """
        sequences = self._check_input(X, lengths)
        labels = supervision.check_label_sequences(y, sequences.lengths, padded=lengths is not None)
        classes, codes = supervision.encode(labels)
        sample_weight = supervision.check_sample_weight(sample_weight, len(sequences))
        if sample_weight is not None:
            sample_weight = np.repeat(sample_weight, sequences.lengths)
        weights = supervision.mean_one(
            supervision.sample_weights(sample_weight, self.class_weight, classes, codes)
        )
        seed = self._new_seed()
        # Nothing is to be learnt from a sequence without a step.
        used = np.flatnonzero(sequences.lengths)
        training, validation = (used[part] for part in self._split(len(used), seed=seed))
        of_steps = None if weights is None else Ragged(weights, sequences.lengths)
        examples = Examples(sequences, Ragged(codes, sequences.lengths), of_steps)
        with self._as_before_if_refused():
            self.classes_ = classes
            self._learn(examples, training, validation, seed=seed)
        return self

    def predict_proba(self, X: Any, *, lengths: Any = None) -> list[Array]:
        """Probabilities of the classes for each step: (T_i, n_classes) of each sequence."""
        logits, lengths = self._apply(X, lengths)
        return list(Ragged(supervision.softmax(logits), lengths))

    def predict(self, X: Any, *, lengths: Any = None) -> list[Array]:
        """The likeliest label of each step, (T_i,) of each sequence."""
        logits, lengths = self._apply(X, lengths)
        return list(Ragged(self.classes_[logits.argmax(axis=1)], lengths))

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None) -> float:
        """Part of the steps whose label is predicted."""
        predicted = self.predict(X, lengths=lengths)
        sizes = np.array([len(one) for one in predicted])
        labels = supervision.check_label_sequences(y, sizes, padded=lengths is not None)
        if not len(labels):
            raise ValueError("X: expected at least one step, got none")
        sample_weight = supervision.check_sample_weight(sample_weight, len(sizes))
        weights = None if sample_weight is None else np.repeat(sample_weight, sizes)
        return float(np.average(np.concatenate(predicted) == labels, weights=weights))

    def _network(self, start: Start) -> StepNetwork:
        return StepNetwork(
            len(self.classes_), loss=supervision.cross_entropy, start=start, **self._encoder()
        )
