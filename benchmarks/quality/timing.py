"""Steps of training beside torch: the same network from the same weights on the same batches.

Each side lives in a process of its own, for the thread pools of two libraries in one process spin
against each other, and they take turns, so that a busy neighbour meets both. A figure is a median
over the turns: of the milliseconds of a step, and of torch's time over ours in the same turn.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.harness import OURS, TORCH, Task, read_results, where, write_results
from benchmarks.workers import thread_pools

TURNS, WARM_UP = 15, 5


@dataclass(frozen=True)
class Training:
    """What an estimator hands to its Trainer: all that a step depends on."""

    network: Any
    optimiser: Any
    batches: Sequence[Any]
    schedule: Callable[[int], float] | None = None
    max_norm: float | None = None
    carry_state: bool = False
    seed: int = 0


class _CapturedError(Exception):
    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training


class _Capturing:
    """In the place of the Trainer: takes everything, and trains nothing."""

    history = None

    def __init__(
        self,
        model: Any,
        optimiser: Any,
        *,
        schedule: Callable[[int], float] | None = None,
        max_norm: float | None = None,
        carry_state: bool = False,
        seed: int = 0,
        **_others: Any,
    ) -> None:
        self._arguments = (schedule, max_norm, carry_state, seed)
        self._model, self._optimiser = model, optimiser

    def fit(self, batches: Sequence[Any], **_how_long: Any) -> None:
        raise _CapturedError(Training(self._model, self._optimiser, batches, *self._arguments))


def capture(fit: Callable[[], object]) -> Training:
    """What ``fit()``, which fits an estimator, would train; nothing is trained."""
    from benchmarks.quality.torch_twin import replaced_trainer

    try:
        with replaced_trainer(_Capturing):
            fit()
    except _CapturedError as captured:
        return captured.training
    raise ValueError("fit: has no Trainer that trains")


# --- one side -------------------------------------------------------------------------------------

Step = Callable[[int, Any, Any], tuple[float, Any]]


def our_step(training: Training) -> Step:
    """``step(number, batch, state)`` as the Trainer does it."""
    from fastlstm.optim import clip_grad_norm

    network, optimiser, schedule = training.network, training.optimiser, training.schedule
    rng = np.random.default_rng(training.seed)

    def step(number: int, batch: Any, state: Any) -> tuple[float, Any]:
        loss, grads, state = network.loss_and_grads(batch, state, rng)
        grads, _ = clip_grad_norm(grads, training.max_norm or sys.float_info.max)
        factor = 1.0 if schedule is None else schedule(number)
        optimiser.step(grads, lr=optimiser.lr * factor)
        return float(loss), state

    return step


def torch_step(training: Training) -> Step:
    from benchmarks.quality.torch_twin import make_step, torch_optimiser, twin_of

    twin = twin_of(training.network).train()
    optimiser = torch_optimiser(training.optimiser, twin.parameters())
    return make_step(twin, optimiser, training.max_norm, training.schedule)


class Side:
    """One side on its way through the batches."""

    def __init__(self, training: Training, step: Step) -> None:
        self._training, self._step = training, step
        self._done, self._state = 0, None

    def turn(self, steps: int) -> tuple[float, float]:
        """So many steps more: seconds of one in the mean, batches aside, and the last loss."""
        batches = self._training.batches
        loss, spent = float("nan"), 0.0
        for _ in range(steps):
            batch = batches[self._done % len(batches)]
            start = time.perf_counter()
            loss, state = self._step(self._done, batch, self._state)
            spent += time.perf_counter() - start
            self._state = state if self._training.carry_state else None
            self._done += 1
        return spent / steps, loss


_side: Side | None = None  # of a process


def _begin(name: str, who: str, threads: int, small: bool) -> None:
    global _side
    import fastlstm
    from benchmarks.quality.tasks import load

    fastlstm.set_num_threads(threads)
    task = load(name)
    assert task.training is not None
    training = task.training(small)
    if who == TORCH:
        import torch

        torch.set_num_threads(threads)
        _side = Side(training, torch_step(training))
    else:
        _side = Side(training, our_step(training))


def _turn(steps: int) -> tuple[float, float]:
    assert _side is not None
    return _side.turn(steps)


# --- both -----------------------------------------------------------------------------------------


def measure(task: Task, *, small: bool = False) -> list[dict[str, Any]]:
    """On one thread, and on all: milliseconds of a step on either side, and the ratio."""
    if task.training is None:
        return []
    counts = sorted({1, len(os.sched_getaffinity(0))})
    return [_measure(task, threads, small) for threads in (counts[:1] if small else counts)]


def _measure(task: Task, threads: int, small: bool) -> dict[str, Any]:
    spawn = multiprocessing.get_context("spawn")
    times: dict[str, list[float]] = {OURS: [], TORCH: []}
    with ExitStack() as stack, thread_pools(threads):
        sides = {
            who: stack.enter_context(
                ProcessPoolExecutor(
                    1, spawn, initializer=_begin, initargs=(task.name, who, threads, small)
                )
            )
            for who in (OURS, TORCH)
        }
        slowest = max(side.submit(_turn, WARM_UP).result()[0] for side in sides.values())
        # Turns of about a quarter of a second.
        steps = 1 if small else max(2, min(50, round(0.25 / slowest)))
        for turn in range(2 if small else TURNS):
            for who in list(sides)[:: 1 if turn % 2 else -1]:
                times[who].append(sides[who].submit(_turn, steps).result()[0])
    ratio = statistics.median(b / a for a, b in zip(times[OURS], times[TORCH], strict=True))
    return {
        "threads": threads,
        "ours_ms": round(1e3 * statistics.median(times[OURS]), 3),
        "torch_ms": round(1e3 * statistics.median(times[TORCH]), 3),
        "ratio": round(ratio, 3),
        "settings": task.settings_of(OURS),
        "where": asdict(where()),
    }


def measure_and_keep(task: Task, results: Path) -> dict[str, Any]:
    """Measure, and put the figures into the task's file."""
    timings = measure(task)
    record = {**read_results(task, results), "timings": timings}
    if timings:
        write_results(task, record, results)
    return record
