"""How long a call takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from timeit import Timer

# Calls shorter than this are timed several at once, so that the clock costs nothing.
LEAST_TIME = 1e-4


def median_time(call: Callable[[], object], seconds: float) -> float:
    """Seconds that a call takes: the median of as many as fit, after a fifth of that to warm up.

    The warming up also lets the threads of whoever had the turn before fall asleep.
    """
    timer = Timer(call)
    start, calls, elapsed = time.perf_counter(), 0, 0.0
    while not calls or elapsed < seconds / 5:
        call()
        calls += 1
        elapsed = time.perf_counter() - start
    number = 1 + int(LEAST_TIME * calls / elapsed)
    times: list[float] = []
    while not times or number * sum(times) < seconds:
        times.append(timer.timeit(number) / number)
    return statistics.median(times)


def faster(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], object]:
    """Of two ways to do the same, the one that takes less time here."""
    times = [min(median_time(call, 0.005) for _ in range(3)) for call in (first, second)]
    return first if times[0] <= times[1] else second
