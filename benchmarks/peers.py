"""Speed beside other libraries: ``python -m benchmarks.peers --mode infer --threads 1``.

Ours and each peer live in processes of their own (in one process their thread pools spin against
each other), hold the same weights and input, and take turns, round after round, so that a busy
neighbour meets all alike. Before anything is timed, results are compared: whoever computes
something else is not measured. Times are medians over the rounds; a ratio is the median of the
rounds' ratios, peer over ours, so more than 1 means that ours is faster.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.engines import ENGINES, OURS
from benchmarks.tasks import INFER, MODES, STEP, Array, Shape, Task
from benchmarks.workers import Worker, workers

# Largest difference over largest value of each array, float32.
TOLERANCE = 1e-5

SHAPES = (
    Shape(1000, 1, 32, 32),
    Shape(100, 1, 64, 64),
    Shape(100, 1, 128, 128),
    Shape(100, 1, 256, 256),
    Shape(100, 1, 512, 512),
    Shape(50, 1, 1024, 1024),
    Shape(100, 8, 256, 256),
    Shape(100, 16, 128, 128),
    Shape(100, 64, 64, 64),
    Shape(100, 64, 256, 256),
    Shape(50, 128, 512, 512),
    Shape(100, 256, 128, 128),
    Shape(35, 20, 650, 650, num_layers=2),  # Zaremba, Sutskever & Vinyals 2014, medium
    Shape(100, 32, 128, 256, num_layers=2),
)
STREAMS = (
    *(Shape(1, 1, size, size) for size in (32, 64, 128, 256, 512, 1024)),
    *(Shape(1, batch, size, size) for batch in (16, 64) for size in (64, 256)),
)


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


@dataclass(frozen=True)
class Measurement:
    """One shape: the time of every engine in every round, and each peer's difference from ours."""

    task: Task
    seconds: dict[str, list[float]]
    errors: dict[str, float]

    def milliseconds(self, engine: str) -> float:
        return 1e3 * statistics.median(self.seconds[engine])

    def rate(self, engine: str) -> float:
        """GFLOP/s."""
        return self.task.shape.operations(self.task.mode) / self.milliseconds(engine) / 1e6

    def ratio(self, peer: str) -> float:
        pairs = zip(self.seconds[peer], self.seconds[OURS], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)


def measure(team: list[Worker], task: Task, rounds: int, turn: float) -> Measurement:
    """Compare the workers' results with those of the first one, then let them take turns."""
    ours, *others = [worker.ask(task) for worker in team]
    peers = [worker.engine for worker in team[1:]]
    errors = {peer: largest_error(ours, theirs) for peer, theirs in zip(peers, others, strict=True)}
    for peer, error in errors.items():
        if not error <= TOLERANCE:
            raise SystemExit(f"peers.py: {task.shape}: differs from {peer} by {error:.1e}")
    seconds: dict[str, list[float]] = {worker.engine: [] for worker in team}
    for round_ in range(rounds):
        for worker in team[:: 1 if round_ % 2 else -1]:
            seconds[worker.engine].append(worker.ask(turn))
    return Measurement(task, seconds, errors)


def print_header(peers: list[str]) -> None:
    columns = f"{OURS + ' ms':>12} {'GFLOP/s':>8}"
    for peer in peers:
        columns += f" {peer + ' ms':>12} {'ratio':>6}"
    print(f"{'':<24} {columns}")


def print_row(measurement: Measurement, peers: list[str]) -> None:
    row = f"{measurement.milliseconds(OURS):>12.3f} {measurement.rate(OURS):>8.1f}"
    for peer in peers:
        row += f" {measurement.milliseconds(peer):>12.3f} {measurement.ratio(peer):>6.2f}"
    print(f"{measurement.task.shape!s:<24} {row}", flush=True)


def print_means(measurements: list[Measurement], peers: list[str]) -> None:
    row = " " * 21
    for peer in peers:
        mean = statistics.geometric_mean(measurement.ratio(peer) for measurement in measurements)
        row += f" {'':>12} {mean:>6.2f}"
    print(f"{'geometric mean':<24} {row}")


def record(measurements: list[Measurement], peers: list[str]) -> dict[str, Any]:
    """Everything that was measured, as JSON has it."""
    return {
        "machine": f"{platform.machine()} {platform.processor()}".strip(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in (OURS, *peers, "numpy", "scipy")},
        "measurements": [
            {
                "shape": str(measurement.task.shape),
                "mode": measurement.task.mode,
                "threads": measurement.task.threads,
                "seconds": measurement.seconds,
                "errors": measurement.errors,
                "ratios": {peer: measurement.ratio(peer) for peer in peers},
            }
            for measurement in measurements
        ],
    }


def available(wanted: list[str], mode: str) -> list[str]:
    """Those of the peers that can do `mode` and are installed; who is not is named on stderr."""
    found = []
    for peer in wanted:
        engine = ENGINES[peer]
        if mode not in engine.modes:
            continue
        if missing := engine.missing():
            print(f"peers.py: {peer} is left out: {', '.join(missing)} missing", file=sys.stderr)
        else:
            found.append(peer)
    return found


def main(argv: list[str] | None = None) -> int:
    known = [engine for engine in ENGINES if engine != OURS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peers", nargs="+", choices=known, default=known, help="(default: whoever is installed)"
    )
    parser.add_argument("--mode", choices=MODES, default=INFER, help="(default: infer)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument("--only", default="", metavar="REGEX", help="shapes, such as 'B1 .*H64'")
    parser.add_argument("--quick", action="store_true", help="a look: few and short turns")
    parser.add_argument("--json", metavar="FILE", help="also write all that was measured")
    arguments = parser.parse_args(argv)
    peers = available(arguments.peers, arguments.mode)
    if not peers:
        parser.error(f"nobody to compare with in {arguments.mode} (pip install '.[peers]')")
    grid = STREAMS if arguments.mode == STEP else SHAPES
    shapes = [shape for shape in grid if re.search(arguments.only, str(shape))]
    if not shapes:
        parser.error(f"--only {arguments.only}: no such shape")
    rounds, turn = (3, 0.02) if arguments.quick else (15, 0.1)

    print(f"{arguments.mode}, float32, threads: {arguments.threads}, medians of {rounds} rounds\n")
    print_header(peers)
    measurements = []
    with workers([OURS, *peers], arguments.threads) as team:
        for shape in shapes:
            task = Task(shape, arguments.mode, arguments.threads)
            measurements.append(measure(team, task, rounds, turn))
            print_row(measurements[-1], peers)
    print_means(measurements, peers)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(record(measurements, peers), file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
