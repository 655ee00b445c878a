"""Compare the asv suite on two commits: ``python benchmarks/regressions.py BASE HEAD``.

asv measures both, in turns. A benchmark counts as slower only past a ratio and past an absolute
difference: on a busy machine the same code measured twice differs by up to a third in what takes
microseconds, and by much less in what takes long. Exits with 1 if a benchmark got slower or fails
where it did not, with 2 if nothing could be compared.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# A benchmark has to pass both to count as slower (or as needing more memory).
RATIO = 1.3
LEAST_DIFFERENCE = {"seconds": 50e-6, "bytes": 8e6}

CONFIG = Path(__file__).parent / "asv.conf.json"


@dataclass(frozen=True)
class Comparison:
    """One benchmark at one combination of its parameters, on both commits. None: it failed."""

    name: str
    unit: str
    before: float | None
    after: float | None

    @property
    def verdict(self) -> str:
        if self.after is None:
            return "fails in both" if self.before is None else "FAILS"
        if self.before is None:
            return "works again"
        if self._exceeds(self.after, self.before):
            return "WORSE"
        return "better" if self._exceeds(self.before, self.after) else ""

    @property
    def regressed(self) -> bool:
        return self.verdict in ("FAILS", "WORSE")

    def _exceeds(self, larger: float, smaller: float) -> bool:
        return larger > RATIO * smaller and larger - smaller > LEAST_DIFFERENCE[self.unit]

    def __str__(self) -> str:
        before, after = (_readable(value, self.unit) for value in (self.before, self.after))
        ratio = f"{self.after / self.before:.2f}" if self.before and self.after else "-"
        return f"{before:>10} {after:>10} {ratio:>6}  {self.name}  {self.verdict}".rstrip()


def _readable(value: float | None, unit: str) -> str:
    if value is None:
        return "failed"
    if unit == "bytes":
        return f"{value / 1e6:.1f} MB"
    return f"{value * 1e3:.3f} ms"


def commit_hash(name: str) -> str:
    command = ["git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
    answer = subprocess.run(command, cwd=CONFIG.parent, capture_output=True, text=True, check=False)
    if answer.returncode:
        print(f"regressions.py: no commit {name!r} here", file=sys.stderr)
        raise SystemExit(2)
    return answer.stdout.strip()


def measure(commits: list[str], bench: list[str]) -> None:
    """Let asv run the suite on both commits, in turns."""
    command = [sys.executable, "-m", "asv", "run", "--config", str(CONFIG)]
    command += ["--interleave-rounds", "--show-stderr"]
    for pattern in bench:
        command += ["--bench", pattern]
    hashes = "\n".join(commits)
    done = subprocess.run([*command, "HASHFILE:-"], input=hashes, text=True, check=False)
    if done.returncode not in (0, 2):  # 2: some benchmark failed, which is ours to judge
        raise SystemExit(2)


def compare(base: str, head: str, since: float) -> list[Comparison]:
    """What asv has stored of the two commits since a time (seconds since the epoch)."""
    from asv.benchmarks import Benchmarks
    from asv.commands.compare import unroll_result
    from asv.config import Config
    from asv.results import iter_results

    os.chdir(CONFIG.parent)  # where the configuration's paths start from
    config = Config.load(CONFIG.name)
    benchmarks = Benchmarks.load(config)
    values: dict[str, dict[str, float | None]] = {base: {}, head: {}}
    units: dict[str, str] = {}
    for results in iter_results(config.results_dir):
        if results.commit_hash not in values:
            continue
        for key in results.get_result_keys(benchmarks):
            if results.started_at[key] < 1000 * since:
                continue
            params = benchmarks[key]["params"]
            for name, value in unroll_result(key, params, results.get_result_value(key, params)):
                if value is None or not math.isnan(value):  # NaN: left out, by --bench
                    values[results.commit_hash][name] = value
                    units[name] = benchmarks[key]["unit"]
    return [
        Comparison(name, units[name], values[base][name], after)
        for name, after in values[head].items()
        if name in values[base]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", metavar="BASE", help="the commit to compare with")
    parser.add_argument("head", metavar="HEAD", help="the commit in question")
    parser.add_argument("--bench", action="append", default=[], metavar="REGEX", help="only these")
    arguments = parser.parse_args()
    base, head = commit_hash(arguments.base), commit_hash(arguments.head)
    start = time.time()
    if base != head:
        measure([base, head], arguments.bench)
    comparisons = compare(base, head, start)
    if not any(comparison.before and comparison.after for comparison in comparisons):
        print("regressions.py: no benchmark ran on both commits", file=sys.stderr)
        return 2
    differences = " or ".join(_readable(value, unit) for unit, value in LEAST_DIFFERENCE.items())
    print(f"\n{base[:8]} -> {head[:8]}; worse: by more than {RATIO} times and {differences}\n")
    print(f"{'before':>10} {'after':>10} {'ratio':>6}")
    for comparison in comparisons:
        print(comparison)
    regressed = [comparison.name for comparison in comparisons if comparison.regressed]
    print(f"\n{len(comparisons)} compared, {len(regressed)} worse")
    return 1 if regressed else 0


if __name__ == "__main__":
    sys.exit(main())
