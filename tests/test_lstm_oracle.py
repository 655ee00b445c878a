"""Forward and all gradients against torch.nn.LSTM: stored results, and live where it is installed.

The bounds are the project's: 1e-12 in float64 and 1e-5 in float32, for the largest difference over
the largest reference value of each array. Every case consists of float32 values, so it means the
same to both dtypes, and what counts as right for float32 is torch in float64. cases.py says which
cases mean nothing in float32 and why: those are compared in float64 alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.support import assert_close, relative_error, run_case, tolerance_of, torch_runner
from tests.witnesses.cases import LARGE, SMALL, Array, Case, Extents, draw
from tests.witnesses.stored import (
    LARGE_SEEDS,
    LARGE_SEEDS_FLOAT32,
    SMALL_SEEDS,
    SMALL_SEEDS_FLOAT32,
    stored_results,
)

DTYPES = [np.float32, np.float64]


def assert_results(case: Case, dtype: Any, expected: dict[str, Array]) -> None:
    actual = run_case(case, dtype)
    assert list(actual) == list(expected), "the results, and their order"
    for name, array in expected.items():
        assert actual[name].dtype == dtype
        assert_close(actual[name], array, tolerance_of(dtype), f"{name} of {case.describe()}")


@pytest.mark.parametrize("seed", SMALL_SEEDS)
def test_float64_equals_what_torch_computed(seed: int) -> None:
    assert_results(draw(seed, SMALL), np.float64, stored_results(seed))


@pytest.mark.parametrize("seed", SMALL_SEEDS_FLOAT32)
def test_float32_equals_what_torch_computed(seed: int) -> None:
    assert_results(draw(seed, SMALL), np.float32, stored_results(seed))


# --- what the cases cover ------------------------------------------------------------------------

# (seeds for float32, which are some of those for float64, and the extents they are drawn from)
SUITES = [(SMALL_SEEDS_FLOAT32, SMALL), (LARGE_SEEDS_FLOAT32, LARGE)]


@pytest.mark.parametrize(("seeds", "largest"), SUITES, ids=["small", "large"])
def test_there_are_enough_cases_of_every_kind(seeds: list[int], largest: Extents) -> None:
    cases = [draw(seed, largest) for seed in seeds]
    assert len(cases) >= 200
    deep = {(case.num_layers, case.bidirectional) for case in cases if case.lengths is not None}
    assert deep == set(product((1, 2, 3), (False, True)))
    options = {
        (case.bias, case.batch_first, case.bidirectional, case.state is not None) for case in cases
    }
    assert options == set(product((False, True), repeat=4))
    for size in ("steps", "batch", "input_size", "hidden_size"):
        sizes = {getattr(case, size) for case in cases}
        assert min(sizes) == 1, size
        assert max(sizes) >= 0.9 * getattr(largest, size), size
    assert any(not case.batched for case in cases)
    assert any(case.d_output is None for case in cases)
    assert any(case.d_state is None for case in cases)


def test_nothing_in_a_case_is_zero_or_equal_to_something_else() -> None:
    """Two states, biases, gates or directions that are alike could change places unseen."""
    for seed in SMALL_SEEDS:
        case = draw(seed, SMALL)
        arrays = [*case.weights.values(), case.x, *(case.state or ()), *(case.d_state or ())]
        values = np.concatenate([array.ravel() for array in arrays])
        assert np.all(values != 0)
        # Drawn from a continuum and rounded to float32: by chance a few may be equal.
        assert len(np.unique(values)) >= 0.99 * len(values)


# --- torch itself --------------------------------------------------------------------------------


@pytest.fixture
def run_torch() -> Iterator[Any]:
    with torch_runner("make_witnesses") as run:
        yield run


@pytest.mark.oracle
@pytest.mark.parametrize("seed", SMALL_SEEDS)
def test_the_stored_results_are_what_torch_computes_now(run_torch: Any, seed: int) -> None:
    expected = run_torch(draw(seed, SMALL), "float64")
    for name, array in stored_results(seed).items():
        assert_close(array, expected[name], 1e-12, name)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", LARGE_SEEDS)
def test_float64_equals_torch(run_torch: Any, seed: int) -> None:
    case = draw(seed, LARGE)
    assert_results(case, np.float64, run_torch(case, "float64"))


@pytest.mark.oracle
@pytest.mark.parametrize("seed", LARGE_SEEDS_FLOAT32)
def test_float32_equals_torch_in_either_dtype(run_torch: Any, seed: int) -> None:
    case = draw(seed, LARGE)
    assert_results(case, np.float32, run_torch(case, "float64"))
    assert_results(case, np.float32, run_torch(case, "float32"))


@pytest.mark.oracle
def test_a_torch_state_dict_goes_in_and_out_unchanged() -> None:
    torch = pytest.importorskip("torch")
    from fastlstm import LSTM

    torch.manual_seed(1)
    theirs = torch.nn.LSTM(3, 5, 2, bidirectional=True)
    given = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    ours = LSTM(3, 5, 2, bidirectional=True)
    ours.load_state_dict(given)
    returned = ours.state_dict()
    assert list(returned) == list(given)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in returned.items()})
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), given[name])


@pytest.mark.oracle
def test_initial_weights_are_distributed_like_torchs() -> None:
    torch = pytest.importorskip("torch")
    from scipy.stats import ks_2samp

    from fastlstm import LSTM

    torch.manual_seed(0)
    theirs = torch.nn.LSTM(40, 30, 2, bidirectional=True).state_dict()
    for name, array in LSTM(40, 30, 2, bidirectional=True, rng=0).state_dict().items():
        assert array.shape == tuple(theirs[name].shape)
        assert ks_2samp(array.ravel(), theirs[name].numpy().ravel()).pvalue > 1e-4, name


def test_relative_error_sees_a_nan_on_either_side() -> None:
    """The comparison on which all of this rests."""
    one, nan = np.ones(2), np.array([1.0, np.nan])
    assert relative_error(nan, one) == relative_error(one, nan) == np.inf
    assert relative_error(np.array([1.0, 2.5]), np.array([1.0, 2.0])) == 0.25
