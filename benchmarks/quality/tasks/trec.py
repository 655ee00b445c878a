"""Of which of six kinds the answer to a question is: TREC, a tenth held out.

Capital letters tell names from words: ten splits of the training part spoke for keeping them. All
else is a default.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from benchmarks.quality import data, texts
from benchmarks.quality.data import Texts
from benchmarks.quality.harness import ELMAN, PLAIN, Task, ahead_of, at_least

SETTINGS: dict[str, Any] = {"lowercase": False}


@cache
def read(small: bool) -> tuple[Texts, Texts]:
    training, test = data.trec()
    if small:
        return training.take(np.arange(0, len(training), 50)), test.take(np.arange(0, 546, 5))
    return training, test


BASELINES = texts.ngrams(lambda _seed, small: read(small))

TASK = Task(
    name="trec",
    title="Kinds of questions (TREC)",
    metric="accuracy on a tenth held out",
    higher_is_better=True,
    percent=True,
    systems=texts.systems(read, **SETTINGS) | BASELINES,
    bars=[at_least(0.88), *ahead_of(PLAIN, ELMAN, *BASELINES, higher_is_better=True)],
    published={
        "CNN from random embeddings, test split (sent-conv-torch)": 0.882,
    },
    training=texts.training(read, **SETTINGS),
)
