"""Sentiment of sentences of film reviews: rt-polarity, a run for each of ten folds."""

from __future__ import annotations

import numpy as np

from benchmarks.quality import data, texts
from benchmarks.quality.data import Texts
from benchmarks.quality.harness import ELMAN, PLAIN, Task, ahead_of, at_least


def read(small: bool, fold: int = 0) -> tuple[Texts, Texts]:
    """Of a fold, which is the number of the run."""
    training, test = data.rt_polarity_fold(fold)
    if small:
        return training.take(np.arange(0, len(training), 40)), test.take(np.arange(0, 1066, 10))
    return training, test


BASELINES = texts.ngrams(lambda fold, small: read(small, fold), seeds=None)

TASK = Task(
    name="rt_polarity",
    title="Sentiment, sentences (rt-polarity)",
    metric="accuracy in ten folds",
    higher_is_better=True,
    percent=True,
    seeds=10,
    systems=texts.systems_by_fold(read) | BASELINES,
    bars=[at_least(0.76), *ahead_of(PLAIN, ELMAN, *BASELINES, higher_is_better=True)],
    published={"CNN from random embeddings (sent-conv-torch)": 0.759},
    training=texts.training(read),
)
