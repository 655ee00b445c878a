"""The forecasting network: its gradients, what it reads, and torch's layers put together alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm.losses import mean_squared_error, quantile_loss
from fastlstm.tasks._forecast_network import ForecastNetwork
from tests.finite_differences import gradient
from tests.support import Array, assert_close, assert_same_bits, normal

LEVELS = (0.1, 0.5, 0.9)
SMALL = {
    "variables": 3, "known": 2, "lookback": 7, "horizon": 4, "outputs": 3, "patch": 3,
    "mixing": True, "hidden_size": 3, "num_layers": 1, "dropout": 0.0, "cell": "lstm",
}  # fmt: skip


def pinball(prediction: Array, target: Array) -> tuple[float, Array]:
    return quantile_loss(prediction, target, LEVELS)


def squared(prediction: Array, target: Array) -> tuple[float, Array]:
    return mean_squared_error(prediction, target[..., np.newaxis])


def network_of(*, dtype: Any = np.float64, shaken: bool = True, **options: Any) -> ForecastNetwork:
    """A network none of whose weights is zero, unless it is as it begins."""
    options = SMALL | options
    loss = squared if options["outputs"] == 1 else pinball
    rng = np.random.default_rng(0)
    network = ForecastNetwork(**options, loss=loss, start=rng, dtype=dtype)
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
    {"known": 0, "mixing": False, "outputs": 1},
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
    assert forecast.shape == (2, network.horizon, window.shape[2], (SMALL | options)["outputs"])
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
    again = ForecastNetwork(**SMALL, loss=pinball, start=state, dtype=np.float64)
    window, known, _ = batch_of()
    assert_same_bits(again(window, known), network_of()(window, known))
    for wrong in ({}, state | {"head.bias": np.zeros(3)}):
        with pytest.raises((KeyError, ValueError)):
            ForecastNetwork(**SMALL, loss=pinball, start=wrong, dtype=np.float64)


@pytest.mark.oracle
def test_torchs_layers_put_together_alike_say_the_same() -> None:
    torch = pytest.importorskip("torch")
    options = {"mixing": False}
    network, (window, known, _) = network_of(**options), batch_of(**options)
    assert known is not None
    state = {k: torch.tensor(v) for k, v in network.parameters().state_dict().items()}

    def lstm(name: str, features: int) -> Any:
        layer = torch.nn.LSTM(features, 3, 1, dtype=torch.float64)
        layer.load_state_dict(
            {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        )
        return layer

    def linear(name: str, x: Any) -> Any:
        return torch.nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    encoder, decoder = lstm("encoder", 9), lstm("decoder", 2)
    for b in range(2):
        for d in range(3):
            values, inputs = torch.tensor(window[b, :, d]), torch.tensor(known[b])
            relative = values - values[-1]
            steps = torch.stack(
                [torch.cat([relative[k : k + 3], inputs[k : k + 3].flatten()]) for k in (1, 4)]
            )
            output, hidden = encoder(steps)
            forecast = (linear("head", output[-1]) + linear("highway", relative)).reshape(4, 3)
            output, _ = decoder(inputs[7:], hidden)
            forecast = forecast + linear("future", torch.cat([output, inputs[7:]], 1)) + values[-1]
            expected = forecast.detach().numpy()
            assert_close(network(window, known)[b, :, d], expected, 1e-12)
