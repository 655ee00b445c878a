"""Settings of all tests: hypothesis's profiles, and the thread count put back after each test.

The first lines of a run say on which instruction set: what it lacks is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from fastlstm import _core
from fastlstm.threads import get_num_threads, set_num_threads

# Every commit sees the same examples, so that a red test is the change's doing. HYPOTHESIS_PROFILE=
# search draws new ones, and many more.
settings.register_profile("commit", deadline=None, derandomize=True, database=None)
settings.register_profile(
    "search", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "commit"))


def pytest_report_header() -> str:
    products = "packed kernels" if _core.VECTOR[4] else "BLAS"
    return f"fastlstm: instruction set {_core.ISA}, products by {products}"


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)
