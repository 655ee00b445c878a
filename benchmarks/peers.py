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
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from benchmarks import chart, grid, memory
from benchmarks.engines import ENGINES, OURS
from benchmarks.limits import BuildError, Limits, level_footprints, machine
from benchmarks.measurement import Measurement, measure
from benchmarks.tasks import INFER, MODES, TRAIN, Shape, Task
from benchmarks.workers import workers


class Table:
    """The measurements as they come in, a line each, and their means."""

    def __init__(self, peers: list[str]) -> None:
        self.peers = peers

    def header(self) -> str:
        columns = "".join(f" {peer:>11}" for peer in self.peers)
        return f"{'':<24} {'ms':>9} {'GFLOP/s':>8} {'FMA':>5} {'read':>5}{columns} {'best':>6}"

    def row(self, measurement: Measurement) -> str:
        shares = (measurement.fma_share(), measurement.bandwidth_share())
        percents = "".join(f" {share:>5.0%}" if share else " " * 6 for share in shares)
        return (
            f"{measurement.task.shape!s:<24} {1e3 * measurement.time(OURS):>9.4g}"
            f" {measurement.operations_per_second() / 1e9:>8.1f}{percents}"
            + self._ratios(measurement.ratio, measurement.ratio(measurement.best_peer()))
        )

    def means(self, name: str, measurements: list[Measurement]) -> str:
        def mean(peer: str) -> float:
            return statistics.geometric_mean(each.ratio(peer) for each in measurements)

        best = statistics.geometric_mean(each.ratio(each.best_peer()) for each in measurements)
        return f"{'geometric mean, ' + name:<54}" + self._ratios(mean, best)

    def _ratios(self, ratio: Callable[[str], float], best: float) -> str:
        return "".join(f" {ratio(peer):>11.2f}" for peer in self.peers) + f" {best:>6.2f}"


class Run:
    """All shapes of one mode and number of threads, measured one after the other."""

    def __init__(self, mode: str, threads: int, peers: list[str], *, quick: bool) -> None:
        self.mode, self.threads, self.peers = mode, threads, peers
        self.rounds, self.turn = (3, 0.02) if quick else (15, 0.1)
        self.measurements: list[Measurement] = []
        self.limits: Limits | None = None
        try:
            self.limits = Limits(threads)
        except BuildError as error:
            print(f"peers.py: no shares of the machine's limits: {error}", file=sys.stderr)
        self.read_rates: dict[str, list[float]] = {name: [] for name in level_footprints(threads)}

    def go(self, shapes: list[Shape]) -> None:
        """Measure and print."""
        table = Table(self.peers)
        print(f"{self.mode}, float32, threads: {self.threads}, medians of {self.rounds} rounds\n")
        print(table.header())
        with workers([OURS, *self.peers], self.threads) as team:
            for shape in shapes:
                task = Task(shape, self.mode, self.threads)
                self.measurements.append(measure(team, task, self.rounds, self.turn, self.limits))
                self._measure_levels()
                print(table.row(self.measurements[-1]), flush=True)
        usual = grid.shapes(self.mode)
        some = [each for each in self.measurements if each.task.shape in usual]
        if some:
            print(table.means("usual shapes", some))
        if len(some) < len(shapes):
            print(table.means("all shapes", self.measurements))
        if self.limits is not None:
            fma, reads = self.machine_limits().values()
            listed = ", ".join(f"{level} {rate:.0f}" for level, rate in reads.items())
            print(f"FMA peak {fma:.0f} GFLOP/s; reads, GB/s: {listed or 'caches unknown'}")

    def _measure_levels(self) -> None:
        if self.limits is not None:
            for name, footprint in level_footprints(self.threads).items():
                self.read_rates[name].append(self.limits.read_rate(footprint))

    def machine_limits(self) -> dict[str, Any]:
        """Medians over the run; empty if nothing was measured."""
        if self.limits is None:
            return {}
        fma = [rates.fma for each in self.measurements for rates in each.rates]
        reads = {name: statistics.median(rates) / 1e9 for name, rates in self.read_rates.items()}
        return {"fma_gflops": statistics.median(fma) / 1e9, "read_gb_per_s": reads}

    def records(self) -> dict[str, Any]:
        """Everything that was measured, as JSON has it."""
        return {
            **description(self.peers),
            "rounds": self.rounds,
            "limits": self.machine_limits(),
            "measurements": [measurement.record() for measurement in self.measurements],
        }


def description(peers: list[str]) -> dict[str, Any]:
    """Where and with what something was measured."""
    packages = sorted({"numpy", "scipy", OURS} | {p for n in peers for p in ENGINES[n].packages})
    return {
        "machine": machine(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
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


def parse(argv: list[str] | None) -> argparse.Namespace:
    known = [engine for engine in ENGINES if engine != OURS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--peers", nargs="+", choices=known, help="(default: all installed; of memory: torch)")
    add("--mode", choices=[*MODES, memory.MODE], default=INFER, help="(default: infer)")
    add("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    add("--grid", choices=["usual", "full"], default="usual", help="full: odd sizes as well")
    add("--only", default="", metavar="REGEX", help="shapes, such as 'B1 .*H64'")
    add("--quick", action="store_true", help="a look: few and short turns")
    add("--json", metavar="FILE", help="also write what was measured")
    add("--plot", metavar="FILE.png", help="also draw the ratios")
    arguments = parser.parse_args(argv)
    measures_memory = arguments.mode == memory.MODE
    mode = TRAIN if measures_memory else arguments.mode
    # What JAX compiles in its first step would count as the step's.
    everyone = ["torch"] if measures_memory else known
    arguments.peers = available(arguments.peers or everyone, mode)
    if not arguments.peers:
        parser.error(f"nobody to compare with in {arguments.mode} (pip install '.[peers]')")
    shapes = grid.shapes(mode, full=arguments.grid == "full")
    arguments.shapes = [shape for shape in shapes if re.search(arguments.only, str(shape))]
    if not arguments.shapes:
        parser.error(f"--only {arguments.only}: no such shape")
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.mode == memory.MODE:
        found = memory.compare(arguments.peers, arguments.shapes, arguments.threads)
        records = {**description(arguments.peers), "measurements": found}
    else:
        run = Run(arguments.mode, arguments.threads, arguments.peers, quick=arguments.quick)
        run.go(arguments.shapes)
        records = run.records()
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(records, file, indent=1)
    if arguments.plot:
        chart.draw([records], arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
