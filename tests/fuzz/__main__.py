"""Feeds loaders with changed files, and counts what comes of it.

    python -m tests.fuzz LOADER --count 100000 --seed 0

Each input is known by the loader, the seed and its number. One worker process loads them; where it
dies or hangs, that is written down, and another one goes on behind it. What a loader must not do:
raise anything but a FormatError that names the file, take more memory than its documentation says,
run or import code, open another file, die or hang. Inputs that made it do so are kept in corpus/,
a few of each sort.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.loaders import LOADERS
from tests.fuzz.worker import FIELDS, PROGRESS, input_of

CORPUS = Path(__file__).with_name("corpus")
HANGING = 10  # seconds on the processor that one input may take
KEPT = 2  # inputs of each sort of failure


@dataclass
class Report:
    """What has come of the inputs; `library` counts deaths within one that is not ours."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FIELDS, 0))
    failures: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, list[int]] = field(default_factory=dict)
    library: Counter[str] = field(default_factory=Counter)

    def add(self, index: int, what: str) -> None:
        sort = re.sub(r"\d+|0x[0-9a-f]+|'[^']*'", "…", what)
        self.failures[sort] += 1
        self.inputs.setdefault(sort, []).append(index)


def run(name: str, seed: int, start: int, stop: int) -> Report:
    """Feed the inputs from `start` to `stop`."""
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        progress, output, errors = (Path(folder) / n for n in ("progress", "output", "errors"))
        progress.write_bytes(PROGRESS.pack(*report.counts.values()))
        while start < stop:
            died = _work(name, seed, start, stop, progress, output, errors)
            report.counts = dict(zip(FIELDS, PROGRESS.unpack(progress.read_bytes()), strict=True))
            for line in output.read_text().splitlines():
                found = json.loads(line)
                report.add(found["index"], found["what"])
            if died is None:
                break
            at = report.counts["index"]
            place = _place(errors)
            if LOADERS[name].library_may_die and place.startswith("interop/keras/_hdf5.py"):
                report.library[f"{died} in {place}"] += 1
            else:
                report.add(at, f"{died}: {place}")
            start = at + 1
    return report


def _work(
    name: str, seed: int, start: int, stop: int, progress: Path, output: Path, errors: Path
) -> str | None:
    """Run one worker until it ends; how it died, if it did."""
    command = [sys.executable, "-m", "tests.fuzz.worker", name, *map(str, (seed, start, stop))]
    with output.open("w") as out, errors.open("w") as err:
        worker = subprocess.Popen([*command, str(progress)], stdout=out, stderr=err)
    at, since = -1, 0.0
    while True:
        try:
            code = worker.wait(1)
            break
        except subprocess.TimeoutExpired:
            now = PROGRESS.unpack(progress.read_bytes())[0]
            busy = _processor_time(worker.pid)
            if now != at:
                at, since = now, busy
            elif busy - since > HANGING:
                worker.send_signal(signal.SIGABRT)  # faulthandler tells where it is
                worker.wait()
                return "hangs"
        except BaseException:
            worker.kill()
            raise
    if code > 0:
        raise RuntimeError(f"the worker itself failed:\n{errors.read_text()[-3000:]}")
    return None if code == 0 else f"dies of {signal.Signals(-code).name}"


def _processor_time(process: int) -> float:
    """Seconds that a process has worked; a busy machine does not count."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _place(errors: Path) -> str:
    """The innermost line of ours that faulthandler has seen."""
    found = re.findall(r'File ".*?/fastlstm/(.*?)", line (\d+) in (\w+)', errors.read_text())
    return f"{found[0][0]}:{found[0][1]} in {found[0][2]}" if found else "outside of fastlstm"


def keep(name: str, seed: int, report: Report) -> list[Path]:
    """Write a few inputs of each sort of failure into the corpus."""
    seeds = LOADERS[name].seeds()
    paths = []
    for indices in report.inputs.values():
        for index in indices[:KEPT]:
            content = input_of(name, seed, index, seeds)
            digest = hashlib.sha256(content).hexdigest()[:12]
            paths.append(CORPUS / name / f"{digest}.bin")
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            paths[-1].write_bytes(content)
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.split("\n")[0]
    )
    parser.add_argument("loader", choices=[*LOADERS, "all"])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-corpus", action="store_true", help="keep no inputs that fail")
    options = parser.parse_args(arguments)
    failed = 0
    for name in LOADERS if options.loader == "all" else [options.loader]:
        begun = time.monotonic()
        report = run(name, options.seed, options.start, options.start + options.count)
        counts, seconds = report.counts, time.monotonic() - begun
        print(
            f"{name}: {options.count} inputs in {seconds:.0f} s: {counts['valid']} loaded, "
            f"{counts['refused']} refused, {report.failures.total()} failed; memory grew by at "
            f"most {counts['growth'] / 2**20:.1f} MiB (a file of {counts['growth_size']} bytes), "
            f"by {counts['multiple'] / 1000:.1f} times the size of files over 1 MiB",
            flush=True,
        )
        for sort, count in report.failures.most_common():
            print(f"    {count} x {sort}  (number {report.inputs[sort][0]})")
        for what, count in report.library.most_common():
            print(f"    {count} x the library {what}")
        if not options.no_corpus:
            for path in keep(name, options.seed, report):
                print(f"    kept {path.relative_to(CORPUS)}")
        failed += report.failures.total()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
