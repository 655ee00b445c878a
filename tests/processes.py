"""Python in a process of its own, for what a process has only once: its import, its environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What would make a process differ from one in a bare environment.
_OURS = ("FASTLSTM_", "OMP_", "GOMP_", "OPENBLAS_", "MKL_", "GOTO_")


def start_python(
    *arguments: str, environment: dict[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """``python arguments`` from the root of the tree, with no thread or ISA settings but these."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return subprocess.run(
        [sys.executable, *arguments],
        env=bare | (environment or {}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_python(
    *arguments: str, environment: dict[str, str] | None = None, timeout: float = 60
) -> str:
    """What ``python arguments`` prints; fails with its errors if it does not exit with 0."""
    done = start_python(*arguments, environment=environment, timeout=timeout)
    assert done.returncode == 0, f"exit code {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
