"""The general cell against PyTorch: its own projection, and all else in its operations.

Gradients are autograd's; under masks the oracle multiplies and holds by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm._variants import ACTIVATIONS as KNOWN
from tests.support import Array, assert_close, normal, run_case, tolerance_of, torch_runner
from tests.witnesses.cases import WELL_CONDITIONED
from tests.witnesses.dropped import FrozenGenerator
from tests.witnesses.stored import (
    VARIANT_CONDITIONING,
    VARIANT_SEEDS,
    VARIANT_SEEDS_FLOAT32,
    stored_variant,
)
from tests.witnesses.variants import ACTIVATIONS, VariantCase, draw_variant


def assert_results(
    case: VariantCase, dtype: Any, expected: dict[str, Array], slack: float = 1.0
) -> None:
    rng = FrozenGenerator(case.seed) if case.masks_drawn else None
    actual = run_case(case, dtype, rng, **case.options)
    assert list(actual) == list(expected)
    for name, array in expected.items():
        what = f"{name} of {case.options}, masks drawn: {case.masks_drawn}, {case.describe()}"
        assert_close(actual[name], array, slack * tolerance_of(dtype), what)


@pytest.mark.parametrize("seed", VARIANT_SEEDS)
def test_float64_equals_what_torch_computed(seed: int) -> None:
    """... where results mean little in float32, to as many digits less."""
    slack = max(1.0, VARIANT_CONDITIONING[seed] / WELL_CONDITIONED)
    assert slack < 100
    assert_results(draw_variant(seed), np.float64, stored_variant(seed), slack)


@pytest.mark.parametrize("seed", VARIANT_SEEDS_FLOAT32)
def test_float32_equals_what_torch_computed(seed: int) -> None:
    assert_results(draw_variant(seed), np.float32, stored_variant(seed))


def test_the_cases_have_every_option_with_and_without_masks() -> None:
    cases = [draw_variant(seed) for seed in VARIANT_SEEDS_FLOAT32]
    assert len(cases) > len(VARIANT_SEEDS) / 2
    for option in (
        "proj_size", "peepholes", "clip", "input_forget", "layer_norm", "zoneout", "activations",
    ):  # fmt: skip
        met = {
            (case.masks_drawn, case.lengths is not None, case.bidirectional)
            for case in cases
            if option in case.options
        }
        assert len(met) >= 5, option  # of 8; with masks zoneout has no lengths
    for option in ("recurrent_dropout", "weight_dropout", "input_dropout"):
        assert sum(option in case.options for case in cases) > 5, option
    assert sum(case.of_torch for case in cases) > 10
    # Of 11 activations, nearly all in each slot; test_variants_gradients.py has all of them.
    given = [draw_variant(seed).options.get("activations") for seed in VARIANT_SEEDS]
    for slot in zip(*filter(None, given), strict=True):
        assert len({named if isinstance(named, str) else named[0] for named in slot}) >= 9
    assert {named if isinstance(named, str) else named[0] for named in ACTIVATIONS} == set(KNOWN)


@pytest.fixture
def run_torch() -> Iterator[Any]:
    with torch_runner("make_variants") as run:
        yield run


@pytest.mark.oracle
@pytest.mark.parametrize("seed", [*VARIANT_SEEDS_FLOAT32[::4], *range(1000, 1100)])
def test_float64_equals_torch(run_torch: Any, seed: int) -> None:
    case = draw_variant(seed)
    expected = run_torch(case, "float64")
    assert_results(case, np.float64, expected)
    if seed in VARIANT_SEEDS:
        for name, array in stored_variant(seed).items():
            assert_close(array, expected[name], 1e-12, name)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("hidden", [40, 150])
def test_a_projection_of_many_units_is_torchs(dtype: Any, hidden: int) -> None:
    torch = pytest.importorskip("torch")
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "proj_size": hidden // 2 + 1}
    module = torch.nn.LSTM(70, hidden, **options, dtype=getattr(torch, np.dtype(dtype).name))
    lstm = LSTM(70, hidden, **options, dtype=dtype, rng=0)
    lstm.load_state_dict({n: p.detach().numpy() for n, p in module.named_parameters()})
    rng = np.random.default_rng(0)
    x, weight = (
        normal(rng, (20, 17, 70), dtype),
        normal(rng, (20, 17, 2 * (hidden // 2 + 1)), dtype),
    )
    given = torch.tensor(x, requires_grad=True)
    expected, (h_n, c_n) = module(given)
    (expected * torch.tensor(weight)).sum().backward()
    output, (h, c), tape = lstm.forward(x)
    d_x, _, grads = lstm.backward(tape, weight)
    wanted = {"output": expected, "h_n": h_n, "c_n": c_n, "d_x": given.grad}
    wanted |= {name: parameter.grad for name, parameter in module.named_parameters()}
    for name, array in ({"output": output, "h_n": h, "c_n": c, "d_x": d_x} | grads).items():
        assert_close(array, wanted[name].detach().numpy(), tolerance_of(dtype), name)
