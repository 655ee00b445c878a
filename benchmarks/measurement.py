"""One shape beside all peers: results compared, times taken in turns, and what they amount to."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.engines import ENGINES, OURS
from benchmarks.limits import Limits
from benchmarks.tasks import STEP, TRAIN, Array, Shape, Task
from benchmarks.workers import Worker

# Largest difference over largest value of each array, float32.
TOLERANCE = 1e-5
# A shape whose rounds take longer than so many seconds has fewer, but so many at least.
LONGEST, FEWEST = 20.0, 5


def largest_error(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Over all arrays, the largest difference over the largest expected value."""
    if actual.keys() != expected.keys():
        raise ValueError(f"results differ in name: {sorted(actual)}, {sorted(expected)}")
    errors = []
    for name, reference in expected.items():
        if actual[name].shape != reference.shape:
            raise ValueError(f"{name}: {actual[name].shape} is not {reference.shape}")
        difference = np.abs(actual[name].astype(np.float64) - reference)
        errors.append(float(difference.max() / np.abs(reference).max()))
    return max(errors) if not np.isnan(errors).any() else np.inf


class Reading(NamedTuple):
    """What a task at batch 1 reads: each step needs all weights of the recurrence anew."""

    footprint: int  # bytes that are read again and again
    total: int  # bytes of all steps together
    operations: int  # of the task's other products, which reuse what they read


def reading(task: Task) -> Reading:
    """In training the steps of backward read as much as those of forward."""
    shape = task.shape
    if task.mode == STEP:
        size = 16 * shape.hidden_size * (shape.input_size + shape.hidden_size)
        return Reading(size, size, 0)
    footprint = 16 * shape.hidden_size**2
    steps = shape.steps * shape.num_layers * (2 if task.mode == TRAIN else 1)
    # Two operations for each weight of four bytes.
    recurrence = steps * footprint // 2
    return Reading(footprint, steps * footprint, shape.operations(task.mode) - recurrence)


class Rates(NamedTuple):
    """What the machine could do in a round: float32 operations and bytes a second."""

    fma: float
    read: float  # at the footprint of `reading`; NaN for a batch


@dataclass(frozen=True)
class Measurement:
    """One shape: the time of every engine in every round, and each peer's difference from ours."""

    task: Task
    seconds: dict[str, list[float]]
    errors: dict[str, float]
    rates: list[Rates] = dataclasses.field(default_factory=list)  # empty: not measured

    def time(self, engine: str) -> float:
        """Seconds."""
        return statistics.median(self.seconds[engine])

    def operations_per_second(self) -> float:
        """Ours, of the matrix products alone."""
        return self.task.shape.operations(self.task.mode) / self.time(OURS)

    def peers(self) -> list[str]:
        return [engine for engine in self.seconds if engine != OURS]

    def best_peer(self) -> str:
        rivals = [peer for peer in self.peers() if ENGINES[peer].rival]
        return min(rivals or self.peers(), key=self.time)

    def ratio(self, peer: str) -> float:
        """The peer's time over ours."""
        return self._median(lambda theirs, ours: theirs / ours, self.seconds[peer])

    def fma_share(self) -> float | None:
        """The matrix products' operations a second, over the peak of the same round."""
        operations = self.task.shape.operations(self.task.mode)
        return self._median(lambda rates, ours: operations / ours / rates.fma, self.rates)

    def bandwidth_share(self) -> float | None:
        """At batch 1, what the recurrence reads in a second at least, over what can be read.

        At least, for the other products are taken to run at the FMA peak.
        """
        if self.task.shape.batch != 1:
            return None
        _, total, operations = reading(self.task)
        return self._median(
            lambda rates, ours: total / (ours - operations / rates.fma) / rates.read, self.rates
        )

    def _median(self, share: Callable[[Any, float], float], values: list[Any]) -> Any:
        """Over the rounds, `share` of one of `values` and our time; None where there are none."""
        pairs = zip(values, self.seconds[OURS], strict=bool(values))
        return statistics.median(shares) if (shares := [share(*pair) for pair in pairs]) else None

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        found = {
            "shape": shape_record(self.task.shape),
            "mode": self.task.mode,
            "threads": self.task.threads,
            "ours_s": self.time(OURS),
            "peers_s": {peer: self.time(peer) for peer in self.peers()},
            "ratio": self.ratio(self.best_peer()),
            "ratios": {peer: self.ratio(peer) for peer in self.peers()},
            "errors": self.errors,
            "fma_share": self.fma_share(),
            "bandwidth_share": self.bandwidth_share(),
        }
        return {name: value for name, value in found.items() if value is not None}


def shape_record(shape: Shape) -> dict[str, int]:
    return dict(zip("TBIH", dataclasses.astuple(shape)[:4], strict=True)) | {
        "layers": shape.num_layers
    }


def measure(
    team: list[Worker], task: Task, rounds: int, turn: float, limits: Limits | None = None
) -> Measurement:
    """Compare the workers' results with those of the first one, then let them take turns."""
    ours, *others = [worker.ask(task) for worker in team]
    peers = [worker.engine for worker in team[1:]]
    errors = {peer: largest_error(theirs, ours) for peer, theirs in zip(peers, others, strict=True)}
    for peer, error in errors.items():
        if not error <= TOLERANCE:
            raise SystemExit(f"peers.py: {task.shape}: differs from {peer} by {error:.1e}")
    seconds: dict[str, list[float]] = {worker.engine: [] for worker in team}
    rates = []
    start = time.perf_counter()
    for round_ in range(rounds):
        if round_ >= FEWEST and time.perf_counter() - start > LONGEST:
            break
        for worker in team[:: 1 if round_ % 2 else -1]:
            seconds[worker.engine].append(worker.ask(turn))
        if limits is not None:
            single = task.shape.batch == 1
            read = limits.read_rate(reading(task).footprint) if single else float("nan")
            rates.append(Rates(limits.fma_rate(), read))
    return Measurement(task, seconds, errors, rates)
