"""Breaks the core in many ways, one at a time, and demands that each turns a test red.

    python -m tests.mutations            # all of them: some twenty minutes
    python -m tests.mutations gates df   # those with one of these words in their names

Needs a processor with packed kernels; mutations of the BLAS path are tested on "generic".
Works on a copy of the tree in a temporary folder. Exits with 1 if a mutation survives, if its
pattern does not occur exactly once any more, or if the tests are red without any mutation,
before the first or after the last.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.mutations import callers, general_cell, kernels, layers, losses, optimisers, time_loop
from tests.mutations.mutation import BEAM, BLAS_ONLY, CELL, CTC, LOOP, OPTIMISERS, RUNS, Mutation

MUTATIONS = [
    *kernels.MUTATIONS,
    *time_loop.MUTATIONS,
    *layers.MUTATIONS,
    *general_cell.MUTATIONS,
    *callers.MUTATIONS,
    *losses.MUTATIONS,
    *optimisers.MUTATIONS,
]
ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ["src", "csrc", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE"]
# Fast ones first: most mutations fall in the stored witnesses.
TESTS = [
    "tests/test_tape.py",
    "tests/test_parameters.py",
    "tests/test_packing.py",
    "tests/test_sequences.py",
    "tests/test_lstm_oracle.py",
    "tests/test_variants_oracle.py",
    "tests/test_lstm.py",
    "tests/test_lstm_masks.py",
    "tests/test_lstm_reverse.py",
    "tests/test_variants.py",
    "tests/test_variants_face.py",
    "tests/test_weights.py",
    "tests/test_blas.py",
    "tests/test_core.py",
    "tests/test_flush.py",
    "tests/test_stack.py",
    "tests/test_gradients.py",
    "tests/test_dropout.py",
    "tests/test_recompute.py",
    "tests/test_stream.py",
    "tests/test_stream_use.py",
    "tests/test_lstm_laws.py",
    "tests/test_promises.py",
    "tests/test_lstm_gradients.py",
]
# Files that have tests of their own, and hardly any part in the others.
_GENERAL_CELL = [f"tests/test_variants{part}.py" for part in ("_oracle", "", "_face", "_gradients")]
TESTS_OF = {
    CTC: ["tests/test_ctc.py"],
    BEAM: ["tests/test_decoding.py"],
    OPTIMISERS: ["tests/test_optim.py"],
    CELL: _GENERAL_CELL,
    LOOP: _GENERAL_CELL,
    RUNS: _GENERAL_CELL,
}
TIMEOUT = 300  # seconds for the tests of one mutation: one that hangs is seen, too


class Copy:
    """A copy of the tree, built in place, in which one thing at a time is broken and mended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "build", "*.so", "*.egg-info")
                shutil.copytree(source, folder / name, ignore=ignored)
            elif source.exists():
                shutil.copy2(source, folder / name)
        # What is right does not depend on optimisation, and most of a build's time does.
        setup = folder / "setup.py"
        text = setup.read_text(encoding="utf-8")
        assert text.count('"-O3"') == 1
        setup.write_text(text.replace('"-O3"', '"-O0"'), encoding="utf-8")
        self.environment = os.environ | {
            "PYTHONPATH": str(folder / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",  # a stale cache would hide a mutation of Python code
        }
        self._bring_build_tools()
        self.build()
        self.pristine = {path: path.read_bytes() for path in self._libraries(folder / "src")}
        self._check_that_it_is_used()

    def build(self) -> None:
        # Linked anew even where only csrc/ has changed, of which the linker step knows nothing.
        for path in self._libraries(self.folder / "build"):
            path.unlink()
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        done = self._run(command)
        if done.returncode:
            sys.exit(f"{done.stdout}\ndoes not build")

    def tests(self, isa: str = "", files: Sequence[str] = TESTS) -> tuple[bool, str]:
        """Whether they are green, on an instruction set if told, and the first that is not."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not oracle"]
        # The other instruction sets would be broken in the same way, at twice the time.
        command += ["-p", "no:cacheprovider", "-k", "not every_other_instruction_set", *files]
        try:
            done = self._run(command, isa)
        except subprocess.TimeoutExpired:
            return False, f"(still running after {TIMEOUT} s)"
        if done.returncode < 0:
            return False, f"(killed by signal {-done.returncode})"
        found = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", done.stdout, re.MULTILINE)
        if done.returncode and not found:
            sys.exit(f"{done.stdout}\npytest ended with {done.returncode}")
        return done.returncode == 0, found[1] if found else ""

    def red_somewhere(self) -> str:
        """The first test that is red on the processor's own instruction set or with BLAS."""
        others = (mutation.tests for mutation in MUTATIONS)
        everything = list(dict.fromkeys([*TESTS, *itertools.chain(*TESTS_OF.values(), *others)]))
        return self.tests(files=everything)[1] or self.tests(BLAS_ONLY)[1]

    def broken_by(self, mutation: Mutation) -> tuple[bool, str]:
        """What `tests` says while the mutation is in place."""
        path = self.folder / mutation.file
        source = path.read_text(encoding="utf-8")
        path.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")
        try:
            if mutation.compiled:
                self.build()
            tests = mutation.tests or TESTS_OF.get(mutation.file, TESTS)
            return self.tests(mutation.isa, tests)
        finally:
            # With a new time, so that the next build does not take what came of the mutation.
            path.write_text(source, encoding="utf-8")
            for library, content in self.pristine.items() if mutation.compiled else ():
                library.unlink()  # never written over: that would crash whoever has it loaded
                library.write_bytes(content)

    def _run(self, command: list[str], isa: str = "") -> subprocess.CompletedProcess[str]:
        environment = self.environment | ({"FASTLSTM_ISA": isa} if isa else {})
        return subprocess.run(
            command, cwd=self.folder, env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT,
        )  # fmt: skip

    def _bring_build_tools(self) -> None:
        """What pyproject.toml wants for a build, unless this Python has it already."""
        if all(importlib.util.find_spec(name) for name in ("Cython", "setuptools")):
            return
        project = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))
        tools = self.folder / "tools"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tools)]
        subprocess.run([*command, *project["build-system"]["requires"]], check=True)
        self.environment["PYTHONPATH"] += os.pathsep + str(tools)

    def _check_that_it_is_used(self) -> None:
        program = "import fastlstm._core as core, fastlstm as package; "
        program += "print(core.__file__); print(package.__file__)"
        done = self._run([sys.executable, "-c", program])
        lines = done.stdout.split()
        if len(lines) != 2 or not all(Path(line).is_relative_to(self.folder) for line in lines):
            sys.exit(f"the tests would not see the copy in {self.folder}:\n{done.stdout}")

    @staticmethod
    def _libraries(folder: Path) -> list[Path]:
        return [path for path in folder.rglob("*") if path.suffix in (".so", ".pyd")]


