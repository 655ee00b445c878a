"""Quality on real data: ``python -m benchmarks.quality TASK``, or ``all``.

Does the runs that results/TASK.json lacks, and prints a table of all. Exits with 1 where fastlstm
misses a bar, with 2 where the data are not there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.quality import harness, report, timing
from benchmarks.quality.data import NoDataError
from benchmarks.quality.tasks import NAMES, load


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("task", choices=[*NAMES, "all"], metavar="TASK", help=f"{', '.join(NAMES)}; or all")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, metavar="S", help="this seed alone")
    seeds.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1")
    add("--system", action="append", metavar="SYSTEM", help="this one alone; may be repeated")
    add("--json", type=Path, metavar="FILE", help="also write the runs shown to FILE")
    add("--small", action="store_true", help="a slice of the data, few epochs; nothing is kept")
    add("--show", action="store_true", help="the table of what is there; nothing is run")
    add(
        "--time", action="store_true",
        help="step through training beside torch, in turns, on one thread and on all, instead",
    )  # fmt: skip
    add("--results", type=Path, default=harness.RESULTS, metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    for name in ("seed", "seeds"):
        value = getattr(arguments, name)
        if value is not None and value < (1 if name == "seeds" else 0):
            parser.error(f"--{name}: {value} is too small")
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    names = NAMES if arguments.task == "all" else [arguments.task]
    met, shown = True, []
    try:
        for name in names:
            task = load(name)
            record = _record(task, arguments)
            shown.append(record)
            print(report.table(task, record, bars=not arguments.small), flush=True)
            if not (arguments.small or arguments.time):
                met &= report.all_met(task, record)
    except NoDataError as error:
        print(f"python -m benchmarks.quality: {error}", file=sys.stderr)
        return 2
    if arguments.json is not None:
        text = json.dumps(shown if arguments.task == "all" else shown[0], indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0 if met else 1


def _record(task: harness.Task, arguments: argparse.Namespace) -> dict[str, Any]:
    """What there is to show of a task, after whatever the arguments ask for."""
    systems = arguments.system
    unknown = [name for name in systems or () if name not in task.systems]
    if unknown:
        raise SystemExit(
            f"--system: {task.name} has {', '.join(task.systems)}, got {', '.join(unknown)}"
        )
    seeds = None
    if arguments.seed is not None:
        seeds = [arguments.seed]
    elif arguments.seeds is not None:
        seeds = list(range(arguments.seeds))
    if arguments.small:
        nothing: dict[str, Any] = {"task": task.name, "runs": [], "timings": []}
        wanted = list(harness.missing(task, nothing, systems, seeds or [0]))
        runs = [harness.run_once(task, *which, small=True) for which in wanted]
        timings = timing.measure(task, small=True) if arguments.time else []
        return nothing | {"runs": runs, "timings": timings}
    if arguments.show:
        return harness.read_results(task, arguments.results)
    if arguments.time:
        return timing.measure_and_keep(task, arguments.results)
    return harness.run_missing(
        task, systems=systems, seeds=seeds, results=arguments.results, report=_say
    )


def _say(run: dict[str, Any]) -> None:
    print(
        f"{run['system']}, seed {run['seed']}: {run['value']:.4f} in {run['seconds']:.0f} s",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
