"""What several test modules share: errors, random models, LSTM and RNN composed the plain way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastlstm.lstm import LSTM
from fastlstm.rnn import RNN
from tests.witnesses.cases import Case

Array = NDArray[Any]
State = tuple[Array, Array]


def relative_error(actual: Array, expected: Array) -> float:
    """Largest difference over the largest reference value; infinite where a NaN stands alone."""
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    wide, reference = actual.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isfinite(wide), np.isfinite(reference)):
        return float("inf")
    largest = float(np.abs(reference).max(initial=0.0))
    difference = float(np.abs(wide - reference).max(initial=0.0))
    return difference / largest if largest else difference


def assert_close(actual: Array, expected: Array, tolerance: float, name: str = "array") -> None:
    error = relative_error(actual, expected)
    assert error <= tolerance, f"{name}: relative error {error:.3g} > {tolerance:g}"


def assert_same_bits(actual: Array, expected: Array, name: str = "array") -> None:
    """Equal in shape, dtype and every bit; the sign of a zero does not count, nor which NaN."""
    assert actual.dtype == expected.dtype, f"{name}: {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{name}: {actual.shape}, expected {expected.shape}"
    assert np.array_equal(actual, expected, equal_nan=True), f"{name}: bits differ"


def tolerance_of(dtype: Any) -> float:
    """The project's bounds for `relative_error`."""
    return 1e-5 if np.dtype(dtype) == np.float32 else 1e-12


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def random_state(
    rng: np.random.Generator, lstm: LSTM, batch: int | None, dtype: Any = None
) -> State:
    """Two different arrays in the shape of (h_0, c_0), without the batch axis for None."""
    runs = lstm.num_layers * (2 if lstm.bidirectional else 1)
    lead = (runs,) if batch is None else (runs, batch)
    h_0 = normal(rng, (*lead, lstm.proj_size or lstm.hidden_size), dtype or lstm.dtype)
    return h_0, normal(rng, (*lead, lstm.hidden_size), dtype or lstm.dtype)


def output_shape(lstm: LSTM, steps: int, batch: int) -> tuple[int, int, int]:
    width = (lstm.proj_size or lstm.hidden_size) * (2 if lstm.bidirectional else 1)
    return (batch, steps, width) if lstm.batch_first else (steps, batch, width)


@contextmanager
def torch_runner(maker: str) -> Iterator[Any]:
    """run(case, "float32" or "float64") by a module that makes witnesses, on a thread of torch's.

    Skips the test where torch is not installed.
    """
    torch = pytest.importorskip("torch")
    run_torch = import_module(f"tests.witnesses.{maker}").run_torch
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda case, dtype: run_torch(case, getattr(torch, dtype))
    torch.set_num_threads(before)


def layer_of(case: Case, dtype: Any, **options: Any) -> LSTM:
    """The layer of a case, with its weights, and with further options."""
    lstm = LSTM(
        case.input_size, case.hidden_size, case.num_layers, bias=case.bias,
        batch_first=case.batch_first, bidirectional=case.bidirectional, dtype=dtype, rng=0,
        **options,
    )  # fmt: skip
    lstm.load_state_dict({name: array.astype(dtype) for name, array in case.weights.items()})
    return lstm


def run_case(
    case: Case,
    dtype: Any,
    rng: np.random.Generator | None = None,
    *,
    checkpoint: bool = False,
    **options: Any,
) -> dict[str, Array]:
    """Our results for a case, forward and backward, under the names that the witnesses have."""

    def cast(pair: State | None) -> State | None:
        return None if pair is None else (pair[0].astype(dtype), pair[1].astype(dtype))

    lstm = layer_of(case, dtype, **options)
    d_output = None if case.d_output is None else case.d_output.astype(dtype)
    output, (h_n, c_n), tape = lstm.forward(
        case.x.astype(dtype), cast(case.state), lengths=case.lengths, rng=rng,
        checkpoint=checkpoint,
    )  # fmt: skip
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, d_output, cast(case.d_state))
    results = {"output": output, "h_n": h_n, "c_n": c_n, "d_x": d_x}
    if case.state is not None:
        results |= {"d_h_0": d_h_0, "d_c_0": d_c_0}
    return results | grads


# --- an LSTM, sequence by sequence and step by step ----------------------------------------------


def sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def plain_run(
    x: Array, h: Array, c: Array, weight_ih: Array, weight_hh: Array, bias: Array
) -> tuple[Array, Array, Array]:
    """One sequence x (T, I) through one layer in one direction: all h (T, H), last h and c."""
    hidden = len(h)
    outputs = np.zeros((len(x), hidden))
    for t, x_t in enumerate(x):
        gates = weight_ih @ x_t + weight_hh @ h + bias
        i, f = sigmoid(gates[:hidden]), sigmoid(gates[hidden : 2 * hidden])
        g, o = np.tanh(gates[2 * hidden : 3 * hidden]), sigmoid(gates[3 * hidden :])
        c = f * c + i * g
        h = o * np.tanh(c)
        outputs[t] = h
    return outputs, h, c


def plain_lstm(
    lstm: LSTM, x: Array, state: State | None = None, lengths: Array | None = None
) -> tuple[Array, State]:
    """What ``lstm(x, state, lengths=lengths)`` means, in float64 and without any packing.

    x (T, B, I) -> output (T, B, directions · H), and the states: each sequence alone, cut to its
    length, and turned round for the second direction.
    """
    weights: Mapping[str, Array] = {k: v.astype(np.float64) for k, v in lstm.parameters().items()}
    directions = 2 if lstm.bidirectional else 1
    steps, batch, _ = x.shape
    shape = (lstm.num_layers * directions, batch, lstm.hidden_size)
    h_0, c_0 = (np.zeros(shape), np.zeros(shape)) if state is None else state
    h_n, c_n = np.zeros(shape), np.zeros(shape)
    output = np.zeros((steps, batch, directions * lstm.hidden_size))
    for b in range(batch):
        length = steps if lengths is None else int(lengths[b])
        sequence = x[:length, b].astype(np.float64)
        for layer in range(lstm.num_layers):
            halves = []
            for k in range(directions):
                suffix = f"_l{layer}" + "_reverse" * k
                bias = np.zeros(4 * lstm.hidden_size)
                if lstm.bias:
                    bias = weights[f"bias_ih{suffix}"] + weights[f"bias_hh{suffix}"]
                at = layer * directions + k
                h, h_n[at, b], c_n[at, b] = plain_run(
                    sequence[::-1] if k else sequence,
                    h_0[at, b].astype(np.float64), c_0[at, b].astype(np.float64),
                    weights[f"weight_ih{suffix}"], weights[f"weight_hh{suffix}"], bias,
                )  # fmt: skip
                halves.append(h[::-1] if k else h)
            sequence = np.concatenate(halves, axis=1)
        output[:length, b] = sequence
    return output, (h_n, c_n)


def plain_rnn(
    rnn: RNN, x: Array, h_0: Array | None = None, lengths: Sequence[int] | Array | None = None
) -> tuple[Array, Array]:
    """What ``rnn(x, h_0, lengths=lengths)`` means for x (T, B, I): each sequence alone.

    It is cut to its length, and turned round for the second direction.
    """
    weights = {name: array.astype(np.float64) for name, array in rnn.parameters().items()}
    directions = 2 if rnn.bidirectional else 1
    steps, batch, _ = x.shape
    output = np.zeros((steps, batch, directions * rnn.hidden_size))
    h_n = np.zeros((rnn.num_layers * directions, batch, rnn.hidden_size))
    if h_0 is not None:
        h_n[...] = h_0
    for b in range(batch):
        length = steps if lengths is None else int(lengths[b])
        sequence = x[:length, b].astype(np.float64)
        for layer in range(rnn.num_layers):
            halves = []
            for k in range(directions):
                suffix, h = f"_l{layer}" + "_reverse" * k, h_n[layer * directions + k, b]
                bias = weights[f"bias_ih{suffix}"] + weights[f"bias_hh{suffix}"] if rnn.bias else 0
                outputs = []
                for x_t in sequence[::-1] if k else sequence:
                    terms = weights[f"weight_ih{suffix}"] @ x_t + bias
                    h[...] = np.tanh(terms + weights[f"weight_hh{suffix}"] @ h)
                    outputs.append(h.copy())
                own = np.array(outputs).reshape(length, rnn.hidden_size)
                halves.append(own[::-1] if k else own)
            sequence = np.concatenate(halves, axis=1)
        output[:length, b] = sequence
    return output, h_n