def outdated(mutations: list[Mutation]) -> list[str]:
    """A line for each mutation whose pattern does not occur exactly once."""
    counts = {m: (ROOT / m.file).read_text(encoding="utf-8").count(m.old) for m in mutations}
    return [f"{m.name}: pattern occurs {n} times in {m.file}" for m, n in counts.items() if n != 1]


def main(words: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    complaints = outdated(chosen)
    if complaints or not chosen:
        print("\n".join(complaints) or "no such mutation")
        return 1
    survivors = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder).resolve())
        red = copy.red_somewhere()
        if red:
            print(f"red without any mutation: {red}")
            return 1
        print(f"| {'mutation':<60} | {'file':<13} | {'seconds':>7} | turned red by")
        print(f"| {'-' * 60} | {'-' * 13} | {'-' * 7} | ---", flush=True)
        for mutation in chosen:
            start = time.monotonic()
            survived, by = copy.broken_by(mutation)
            seconds = time.monotonic() - start
            if survived:
                survivors.append(mutation)
            file = Path(mutation.file).name
            print(
                f"| {mutation.name:<60} | {file:<13} | {seconds:7.1f} | {by or 'NOTHING'}",
                flush=True,
            )
        red = copy.red_somewhere()
        if red:
            print(f"red after the last mutation was taken back: {red}; the table means nothing")
            return 1
    minutes = (time.monotonic() - began) / 60
    print(f"\n{len(chosen)} mutations, {len(survivors)} survived, {minutes:.1f} minutes")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
