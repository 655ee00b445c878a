"""136 handwritten characters of five alphabets as a pen drew them; writers 17 to 20 are held out.

Sixteen examples of a character are few: each is drawn with another hand in each epoch, by
`StrokeDistortion`, for all three networks alike. Their arguments and the features were chosen by
writers 13 to 16, learning from 1 to 12.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache

import numpy as np

from benchmarks.quality import baselines, data
from benchmarks.quality.data import Drawing, Labelled
from benchmarks.quality.harness import ELMAN, PLAIN, Outcome, Task, ahead_of, baseline
from benchmarks.quality.rivals import rivals, training_of
from fastlstm.tasks import SequenceClassifier
from fastlstm.tasks.augmentation import StrokeDistortion
from fastlstm.tasks.features import strokes

SPACING = 0.1  # for networks; neighbours and HMMs have twice as many points
AUGMENT = StrokeDistortion()
SETTINGS = {"hidden_size": 96, "pooling": "attention", "noise": 0.0, "epochs": 60, "batch_size": 32,
            "validation_fraction": 0.0}  # fmt: skip
HMM, DTW = "Gaussian HMMs", "nearest neighbour, DTW"
STATES = [6, 10]


@cache
def read(small: bool, spacing: float = SPACING) -> tuple[Labelled, Labelled]:
    training, test = data.omniglot()
    if small:
        some = sorted({drawing.character for drawing in training})[:8]
        training, test = (
            [drawing for drawing in part if drawing.character in some] for part in (training, test)
        )
    return labelled(training, spacing), labelled(test, spacing)


def labelled(drawings: list[Drawing], spacing: float) -> Labelled:
    """The features of `strokes`."""
    return Labelled(
        [strokes(drawing.strokes, spacing=spacing) for drawing in drawings],
        np.array([drawing.character for drawing in drawings]),
    )


def fit(classifier: SequenceClassifier, part: Labelled) -> None:
    classifier.set_params(augment=AUGMENT).fit(part.sequences, part.labels)


def score(classifier: SequenceClassifier, part: Labelled) -> float:
    return float(classifier.score(part.sequences, part.labels))


def places(small: bool, *, moves: bool = False) -> tuple[Labelled, Labelled]:
    """Where the pen is, and possibly where it goes: what tells most without training."""
    columns = [4, 5, 0, 1] if moves else [4, 5]
    training, test = (
        Labelled([x[:, columns].astype(np.float64) for x in part.sequences], part.labels)
        for part in read(small, SPACING / 2)
    )
    return training, test


def hidden_markov(small: bool) -> Outcome:
    states = STATES[:1] if small else STATES
    value, best = baselines.hidden_markov(*places(small, moves=True), states=tuple(states))
    return Outcome(value, further={"states": best})


TASK = Task(
    name="omniglot",
    title="Handwritten characters (Omniglot strokes)",
    metric="accuracy on writers 17 to 20",
    higher_is_better=True,
    percent=True,
    settings={"spacing": SPACING},
    systems=rivals(
        SequenceClassifier, SETTINGS, read, fit, score, further={"augment": asdict(AUGMENT)}
    )
    | {
        HMM: baseline(hidden_markov, states=STATES),
        DTW: baseline(lambda small: Outcome(baselines.dtw_neighbour(*places(small)))),
        "nearest neighbour": baseline(
            lambda small: Outcome(baselines.nearest_neighbour(*places(small)))
        ),
    },
    bars=ahead_of(PLAIN, ELMAN, HMM, DTW, higher_is_better=True),
    training=training_of(SequenceClassifier, SETTINGS, read, fit),
)
