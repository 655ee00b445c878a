"""Characters of Shakespeare's plays: 1.1 MB, of which the last tenth validates."""

from __future__ import annotations

import math

from benchmarks.quality import data
from benchmarks.quality.harness import Outcome, System, Task, ahead_of, at_most, baseline
from benchmarks.quality.ngram import WittenBell

ORDERS = 10


def read(small: bool) -> tuple[str, str]:
    training, validation = data.tinyshakespeare()
    return (training[:20000], validation[:2000]) if small else (training, validation)


def witten_bell(small: bool) -> Outcome:
    """The order that does best on the last tenth of the training part."""
    training, validation = read(small)
    cut = len(training) * 9 // 10
    bits = WittenBell(training[:cut], ORDERS).bits_per_character(training[cut:])
    order = bits.index(min(bits)) + 1
    found = WittenBell(training, order).bits_per_character(validation)[-1]
    return Outcome(found * math.log(2), further={"order": order})


BASELINES = {"Witten-Bell n-grams": baseline(witten_bell, orders=ORDERS)}
SYSTEMS: dict[str, System] = {}

TASK = Task(
    name="tinyshakespeare",
    title="Characters (tiny Shakespeare)",
    metric="nats a character of the last tenth",
    higher_is_better=False,
    seeds=1,
    systems=SYSTEMS | BASELINES,
    bars=[at_most(1.50), ahead_of(*BASELINES, higher_is_better=False)],
)
