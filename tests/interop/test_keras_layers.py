"""Layers of Keras 3, live on its torch backend: the same results, and weights there and back.

The bound is the project's for float32, also where a layer is of float64 (see tests/keras_peer.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm.interop.keras import from_keras, to_keras
from fastlstm.interop.keras._configs import ACTIVATIONS
from tests.keras_peer import Array, import_keras, randomise, run_layer, to_numpy
from tests.support import assert_close, assert_same_bits, normal

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("keras")]

TOLERANCE = 1e-5
STEPS, BATCH, INPUTS, UNITS = 7, 3, 5, 4
DTYPES = ["float32", "float64"]
ALL = {"return_sequences": True, "return_state": True}

Build = Callable[[Any, str], Any]

CASES: dict[str, Build] = {
    "plain": lambda L, dtype: L.LSTM(UNITS, dtype=dtype, **ALL),
    "no bias": lambda L, dtype: L.LSTM(UNITS, use_bias=False, dtype=dtype, **ALL),
    "no unit forget bias": lambda L, dtype: L.LSTM(
        UNITS, unit_forget_bias=False, dtype=dtype, **ALL
    ),
    "one unit": lambda L, dtype: L.LSTM(1, dtype=dtype, **ALL),
    "unrolled": lambda L, dtype: L.LSTM(UNITS, unroll=True, dtype=dtype, **ALL),
    "implementation 1": lambda L, dtype: L.LSTM(UNITS, implementation=1, dtype=dtype, **ALL),
    "bidirectional": lambda L, dtype: L.Bidirectional(
        L.LSTM(UNITS, dtype=dtype, **ALL), dtype=dtype
    ),
    "bidirectional, own backward layer": lambda L, dtype: L.Bidirectional(
        L.LSTM(UNITS, dtype=dtype, **ALL),
        backward_layer=L.LSTM(UNITS, go_backwards=True, dtype=dtype, **ALL),
        dtype=dtype,
    ),
    "a cell": lambda L, dtype: L.RNN(L.LSTMCell(UNITS, dtype=dtype), dtype=dtype, **ALL),
    "a cell in both directions": lambda L, dtype: L.Bidirectional(
        L.RNN(L.LSTMCell(UNITS, dtype=dtype), dtype=dtype, **ALL), dtype=dtype
    ),
    "other activations": lambda L, dtype: L.LSTM(
        UNITS, activation="softsign", recurrent_activation="hard_sigmoid", dtype=dtype, **ALL
    ),
    "an activation in both directions": lambda L, dtype: L.Bidirectional(
        L.LSTM(UNITS, activation="relu", dtype=dtype, **ALL), dtype=dtype
    ),
    "backwards": lambda L, dtype: L.LSTM(UNITS, go_backwards=True, dtype=dtype, **ALL),
    "stacked cells backwards": lambda L, dtype: L.RNN(
        [L.LSTMCell(UNITS, dtype=dtype) for _ in range(2)], go_backwards=True, dtype=dtype, **ALL
    ),
    "stacked cells": lambda L, dtype: L.RNN(
        [L.LSTMCell(UNITS, dtype=dtype) for _ in range(3)], dtype=dtype, **ALL
    ),
}


@pytest.fixture(scope="module")
def keras() -> Any:
    return import_keras()


def built(keras: Any, build: Build, dtype: str = "float32", seed: int = 0) -> Any:
    """A layer with random weights."""
    layer = build(keras.layers, dtype)
    layer.build((None, None, INPUTS))
    randomise(layer, np.random.default_rng(seed))
    return layer


def sequences(dtype: str, seed: int = 1) -> Array:
    return normal(np.random.default_rng(seed), (BATCH, STEPS, INPUTS), np.dtype(dtype))


def states_of(flat: list[Any]) -> tuple[Array, Array]:
    """Keras' [h, c, h, c, …], or stacked cells' [[h, c], …], as our (h, c)."""
    pairs = flat if isinstance(flat[0], list) else list(zip(flat[::2], flat[1::2], strict=True))
    return np.stack([h for h, _ in pairs]), np.stack([c for _, c in pairs])


# --- the same results -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_a_layer_gives_what_keras_gives(keras: Any, case: str, dtype: str) -> None:
    layer = built(keras, CASES[case], dtype)
    x = sequences(dtype)
    expected, *last = run_layer(layer, x)
    lstm = from_keras(layer)
    assert lstm.batch_first
    output, (h_n, c_n) = lstm(x)
    assert output.dtype == np.dtype(dtype)
    if lstm.reverse:
        expected = expected[:, ::-1]
    assert_close(output, expected, TOLERANCE, "output")
    for name, actual, theirs in zip(("h_n", "c_n"), (h_n, c_n), states_of(last), strict=True):
        assert_close(actual, theirs, TOLERANCE, name)


@pytest.mark.parametrize("case", ["plain", "bidirectional"])
def test_from_a_state(keras: Any, case: str) -> None:
    layer = built(keras, CASES[case], "float64")
    x, rng = sequences("float64"), np.random.default_rng(2)
    lstm = from_keras(layer)
    directions = 2 if lstm.bidirectional else 1
    state = normal(rng, (directions, BATCH, UNITS)), normal(rng, (directions, BATCH, UNITS))
    flat = [half for pair in zip(*state, strict=True) for half in pair]
    expected, *last = run_layer(layer, x, initial_state=flat)
    output, (h_n, c_n) = lstm(x, state)
    for actual, theirs in zip((output, h_n, c_n), (expected, *states_of(last)), strict=True):
        assert_close(actual, theirs, TOLERANCE)


def test_what_keras_returns_by_default_is_the_last_step(keras: Any) -> None:
    layer = built(keras, lambda L, dtype: L.LSTM(UNITS, dtype=dtype))
    x = sequences("float32")
    output, (h_n, _) = from_keras(layer)(x)
    assert_close(output[:, -1], run_layer(layer, x), TOLERANCE)
    assert_close(h_n[-1], run_layer(layer, x), TOLERANCE)


def test_a_cell_alone(keras: Any) -> None:
    cell = keras.layers.LSTMCell(UNITS)
    cell.build((None, INPUTS))
    rng = np.random.default_rng(1)
    randomise(cell, rng)
    x, h, c = (normal(rng, (BATCH, n), np.float32) for n in (INPUTS, UNITS, UNITS))
    _, [h_1, c_1] = run_layer(cell, x, states=[h, c])
    _, (h_n, c_n) = from_keras(cell)(x[:, None], (h[None], c[None]))
    assert_close(h_n[0], h_1, TOLERANCE)
    assert_close(c_n[0], c_1, TOLERANCE)


def test_stateful_is_a_state_handed_on(keras: Any) -> None:
    layer = keras.layers.LSTM(UNITS, stateful=True, return_sequences=True)
    layer.build((BATCH, STEPS, INPUTS))
    randomise(layer, np.random.default_rng(0))
    lstm, state = from_keras(layer), None
    for seed in range(3):
        x = sequences("float32", seed)
        output, state = lstm(x, state)
        assert_close(output, run_layer(layer, x), TOLERANCE)


def test_a_list_of_layers_is_a_stack(keras: Any) -> None:
    below = built(keras, CASES["bidirectional"])
    above = keras.layers.Bidirectional(keras.layers.LSTM(UNITS, return_sequences=True))
    above.build((None, None, 2 * UNITS))
    randomise(above, np.random.default_rng(1))
    x = sequences("float32")
    between, *_ = run_layer(below, x)
    lstm = from_keras([below, above])
    assert lstm.num_layers == 2
    assert_close(lstm(x)[0], run_layer(above, between), TOLERANCE)


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_from_keras_and_back_every_bit_is_the_same(keras: Any, case: str, dtype: str) -> None:
    layer = built(keras, CASES[case], dtype)
    returned = to_keras(from_keras(layer))
    returned = returned if isinstance(returned, list) else [returned]
    weights = [array for each in returned for array in to_numpy(each.weights)]
    for actual, theirs in zip(weights, to_numpy(layer.weights), strict=True):
        assert_same_bits(actual, theirs)
    x, expected = sequences(dtype), run_layer(layer, sequences(dtype))[0]
    for each in returned:
        x = run_layer(each, x)
    assert_close(x, expected, TOLERANCE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direction", [{}, {"bidirectional": True}, {"reverse": True}])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_ours_in_keras_gives_the_same(
    num_layers: int, direction: dict[str, bool], bias: bool, dtype: str
) -> None:
    lstm = LSTM(INPUTS, UNITS, num_layers, bias=bias, dtype=dtype, rng=0, **direction)
    layers = to_keras(lstm, return_state=True)
    *below, last = layers if num_layers > 1 else [layers]
    x = sequences(dtype)
    expected, (h_n, c_n) = lstm(x.transpose(1, 0, 2))
    for layer in below:
        x = run_layer(layer, x)
    output, *states = run_layer(last, x)
    if lstm.reverse:
        expected = expected[::-1]
    assert_close(output.transpose(1, 0, 2), expected, TOLERANCE)
    directions = 2 if lstm.bidirectional else 1
    for actual, theirs in zip(states_of(states), (h_n, c_n), strict=True):
        assert_close(actual, theirs[-directions:], TOLERANCE)


def test_return_sequences_is_of_the_last_layer() -> None:
    lstm = LSTM(INPUTS, UNITS, 2, batch_first=True, rng=0)
    below, last = to_keras(lstm, return_sequences=False)
    x = sequences("float32")
    output = run_layer(last, run_layer(below, x))
    assert_close(output, lstm(x)[0][:, -1], TOLERANCE)


def test_dropout_goes_there_and_back() -> None:
    plain = LSTM(INPUTS, UNITS, 3, dropout=0.25, input_dropout=0.5, recurrent_dropout=0.1, rng=0)
    layers = to_keras(plain)
    assert [type(layer).__name__ for layer in layers] == ["LSTM", "Dropout"] * 2 + ["LSTM"]
    assert [layer.dropout for layer in layers[::2]] == [0.5, 0, 0]
    assert [layer.recurrent_dropout for layer in layers[::2]] == [0.1] * 3
    assert layers[1].rate == 0.25

    locked = LSTM(INPUTS, UNITS, 3, dropout=0.25, locked_dropout=True, rng=0)
    assert [layer.dropout for layer in to_keras(locked)] == [0, 0.25, 0.25]

    for lstm in (plain, locked):
        again = from_keras(to_keras(lstm))
        assert again.get_config() == lstm.get_config() | {"batch_first": True}


def test_a_spatial_dropout_between_layers_is_locked(keras: Any) -> None:
    below, _, last = to_keras(LSTM(INPUTS, UNITS, 2, dropout=0.25, rng=0))
    for dropout in (
        keras.layers.SpatialDropout1D(0.5),
        keras.layers.Dropout(0.5, noise_shape=(None, 1, None)),
    ):
        lstm = from_keras([below, dropout, last])
        assert (lstm.dropout, lstm.locked_dropout) == (0.5, True)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("argument", ["activation", "recurrent_activation"])
def test_an_activation_goes_there_and_back(keras: Any, argument: str, name: str) -> None:
    layer = built(
        keras, lambda L, dtype: L.LSTM(UNITS, **{argument: name}, dtype=dtype, **ALL), "float64"
    )
    layer.set_weights([0.3 * array for array in to_numpy(layer.weights)])  # relu and linear grow
    lstm, x = from_keras(layer), sequences("float64")
    assert_close(lstm(x)[0], run_layer(layer, x)[0], TOLERANCE)
    again = to_keras(lstm).get_config()
    assert again[argument] == name
    again = from_keras(to_keras(lstm))
    assert again.get_config() == lstm.get_config()


def test_no_activation_is_a_linear_one(keras: Any) -> None:
    layer = built(keras, lambda L, dtype: L.LSTM(UNITS, activation=None, dtype=dtype, **ALL))
    assert from_keras(layer).activations == ("sigmoid", "affine", "affine")


# --- dropout --------------------------------------------------------------------------------------


def mask_of(features: int, rate: float, seed: int) -> Array:
    kept = np.random.default_rng(seed).random((BATCH, features)) >= rate
    return (kept / (1 - rate)).astype(np.float32)


def drawing(monkeypatch: pytest.MonkeyPatch, *masks: Array) -> None:
    """Let the next forward of ours draw these masks."""
    left = list(masks)
    monkeypatch.setattr(
        "fastlstm._dropout.dropout_mask",
        lambda _rng, shape, _p, dtype: left.pop(0).reshape(shape).astype(dtype),
    )


def test_keras_dropout_with_our_mask_is_our_input_dropout(
    keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One mask for a sequence, the same at all steps and for all gates, and scaled."""
    layer = built(keras, lambda L, dtype: L.LSTM(UNITS, dropout=0.4, dtype=dtype, **ALL))
    lstm, x, mask = from_keras(layer), sequences("float32"), mask_of(INPUTS, 0.4, 3)
    assert lstm.input_dropout == 0.4
    drawing(monkeypatch, mask)
    monkeypatch.setattr(layer.cell, "get_dropout_mask", lambda _: keras.ops.convert_to_tensor(mask))
    expected, h, c = run_layer(layer, x, training=True)
    output, (h_n, c_n), _ = lstm.forward(x, rng=np.random.default_rng(0))
    for actual, theirs in zip((output, h_n[0], c_n[0]), (expected, h, c), strict=True):
        assert_close(actual, theirs, TOLERANCE)
    assert np.abs(output - lstm(x)[0]).max() > 0.01  # the mask has acted


