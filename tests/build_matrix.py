"""Builds the package in every way that somebody may, each in a copy of the tree and a fresh venv.

    python -m tests.build_matrix [ROW ...]

prints a line for each row and fails if one does. It needs git, a C compiler, a package index, and
fastlstm in the Python that runs it, whose results every build must give.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT

# A step of training, its results and the facts about the build; run outside of the tree.
SMOKE = """
import json, sys
import numpy as np
import fastlstm
from fastlstm import _core
from fastlstm._config import config
lstm = fastlstm.LSTM(24, 32, 2, bidirectional=True, dtype=np.float64, rng=0)
x = np.random.default_rng(0).standard_normal((60, 40, 24))
output, state, tape = lstm.forward(x, lengths=np.arange(21, 61))
d_x, d_state, grads = lstm.backward(tape, output, state)
assert np.array_equal(output, lstm(x, lengths=np.arange(21, 61))[0])
np.savez(sys.argv[1], output=output, h_n=state[0], c_n=state[1], d_x=d_x, d_h_0=d_state[0],
         d_c_0=d_state[1], **grads)
fastlstm.show_config()
print(json.dumps({"file": fastlstm.__file__, "openmp": _core.OPENMP, "debug": _core.DEBUG,
                  "version": fastlstm.__version__, **config()}))
"""

COMPARE = """
import sys
import numpy as np
with np.load(sys.argv[1]) as actual, np.load(sys.argv[2]) as expected:
    assert set(actual) == set(expected)
    worst = max(np.abs(actual[k] - expected[k]).max() / np.abs(expected[k]).max() for k in actual)
assert worst <= 1e-12, worst
print(f"{worst:.1e}")
"""


@dataclass
class Place:
    """Where one row works: a copy of the tree, a venv, and a folder outside of both."""

    folder: Path
    expected: Path  # results of the Python that runs all this

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def python(self) -> str:
        scripts = "Scripts" if os.name == "nt" else "bin"
        return str(self.folder / "venv" / scripts / "python")

    def run(self, *command: str, cwd: Path | None = None, **environment: str) -> str:
        """Run a command; returns what it prints, and raises with it where it fails."""
        bare = {key: value for key, value in os.environ.items() if not key.startswith("FASTLSTM_")}
        for name in ("PYTHONPATH", "OMP_NUM_THREADS", "VIRTUAL_ENV"):
            bare.pop(name, None)
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=bare | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} -> {done.returncode}\n{done.stdout}")
        return done.stdout

    def pip(self, *arguments: str, cwd: Path | None = None, **environment: str) -> None:
        command = (self.python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)
        self.run(*command, cwd=cwd, **environment)

    def smoke(self, **environment: str) -> dict[str, object]:
        """Run a step of training outside of the tree; returns the facts about the build."""
        results = self.folder / "results.npz"
        lines = self.run(self.python, "-c", SMOKE, str(results), **environment).splitlines()
        facts: dict[str, object] = json.loads(lines[-1])
        facts["error"] = self.run(
            self.python, "-c", COMPARE, str(results), str(self.expected)
        ).strip()
        return facts


def copy_tree(target: Path) -> None:
    """What a clone would have: the files that git tracks, and new ones that it does not ignore."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listing.stdout.split("\0")):
        source, copy = ROOT / name, target / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


def demand(condition: object, message: str) -> None:
    if not condition:
        raise RuntimeError(message)


# --- the rows ------------------------------------------------------------------------------------


