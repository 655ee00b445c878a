"""What the estimators of numeric sequences share: standardising, learning and predicting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._validate import Array
from fastlstm.tasks._base import supervision
from fastlstm.tasks._base.batches import Ragged, in_groups
from fastlstm.tasks._base.estimator import Estimator
from fastlstm.tasks._base.inputs import check_sequences
from fastlstm.tasks._base.networks import PooledNetwork, Start, StepNetwork
from fastlstm.tasks._base.scaling import Scaling
from fastlstm.tasks._base.supervision import Weighted
from fastlstm.tasks.augmentation import Augment

# Steps that are predicted at once, padding included.
AT_ONCE = 2**15


@dataclass(frozen=True)
class Examples:
    """What is learnt from.

    Attributes
    ----------
    sequences : Ragged
        Standardised, n of them.
    targets : ndarray (n, ...) or Ragged
        For each sequence, or for each step.
    weights : ndarray of float32 (n,), Ragged or None
        Of the targets.
    """

    sequences: Ragged
    targets: Array | Ragged
    weights: Array | Ragged | None

    def batch(self, which: Array) -> tuple[Array, Array, Weighted]:
        """What a network's `loss_and_grads` takes, of the sequences with these numbers."""
        x, lengths = self.sequences.padded(which)
        weights = None if self.weights is None else _taken(self.weights, which)
        return x, lengths, (_taken(self.targets, which), weights)

    def take(self, which: Array) -> Examples:
        """Some of them."""

        def part(values: Array | Ragged) -> Array | Ragged:
            return values.take(which) if isinstance(values, Ragged) else values[which]

        weights = None if self.weights is None else part(self.weights)
        return Examples(self.sequences.take(which), part(self.targets), weights)


def _taken(values: Array | Ragged, which: Array) -> Array:
    return values.take(which).rows if isinstance(values, Ragged) else values[which]


