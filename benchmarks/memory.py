"""Peak memory of a training step beside other libraries: ``peers --mode memory``.

Each figure is that of a process of its own, which has imported the library, done a small training
step, and made model, weights and input of the shape: how far its resident memory then rises during
one training step (`growth`), and how much of that stays when the step's results are gone (`kept`:
ours are the packed copies of the weights).
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.engines import ENGINES, OURS
from benchmarks.measurement import shape_record
from benchmarks.tasks import TRAIN, Shape, Task
from benchmarks.workers import thread_pools

MODE = "memory"
_SMALL = Shape(8, 2, 16, 16)
_PROCESS = Path("/proc/self")


class Growth(NamedTuple):
    """Bytes over those before the step: at the peak, and after it."""

    peak: int
    kept: int


def training_growth(engine: str, task: Task) -> Growth:
    """To be called in a fresh process."""
    ENGINES[engine].job(Task(_SMALL, TRAIN, task.threads)).call()
    job = ENGINES[engine].job(task)
    _give_back()
    # The peak begins anew at what is resident now: imports may have needed more for a while.
    (_PROCESS / "clear_refs").write_text("5")
    before = _status("VmRSS")
    job.call()
    peak = _status("VmHWM")
    _give_back()
    return Growth(peak - before, _status("VmRSS") - before)


def _status(field: str) -> int:
    """A field of the process's status that is in kB, in bytes."""
    found = re.search(rf"^{field}:\s*(\d+) kB", (_PROCESS / "status").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def _give_back() -> None:
    """What was freed goes back to the system, and is not taken for something that is kept."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def measure(engine: str, shape: Shape, threads: int) -> Growth:
    """In a process of its own."""
    context = multiprocessing.get_context("spawn")
    with thread_pools(threads), context.Pool(1) as pool:
        return pool.apply(training_growth, (engine, Task(shape, TRAIN, threads)))


def compare(peers: list[str], shapes: list[Shape], threads: int) -> list[dict[str, Any]]:
    """Measure, print, and give the records for JSON; `ratio` is the least peer over ours."""
    print(f"growth of memory by a training step, MB (of which kept), threads: {threads}\n")
    print(f"{'':<24}" + "".join(f" {name:>16}" for name in (OURS, *peers)) + f" {'ratio':>7}")
    records = []
    for shape in shapes:
        found = {engine: measure(engine, shape, threads) for engine in (OURS, *peers)}
        ours = found.pop(OURS)
        ratio = min(theirs.peak for theirs in found.values()) / ours.peak
        columns = (f"{peak / 1e6:.1f} ({kept / 1e6:.1f})" for peak, kept in (ours, *found.values()))
        print(f"{shape!s:<24}" + "".join(f" {text:>16}" for text in columns) + f" {ratio:>7.2f}")
        records.append(
            {
                "shape": shape_record(shape),
                "mode": MODE,
                "threads": threads,
                "ours_bytes": ours._asdict(),
                "peers_bytes": {peer: growth._asdict() for peer, growth in found.items()},
                "ratio": ratio,
            }
        )
    mean = statistics.geometric_mean(record["ratio"] for record in records)
    print(f"{'geometric mean':<{24 + 17 * (len(peers) + 1)}} {mean:>7.2f}")
    return records