def test_recurrent_dropout_with_our_masks_for_all_gates(
    keras: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as there is any, Keras draws both masks once for each gate; ours is for all four."""
    layer = built(
        keras,
        lambda L, dtype: L.LSTM(UNITS, dropout=0.3, recurrent_dropout=0.4, dtype=dtype, **ALL),
    )
    lstm, x = from_keras(layer), sequences("float32")
    assert (lstm.input_dropout, lstm.recurrent_dropout) == (0.3, 0.4)
    on_input, on_state = mask_of(INPUTS, 0.3, 3), mask_of(UNITS, 0.4, 4)
    theirs_drawn = layer.cell.get_recurrent_dropout_mask(keras.ops.ones((BATCH, UNITS)))
    assert [tuple(mask.shape) for mask in theirs_drawn] == [(BATCH, UNITS)] * 4
    drawing(monkeypatch, on_input, on_state)
    for name, mask in (("get_dropout_mask", on_input), ("get_recurrent_dropout_mask", on_state)):
        four = [keras.ops.convert_to_tensor(mask)] * 4
        monkeypatch.setattr(layer.cell, name, lambda _, four=four: four)
    expected, h, c = run_layer(layer, x, training=True)
    output, (h_n, c_n), _ = lstm.forward(x, rng=np.random.default_rng(0))
    for actual, theirs in zip((output, h_n[0], c_n[0]), (expected, h, c), strict=True):
        assert_close(actual, theirs, TOLERANCE)
    assert np.abs(output - lstm(x)[0]).max() > 0.01


# --- what cannot be carried -----------------------------------------------------------------------

REFUSED: dict[str, tuple[Build, str]] = {
    "merge mode": (
        lambda L, _: L.Bidirectional(L.LSTM(UNITS), merge_mode="sum"),
        "merge_mode='sum'",
    ),
    "no merging": (
        lambda L, _: L.Bidirectional(L.LSTM(UNITS), merge_mode=None),
        "merge_mode=None",
    ),
    "first direction backwards": (
        lambda L, _: L.Bidirectional(
            L.LSTM(UNITS, go_backwards=True), backward_layer=L.LSTM(UNITS)
        ),
        "first layer has go_backwards",
    ),
    "directions differ": (
        lambda L, _: L.Bidirectional(
            L.LSTM(UNITS), backward_layer=L.LSTM(UNITS + 1, go_backwards=True)
        ),
        "directions differ",
    ),
    "stacked cells in both directions": (
        lambda L, _: L.Bidirectional(L.RNN([L.LSTMCell(UNITS), L.LSTMCell(UNITS)])),
        "Bidirectional over stacked cells",
    ),
    "stacked cells differ": (
        lambda L, _: L.RNN([L.LSTMCell(UNITS), L.LSTMCell(UNITS + 1)]),
        "layers of one stack differ",
    ),
    "another cell": (lambda L, _: L.RNN(L.GRUCell(UNITS)), "'GRUCell', which is no LSTMCell"),
    "another layer in both directions": (
        lambda L, _: L.Bidirectional(L.GRU(UNITS)),
        "'GRU', which is no LSTM",
    ),
    "dtype policy": (lambda L, _: L.LSTM(UNITS, dtype="mixed_bfloat16"), "'mixed_bfloat16'"),
    "an activation that ours lacks": (
        lambda L, _: L.LSTM(UNITS, activation="gelu"),
        "activation='gelu': expected one of sigmoid, tanh",
    ),
    "an activation of the user's": (
        lambda L, _: L.LSTM(UNITS, recurrent_activation=sequences),
        "recurrent_activation='sequences'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_carried_is_named(keras: Any, case: str) -> None:
    build, message = REFUSED[case]
    layer = build(keras.layers, "float32")
    layer.build((None, None, INPUTS))
    with pytest.raises(ValueError, match=message):
        from_keras(layer)


def test_other_layers_are_refused(keras: Any) -> None:
    class Mine(keras.layers.LSTM):  # type: ignore[misc, name-defined]
        pass

    for layer in (keras.layers.GRU(3), keras.layers.Dense(3), Mine(3), None, np.ones(3)):
        with pytest.raises(TypeError, match=r"expected keras.layers.LSTM, .* or LSTMCell, got a "):
            from_keras(layer)


def test_a_layer_without_weights_is_refused(keras: Any) -> None:
    for layer in (keras.layers.LSTM(3), keras.layers.Bidirectional(keras.layers.LSTM(3))):
        with pytest.raises(ValueError, match="has no weights yet: build it, or call it once"):
            from_keras(layer)


def test_layers_of_keras_2_are_refused(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = built(keras, CASES["plain"])
    monkeypatch.setattr(keras, "__version__", "2.15.0")
    with pytest.raises(ValueError, match=r"expected a layer of Keras 3, got one of Keras 2\.15\.0"):
        from_keras(layer)


def test_layers_that_make_no_stack_are_refused(keras: Any) -> None:
    def layer(inputs: int, units: int = UNITS, **options: Any) -> Any:
        made = keras.layers.LSTM(units, **options)
        made.build((None, None, inputs))
        return made

    first, dropout = layer(INPUTS), keras.layers.Dropout(0.5)
    wrong = [
        ([], "expected a list that ends with an LSTM, got 0 layers"),
        ([first, dropout], "expected a list that ends with an LSTM, got 2 layers"),
        ([first, layer(UNITS, 7)], "layers of one stack differ"),
        ([first, layer(UNITS + 1)], r"weight_ih_l1'\]: expected shape \(16, 4\), got \(16, 5\)"),
        ([first, layer(UNITS, go_backwards=True)], "only the first may have go_backwards"),
        ([first, built(keras, CASES["bidirectional"])], "some are Bidirectional, some are not"),
        ([first, dropout, layer(UNITS), keras.layers.Dropout(0.1), layer(UNITS)], "differ"),
        ([first, dropout, layer(UNITS, dropout=0.5)], "on top of a Dropout layer below it"),
        ([first, keras.layers.Dropout(0.5, noise_shape=(1, None, None)), layer(UNITS)], "noise_sh"),
    ]
    for layers, message in wrong:
        with pytest.raises(ValueError, match=message):
            from_keras(layers)
    for layers in ([dropout], [dropout, first, dropout], [first, keras.layers.Dense(3)]):
        with pytest.raises(TypeError, match=r"layer: expected keras\.layers\.LSTM"):
            from_keras(layers)
    with pytest.raises(TypeError, match="expected Dropout between each two, got a keras"):
        from_keras([first, dropout, layer(UNITS), keras.layers.Dense(3), layer(UNITS)])


@pytest.mark.parametrize(
    "option",
    [
        {"proj_size": 2},
        {"peepholes": True},
        {"clip": 3.0},
        {"input_forget": True},
        {"layer_norm": True},
        {"weight_dropout": 0.5},
        {"zoneout": [0.1, 0.2]},
    ],
    ids=str,
)
def test_an_option_that_keras_lacks_is_named(option: dict[str, Any]) -> None:
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=rf"^{name}={re.escape(repr(value))}: Keras' LSTM lacks"):
        to_keras(LSTM(INPUTS, UNITS, **option))


def test_activations_that_keras_lacks_are_named() -> None:
    with pytest.raises(ValueError, match="one for both the second and the third, got 'tanh' and"):
        to_keras(LSTM(INPUTS, UNITS, activations=("sigmoid", "tanh", "relu")))
    # ONNX's own slope, which Keras 3 does not have, and one that float32 cannot tell from Keras'.
    with pytest.raises(ValueError, match="Keras 3 has no 'hard_sigmoid'"):
        to_keras(LSTM(INPUTS, UNITS, activations=("hard_sigmoid", "tanh", "tanh")))
    rounded = ("hard_sigmoid", float(np.float32(1 / 6)))
    layer = to_keras(LSTM(INPUTS, UNITS, activations=(rounded, "tanh", "tanh")))
    assert layer.get_config()["recurrent_activation"] == "hard_sigmoid"
    with pytest.raises(ValueError, match="Keras 3 has no"):
        to_keras(LSTM(INPUTS, UNITS, activations=(rounded, "tanh", "tanh"), dtype="float64"))


def test_what_is_no_lstm_is_refused(keras: Any) -> None:
    with pytest.raises(TypeError, match=r"lstm: expected a fastlstm.LSTM, got a LSTM"):
        to_keras(keras.layers.LSTM(3))
    with pytest.raises(TypeError, match="return_sequences: expected True or False, got 1"):
        to_keras(LSTM(INPUTS, UNITS), return_sequences=1)  # type: ignore[arg-type]
