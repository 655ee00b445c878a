"""Estimators of numeric sequences: a class for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from fastlstm._validate import Array
from fastlstm.losses import softmax_cross_entropy
from fastlstm.tasks._batches import Ragged, in_chunks
from fastlstm.tasks._estimator import Estimator, labels_from_json, labels_to_json
from fastlstm.tasks._inputs import check_sequences
from fastlstm.tasks._networks import PooledNetwork, Start
from fastlstm.tasks._sklearn import ClassifierMixin, check_classification_targets, column_or_1d

# Sequences that are predicted at once.
_AT_ONCE = 256


class SequenceClassifier(ClassifierMixin, Estimator):
    """A class for each sequence of vectors, by an LSTM.

    Features are standardised inside, by the mean and the deviation of all training steps.

    Parameters
    ----------
    hidden_size : int
        Units of each layer and direction.
    num_layers : int
    bidirectional : bool
        Also read from the end to the beginning.
    dropout : float
        Of the input, between layers and of the output.
    pooling : {"last", "mean", "max", "attention"}
        What represents the sequence; see `fastlstm.pooling.Pooling`.
    cell : {"lstm", "rnn"}
        "rnn" is the plain recurrent network, for comparison.
    epochs : int
        The most passes over the training part.
    batch_size : int
    learning_rate : float
        Its height; it rises to it in the first twentieth of the steps and falls along a cosine.
    weight_decay : float
        As ``torch.optim.AdamW`` has it.
    max_norm : float
        Gradients of a larger global norm are scaled down to it.
    validation_fraction : float
        Part of the samples that is held out; the weights with the lowest loss on it are kept. 0
        trains on all, for all epochs.
    patience : int, optional
        Stop after so many epochs without a new lowest loss.
    random_state : int, RandomState or None
        Of weights, batches, dropout and what is held out.
    verbose : bool
        Show progress on stderr.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
    n_features_in_ : int
        Features of a step.
    history_ : History
        Losses of the steps, and validations.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal((rng.integers(5, 10), 2)) for _ in range(60)]
    >>> y = ["up" if x[:, 0].mean() > 0 else "down" for x in X]
    >>> classifier = SequenceClassifier(16, epochs=20, random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.8
    True
    """

    _kind = "sequence-classifier"

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.2,
        pooling: str = "mean",
        cell: str = "lstm",
        epochs: int = 50,
        batch_size: int = 16,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.01,
        max_norm: float = 1.0,
        validation_fraction: float = 0.1,
        patience: int | None = 10,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.pooling = pooling
        self.cell = cell
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, *, lengths: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : list of array_like (T_i, F), or array_like (n, T, F) or (n, T)
        y : array_like (n,)
            Classes: numbers or strings.
        lengths : array_like of int (n,), optional
            Steps of each padded sequence.

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible, lengths of X and y differ, there is a single class, or a
            NaN or infinite number in X.
        KeyboardInterrupt
            After Ctrl-C; the estimator is then at the best weights so far.
        """
        sequences = check_sequences(X, lengths)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if len(y) != len(sequences):
            raise ValueError(f"y: expected {len(sequences)} classes, as X has, got {len(y)}")
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, got 1 class: {self.classes_[0]!r}")
        seed = self._new_seed()
        training, validation = self._split(len(y), seed=seed, stratify=targets)
        self._standardise(sequences.take(training))
        scaled = self._scale(sequences)

        def make_batch(which: Array) -> tuple[Array, Array, Array]:
            return (*scaled.padded(which), targets[which])

        network = self._network(np.random.default_rng(seed))

        def validate() -> float:
            logits = self._logits(network, scaled.take(validation))
            return softmax_cross_entropy(logits, targets[validation])[0]

        self._train(
            network,
            lambda which: make_batch(training[which]),
            len(training),
            seed=seed,
            validate=validate if len(validation) else None,
        )
        return self

    def predict_proba(self, X: Any, *, lengths: Any = None) -> Array:
        """Probabilities of the classes, (n, n_classes) of float64, in the order of `classes_`."""
        self._check_is_fitted()
        sequences = check_sequences(X, lengths, features=self.n_features_in_)
        logits = self._logits(self.network_, self._scale(sequences)).astype(np.float64)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        proba: Array = weights / weights.sum(axis=1, keepdims=True)
        return proba

    def predict(self, X: Any, *, lengths: Any = None) -> Array:
        """The likeliest class of each sequence, (n,)."""
        proba = self.predict_proba(X, lengths=lengths)
        best: Array = self.classes_[proba.argmax(axis=1)]
        return best

    # --- network ----------------------------------------------------------------------------------

    def _network(self, start: Start) -> PooledNetwork:
        return PooledNetwork(
            len(self.classes_),
            pooling=self.pooling,
            loss=softmax_cross_entropy,
            start=start,
            features=self.n_features_in_,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            cell=self.cell,
        )

    def _logits(self, network: PooledNetwork, scaled: Ragged) -> Array:
        parts = [network(*scaled.padded(part)) for part in in_chunks(len(scaled), _AT_ONCE)]
        return np.concatenate(parts)

    def _standardise(self, sequences: Ragged) -> None:
        """Take the features' mean and deviation; one that never changes is only shifted."""
        rows = sequences.rows
        self.n_features_in_ = rows.shape[1]
        self._mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        deviation = rows.std(axis=0, dtype=np.float64).astype(np.float32)
        self._deviation = np.where(deviation > 0, deviation, np.float32(1))

    def _scale(self, sequences: Ragged) -> Ragged:
        return Ragged((sequences.rows - self._mean) / self._deviation, sequences.lengths)

    # --- files ------------------------------------------------------------------------------------

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        return {"classes": labels_to_json(self.classes_)}, {
            "mean": self._mean,
            "deviation": self._deviation,
        }

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        self.classes_ = labels_from_json(fitted["classes"])
        self._mean, self._deviation = arrays["mean"], arrays["deviation"]
        self.n_features_in_ = len(self._mean)
        self.network_ = self._network(network)
