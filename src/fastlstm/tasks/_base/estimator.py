"""What all estimators share: scikit-learn's habits, one training run, one file.

An estimator holds a network and a Trainer's settings. A subclass says how its input becomes
batches and how its network's output becomes an answer; everything else is here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from fastlstm import storage
from fastlstm._validate import Array, check_names, check_number, check_size
from fastlstm.optim import SGD, AdamW
from fastlstm.schedules import cosine
from fastlstm.storage import FormatError
from fastlstm.tasks._base.batches import ShuffledBatches
from fastlstm.tasks._base.networks import Network
from fastlstm.tasks._base.sklearn import BaseEstimator, NotFittedError, check_random_state
from fastlstm.tasks._base.supervision import labels_from_json as labels_from_json
from fastlstm.tasks._base.supervision import labels_to_json as labels_to_json
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

    epochs: int | None
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
    # Of partial_fit, which goes on where it was.
    _optimiser: AdamW | SGD | None = None
    _seed: int

    def _keep(self, arguments: dict[str, Any]) -> None:
        """Store the arguments of the constructor, which are its ``locals()``, under their names."""
        for name, argument in arguments.items():
            if name != "self":
                setattr(self, name, argument)

    # --- training ---------------------------------------------------------------------------------

    @contextmanager
    def _as_before_if_refused(self) -> Iterator[None]:
        """What was fitted stays as it was if the block raises TypeError or ValueError: for `fit`.

        Training itself, in the block or outside of it, ends with other exceptions.
        """
        before = dict(vars(self))
        try:
            yield
        except (TypeError, ValueError):
            self.__dict__ = before
            raise

    def _new_seed(self) -> int:
        """A seed from `random_state`, as scikit-learn takes it: None, an int, or a RandomState."""
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _check_training(self) -> None:
        """Raise if a setting of the training is not possible: for before the work begins."""
        if self.epochs is not None:
            check_size("epochs", self.epochs)
        check_size("batch_size", self.batch_size)
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("max_norm", self.max_norm, above=0)
        check_number("validation_fraction", self.validation_fraction, least=0, below=1)
        if self.patience is not None:
            check_size("patience", self.patience)

    def _train(
        self,
        network: Network,
        make_batch: Callable[..., Any],
        count: int,
        *,
        seed: int,
        validate: Callable[[], float] | None = None,
        lengths: Array | None = None,
        draws: bool = False,
        epochs: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
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
        draws : bool
            ``make_batch(which, rng)`` also takes a generator; see `ShuffledBatches`.
        epochs : int, optional
            Instead of the estimator's own.
        checkpoint : path, optional
            A file that is written after each epoch, and when training ends or is interrupted. If
            it is there already, training goes on from it.
        settings : mapping, optional
            What else must be the same for that; see Trainer.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C: the network is then at the best weights so far.
        FloatingPointError
            If a loss or a gradient is not finite; the network as with Ctrl-C.
        ValueError
            If the checkpoint belongs to another run.
        """
        self._check_training()
        epochs = check_size("epochs", self.epochs if epochs is None else epochs)
        batches = ShuffledBatches(
            make_batch, count, batch_size=self.batch_size, epochs=epochs, seed=seed,
            lengths=lengths, draws=draws,
        )  # fmt: skip
        steps = len(batches)
        trainer = Trainer(
            network,
            self._new_optimiser(network),
            schedule=cosine(steps, warmup=int(_WARMUP * steps)),
            max_norm=self.max_norm,
            seed=seed,
            validate=validate,
            validate_every=None if validate is None else batches.per_epoch,
            patience=None if validate is None else self.patience or epochs,
            progress=bool(self.verbose),
            checkpoint=checkpoint,
            checkpoint_every=None if checkpoint is None else batches.per_epoch,
            settings=settings,
        )
        if checkpoint is not None and Path(checkpoint).exists():
            trainer.resume(checkpoint)
        self._run(network, trainer, batches, steps)

    def _run(self, network: Network, trainer: Trainer, batches: Sequence[Any], steps: int) -> None:
        """Train until the run has so many steps; what ends it leaves the best weights so far."""
        self._optimiser = None
        self.network_, self.history_ = network, trainer.history
        try:
            trainer.fit(batches, steps=steps)
        except (KeyboardInterrupt, FloatingPointError):
            trainer.restore_best()
            raise

    def _train_further(
        self,
        make_batch: Callable[..., Any],
        count: int,
        *,
        lengths: Array | None = None,
        draws: bool = False,
    ) -> None:
        """One pass over `count` more examples, for `partial_fit`.

        The learning rate stays at its height, and what the optimiser remembers is kept from call
        to call. Nothing is held out. `history_` grows.
        """
        self._check_training()
        self._run_further(
            lambda seed: ShuffledBatches(
                make_batch,
                count,
                batch_size=self.batch_size,
                epochs=1,
                seed=seed,
                lengths=lengths,
                draws=draws,
            ),
            progress=bool(self.verbose),
        )

    def _run_further(self, make: Callable[[int], Sequence[Any]], **options: Any) -> None:
        """One pass over the batches that `make` gives for a seed, with options of the Trainer."""
        if self._optimiser is None:
            self._optimiser = self._new_optimiser(self.network_)
            self._seed = self._new_seed()
        self._optimiser.lr = self.learning_rate
        done = len(self.history_.losses)
        seed = int(np.random.SeedSequence([self._seed, done]).generate_state(1)[0])
        trainer = Trainer(
            self.network_, self._optimiser, max_norm=self.max_norm, seed=seed, **options
        )
        batches = make(seed)
        try:
            trainer.fit(batches, epochs=1)
        finally:
            self.history_.losses.extend(trainer.history.losses)

    def _new_optimiser(self, network: Network) -> AdamW | SGD:
        return AdamW(network.parameters(), self.learning_rate, weight_decay=self.weight_decay)

    def _split(
        self, count: int, *, seed: int, stratify: Array | None = None
    ) -> tuple[Array, Array]:
        """Numbers of the examples to train on, and of those held out by `validation_fraction`.

        A fraction of 0 holds nothing out, any other one at least one example. With `stratify`,
        numbers of classes (count,), each class has its share held out, and one example at least to
        train on.
        """
        fraction = check_number("validation_fraction", self.validation_fraction, least=0, below=1)
        everything = np.arange(count)
        if not fraction:
            return everything, everything[:0]
        order = np.random.default_rng(seed).permutation(count)
        # The classes one after the other; the first of each, or of all, is not to be held out.
        classes = np.zeros(count) if stratify is None else stratify
        order = order[np.argsort(classes[order], kind="stable")]
        order = order[np.diff(classes[order], prepend=-1) == 0]
        if not len(order):
            raise ValueError(
                f"validation_fraction: nothing of n_samples={count} can be held out, for one of "
                "each class is to be trained on; 0 holds nothing out"
            )
        held_out = min(max(1, round(count * fraction)), len(order))
        places = (np.arange(held_out) + 0.5) * len(order) / held_out
        validation = np.sort(order[places.astype(np.int64)])
        return np.setdiff1d(everything, validation), validation

    def _take_untrained(self, network: Network) -> None:
        """Have a network that has not learnt anything yet, for `partial_fit`."""
        self.network_, self.history_, self._optimiser = network, History(), None

    def _is_fitted(self) -> bool:
        return hasattr(self, "network_")

    def _check_is_fitted(self) -> None:
        if not self._is_fitted():
            name = type(self).__name__
            raise NotFittedError(f"This {name} instance is not fitted yet: call fit first.")

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file, atomically.

        What JSON cannot hold and training alone needs is not kept: a `random_state` that is a
        RandomState, a dict of class weights whose classes are no strings, `history_`.

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
        fitted, arrays = self._fitted()
        arrays |= {f"network.{k}": array for k, array in self.network_.parameters().items()}
        header = {"params": self._plain_params(), "fitted": fitted}
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
        file = cls._upgraded(storage.load(path, cls._kind))
        file.check_header(params=dict, fitted=dict)
        try:
            _check_layers(file)
            estimator = cls(**file.header["params"])
            network, others = {}, {}
            for name, array in file.arrays.items():
                if name.startswith("network."):
                    network[name.removeprefix("network.")] = array
                else:
                    others[name] = array
            estimator._restore(file.header["fitted"], others, network)
            check_names("network", network, estimator.network_.parameters())
            fitted, arrays = estimator._fitted()
            check_names("fitted", file.header["fitted"], fitted)
            check_names("arrays", others, arrays)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FormatError(
                f"{file.path}: its header and its arrays do not belong together: {error}"
            ) from None
        estimator.history_ = History()
        return estimator

    @classmethod
    def _upgraded(cls, file: storage.File) -> storage.File:
        """A file that an older version wrote in another form, as this one would write it."""
        return file

    def _plain_params(self) -> dict[str, Any]:
        """The arguments of the constructor, as JSON can hold them."""
        return {k: _plain(value) for k, value in self.get_params(deep=False).items()}

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


def _check_layers(file: storage.File) -> None:
    """Layers are listed before their arrays are looked at, so there must be no more of them."""
    layers = file.header["params"].get("num_layers", 1)
    if isinstance(layers, int) and layers > len(file.arrays):
        raise ValueError(f"num_layers: {layers} layers have more than {len(file.arrays)} arrays")


def _plain(value: Any) -> Any:
    """An argument of a constructor as JSON can hold it; None for what a file does not keep."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.random.RandomState) or callable(value):
        return None
    if isinstance(value, dict):
        return value if all(isinstance(key, str) for key in value) else None
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
