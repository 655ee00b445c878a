"""What keras.layers.LSTM does, done by `LSTM`: stored results, and live where Keras is installed.

========================================  =========================================================
Keras                                     here
========================================  =========================================================
``kernel``, ``recurrent_kernel``          ``weight_ih.T``, ``weight_hh.T``
``bias``                                  ``bias_ih``, with a ``bias_hh`` of zeros
``go_backwards=True``                     ``reverse=True``, and the output from its end on
``stateful=True``                         the state of a call is handed to the next one
``return_sequences=False``                the output at the step where each direction ends
``mask``                                  ``mask``
``Bidirectional(…)`` under a mask         ``mask``, and zeros at holes: ``output * mask[..., None]``
========================================  =========================================================

The bound is 1e-5 for the largest difference over the largest reference value of each array, also
for our float64: Keras computes its products in float32 on its torch backend, whatever the dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, init
from tests.keras_peer import import_keras, to_numpy
from tests.support import Array, State, assert_close, assert_same_bits, normal
from tests.witnesses.keras_cases import (
    BATCH,
    CASES,
    HIDDEN,
    INPUTS,
    STEPS,
    KerasCase,
    stored_results,
)

TOLERANCE = 1e-5
KINDS = {"kernel": "weight_ih", "recurrent_kernel": "weight_hh", "bias": "bias_ih"}


def layer_of(case: KerasCase, dtype: Any) -> LSTM:
    """The case's stack with its weights."""
    lstm = LSTM(
        INPUTS, HIDDEN, case.num_layers, bias=case.use_bias, batch_first=True,
        bidirectional=case.direction == "bidirectional",
        reverse=case.direction == "go_backwards", dtype=dtype,
    )  # fmt: skip
    with lstm.editing() as parameters:
        for name in case.weights():
            parameters[our_name(case, name)][...] = case.arrays[name].T
        for name, array in parameters.items():
            if name.startswith("bias_hh"):
                array[...] = 0
    return lstm