def sdist_and_wheel(place: Place) -> str:
    """sdist, from it a wheel, from it an installation."""
    place.pip("install", "build")
    place.run(place.python, "-m", "build", "--sdist", "--outdir", str(place.folder), cwd=place.tree)
    (sdist,) = place.folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    for part in ("csrc", "src", "tests"):
        wanted = {
            path.relative_to(place.tree).as_posix()
            for path in (place.tree / part).rglob("*")
            if path.is_file() and path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".npz")
        }
        demand(wanted <= packed, f"the sdist lacks {sorted(wanted - packed)}")
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        demand(name in packed, f"the sdist lacks {name}")
    binaries = {name for name in packed if name.endswith((".so", ".pyd", ".pyc", ".o"))}
    demand(not binaries, f"the sdist holds {sorted(binaries)}")
    shutil.rmtree(place.tree)  # nothing but the sdist counts from here on

    place.pip("wheel", "--no-deps", "--wheel-dir", str(place.folder), str(sdist))
    (wheel,) = place.folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    demand(
        all(top == "fastlstm" or top.endswith(".dist-info") for top in tops),
        f"the wheel installs {tops}",
    )
    demand("fastlstm/py.typed" in names, "the wheel lacks py.typed")
    stray = [name for name in names if name.endswith((".pyx", ".c", ".h"))]
    demand(not stray, f"the wheel holds sources: {stray}")
    place.pip("install", str(wheel))
    facts = place.smoke()
    demand("site-packages" in str(facts["file"]), f"imported from {facts['file']}")
    place.run(place.python, "-m", "pip", "check")
    sizes = f"{sdist.stat().st_size >> 10} KiB, wheel {wheel.stat().st_size >> 10} KiB"
    return f"error {facts['error']}; {sizes}"


def without_openmp(place: Place) -> str:
    """FASTLSTM_OPENMP=0: works, says so, computes the same."""
    place.pip("install", str(place.tree), FASTLSTM_OPENMP="0")
    facts = place.smoke(FASTLSTM_NUM_THREADS="2")
    demand(facts["openmp"] is False, "it was built with OpenMP")
    demand(facts["OpenMP"] == "no: one thread", f"show_config says {facts['OpenMP']!r}")
    demand("openmp" not in str(facts["flags"]), f"flags: {facts['flags']}")
    return f"{facts['OpenMP']}; error {facts['error']}"


def debug(place: Place) -> str:
    """FASTLSTM_DEBUG=1: asserts and bounds checks on, and the LSTM's tests find nothing."""
    place.pip("install", "--editable", str(place.tree), FASTLSTM_DEBUG="1")
    place.pip("install", "--group", "test", cwd=place.tree)
    facts = place.smoke()
    demand(facts["debug"] == "yes", f"show_config says {facts['debug']!r}")
    tests = ["tests/test_lstm.py", "tests/test_known_bugs.py", "tests/test_arrays.py"]
    printed = place.run(
        place.python, "-m", "pytest", "-q", *tests, "-p", "no:cacheprovider", cwd=place.tree
    )
    return f"error {facts['error']}; {printed.strip().splitlines()[-1]}"


def editable(place: Place) -> str:
    """pip install -e: imported from the tree, and an edit shows at once."""
    place.pip("install", "--editable", str(place.tree))
    facts = place.smoke()
    demand(str(facts["file"]).startswith(str(place.tree)), f"imported from {facts['file']}")
    (place.tree / "src/fastlstm/_version.py").write_text('__version__ = "0.0.0+edited"\n')
    edited = place.smoke()
    demand(edited["version"] == "0.0.0+edited", f"version is still {edited['version']}")
    return f"error {facts['error']}"


ROWS: list[Callable[[Place], str]] = [sdist_and_wheel, without_openmp, debug, editable]


def run_row(row: Callable[[Place], str], expected: Path) -> bool:
    """Work through one row and print its line; False if it failed."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fastlstm-build-") as folder:
        place = Place(Path(folder).resolve(), expected)
        copy_tree(place.tree)
        place.run(sys.executable, "-m", "venv", str(place.folder / "venv"))
        place.pip("install", "--upgrade", "pip>=25.1")
        try:
            outcome, fine = row(place), True
        except (RuntimeError, ValueError) as error:
            outcome, fine = str(error), False
    seconds = time.monotonic() - begin
    verdict = "ok" if fine else "FAILED"
    print(f"{row.__name__:<16} {verdict:<7} {seconds:5.0f} s  {outcome}", flush=True)
    return fine


def main(names: list[str]) -> int:
    unknown = set(names) - {row.__name__ for row in ROWS}
    if unknown:
        print(f"unknown rows {sorted(unknown)}; there are {[row.__name__ for row in ROWS]}")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder) / "expected.npz"
        subprocess.run(
            [sys.executable, "-c", SMOKE, str(expected)], check=True, capture_output=True
        )
        chosen = [row for row in ROWS if not names or row.__name__ in names]
        fine = [run_row(row, expected) for row in chosen]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
