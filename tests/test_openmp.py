"""How the compiled core is loaded, as libgomp itself tells it (OMP_DISPLAY_ENV)."""

from __future__ import annotations

import sys

import pytest

from fastlstm import _core
from fastlstm._openmp import SPINS
from tests.processes import start_python

IMPORT = "import os; before = dict(os.environ); import fastlstm; assert os.environ == before"

pytestmark = pytest.mark.skipif(
    not (_core.OPENMP and sys.platform == "linux"), reason="built without libgomp"
)


def libgomp_settings(**environment: str) -> dict[str, str]:
    """The settings that libgomp prints when it is loaded; the import leaves the environment."""
    done = start_python("-c", IMPORT, environment={"OMP_DISPLAY_ENV": "VERBOSE", **environment})
    assert done.returncode == 0, done.stderr
    lines = (line.split("=", 1) for line in done.stderr.splitlines() if "=" in line)
    return {name.split()[-1]: value.strip().strip("'") for name, value in lines}


def test_threads_spin_briefly() -> None:
    assert libgomp_settings()["GOMP_SPINCOUNT"] == SPINS


def test_settings_of_the_users_stand() -> None:
    assert libgomp_settings(GOMP_SPINCOUNT="77")["GOMP_SPINCOUNT"] == "77"
    assert libgomp_settings(OMP_WAIT_POLICY="active")["OMP_WAIT_POLICY"] == "ACTIVE"
