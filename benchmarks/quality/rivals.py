"""fastlstm, a plain RNN and torch as systems of a task: one estimator, fitted in three ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from benchmarks.quality.harness import ELMAN, OURS, PLAIN, TORCH, Outcome, System
from benchmarks.quality.timing import Training, capture

# A run on a slice of the data has so few epochs.
SMALL = {"epochs": 2}
# Arguments that are no settings: of each run its own, or without a say in what is learnt.
_FREE = ("random_state", "verbose")


class Seconds(float):
    """What training took, where the clock alone does not say it: a run that was resumed."""


def rivals(
    make: Callable[..., Any],
    settings: Mapping[str, Any],
    read: Callable[[bool], tuple[Any, Any]],
    fit: Callable[[Any, Any], object],
    score: Callable[[Any, Any], float | Outcome],
    *,
    small: Mapping[str, Any] = SMALL,
    further: Mapping[str, Any] | None = None,
    plain: Mapping[str, Any] | None = None,
) -> dict[str, System]:
    """fastlstm, the same with plain recurrent layers, and torch; a classifier's simple RNN.

    Parameters
    ----------
    make : callable
        ``make(random_state=seed, **settings)``: an estimator with an argument `cell`.
    settings : mapping
        Its arguments, which all share but for `plain`; only the simple RNN has one direction, and
        no pooling.
    read : callable
        ``read(small)``: training part and test part.
    fit, score : callable
        ``fit(estimator, training_part)`` and ``score(estimator, test_part)``: a value, or an
        Outcome, whose seconds are filled in. Where `fit` returns `Seconds`, those are the run's.
    small : mapping
        Arguments of the estimator for a run on a slice of the data.
    further : mapping, optional
        Settings of `fit` that are none of the estimator's.
    plain : mapping, optional
        Arguments of plain recurrent networks in place of `settings`: a rival that cannot learn by
        the LSTM's would be none.
    """

    def system(cell: str, *, torch: bool = False, **other: Any) -> System:
        arguments = {**settings, "cell": cell, **other}

        def run(seed: int, is_small: bool) -> Outcome:
            training, test = read(is_small)
            estimator = make(random_state=seed, **{**arguments, **(small if is_small else {})})
            with _by_torch() if torch else nullcontext():
                start = time.perf_counter()
                found = fit(estimator, training)
                seconds = time.perf_counter() - start
            if isinstance(found, Seconds):
                seconds = float(found)
            scored = score(estimator, test)
            if isinstance(scored, Outcome):
                return Outcome(scored.value, seconds, scored.further)
            return Outcome(scored, seconds)

        return System(run, {**_arguments(make(**arguments)), **(further or {})})

    own = plain or {}
    found = {OURS: system("lstm"), PLAIN: system("rnn", **own), TORCH: system("lstm", torch=True)}
    if "pooling" in found[OURS].settings:
        found[ELMAN] = system("rnn", **{**own, "pooling": "last", "bidirectional": False})
    return found


def training_of(
    make: Callable[..., Any],
    settings: Mapping[str, Any],
    read: Callable[[bool], tuple[Any, Any]],
    fit: Callable[[Any, Any], object],
) -> Callable[[bool], Training]:
    """`Task.training`: what the estimator would train, from seed 0."""

    def training(small: bool) -> Training:
        part, _ = read(small)
        return capture(lambda: fit(make(random_state=0, **settings), part))

    return training


def _arguments(estimator: Any) -> dict[str, Any]:
    """All of an estimator's arguments that have a say in what it learns: also the defaults."""
    arguments = estimator.get_params()
    return {name: arguments[name] for name in arguments if name not in _FREE}


def _by_torch() -> Any:
    from benchmarks.quality.torch_twin import by_torch

    return by_torch()