class NumericEstimator(Estimator):
    """Base of the estimators of numeric sequences.

    Beside the arguments of Estimator, a subclass has `hidden_size`, `num_layers`, `bidirectional`,
    `dropout` and `cell`, and may have `noise`. It says what its network and its targets are.

    Attributes
    ----------
    n_features_in_ : int
        Features of a step.
    """

    hidden_size: int
    num_layers: int
    bidirectional: bool
    dropout: float
    noise: float = 0.0
    cell: str
    # An argument of those whose targets do not depend on the number of steps.
    augment: Augment | None = None

    n_features_in_: int
    _scaling: Scaling

    def _network(self, start: Start) -> PooledNetwork | StepNetwork:
        """The network for what was fitted so far: features, classes."""
        raise NotImplementedError

    def _encoder(self) -> dict[str, Any]:
        """The arguments that the network's Encoder takes."""
        return {
            "features": self.n_features_in_,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bidirectional": self.bidirectional,
            "dropout": self.dropout,
            "input_dropout": 0.0,
            "noise": self.noise,
            "cell": self.cell,
        }

    # --- learning ---------------------------------------------------------------------------------

    def _check_input(self, X: Any, lengths: Any, *, further: bool = False) -> Ragged:
        """Sequences to learn from; settings are looked at, too, before anything is changed.

        `further`: they must have the features that are known, if there are any.
        """
        self._check_training()
        if self.augment is not None and not callable(self.augment):
            raise TypeError(f"augment: expected a callable or None, got {self.augment!r:.80}")
        features = self.n_features_in_ if further and self._is_fitted() else None
        sequences = check_sequences(X, lengths, features=features, dtype=np.float64)
        if not len(sequences.rows):
            raise ValueError(
                f"X: expected at least one step, got {len(sequences)} sequences without any: "
                f"0 feature(s) (shape=({len(sequences)}, 0)) while a minimum of 1 is required."
            )
        return sequences

    def _learn(self, examples: Examples, training: Array, validation: Array, *, seed: int) -> None:
        """Train a new network; `examples.sequences` are not standardised yet."""
        rows = examples.sequences.take(training).rows
        if not len(rows):
            raise ValueError("X: of the part to train on, no sequence has a step")
        self._scaling = Scaling.of(rows)
        self.n_features_in_ = len(self._scaling.mean)
        learnt, held_out = (
            Examples(self._scaled(part.sequences), part.targets, part.weights)
            for part in (examples.take(training), examples.take(validation))
        )
        network = self._network(np.random.default_rng(seed))
        raw = examples.take(training)
        self._train(
            network,
            lambda which, rng: self._drawn(raw, learnt, which, rng),
            len(learnt.sequences),
            seed=seed,
            validate=(lambda: loss_of(network, held_out)) if len(validation) else None,
            draws=True,
        )

    def _drawn(
        self, raw: Examples, scaled: Examples, which: Array, rng: np.random.Generator
    ) -> tuple[Array, Array, Weighted]:
        """A batch of these examples, changed by `augment`."""
        if self.augment is None:
            return scaled.batch(which)
        some = raw.take(which)
        changed = self._scaled(self._augmented(some.sequences, rng))
        return Examples(changed, some.targets, some.weights).batch(np.arange(len(which)))

    def _augmented(self, sequences: Ragged, rng: np.random.Generator) -> Ragged:
        """Sequences as `augment` changes them; not standardised before nor after."""
        assert self.augment is not None
        changed = [np.asarray(self.augment(one, rng)) for one in sequences]
        for one in changed:
            if one.ndim != 2 or one.shape[1] != self.n_features_in_ or not np.isfinite(one).all():
                raise ValueError(
                    f"augment: expected finite numbers of shape (T, {self.n_features_in_}), got "
                    f"{one.dtype} of shape {one.shape}"
                )
        return Ragged.of(changed, sequences.rows[:0])

    def _learn_further(self, examples: Examples) -> None:
        """One pass over examples, from the network as it is or, without one, a new one."""
        if not self._is_fitted():
            self._scaling = Scaling.of(examples.sequences.rows)
            self.n_features_in_ = len(self._scaling.mean)
            self._take_untrained(self._network(np.random.default_rng(self._new_seed())))
        scaled = Examples(self._scaled(examples.sequences), examples.targets, examples.weights)
        self._train_further(
            lambda which, rng: self._drawn(examples, scaled, which, rng),
            len(scaled.sequences),
            draws=True,
        )

    def _scaled(self, sequences: Ragged) -> Ragged:
        return Ragged(self._scaling.apply("X", sequences.rows), sequences.lengths)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags

    # --- predicting -------------------------------------------------------------------------------

    def _apply(self, X: Any, lengths: Any) -> tuple[Array, Array]:
        """What the network says: of each sequence (n, K) or step (N, K); and lengths (n,)."""
        self._check_is_fitted()
        sequences = check_sequences(X, lengths, features=self.n_features_in_, dtype=np.float64)
        scaled = self._scaled(sequences)
        by_step = isinstance(self.network_, StepNetwork)
        outputs = self.network_.head.out_features
        output = np.empty((len(scaled.rows) if by_step else len(scaled), outputs), np.float32)
        for which in in_groups(scaled.lengths, AT_ONCE):
            places = scaled.steps(which) if by_step else which
            output[places] = self.network_(*scaled.padded(which))
        return output, scaled.lengths

    # --- files ------------------------------------------------------------------------------------

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        return {}, self._scaling.arrays("features")

    def _restore(
        self, _fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        self._scaling = Scaling.from_arrays("features", arrays)
        self.n_features_in_ = len(self._scaling.mean)
        self.network_ = self._network(network)


class LabellingEstimator(NumericEstimator):
    """Base of those whose answers are classes, of a sequence or of each step.

    A subclass has the argument `class_weight`.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
    """

    class_weight: Any
    classes_: Array

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        fitted, arrays = super()._fitted()
        return fitted | {"classes": supervision.labels_to_json(self.classes_)}, arrays

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        self.classes_ = supervision.labels_from_json(fitted["classes"])
        super()._restore(fitted, arrays, network)


def loss_of(network: PooledNetwork | StepNetwork, examples: Examples) -> float:
    """The loss of examples without dropout."""
    total = count = 0.0
    for which in in_groups(examples.sequences.lengths, AT_ONCE):
        batch = examples.batch(which)
        targets = len(batch[2][0])
        if targets:
            total += network.loss(batch) * targets
            count += targets
    return total / count
