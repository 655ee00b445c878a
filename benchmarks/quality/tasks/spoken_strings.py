"""Strings of 3 to 7 spoken digits, whose borders nobody knows, by CTC.

Recordings of one speaker are joined without a pause: those with the indices 5 to 49 to train on,
and 0 to 4 to test with, drawn with fixed seeds. The estimator's arguments were chosen with strings
of the recordings 5 to 9, and training on those from 10 on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality import data
from benchmarks.quality.data import SAMPLE_RATE, Recording
from benchmarks.quality.harness import PLAIN, Outcome, Task, ahead_of, at_most
from benchmarks.quality.rivals import rivals, training_of
from fastlstm.tasks import SequenceRecognizer, features
from fastlstm.tasks.metrics import error_rate

TRAINING, TEST = 1000, 300  # strings
SETTINGS = {"hidden_size": 96, "stack": 3, "epochs": 20}


@dataclass(frozen=True)
class Strings:
    """What is said, and its features."""

    sequences: list[NDArray[np.float32]]
    digits: list[str]


@cache
def read(small: bool) -> tuple[Strings, Strings]:
    training, test = data.spoken_digits()
    parts = (training, 60 if small else TRAINING, 0), (test, 20 if small else TEST, 1)
    first, second = (joined(*part) for part in parts)
    return first, second


def joined(recordings: list[Recording], count: int, seed: int) -> Strings:
    """So many strings, each of one speaker, who is drawn, as are the digits and the recordings."""
    rng = np.random.default_rng(seed)
    speakers = sorted({recording.speaker for recording in recordings})
    of = {
        (speaker, digit): [
            r.samples for r in recordings if (r.speaker, r.digit) == (speaker, digit)
        ]
        for speaker in speakers
        for digit in range(10)
    }
    sequences, digits = [], []
    for _ in range(count):
        speaker = speakers[rng.integers(len(speakers))]
        said = rng.integers(0, 10, rng.integers(3, 8)).tolist()
        choices = (of[speaker, digit] for digit in said)
        sound = np.concatenate([choice[rng.integers(len(choice))] for choice in choices])
        sequences.append(features.normalise(features.mfcc(sound, SAMPLE_RATE)))
        digits.append("".join(map(str, said)))
    return Strings(sequences, digits)


def fit(recognizer: SequenceRecognizer, part: Strings) -> None:
    recognizer.fit(part.sequences, part.digits)


def score(recognizer: SequenceRecognizer, part: Strings) -> Outcome:
    """The digit error rate of the likeliest alignment; of the beam, and of whole strings, too."""
    found = recognizer.predict(part.sequences)
    wrong = sum(said != heard for said, heard in zip(part.digits, found, strict=True))
    beam = recognizer.predict(part.sequences, decoder="beam")
    further = {
        "digit error rate, beam of 16": error_rate(part.digits, beam),
        "strings with an error": wrong / len(found),
    }
    return Outcome(error_rate(part.digits, found), further=further)


TASK = Task(
    name="spoken_strings",
    title="Strings of spoken digits (CTC)",
    metric="digit error rate on strings of recordings 0 to 4",
    higher_is_better=False,
    percent=True,
    settings={"strings": [TRAINING, TEST]},
    systems=rivals(SequenceRecognizer, SETTINGS, read, fit, score),
    bars=[at_most(0.04), *ahead_of(PLAIN, higher_is_better=False)],
    training=training_of(SequenceRecognizer, SETTINGS, read, fit),
)
