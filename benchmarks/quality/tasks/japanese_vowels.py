"""Who says /ae/: nine speakers, 12 cepstral coefficients a frame, 7 to 29 frames.

The estimator's arguments were chosen by cross-validation within TRAIN.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from benchmarks.quality import baselines, data
from benchmarks.quality.data import Labelled
from benchmarks.quality.harness import PLAIN, Outcome, Task, ahead_of, at_least, baseline
from benchmarks.quality.rivals import rivals, training_of
from fastlstm.tasks import SequenceClassifier

# Each utterance is trained on as it is, and with noise of half a deviation in so many copies more.
COPIES, NOISE = 4, 0.5
SETTINGS = {
    "hidden_size": 64,
    "epochs": 12,
    "batch_size": 16,
    "dropout": 0.2,
    "validation_fraction": 0.0,
}


@cache
def read(small: bool) -> tuple[Labelled, Labelled]:
    training, test = data.japanese_vowels()
    if small:
        return training.take(np.arange(0, 270, 6)), test.take(np.arange(0, 370, 10))
    return training, test


def fit(classifier: SequenceClassifier, part: Labelled) -> None:
    rng = np.random.default_rng(classifier.random_state)
    deviation = NOISE * np.concatenate(part.sequences).std(axis=0)
    noisy = [
        x + deviation * rng.standard_normal(x.shape) for _ in range(COPIES) for x in part.sequences
    ]
    # The copies have the noise already.
    classifier.set_params(noise=0.0)
    classifier.fit([*part.sequences, *noisy], np.tile(part.labels, 1 + COPIES))


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
    systems=rivals(
        SequenceClassifier,
        SETTINGS,
        read,
        fit,
        score,
        further={"copies": COPIES, "noise": NOISE},
    )
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
    bars=[at_least(0.97), ahead_of(PLAIN, "Gaussian HMMs", higher_is_better=True)],
    published={
        "nearest neighbour (Bagnall et al. 2018)": 0.924,
        "DTW, each dimension apart (Bagnall et al. 2018)": 0.959,
        "DTW, dimensions together (Bagnall et al. 2018)": 0.949,
    },
    training=training_of(SequenceClassifier, SETTINGS, read, fit),
)
