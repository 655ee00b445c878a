"""Spoken digits of five speakers, one at a time: the official split, indices 0 to 4 held out.

The estimator's arguments were chosen by recordings 5 to 9, learning from those from 10 on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from benchmarks.quality import baselines, data
from benchmarks.quality.data import SAMPLE_RATE, Labelled, Recording
from benchmarks.quality.harness import ELMAN, PLAIN, Outcome, Task, ahead_of, at_least, baseline
from benchmarks.quality.rivals import rivals, training_of
from fastlstm.tasks import SequenceClassifier, features

SETTINGS: dict[str, Any] = {"epochs": 30, "dropout": 0.4}
HMM = "Gaussian HMMs"
STATES = [4, 6, 8]


@cache
def read(small: bool) -> tuple[Labelled, Labelled]:
    """MFCC with speeds and accelerations, normalised within each recording."""
    training, test = data.spoken_digits()
    if small:
        training, test = training[::20], test[::5]
    return labelled(training), labelled(test)


def labelled(recordings: list[Recording]) -> Labelled:
    return Labelled(
        [
            features.normalise(features.mfcc(recording.samples, SAMPLE_RATE)).astype(np.float64)
            for recording in recordings
        ],
        np.array([recording.digit for recording in recordings]),
    )


def fit(classifier: SequenceClassifier, part: Labelled) -> None:
    classifier.fit(part.sequences, part.labels)


def score(classifier: SequenceClassifier, part: Labelled) -> float:
    return float(classifier.score(part.sequences, part.labels))


def hidden_markov(small: bool) -> Outcome:
    states = STATES[:1] if small else STATES
    value, best = baselines.hidden_markov(*read(small), states=tuple(states))
    return Outcome(value, further={"states": best})


BASELINES = {
    HMM: baseline(hidden_markov, states=STATES),
    "nearest neighbour, DTW": baseline(
        lambda small: Outcome(baselines.dtw_neighbour(*read(small)))
    ),
    "nearest neighbour": baseline(lambda small: Outcome(baselines.nearest_neighbour(*read(small)))),
}

TASK = Task(
    name="spoken_digits",
    title="Spoken digits",
    metric="accuracy on recordings 0 to 4 of each speaker and digit",
    higher_is_better=True,
    percent=True,
    systems=rivals(SequenceClassifier, SETTINGS, read, fit, score) | BASELINES,
    bars=[at_least(0.97), *ahead_of(PLAIN, ELMAN, HMM, higher_is_better=True)],
    published={"BiLSTM on MFCC, random split": 0.973},
    training=training_of(SequenceClassifier, SETTINGS, read, fit),
)
