"""Estimators of numeric sequences: a class for each, or numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from fastlstm._validate import Array, check_flag
from fastlstm.losses import mean_squared_error
from fastlstm.tasks._base import supervision
from fastlstm.tasks._base.networks import PooledNetwork, Start
from fastlstm.tasks._base.numeric import (
    Examples,
    LabellingEstimator,
    NumericEstimator,
)
from fastlstm.tasks._base.scaling import Scaling
from fastlstm.tasks._base.sklearn import ClassifierMixin, RegressorMixin, accuracy_score, r2_score
from fastlstm.tasks.augmentation import Augment


class SequenceClassifier(ClassifierMixin, LabellingEstimator):
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
        Between layers and of the output.
    noise : float
        Deviation of the normal noise that is added to the standardised features in training, so
        that what is learnt does not depend on small differences: it makes more of little data.
        Where there is much data, or small differences matter, less is better.
    pooling : {"last", "mean", "max", "attention"}
        What represents the sequence; see `fastlstm.Pooling`.
    cell : {"lstm", "rnn"}
        "rnn" is the plain recurrent network, for comparison.
    augment : callable, optional
        ``augment(sequence, rng)`` changes each training sequence anew in each epoch; see
        `fastlstm.tasks.augmentation`. Not kept in files.
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
        Stop after so many epochs without a new lowest loss on what is held out.
    class_weight : dict, "balanced" or None
        What the loss of a sample of each class is multiplied by; "balanced": in inverse proportion
        to their numbers of samples.
    random_state : int, RandomState or None
        Of weights, batches, dropout and what is held out.
    verbose : bool
        Show progress on stderr.

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
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal((rng.integers(5, 10), 2)) for _ in range(60)]
    >>> y = ["up" if x[:, 0].mean() > 0 else "down" for x in X]
    >>> classifier = SequenceClassifier(16, epochs=20, random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.8
    True
    """

    _kind = "sequence-classifier"

    pooling: str

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.2,
        noise: float = 0.3,
        pooling: str = "mean",
        cell: str = "lstm",
        augment: Augment | None = None,
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
        X : list of array_like (T_i, F), or array_like (n, T, F) or (n, T)
            Sequences, each of any length; or padded ones. Without the last axis each step is one
            number.
        y : array_like (n,)
            Classes: numbers, bools or strings.
        sample_weight : array_like (n,), optional
            What the loss of each sample is multiplied by; only the proportions matter.
        lengths : array_like of int (n,), optional
            Steps of each padded sequence; what lies past them is not looked at.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible. What was fitted before is left as it was.
        KeyboardInterrupt
            After Ctrl-C; the estimator then has the best weights so far and can be used.
        """
        sequences = self._check_input(X, lengths)
        labels = supervision.check_labels(y, len(sequences))
        classes, codes = supervision.encode(labels)
        sample_weight = supervision.check_sample_weight(sample_weight, len(labels))
        weights = supervision.sample_weights(sample_weight, self.class_weight, classes, codes)
        seed = self._new_seed()
        training, validation = self._split(len(codes), seed=seed, stratify=codes)
        examples = Examples(sequences, codes, supervision.mean_one(weights))
        with self._as_before_if_refused():
            self.classes_ = classes
            self._learn(examples, training, validation, seed=seed)
        return self

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: Any = None,
        sample_weight: Any = None,
        *,
        lengths: Any = None,
    ) -> Self:
        """Train on, by one pass over these samples; nothing is held out.

        The first call of an estimator that is not fitted begins a network, takes from its samples
        how features are standardised, and needs all classes that will come in `classes`. The
        learning rate stays at its height.

        Parameters
        ----------
        X, y, sample_weight, lengths
            As in `fit`.
        classes : array_like (n_classes,), optional
            Needed in the first call.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `fit`, and if `class_weight` is "balanced", which needs all samples at once.
        """
        sequences = self._check_input(X, lengths, further=True)
        labels = supervision.check_labels(y, len(sequences))
        given = supervision.check_classes(classes, self.classes_ if self._is_fitted() else None)
        if self.class_weight == "balanced":
            raise ValueError("class_weight: 'balanced' needs all samples at once; pass a dict")
        _, codes = supervision.encode(labels, given)
        sample_weight = supervision.check_sample_weight(sample_weight, len(labels))
        weights = supervision.sample_weights(sample_weight, self.class_weight, given, codes)
        with self._as_before_if_refused():
            self.classes_ = given
            self._learn_further(Examples(sequences, codes, supervision.as_they_are(weights)))
        return self

    def predict_proba(self, X: Any, *, lengths: Any = None) -> Array:
        """Probabilities of the classes, (n, n_classes) of float64, in the order of `classes_`."""
        return supervision.softmax(self._apply(X, lengths)[0])

    def predict(self, X: Any, *, lengths: Any = None) -> Array:
        """The likeliest class of each sequence, (n,)."""
        logits, _ = self._apply(X, lengths)
        best: Array = self.classes_[logits.argmax(axis=1)]
        return best

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None) -> float:
        """Part of the sequences whose class is predicted."""
        predicted = self.predict(X, lengths=lengths)
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def _network(self, start: Start) -> PooledNetwork:
        return PooledNetwork(
            len(self.classes_),
            pooling=self.pooling,
            loss=supervision.cross_entropy,
            start=start,
            **self._encoder(),
        )


class SequenceRegressor(RegressorMixin, NumericEstimator):
    """One number, or several, for each sequence of vectors, by an LSTM.

    Features and targets are standardised inside, by their mean and deviation in the training part;
    the loss is the squared error of the standardised targets.

    Parameters
    ----------
    hidden_size, num_layers, bidirectional, dropout, noise, pooling, cell
    epochs, batch_size, learning_rate, weight_decay, max_norm
    validation_fraction, patience, random_state, verbose
        As `SequenceClassifier` has them, but by default without dropout and noise, which blur
        numbers.

    Attributes
    ----------
    n_features_in_ : int
        Features of a step.
    n_outputs_ : int
        Targets of a sequence.
    network_ : object
        The trained layers.
    history_ : History
        Losses of the steps, and validations.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal((rng.integers(5, 10), 2)) for _ in range(80)]
    >>> y = [x[:, 0].sum() for x in X]
    >>> regressor = SequenceRegressor(16, epochs=30, random_state=0).fit(X, y)
    >>> regressor.score(X, y) > 0.8
    True
    """

    _kind = "sequence-regressor"

    pooling: str
    n_outputs_: int
    _target_scaling: Scaling
    _single: bool

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
        noise: float = 0.0,
        pooling: str = "mean",
        cell: str = "lstm",
        epochs: int = 50,
        batch_size: int = 16,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.01,
        max_norm: float = 1.0,
        validation_fraction: float = 0.0,
        patience: int | None = 10,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self._keep(locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None) -> Self:
        """Train a new network.

        Parameters
        ----------
        X, sample_weight, lengths
            As `SequenceClassifier.fit` takes them.
        y : array_like (n,) or (n, n_outputs)
            Finite numbers.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError, KeyboardInterrupt
            As in `SequenceClassifier.fit`.
        """
        sequences = self._check_input(X, lengths)
        targets, single = supervision.check_targets(y, len(sequences))
        weights = supervision.mean_one(supervision.check_sample_weight(sample_weight, len(targets)))
        seed = self._new_seed()
        training, validation = self._split(len(targets), seed=seed)
        with self._as_before_if_refused():
            self._take_targets(targets[training], single)
            scaled = self._target_scaling.apply("y", targets)
            self._learn(Examples(sequences, scaled, weights), training, validation, seed=seed)
        return self

    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None
    ) -> Self:
        """Train on, by one pass over these samples; see `SequenceClassifier.partial_fit`.

        The first call's targets say how all are standardised.
        """
        sequences = self._check_input(X, lengths, further=True)
        targets, single = supervision.check_targets(y, len(sequences))
        weights = supervision.check_sample_weight(sample_weight, len(targets))
        if self._is_fitted() and targets.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y: expected {self.n_outputs_} targets of each sequence, as in the call before, "
                f"got {targets.shape[1]}"
            )
        with self._as_before_if_refused():
            if not self._is_fitted():
                self._take_targets(targets, single)
            scaled = self._target_scaling.apply("y", targets)
            self._learn_further(Examples(sequences, scaled, supervision.as_they_are(weights)))
        return self

    def predict(self, X: Any, *, lengths: Any = None) -> Array:
        """The targets of each sequence: (n,), or (n, n_outputs) if `fit` was given such."""
        scaled, _ = self._apply(X, lengths)
        predicted = self._target_scaling.undo(scaled)
        return predicted[:, 0] if self._single else predicted

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None) -> float:
        """R², the coefficient of determination; of several targets their mean."""
        predicted = self.predict(X, lengths=lengths)
        return float(r2_score(y, predicted, sample_weight=sample_weight))

    def _take_targets(self, targets: Array, single: bool) -> None:
        self._target_scaling, self._single = Scaling.of(targets), single
        self.n_outputs_ = targets.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _network(self, start: Start) -> PooledNetwork:
        return PooledNetwork(
            self.n_outputs_,
            pooling=self.pooling,
            loss=_squared_error,
            start=start,
            **self._encoder(),
        )

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        fitted, arrays = super()._fitted()
        return fitted | {"single": self._single}, arrays | self._target_scaling.arrays("targets")

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        self._target_scaling = Scaling.from_arrays("targets", arrays)
        self.n_outputs_ = len(self._target_scaling.mean)
        self._single = check_flag("single", fitted["single"])
        if self._single and self.n_outputs_ != 1:
            raise ValueError(f"single: is for one target, not for {self.n_outputs_}")
        super()._restore(fitted, arrays, network)


def _squared_error(prediction: Array, target: supervision.Weighted) -> tuple[float, Array]:
    """Mean of weight · (prediction - target)²."""
    targets, weights = target
    if weights is None:
        return mean_squared_error(prediction, targets)
    roots = np.sqrt(weights)[:, np.newaxis]
    loss, d_prediction = mean_squared_error(roots * prediction, roots * targets)
    return loss, d_prediction * roots
