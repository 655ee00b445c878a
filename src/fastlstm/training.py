"""The Trainer: steps, validation, early stopping, checkpoints that resume to the same bits.

What a step does stands in `Trainer._step`, what happens between steps in `Trainer.fit`. All that
changes from step to step, weights and optimiser aside, is one `Run` (fastlstm.checkpoints), so
that a checkpoint is complete by construction.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from fastlstm import checkpoints, storage
from fastlstm._extras import import_extra
from fastlstm._interrupt import Interrupt, deferred_interrupt
from fastlstm._validate import Array, check_flag, check_number, check_size, compact
from fastlstm.checkpoints import History as History
from fastlstm.checkpoints import Run
from fastlstm.optim import clip_grad_norm
from fastlstm.parameters import Parameters

# The progress bar shows the mean loss of so many steps.
_SHOWN_STEPS = 20


class Model(Protocol):
    """What the Trainer trains."""

    def parameters(self) -> Parameters:
        """All weights."""

    def loss_and_grads(
        self, batch: Any, state: Any, rng: np.random.Generator
    ) -> tuple[float, Mapping[str, Array], Any]:
        """Loss of a batch, its gradients by parameter name, and a state: a tuple of arrays or None.

        `state` is what the step before returned if the Trainer carries it, else None; `rng` is
        for dropout masks and the like.
        """


class Optimiser(Protocol):
    """What the Trainer changes weights with; see fastlstm.optim."""

    lr: float

    def step(self, grads: Mapping[str, Array], *, lr: float | None = None) -> None:
        """Change the weights."""

    def state_dict(self) -> dict[str, Array]:
        """Its memory as arrays."""

    def load_state_dict(self, state_dict: Mapping[str, Array]) -> None:
        """Take a memory back."""


class Trainer:
    """Trains a model on batches, step by step, and can be stopped and resumed anywhere.

    Parameters
    ----------
    model : Model
        An object with ``parameters()`` and ``loss_and_grads(batch, state, rng)``.
    optimiser : Optimiser
        Over the model's parameters.
    schedule : callable, optional
        Takes the number of steps done (from 0), returns the factor on the optimiser's `lr`.
    max_norm : float, optional
        Gradients of a larger global norm are scaled down to it.
    carry_state : bool
        Hand the state that a step returns to the next one, within an epoch (truncated
        backpropagation through time).
    shuffle : bool
        Take the batches of each epoch in a new order, drawn from (seed, epoch).
    seed : int
        Of that order and of the generator that the model gets.
    checkpoint : str or path, optional
        A file to save checkpoints to: each replaces the one before. One is always written at the
        end of `fit`, and when Ctrl-C ends it.
    checkpoint_every : int, optional
        Steps from one to the next; by default one an epoch.
    validate : callable, optional
        Returns a number that should become small. Must not change the model.
    validate_every : int, optional
        Steps from one validation to the next; by default one an epoch.
    patience : int, optional
        Stop after so many validations without a new lowest number. The weights of the lowest
        one are put back when `fit` ends; a checkpoint holds the last ones as well, so a run that
        is to go on is best resumed from there.
    progress : bool
        Show a progress bar on stderr.
    describe : callable, optional
        Takes the loss that the bar shows, returns further figures to show beside it:
        ``{"bits": "1.53"}``. Called when the bar is drawn anew, not at every step.
    unit, units_per_step : str, int
        What the bar counts, also for its speed, and how many of them a step has: "char", 6400.
    on_step : callable, optional
        Called as ``on_step(step, loss)`` after each step, the first one being step 1.
    settings : mapping, optional
        A JSON object that checkpoints hold too: what else must be the same for a run to go on,
        such as sizes or a fingerprint of the data. `resume` compares it.

    Raises
    ------
    TypeError, ValueError
        If arguments are not possible or contradict each other.
    FileNotFoundError
        If the checkpoint's folder does not exist.
    ImportError
        If tqdm (for progress) or safetensors (for checkpoints) is not installed.
    """

    def __init__(
        self,
        model: Model,
        optimiser: Optimiser,
        *,
        schedule: Callable[[int], float] | None = None,
        max_norm: float | None = None,
        carry_state: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        validate: Callable[[], float] | None = None,
        validate_every: int | None = None,
        patience: int | None = None,
        progress: bool = True,
        describe: Callable[[float], Mapping[str, str]] | None = None,
        unit: str = "step",
        units_per_step: int = 1,
        on_step: Callable[[int, float], None] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._parameters = model.parameters()
        self._optimiser = optimiser
        self._schedule = _check_function("schedule", schedule)
        # Without a limit the norm is still taken: a gradient of NaN must never reach the weights.
        self._max_norm = (
            sys.float_info.max if max_norm is None else check_number("max_norm", max_norm, above=0)
        )
        self._carry_state = check_flag("carry_state", carry_state)
        self._shuffle = check_flag("shuffle", shuffle)
        if shuffle and carry_state:
            raise ValueError("shuffle: batches whose state is carried on must stay in their order")
        self._seed = _check_seed(seed)
        self._checkpoint = None if checkpoint is None else _check_target(checkpoint)
        self._checkpoint_every = _check_every("checkpoint_every", checkpoint_every, checkpoint)
        self._validate_model = _check_function("validate", validate)
        self._validate_every = _check_every("validate_every", validate_every, validate)
        self._patience = _check_every("patience", patience, validate)
        self._tqdm = _import_tqdm() if check_flag("progress", progress) else None
        self._describe = _check_function("describe", describe)
        self._unit = unit
        self._units_per_step = check_size("units_per_step", units_per_step)
        self._on_step = _check_function("on_step", on_step)
        self._settings = storage.check_json("settings", {} if settings is None else settings)
        if "trainer" in self._settings:
            raise ValueError("settings: the name 'trainer' is taken")
        self._settings["trainer"] = {
            "seed": self._seed,
            "shuffle": self._shuffle,
            "carry_state": self._carry_state,
            "optimiser": type(optimiser).__name__,
            "keeps the best": patience is not None,
        }

        self._run = Run(checkpoints.new_rng(self._seed))
        self._order: Sequence[int] = ()
        self._saved = False

    @property
    def history(self) -> History:
        """What the run has seen so far: steps, losses, validations."""
        return self._run.history

    def fit(
        self, batches: Sequence[Any], *, epochs: int | None = None, steps: int | None = None
    ) -> History:
        """Train until the run has so many epochs or steps, whichever comes first.

        Both are counted from the run's beginning: after 100 steps, in this process or in the one
        that wrote the checkpoint, ``fit(batches, steps=200)`` does 100 more, and ends with the
        same bits in every weight as 200 at once.

        Parameters
        ----------
        batches : sequence
            Of whatever the model takes; anything with ``len(batches)`` and ``batches[i]``.
        epochs, steps : int
            At least one of them.

        Returns
        -------
        history : History
            Of the whole run.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, once the step under way is done and a checkpoint saved (a validation
            is cut short instead, and done again after `resume`). A second Ctrl-C raises at once,
            wherever that is; then go on from the last checkpoint.
        FloatingPointError
            If a loss, a gradient's norm or a validation is not finite. The weights are those
            before the step.
        OSError
            If a checkpoint cannot be written; the one before it is left as it was.
        ValueError
            If there are no batches, or not as many as when the run began.
        """
        total = self._check_total(batches, epochs, steps)
        self._order = self._order_of_epoch()
        with deferred_interrupt() as interrupt, self._progress(total) as show:
            while True:
                if self._is_validation_due():
                    self._validate(interrupt)
                if self._checkpoint is not None and self._is_due(self._checkpoint_every):
                    self._save()
                if interrupt.requested or self._run.step >= total or self._is_out_of_patience():
                    break
                self._step(batches)
                show()
            self._save()
        self.restore_best()
        return self.history

    def restore_best(self) -> bool:
        """Put the weights of the lowest validation back, as `fit` does in the end; after Ctrl-C.

        Returns
        -------
        bool
            Whether there are any: with `patience`, and after the first validation.
        """
        if not self._run.best_parameters:
            return False
        self._parameters.load_state_dict(self._run.best_parameters)
        return True

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Take up the run that a checkpoint holds; the next `fit` goes on from there.

        Model, optimiser and Trainer must have been made as they were for that run.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        fastlstm.storage.FormatError
            If it is no checkpoint of ours.
        ValueError
            If it belongs to another model, optimiser or setting. Nothing has changed then.
        """
        loaded = checkpoints.load(path)
        differing = [
            f"{name} was {loaded.settings.get(name)}, is {self._settings.get(name)}"
            for name in sorted(loaded.settings.keys() | self._settings.keys())
            if loaded.settings.get(name) != self._settings.get(name)
        ]
        if differing:
            raise ValueError(f"{path}: the run was begun with other settings: {differing[0]}")
        before = self._parameters.state_dict()
        try:
            if loaded.run.best_parameters:  # tried on, for they will be put back at the end
                self._parameters.load_state_dict(loaded.run.best_parameters)
            self._parameters.load_state_dict(loaded.parameters)
            self._optimiser.load_state_dict(loaded.optimiser)
        except (TypeError, ValueError) as error:
            self._parameters.load_state_dict(before)
            raise ValueError(f"{path}: does not fit model and optimiser: {error}") from None
        self._run = loaded.run
        self._saved = True

    # --- steps ------------------------------------------------------------------------------------

    def _step(self, batches: Sequence[Any]) -> None:
        """One batch: loss, gradients, update; then move the place in the data."""
        run = self._run
        batch = batches[self._order[run.index]]
        loss, grads, state = self._model.loss_and_grads(batch, run.carried, run.rng)
        loss = float(loss)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in step {run.step + 1} (epoch {run.epoch}, batch {run.index});"
                " the weights are those before this step"
            )
        grads, _ = clip_grad_norm(grads, self._max_norm)
        factor = 1.0 if self._schedule is None else self._schedule(run.step)
        carried = _check_state(state) if self._carry_state else None
        version = self._parameters.version
        self._optimiser.step(grads, lr=self._optimiser.lr * factor)
        if self._parameters.version == version:
            raise ValueError("optimiser: its step did not change the model's parameters")

        self._saved = False
        run.history.losses.append(loss)
        run.carried = carried
        run.index += 1
        if run.index == run.batches:
            run.epoch, run.index, run.carried = run.epoch + 1, 0, None
            self._order = self._order_of_epoch()
        if self._on_step is not None:
            self._on_step(run.step, loss)

    def _order_of_epoch(self) -> Sequence[int]:
        """Numbers of the batches in the order in which this epoch takes them."""
        run = self._run
        if not self._shuffle:
            return range(run.batches)
        sequence = np.random.SeedSequence(self._seed, spawn_key=(run.epoch,))
        rng = np.random.Generator(np.random.PCG64(sequence))
        order: list[int] = rng.permutation(run.batches).tolist()
        return order

    def _check_total(self, batches: Sequence[Any], epochs: int | None, steps: int | None) -> int:
        """Return the number of steps at which the run ends."""
        if not hasattr(batches, "__len__") or not hasattr(batches, "__getitem__"):
            raise TypeError(f"batches: expected a sequence of batches, got {batches!r:.80}")
        run, count = self._run, len(batches)
        if count == 0:
            raise ValueError("batches: expected at least one batch, got none")
        if run.batches not in (0, count):
            raise ValueError(f"batches: the run began with {run.batches} an epoch, got {count}")
        if epochs is None and steps is None:
            raise ValueError("epochs, steps: expected at least one of them, got neither")
        limits = []
        if epochs is not None:
            limits.append(count * check_size("epochs", epochs, least=0))
        if steps is not None:
            limits.append(check_size("steps", steps, least=0))
        run.batches = count
        return min(limits)

    # --- between steps ----------------------------------------------------------------------------

    def _is_due(self, every: int | None) -> bool:
        """Whether `every` steps are full, or an epoch if that is None."""
        run = self._run
        return run.step > 0 and (run.index if every is None else run.step % every) == 0

    def _is_validation_due(self) -> bool:
        if self._validate_model is None or not self._is_due(self._validate_every):
            return False
        validations = self._run.history.validations
        return not validations or validations[-1][0] < self._run.step

    def _is_out_of_patience(self) -> bool:
        return self._patience is not None and self._run.waited >= self._patience

    def _validate(self, interrupt: Interrupt) -> None:
        assert self._validate_model is not None
        value = interrupt.cut_short(self._validate_model)
        if value is None:
            return
        value, run = float(value), self._run
        if not math.isfinite(value):
            raise FloatingPointError(f"the validation after step {run.step} gave {value}")
        self._saved = False
        run.history.validations.append((run.step, value))
        run.waited += 1
        if run.best is None or value < run.best:
            run.best, run.waited = value, 0
            if self._patience is not None:
                run.best_parameters = self._parameters.state_dict()

    def _save(self) -> None:
        """Write a checkpoint, if there is a file for it and anything new."""
        if self._checkpoint is not None and not self._saved:
            checkpoints.save(
                self._checkpoint,
                self._parameters,
                self._optimiser.state_dict(),
                self._run,
                self._settings,
            )
            self._saved = True

    @contextmanager
    def _progress(self, total: int) -> Iterator[Callable[[], None]]:
        """A progress bar; call what it yields after each step."""
        if self._tqdm is None:
            yield lambda: None
            return
        losses = self.history.losses

        def figures() -> dict[str, str]:
            shown = losses[-_SHOWN_STEPS:]
            loss = math.fsum(shown) / len(shown)
            further = {} if self._describe is None else self._describe(loss)
            return {"loss": f"{loss:.3f}", **further}

        bar = self._tqdm(
            total=total * self._units_per_step,
            initial=len(losses) * self._units_per_step,
            unit=self._unit,
            unit_scale=self._units_per_step > 1,
            dynamic_ncols=True,
            file=sys.stderr,
            # A log file should not get ten lines a second.
            mininterval=0.1 if sys.stderr.isatty() else 10,
        )

        def show() -> None:
            if bar.update(self._units_per_step):
                bar.set_postfix(figures(), refresh=False)

        with bar:
            yield show
            if losses:
                bar.set_postfix(figures(), refresh=False)


