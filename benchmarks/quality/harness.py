"""Tasks, systems, runs and what they amount to.

A task is a data set with a metric; a system is whoever is measured on it: fastlstm, the same
network in torch, a plain RNN, a baseline that is no network. A run is one system from one seed. Its
outcome goes into results/TASK.json as soon as it is there, with the settings that it had, so that a
series which was stopped goes on with what is missing, and a run whose settings have changed since
is done again.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastlstm.threads import get_num_threads

RESULTS = Path(__file__).with_name("results")
OURS, TORCH, PLAIN = "fastlstm", "torch", "plain RNN"
# As the textbooks have it: one direction, and the last hidden state stands for the sequence.
ELMAN = "plain RNN, last state"


@dataclass(frozen=True)
class Outcome:
    """What came out of one run.

    Attributes
    ----------
    value : float
        The task's metric.
    seconds : float, optional
        Of training alone; without it, those of the whole run.
    further : mapping of str to float
        Other figures worth keeping.
    """

    value: float
    seconds: float | None = None
    further: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """Who is measured.

    Attributes
    ----------
    run : callable
        ``run(seed, small)``; if `small`, a slice of the data and few epochs, in seconds.
    settings : mapping of str to object
        All that the outcome depends on besides the task's settings, as JSON has it.
    seeds : int, optional
        How many runs it needs instead of the task's number: 1 where no chance is in it.
    """

    run: Callable[[int, bool], Outcome]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | None = None


def baseline(run: Callable[[bool], Outcome], **settings: Any) -> System:
    """A system without chance: ``run(small)``, once."""
    return System(lambda _seed, small: run(small), settings, seeds=1)


@dataclass(frozen=True)
class Bar:
    """What fastlstm has to reach.

    Attributes
    ----------
    text : str
    met : callable
        ``met(summaries)`` with a Summary for each system that has runs; None while one is missing.
    """

    text: str
    met: Callable[[Mapping[str, Summary]], bool | None]


@dataclass(frozen=True)
class Task:
    """A data set, its metric, and who is measured on it.

    Attributes
    ----------
    name : str
        Of its module in tasks/ and of its file in results/.
    title, metric : str
        For tables: "Sentiment, 2 classes (stsa.binary)", "accuracy on dev".
    higher_is_better : bool
    systems : mapping of str to System
        fastlstm first.
    bars : sequence of Bar
    published : mapping of str to float
        Figures of others by their source, which says where they differ in the data.
    seeds : int
        How many runs each system has.
    settings : mapping of str to object
        What all systems share, such as the split.
    percent : bool
        Whether values are shares, shown as per cent.
    training : callable, optional
        ``training(small)``: what `--time` steps through, see `timing.Training`.
    """

    name: str
    title: str
    metric: str
    higher_is_better: bool
    systems: Mapping[str, System]
    bars: Sequence[Bar] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)
    percent: bool = False
    training: Callable[[bool], Any] | None = None

    def settings_of(self, system: str) -> dict[str, Any]:
        """As they come back from a file of JSON."""
        settings: dict[str, Any] = json.loads(
            json.dumps({**self.settings, **self.systems[system].settings})
        )
        return settings

    def seeds_of(self, system: str) -> int:
        return self.systems[system].seeds or self.seeds


# --- what runs amount to --------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """The runs of one system."""

    values: tuple[float, ...]
    seconds: tuple[float, ...]
    further: tuple[Mapping[str, float], ...] = ()
    threads: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def error(self) -> float:
        """Standard error of the mean; 0 for a single run."""
        if len(self.values) < 2:
            return 0.0
        return statistics.stdev(self.values) / math.sqrt(len(self.values))


def at_least(value: float) -> Bar:
    return Bar(f"≥ {value:g}", lambda found: _mean(found, lambda mean: mean >= value))


def at_most(value: float) -> Bar:
    return Bar(f"≤ {value:g}", lambda found: _mean(found, lambda mean: mean <= value))


def within(seconds: float) -> Bar:
    """Training takes no longer."""

    def met(found: Mapping[str, Summary]) -> bool | None:
        return max(found[OURS].seconds) <= seconds if OURS in found else None

    return Bar(f"trained within {seconds / 60:g} min", met)


def ahead_of(*systems: str, higher_is_better: bool, errors: float = 2.0) -> list[Bar]:
    """Better than each of these by so many standard errors of the difference: a bar for each."""
    return [_ahead_of(system, 1 if higher_is_better else -1, errors) for system in systems]


def _ahead_of(system: str, sign: int, errors: float) -> Bar:
    def met(found: Mapping[str, Summary]) -> bool | None:
        if OURS not in found or system not in found:
            return None
        ours, other = found[OURS], found[system]
        return sign * (ours.mean - other.mean) > errors * math.hypot(ours.error, other.error)

    return Bar(f"ahead of {system} by {errors:g} standard errors", met)


def close_to(system: str, slack: float, *, higher_is_better: bool, relative: bool = False) -> Bar:
    """Not worse than another system by more than `slack`, or this part of its value."""
    sign = 1 if higher_is_better else -1

    def met(found: Mapping[str, Summary]) -> bool | None:
        if OURS not in found or system not in found:
            return None
        other = found[system].mean
        allowed = slack * abs(other) if relative else slack
        return sign * (found[OURS].mean - other) >= -allowed

    shown = f"{slack:.0%}" if relative else f"{slack:g}"
    return Bar(f"not behind {system} by more than {shown}", met)


def _mean(found: Mapping[str, Summary], holds: Callable[[float], bool]) -> bool | None:
    return holds(found[OURS].mean) if OURS in found else None


# --- runs and their file --------------------------------------------------------------------------


def _path(task: Task, results: Path) -> Path:
    return results / f"{task.name}.json"


def read_results(task: Task, results: Path = RESULTS) -> dict[str, Any]:
    """What the task's file holds: "runs" and "timings", empty if there is no file."""
    path = _path(task, results)
    if not path.is_file():
        return {"task": task.name, "runs": [], "timings": []}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def write_results(task: Task, record: Mapping[str, Any], results: Path = RESULTS) -> None:
    """Replace the task's file, so that a reader sees the old one or the new one."""
    path = _path(task, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def current_runs(task: Task, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs whose system is still there and whose settings are still the same."""
    return [
        run
        for run in record["runs"]
        if run["system"] in task.systems and run["settings"] == task.settings_of(run["system"])
    ]


def summaries(task: Task, record: Mapping[str, Any]) -> dict[str, Summary]:
    """Of each system that has runs, in the task's order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in current_runs(task, record):
        found.setdefault(run["system"], []).append(run)
    return {
        name: Summary(
            tuple(run["value"] for run in found[name]),
            tuple(run["seconds"] for run in found[name]),
            tuple(run["further"] for run in found[name]),
            tuple(run["where"]["threads"] for run in found[name]),
        )
        for name in task.systems
        if name in found
    }


def missing(
    task: Task,
    record: Mapping[str, Any],
    systems: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[tuple[str, int]]:
    """Systems and seeds that have no current run: of all, or of those given."""
    done = {(run["system"], run["seed"]) for run in current_runs(task, record)}
    for system in task.systems if systems is None else systems:
        count = task.seeds_of(system)
        wanted = range(count) if seeds is None or count == 1 else seeds
        for seed in wanted:
            if (system, seed) not in done:
                yield system, seed


def run_once(task: Task, system: str, seed: int, *, small: bool = False) -> dict[str, Any]:
    """One run, as the file has it."""
    start = time.perf_counter()
    outcome = task.systems[system].run(seed, small)
    whole = time.perf_counter() - start
    if not math.isfinite(outcome.value):
        raise FloatingPointError(f"{task.name}: {system}, seed {seed}, gave {outcome.value}")
    return {
        "system": system,
        "seed": seed,
        "value": float(outcome.value),
        "seconds": round(float(whole if outcome.seconds is None else outcome.seconds), 2),
        "further": {name: float(value) for name, value in outcome.further.items()},
        "settings": task.settings_of(system),
        "where": asdict(where()),
    }


def run_missing(
    task: Task,
    *,
    systems: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    results: Path = RESULTS,
    report: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Do every run that is missing, write the file after each, and return what it holds."""
    for system, seed in list(missing(task, read_results(task, results), systems, seeds)):
        run = run_once(task, system, seed)
        # Read anew: another process may have added its runs meanwhile.
        record = read_results(task, results)
        runs = [
            other
            for other in current_runs(task, record)
            if (other["system"], other["seed"]) != (system, seed)
        ]
        order = list(task.systems)
        runs = sorted([*runs, run], key=lambda run: (order.index(run["system"]), run["seed"]))
        write_results(task, {**record, "runs": runs}, results)
        if report is not None:
            report(run)
    return read_results(task, results)


# --- where a run was done -------------------------------------------------------------------------


@dataclass(frozen=True)
class Where:
    """The commit, and the machine's part in the seconds."""

    commit: str
    threads: int
    processor: str


def where() -> Where:
    return Where(_commit(), get_num_threads(), _processor())


def _commit() -> str:
    """Of the working tree; with "+" if it differs from that."""

    def git(*arguments: str) -> str:
        found = subprocess.run(
            ["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=False
        )
        return found.stdout.strip() if found.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    # Results that a series has just written do not count.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":/src")
    return commit + ("+" if changed else "")


def _processor() -> str:
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {os.cpu_count()} logical processors"
