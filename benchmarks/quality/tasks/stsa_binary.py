"""Sentiment of whole sentences of film reviews: Stanford Sentiment Treebank, two classes."""

from __future__ import annotations

from functools import cache

import numpy as np

from benchmarks.quality import data, texts
from benchmarks.quality.data import Texts
from benchmarks.quality.harness import ELMAN, PLAIN, Task, ahead_of, at_least


@cache
def read(small: bool) -> tuple[Texts, Texts]:
    training, test = data.stsa("train"), data.stsa("dev")
    if small:
        return training.take(np.arange(0, len(training), 30)), test.take(np.arange(0, 872, 10))
    return training, test


BASELINES = texts.ngrams(lambda _seed, small: read(small))

TASK = Task(
    name="stsa_binary",
    title="Sentiment, sentences (stsa.binary)",
    metric="accuracy on dev",
    higher_is_better=True,
    percent=True,
    systems=texts.systems(read) | BASELINES,
    bars=[at_least(0.8), *ahead_of(PLAIN, ELMAN, *BASELINES, higher_is_better=True)],
    published={
        "CNN from random embeddings, trained on phrases too, test (sent-conv-torch)": 0.835,
        "LSTM, GloVe, trained on phrases too, test (Tai et al. 2015)": 0.849,
        "BiLSTM, GloVe, trained on phrases too, test (Tai et al. 2015)": 0.875,
    },
    training=texts.training(read),
)
