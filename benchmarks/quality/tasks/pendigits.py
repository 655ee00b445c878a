"""Handwritten digits of 8 pen positions each; a fifth of the samples is held out.

All three networks see each digit drawn with another hand in each epoch. That, and their arguments,
were chosen by cross-validation within the four fifths that they learn from.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from benchmarks.quality import baselines, data
from benchmarks.quality.data import Array, Labelled
from benchmarks.quality.harness import ELMAN, PLAIN, Outcome, Task, ahead_of, baseline, close_to
from benchmarks.quality.rivals import rivals, training_of
from fastlstm.tasks import SequenceClassifier
from fastlstm.tasks.augmentation import random_slant

SETTINGS = {
    "hidden_size": 64,
    "pooling": "attention",
    "noise": 0.0,
    "epochs": 60,
    "batch_size": 32,
    "validation_fraction": 0.0,
}
# Deviations: of turns, in radians; of the tangent of the slant; of the pen, in parts of the box.
HAND = {"rotation": 0.1, "shear": 0.1, "tremble": 0.015}
HMM = "Gaussian HMMs"


@cache
def read(small: bool) -> tuple[Labelled, Labelled]:
    training, test = data.pendigits()
    if small:
        return training.take(np.arange(0, len(training), 20)), test.take(np.arange(100))
    return training, test


def another_hand(places: Array, rng: np.random.Generator) -> Array:
    """Pen positions (8, 2) turned, slanted and shaken, and stretched to their box of 100 again."""
    drawn = places @ random_slant(rng, HAND["rotation"], HAND["shear"]).T
    drawn += rng.normal(0, 100 * HAND["tremble"], drawn.shape)
    drawn -= drawn.min(axis=0)
    return np.asarray(100 * drawn / np.maximum(drawn.max(axis=0), 1e-9))


def fit(classifier: SequenceClassifier, part: Labelled) -> None:
    classifier.set_params(augment=another_hand).fit(part.sequences, part.labels)


def score(classifier: SequenceClassifier, part: Labelled) -> float:
    return float(classifier.score(part.sequences, part.labels))


def hidden_markov(small: bool) -> Outcome:
    value, states = baselines.hidden_markov(*read(small), states=(4,) if small else (4, 6, 8))
    return Outcome(value, further={"states": states})


TASK = Task(
    name="pendigits",
    title="Handwritten digits (pendigits)",
    metric="accuracy on a fifth held out",
    higher_is_better=True,
    percent=True,
    systems=rivals(SequenceClassifier, SETTINGS, read, fit, score, further={"augment": HAND})
    | {
        HMM: baseline(hidden_markov, states=[4, 6, 8]),
        "nearest neighbour, DTW": baseline(
            lambda small: Outcome(baselines.dtw_neighbour(*read(small)))
        ),
        "nearest neighbour": baseline(
            lambda small: Outcome(baselines.nearest_neighbour(*read(small)))
        ),
    },
    bars=[
        close_to("nearest neighbour", 0.0, higher_is_better=True),
        *ahead_of(PLAIN, ELMAN, HMM, higher_is_better=True),
    ],
    published={
        "nearest neighbour, other writers (Bagnall et al. 2018)": 0.973,
        "DTW, other writers (Bagnall et al. 2018)": 0.977,
    },
    training=training_of(SequenceClassifier, SETTINGS, read, fit),
)