def our_name(case: KerasCase, name: str) -> str:
    """recurrent_kernel_3 -> weight_hh_l1_reverse, in a bidirectional stack."""
    kind, _, run = name.rpartition("_")
    layer, direction = divmod(int(run), case.runs // case.num_layers)
    return f"{KINDS[kind]}_l{layer}" + "_reverse" * direction


def run_ours(case: KerasCase, dtype: Any) -> dict[str, Array]:
    """The results of the case under its names, and in Keras' layout."""
    lstm, arrays = layer_of(case, dtype), {k: v.astype(dtype) for k, v in case.arrays.items()}
    x, d_output, mask = arrays["x"], arrays["d_output"], case.valid
    state = pair(arrays["states"]) if case.state else None
    backwards = case.direction == "go_backwards"
    output, final, tape = lstm.forward(x, state, mask=mask)
    last = [output[:, -1, :HIDDEN]] if not backwards else []
    if case.direction != "forward":
        last.append(output[:, 0, -HIDDEN:])
    if backwards:
        d_output = d_output[:, ::-1]
    d_x, d_state, grads = lstm.backward(
        tape, with_zeros_of_bidirectional(case, d_output), pair(arrays["d_states"])
    )
    results = {
        "output": in_keras_order(case, output),
        "last": np.concatenate(last, axis=1),
        "states": np.stack(final, axis=1),
        "stateful": run_in_two_halves(case, lstm, x, state),
        "d_x": d_x,
    }
    if case.state:
        results["d_states"] = np.stack(d_state, axis=1)
    return results | {f"d_{name}": grads[our_name(case, name)].T for name in case.weights()}


def run_in_two_halves(case: KerasCase, lstm: LSTM, x: Array, state: State | None) -> Array:
    outputs = []
    for steps in (slice(0, STEPS // 2), slice(STEPS // 2, STEPS)):
        mask = None if case.valid is None else case.valid[:, steps]
        output, state = lstm(x[:, steps], state, mask=mask)
        outputs.append(in_keras_order(case, output, steps))
    return np.concatenate(outputs, axis=1)


def pair(states: Array) -> State:
    """(runs, 2, B, H) -> h and c."""
    return states[:, 0], states[:, 1]


def in_keras_order(case: KerasCase, output: Array, steps: slice = slice(None)) -> Array:
    if case.direction == "go_backwards":
        return output[:, ::-1]
    return with_zeros_of_bidirectional(case, output, steps)


def with_zeros_of_bidirectional(
    case: KerasCase, output: Array, steps: slice = slice(None)
) -> Array:
    """Keras' Bidirectional does not hold outputs at holes, where it returns sequences."""
    if case.direction != "bidirectional" or case.valid is None:
        return output
    return output * case.valid[:, steps, np.newaxis]


def assert_results(case: KerasCase, dtype: Any, expected: dict[str, Array]) -> None:
    actual = run_ours(case, dtype)
    assert list(actual) == list(expected) == list(case.result_shapes())
    for name, array in expected.items():
        assert actual[name].dtype == dtype
        assert_close(actual[name], array, TOLERANCE, f"{name} of {case}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_does_what_keras_did(case: KerasCase, dtype: Any) -> None:
    assert_results(case, dtype, stored_results(case))


def test_the_cases_have_something_of_everything() -> None:
    assert {(case.direction, case.mask, case.state) for case in CASES} == {
        (direction, mask, state)
        for direction in ("forward", "go_backwards", "bidirectional")
        for mask in ("none", "right", "left", "holes")
        for state in (False, True)
    }
    for mask in ("none", "right", "left", "holes"):
        own = [case for case in CASES if case.mask == mask]
        assert {case.use_bias for case in own} == {False, True}
        assert {case.num_layers for case in own} == {1, 2}
    holes = next(case.valid for case in CASES if case.mask == "holes")
    assert holes is not None
    changes = np.abs(np.diff(holes.astype(int))).sum(axis=1)
    assert (changes >= 3).sum() >= 2, "sequences with several holes"
    assert not holes[:, 0].all()
    assert not holes[:, -1].all()
    assert any(not case.valid.any(axis=1).all() for case in CASES if case.valid is not None)


# --- Keras itself --------------------------------------------------------------------------------


@pytest.fixture
def run_keras() -> Callable[[KerasCase], dict[str, Array]]:
    import_keras()
    from tests.witnesses.make_keras_cases import run_keras

    return run_keras


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_does_what_keras_does(
    case: KerasCase, dtype: Any, run_keras: Callable[[KerasCase], dict[str, Array]]
) -> None:
    assert_results(case, dtype, run_keras(case))


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_stored_results_are_what_keras_computes_now(
    case: KerasCase, run_keras: Callable[[KerasCase], dict[str, Array]]
) -> None:
    expected = run_keras(case)
    for name, array in stored_results(case).items():
        assert_close(array, expected[name], TOLERANCE, f"{name} of {case}")


@pytest.mark.oracle
@pytest.mark.parametrize("mask", [False, True])
def test_a_masking_layer_before_an_lstm_is_a_mask(mask: bool) -> None:
    """keras.layers.Masking finds the holes itself, and hands them on through the stack."""
    keras = import_keras()
    rng = np.random.default_rng(0)
    x = normal(rng, (BATCH, STEPS, INPUTS), np.float32)
    valid = rng.random((BATCH, STEPS)) < 0.6
    if mask:
        x[~valid] = -7
    layers = [keras.layers.LSTM(HIDDEN, return_sequences=True) for _ in range(2)]
    model = keras.Sequential([keras.layers.Masking(-7.0), *layers])
    expected = to_numpy(model(x))
    lstm = LSTM(INPUTS, HIDDEN, 2, batch_first=True)
    with lstm.editing() as parameters:
        for k, layer in enumerate(layers):
            kernel, recurrent_kernel, bias = to_numpy(layer.weights)
            parameters[f"weight_ih_l{k}"][...] = kernel.T
            parameters[f"weight_hh_l{k}"][...] = recurrent_kernel.T
            parameters[f"bias_ih_l{k}"][...] = bias
            parameters[f"bias_hh_l{k}"][...] = 0
    output, _ = lstm(x, mask=valid if mask else None)
    assert_close(output, expected, TOLERANCE)


@pytest.mark.oracle
@pytest.mark.parametrize("unit_forget_bias", [False, True])
def test_unit_forget_bias_is_the_bias_that_a_layer_of_keras_has(unit_forget_bias: bool) -> None:
    keras = import_keras()
    layer = keras.layers.LSTM(HIDDEN, unit_forget_bias=unit_forget_bias)
    layer.build((None, None, INPUTS))
    lstm = LSTM(INPUTS, HIDDEN)
    init.keras(lstm, 0, unit_forget_bias=unit_forget_bias)
    assert_same_bits(lstm.bias_ih_l0, to_numpy(layer.weights)[2])
