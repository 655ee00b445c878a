"""The forecasting network: its gradients, what it reads, and torch's layers put together alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm.tasks.forecasting.network import ForecastNetwork
from tests.finite_differences import gradient
from tests.support import Array, assert_close, assert_same_bits, normal

SMALL = {
    "variables": 3, "known": 2, "lookback": 7, "horizon": 4, "patch": 3, "mixing": True,
    "quantiles": (0.1, 0.5, 0.9), "hidden_size": 3, "num_layers": 1, "dropout": 0.0, "cell": "lstm",
}  # fmt: skip


def network_of(*, dtype: Any = np.float64, shaken: bool = True, **options: Any) -> ForecastNetwork:
    """A network none of whose weights is zero, unless it is as it begins."""
    options = SMALL | options
    rng = np.random.default_rng(0)
    network = ForecastNetwork(**options, start=rng, dtype=dtype)
    if shaken:
        state = network.parameters().state_dict()
        for array in state.values():
            array += 0.3 * normal(rng, array.shape, dtype)
        network.parameters().load_state_dict(state)
    return network


def batch_of(*, dtype: Any = np.float64, **options: Any) -> tuple[Array, Array | None, Array]:
    options = SMALL | options
    rng = np.random.default_rng(1)
    lookback, horizon, variables = (options[k] for k in ("lookback", "horizon", "variables"))
    window = normal(rng, (2, lookback, variables), dtype)
    known = normal(rng, (2, lookback + horizon, options["known"]), dtype)
    return window, known if options["known"] else None, normal(rng, (2, horizon, variables), dtype)


VARIANTS = [
    {},
    {"known": 0, "mixing": False, "quantiles": None},
    {"cell": "rnn", "num_layers": 2, "mixing": False, "hidden_size": 2},
    {"variables": 1, "mixing": False, "lookback": 6},
    {"horizon": 1, "patch": 2, "variables": 2, "known": 1},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_gradients_are_those_of_finite_differences(options: dict[str, Any]) -> None:
    network, batch = network_of(**options), batch_of(**options)
    before = network.parameters().state_dict()

    def loss(arrays: dict[str, Array]) -> float:
        network.parameters().load_state_dict(arrays)
        return network.loss_and_grads(batch, None, None)[0]

    expected = gradient(loss, before)
    network.parameters().load_state_dict(before)
    _, grads, _ = network.loss_and_grads(batch, None, None)
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        assert_close(grad, expected[name], 1e-6, name)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_call_has_the_bits_of_forward_and_does_not_depend_on_the_batch(
    options: dict[str, Any],
) -> None:
    network = network_of(dtype=np.float32, dropout=0.5, **options)
    window, known, _ = batch_of(dtype=np.float32, **options)
    forecast = network(window, known)
    assert forecast.shape == (
        2,
        network.horizon,
        window.shape[2],
        1 if network.quantiles is None else 3,
    )
    assert_same_bits(network.forward(window, known, None)[0], forecast)
    alone = network(window[1:], None if known is None else known[1:])
    assert_close(alone, forecast[1:], 1e-6)


def test_it_begins_with_the_last_value() -> None:
    network = network_of(shaken=False)
    window, known, _ = batch_of()
    forecast = network(window, known)
    assert (forecast == window[:, -1:, :, np.newaxis]).all()


def test_a_shift_of_the_window_shifts_the_forecast() -> None:
    network, (window, known, _) = network_of(), batch_of()
    assert_close(network(window + 5, known), network(window, known) + 5, 1e-12)


def test_only_with_mixing_does_a_variable_depend_on_the_others() -> None:
    window, known, _ = batch_of()
    changed = window.copy()
    changed[..., 0] += normal(np.random.default_rng(2), changed.shape[:2])
    for mixing in (False, True):
        network = network_of(mixing=mixing)
        same = network(changed, known)[:, :, 1:] == network(window, known)[:, :, 1:]
        assert same.all() == (not mixing)
        assert same.any() == (not mixing)


def test_forecasts_depend_on_what_is_known_of_their_time_and_before_it() -> None:
    network, (window, known, _) = network_of(), batch_of()
    assert known is not None
    forecast = network(window, known)
    for row, first in [(7 + 2, 2), (7, 0), (6, 0)]:  # the lookback is 7
        changed = known.copy()
        changed[:, row] += 1
        differs = (network(window, changed) != forecast).any(axis=(0, 2, 3))
        assert differs.tolist() == [step >= first for step in range(4)]
    changed = known.copy()
    changed[:, 0] += 1  # fills no step of the LSTM: 7 = 2 · 3 + 1
    assert_same_bits(network(window, changed), forecast)


def test_dropout_acts_in_training_alone() -> None:
    network = network_of(dropout=0.5, num_layers=1)
    window, known, _ = batch_of()
    rng = np.random.default_rng(0)
    one, two = (network.forward(window, known, rng)[0] for _ in range(2))
    assert (one != two).any()
    assert_same_bits(network(window, known), network(window, known))


def test_it_begins_with_given_arrays_and_refuses_others() -> None:
    state = network_of().parameters().state_dict()
    again = ForecastNetwork(**SMALL, start=state, dtype=np.float64)
    window, known, _ = batch_of()
    assert_same_bits(again(window, known), network_of()(window, known))
    for wrong in ({}, state | {"head.bias": np.zeros(3)}):
        with pytest.raises((KeyError, ValueError)):
            ForecastNetwork(**SMALL, start=wrong, dtype=np.float64)


@pytest.mark.oracle
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_the_same_of_torchs_layers_has_the_same_loss_and_gradients(
    options: dict[str, Any],
) -> None:
    pytest.importorskip("torch")
    from benchmarks.quality.torch_twin import twin_of

    network, batch = network_of(**options), batch_of(**options)
    loss, grads, _ = network.loss_and_grads(batch, None, None)
    twin = twin_of(network)
    expected, _ = twin.loss(batch, None)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    theirs = dict(twin.named_parameters())
    assert theirs.keys() == grads.keys()
    for name, grad in grads.items():
        assert_close(grad, theirs[name].grad.numpy(), 1e-10, name)
