"""What all estimators share: scikit-learn's habits, one training run, one file.

An estimator holds a network and a Trainer's settings. A subclass says how its input becomes
batches and how its network's output becomes an answer; everything else is here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from fastlstm import storage
from fastlstm._validate import Array, check_number, check_size
from fastlstm.optim import AdamW
from fastlstm.schedules import cosine
from fastlstm.storage import FormatError
from fastlstm.tasks._batches import ShuffledBatches
from fastlstm.tasks._networks import Network
from fastlstm.tasks._sklearn import (
    BaseEstimator,
    NotFittedError,
    check_random_state,
    train_test_split,
)
from fastlstm.training import History, Trainer

# Part of the steps in which the learning rate rises to its height.
_WARMUP = 0.05


class Estimator(BaseEstimator):
    """Base of the estimators.

    A subclass has these arguments of its constructor among its own, stored untouched: `epochs`,
    `batch_size`, `learning_rate`, `weight_decay`, `max_norm`, `validation_fraction`, `patience`,
    `random_state`, `verbose`.

    Attributes
    ----------
    network_ : Network
        What was trained; there as soon as training begins, so that Ctrl-C leaves an estimator that
        can be used.
    history_ : History
        Losses of the steps and validations.
    """

    #: What its files are called in their headers.
    _kind: ClassVar[str]

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    max_norm: float
    validation_fraction: float
    patience: int | None
    random_state: Any
    verbose: bool | int

    network_: Any
    history_: History

    # --- training ---------------------------------------------------------------------------------

    def _new_seed(self) -> int:
        """A seed from `random_state`, as scikit-learn takes it: None, an int, or a RandomState."""
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _train(
        self,
        network: Network,
        make_batch: Callable[[Array], Any],
        count: int,
        *,
        seed: int,
        validate: Callable[[], float] | None = None,
        lengths: Array | None = None,
        epochs: int | None = None,
    ) -> None:
        """Train the network in place, and keep the weights of the lowest validation.

        Parameters
        ----------
        network : Network
        make_batch : callable
            ``make_batch(which)``: what the network's `loss_and_grads` takes, of these examples.
        count : int
            Examples to train on.
        validate : callable, optional
            The loss on examples held out; called after each epoch.
        lengths : ndarray (count,), optional
            Take examples of similar lengths together.
        epochs : int, optional
            Instead of the estimator's own.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C: the network is then at the best weights so far.
        """
        epochs = check_size("epochs", self.epochs if epochs is None else epochs)
        batches = ShuffledBatches(
            make_batch, count, batch_size=self.batch_size, epochs=epochs, seed=seed,
            lengths=lengths,
        )  # fmt: skip
        steps = len(batches)
        patience = epochs if self.patience is None else check_size("patience", self.patience)
        trainer = Trainer(
            network,
            AdamW(
                network.parameters(),
                check_number("learning_rate", self.learning_rate, above=0),
                weight_decay=check_number("weight_decay", self.weight_decay, least=0),
            ),
            schedule=cosine(steps, warmup=int(_WARMUP * steps)),
            max_norm=self.max_norm,
            seed=seed,
            validate=validate,
            validate_every=None if validate is None else batches.per_epoch,
            patience=None if validate is None else patience,
            progress=bool(self.verbose),
        )
        self.network_, self.history_ = network, trainer.history
        try:
            trainer.fit(batches, epochs=1)
        except KeyboardInterrupt:
            trainer.restore_best()
            raise

    def _split(
        self, count: int, *, seed: int, stratify: Array | None = None
    ) -> tuple[Array, Array]:
        """Numbers of the examples to train on, and of those held out by `validation_fraction`.

        A fraction of 0 holds nothing out. Classes are held out alike where each has two examples.
        """
        fraction = check_number("validation_fraction", self.validation_fraction, least=0, below=1)
        held_out = round(count * fraction)
        if fraction and not 0 < held_out < count:
            raise ValueError(
                f"validation_fraction: {fraction:g} of {count} samples are {held_out}, so nothing "
                "is left to train on or to validate with; 0 holds nothing out"
            )
        everything = np.arange(count)
        if not held_out:
            return everything, everything[:0]
        if stratify is not None:
            _, counts = np.unique(stratify, return_counts=True)
            if counts.min() < 2 or min(held_out, count - held_out) < len(counts):
                stratify = None
        training, validation = train_test_split(
            everything, test_size=held_out, random_state=seed, stratify=stratify
        )
        return np.sort(training), np.sort(validation)

    def _check_is_fitted(self) -> None:
        if not hasattr(self, "network_"):
            name = type(self).__name__
            raise NotFittedError(f"This {name} instance is not fitted yet: call fit first.")

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file, atomically.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        OSError
            If the file cannot be written. What was there before is left as it was.
        ImportError
            If safetensors is not installed.
        """
        self._check_is_fitted()
        params = self.get_params(deep=False)
        if not isinstance(params["random_state"], (int, np.integer)):
            params["random_state"] = None
        fitted, arrays = self._fitted()
        arrays |= {f"network.{k}": array for k, array in self.network_.parameters().items()}
        header = {"params": {k: _plain(value) for k, value in params.items()}, "fitted": fitted}
        storage.save(path, self._kind, arrays, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` wrote.

        Arguments that came after the file was written have their defaults.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        fastlstm.storage.FormatError
            If it is no file of this estimator, newer, or damaged.
        """
        file = storage.load(path, cls._kind)
        file.check_header(params=dict, fitted=dict)
        try:
            estimator = cls(**file.header["params"])
            network, others = {}, {}
            for name, array in file.arrays.items():
                if name.startswith("network."):
                    network[name.removeprefix("network.")] = array
                else:
                    others[name] = array
            estimator._restore(file.header["fitted"], others, network)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FormatError(
                f"{file.path}: its header and its arrays do not belong together: {error}"
            ) from None
        return estimator

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What was learnt besides the network's weights: a JSON object, and arrays."""
        raise NotImplementedError

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        """Take up what `_fitted` gave; the network begins with the arrays `network`.

        Raises KeyError, TypeError or ValueError if it is not what `_fitted` gives.
        """
        raise NotImplementedError


def _plain(value: Any) -> Any:
    """An argument of a constructor as JSON can hold it."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def labels_to_json(classes: Array) -> dict[str, Any]:
    """Classes (n,) of numbers, bools or strings, for `labels_from_json`."""
    return {"dtype": classes.dtype.str, "values": classes.tolist()}


def labels_from_json(saved: Mapping[str, Any]) -> Array:
    """The array that `labels_to_json` was given."""
    dtype = saved["dtype"]
    if dtype == "|O":
        return np.array(saved["values"], dtype=object)
    if not isinstance(dtype, str) or dtype[:2] not in ("<i", "<u", "<f", "|b", "|i", "|u", "<U"):
        raise ValueError(f"classes: expected a dtype of numbers or text, got {dtype!r:.80}")
    values: Sequence[Any] = saved["values"]
    return np.array(values).astype(np.dtype(dtype[:2] + str(int(dtype[2:]))))