# --- arguments ------------------------------------------------------------------------------------

Function = TypeVar("Function", bound=Callable[..., Any] | None)


def _check_function(name: str, value: Function) -> Function:
    if value is not None and not callable(value):
        raise TypeError(f"{name}: expected a function or None, got {value!r:.80}")
    return value


def _check_seed(seed: int) -> int:
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed: expected a whole number, got {seed!r:.80}")
    if seed < 0:
        raise ValueError(f"seed: expected a whole number >= 0, got {seed}")
    return int(seed)


def _check_every(name: str, value: int | None, needs: object) -> int | None:
    if value is None:
        return None
    if needs is None:
        raise ValueError(f"{name}: has no meaning without {_NEEDED[name]}")
    return check_size(name, value)


_NEEDED = {"checkpoint_every": "checkpoint", "validate_every": "validate", "patience": "validate"}


def _check_target(path: str | os.PathLike[str]) -> Path:
    """Return a path whose folder exists, before hours of training end at that."""
    storage.import_safetensors()
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"checkpoint: expected a path, got {path!r:.80}")
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"checkpoint: there is no folder {target.parent}")
    return target


def _check_state(state: object) -> tuple[Array, ...] | None:
    """Return the carried state in the memory layout that it will have after a resume."""
    if state is None:
        return None
    if not isinstance(state, tuple) or not all(isinstance(part, np.ndarray) for part in state):
        raise TypeError(
            "model: with carry_state, loss_and_grads must return a state that is None or a "
            f"tuple of arrays, got {state!r:.80}"
        )
    return tuple(compact(part) for part in state)


def _import_tqdm() -> Any:
    purpose = "progress bars (or pass progress=False)"
    return import_extra("tqdm", extra="train", purpose=purpose).tqdm
