"""Who says /ae/: nine speakers, 12 cepstral coefficients a frame, 7 to 29 frames.

Pooling and noise were chosen by cross-validation within TRAIN, each fold a stretch of the recording
as TEST is; all else is a default.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from benchmarks.quality import baselines, data
from benchmarks.quality.data import Labelled
from benchmarks.quality.harness import ELMAN, PLAIN, Outcome, Task, ahead_of, at_least, baseline
from benchmarks.quality.rivals import rivals, training_of
from fastlstm.tasks import SequenceClassifier

SETTINGS = {
    "hidden_size": 64,
    "pooling": "attention",
    "noise": 0.7,
    "dropout": 0.2,
    "epochs": 50,
    "batch_size": 16,
    "validation_fraction": 0.0,
}


@cache
def read(small: bool) -> tuple[Labelled, Labelled]:
    training, test = data.japanese_vowels()
    if small:
        return training.take(np.arange(0, 270, 6)), test.take(np.arange(0, 370, 10))
    return training, test


def fit(classifier: SequenceClassifier, part: Labelled) -> None:
    classifier.fit(part.sequences, part.labels)


def score(classifier: SequenceClassifier, part: Labelled) -> float:
    return float(classifier.score(part.sequences, part.labels))


def hidden_markov(small: bool) -> Outcome:
    value, states = baselines.hidden_markov(*read(small), states=(2, 4) if small else (2, 4, 6, 8))
    return Outcome(value, further={"states": states})


TASK = Task(
    name="japanese_vowels",
    title="Speakers (Japanese Vowels)",
    metric="accuracy on TEST",
    higher_is_better=True,
    percent=True,
    systems=rivals(SequenceClassifier, SETTINGS, read, fit, score)
    | {
        "Gaussian HMMs": baseline(hidden_markov, states=[2, 4, 6, 8]),
        "nearest neighbour, DTW": baseline(
            lambda small: Outcome(baselines.dtw_neighbour(*baselines.standardised(*read(small))))
        ),
        "nearest neighbour": baseline(
            lambda small: Outcome(
                baselines.nearest_neighbour(*baselines.standardised(*read(small)))
            )
        ),
    },
    bars=[at_least(0.97), *ahead_of(PLAIN, ELMAN, "Gaussian HMMs", higher_is_better=True)],
    published={
        "nearest neighbour (Bagnall et al. 2018)": 0.924,
        "DTW, each dimension apart (Bagnall et al. 2018)": 0.959,
        "DTW, dimensions together (Bagnall et al. 2018)": 0.949,
    },
    training=training_of(SequenceClassifier, SETTINGS, read, fit),
)
