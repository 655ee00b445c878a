"""TextClassifier as a system of the tasks of texts: its defaults, but for what a task names."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from benchmarks.quality import baselines
from benchmarks.quality.data import Texts
from benchmarks.quality.harness import Outcome, System
from benchmarks.quality.rivals import rivals, training_of
from benchmarks.quality.timing import Training
from fastlstm.tasks import TextClassifier


def systems(read: Callable[[bool], tuple[Texts, Texts]], **settings: Any) -> dict[str, System]:
    """fastlstm, a plain RNN and torch."""
    return rivals(TextClassifier, settings, read, _fit, _score)


def systems_by_fold(read: Callable[[bool, int], tuple[Texts, Texts]]) -> dict[str, System]:
    """The same where the number of a run is also that of a fold: ``read(small, fold)``."""

    def in_fold(name: str, system: System) -> System:
        return System(
            lambda fold, small: systems(lambda part: read(part, fold))[name].run(fold, small),
            system.settings,
        )

    found = systems(lambda small: read(small, 0))
    return {name: in_fold(name, system) for name, system in found.items()}


def ngrams(
    read: Callable[[int, bool], tuple[Texts, Texts]], *, seeds: int | None = 1
) -> dict[str, System]:
    """The baselines, ``read(seed, small)``; as many runs as `System` says, without chance one."""

    @cache
    def bags(seed: int, small: bool) -> dict[str, float]:
        return baselines.bags_of_ngrams(*read(seed, small))

    def system(model: str) -> System:
        return System(lambda seed, small: Outcome(bags(seed, small)[model]), seeds=seeds)

    return {f"n-grams, {model}": system(model) for model in ("logistic regression", "naive Bayes")}


def training(
    read: Callable[[bool], tuple[Texts, Texts]], **settings: Any
) -> Callable[[bool], Training]:
    """What `--time` steps through."""
    return training_of(TextClassifier, settings, read, _fit)


def _fit(classifier: TextClassifier, part: Texts) -> None:
    classifier.fit(part.texts, part.labels)


def _score(classifier: TextClassifier, part: Texts) -> float:
    return float(classifier.score(part.texts, part.labels))
