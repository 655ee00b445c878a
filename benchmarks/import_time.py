"""How long `import fastlstm` takes beside the import of what it stands on.

    python -m benchmarks.import_time

Each import runs in a process of its own, the two by turns, first one and then the other in front,
so that whatever else the machine does meets both. Compared are the processes' time on the
processor and on the clock, the start of Python included. Python's compiled files (__pycache__) are
there, as after an installation.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

OURS = "import fastlstm"
BASE = "import numpy, scipy.linalg.cython_blas"


def import_times(statement: str, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds on the processor and on the clock of a process that runs this."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock


def measure(rounds: int, environment: dict[str, str]) -> dict[str, list[tuple[float, float]]]:
    """Times of both imports in each round."""
    times: dict[str, list[tuple[float, float]]] = {OURS: [], BASE: []}
    for statement in times:
        import_times(statement, environment)
    for k in range(rounds):
        for statement in (OURS, BASE) if k % 2 else (BASE, OURS):
            times[statement].append(import_times(statement, environment))
    return times


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        times = measure(options.rounds, environment)
    for k, what in enumerate(("processor", "clock")):
        ours, base = ([pair[k] for pair in times[statement]] for statement in (OURS, BASE))
        ratio = statistics.median(a / b for a, b in zip(ours, base, strict=True))
        print(
            f"{what:<10} fastlstm {1e3 * statistics.median(ours):6.1f} ms   "
            f"NumPy and SciPy {1e3 * statistics.median(base):6.1f} ms   ratio {ratio:.3f}"
        )


if __name__ == "__main__":
    main()
