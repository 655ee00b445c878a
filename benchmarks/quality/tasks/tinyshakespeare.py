"""Characters of Shakespeare's plays: 1.1 MB, of which the last tenth validates.

As everybody reports it, the same tenth chooses the weights of a run, and chose the settings: the
figure is no test. It says how two programs compare at the same settings.
"""

from __future__ import annotations

import math
from typing import Any

from benchmarks.quality import data, kept
from benchmarks.quality.harness import (
    PLAIN,
    Outcome,
    Task,
    ahead_of,
    at_most,
    baseline,
    close_to,
    within,
)  # fmt: skip
from benchmarks.quality.ngram import WittenBell
from benchmarks.quality.rivals import rivals, training_of
from fastlstm.tasks import LanguageModel

ORDERS = 10
SETTINGS: dict[str, Any] = {
    "hidden_size": 512, "num_layers": 2, "dropout": 0.4, "batch_size": 32, "sequence_length": 64,
    "epochs": 10, "learning_rate": 3e-3,
}  # fmt: skip
SMALL = {"epochs": 1, "hidden_size": 16, "num_layers": 1, "dropout": 0.0, "batch_size": 8}


def read(small: bool) -> tuple[str, str]:
    training, validation = data.tinyshakespeare()
    return (training[:20000], validation[:2000]) if small else (training, validation)


def read_parts(small: bool) -> tuple[tuple[str, str], str]:
    """(What is trained on, what chooses), and what is reported: both the last tenth."""
    training, validation = read(small)
    return (training, validation), validation


def fit(model: LanguageModel, part: tuple[str, str]) -> object:
    return kept.fit("tinyshakespeare", model, *part)


def score(model: LanguageModel, validation: str) -> float:
    return -model.score(validation)


def witten_bell(small: bool) -> Outcome:
    """The order that does best on the last tenth of the training part."""
    training, validation = read(small)
    cut = len(training) * 9 // 10
    bits = WittenBell(training[:cut], ORDERS).bits_per_character(training[cut:])
    order = bits.index(min(bits)) + 1
    found = WittenBell(training, order).bits_per_character(validation)[-1]
    return Outcome(found * math.log(2), further={"order": order})


BASELINES = {"Witten-Bell n-grams": baseline(witten_bell, orders=ORDERS)}

TASK = Task(
    name="tinyshakespeare",
    title="Characters (tiny Shakespeare)",
    metric="nats a character of the last tenth",
    higher_is_better=False,
    seeds=1,
    systems=rivals(LanguageModel, SETTINGS, read_parts, fit, score, small=SMALL) | BASELINES,
    bars=[
        at_most(1.50),
        within(1800),
        *ahead_of(PLAIN, *BASELINES, higher_is_better=False),
        close_to("torch", 0.01, higher_is_better=False),
    ],
    training=training_of(LanguageModel, SETTINGS, read_parts, lambda one, part: one.fit(part[0])),
)
