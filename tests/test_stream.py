"""Streams: steps are the sequence, the state is the caller's to read and set, stale ones refuse."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, SGD, Stream, set_num_threads
from fastlstm._weights import is_packed
from tests.support import (
    Array,
    assert_close,
    assert_same_bits,
    normal,
    plain_lstm,
    random_state,
    tolerance_of,
)

DTYPES = (np.float32, np.float64)


def values(*shape: int, dtype: Any = np.float32) -> Array:
    return normal(np.random.default_rng(shape), shape, dtype)


def steps_of(stream: Stream, x: Array) -> Array:
    """h of each step."""
    return np.stack([stream.step(x_t) for x_t in x])


def assert_agree(actual: Array, expected: Array, name: str) -> None:
    """To the bit on the packed path; BLAS may round otherwise for another number of rows.

    The bound is for numbers of order one, as h is: a gate's rounding does not shrink with them.
    """
    if is_packed(expected.dtype):
        assert_same_bits(actual, expected, name)
        return
    bound = 1e-6 if expected.dtype == np.float32 else 1e-14
    np.testing.assert_allclose(actual, expected, rtol=bound, atol=bound, err_msg=name)


# --- steps are the sequence ----------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 8),
    batch=st.none() | st.integers(1, 20),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 3)),
    bias=st.booleans(),
    with_state=st.booleans(),
    cuts=st.lists(st.integers(0, 8), max_size=2),
    dtype=st.sampled_from(DTYPES),
)
def test_steps_one_at_a_time_are_the_sequence(
    seed: int,
    steps: int,
    batch: int | None,
    sizes: tuple[int, int, int],
    bias: bool,
    with_state: bool,
    cuts: list[int],
    dtype: Any,
) -> None:
    """... in whatever pieces, each a call or some steps, the state handed on from one to the next.

    Each step comes with or without `out`.
    """
    rng = np.random.default_rng(seed)
    lstm = LSTM(*sizes, bias=bias, dtype=dtype, rng=rng)
    x = normal(rng, (steps, sizes[0]) if batch is None else (steps, batch, sizes[0]), dtype)
    state = random_state(rng, lstm, batch) if with_state else None
    expected, final = lstm(x, state)

    stream = lstm.stream(batch)
    if state is not None:
        stream.state = state
    outputs: list[Array] = []
    for number, piece in enumerate(np.split(x, sorted(min(cut, steps) for cut in cuts))):
        if number % 2:
            output, stream.state = lstm(piece, stream.state)
            outputs.extend(output)
            continue
        for x_t in piece:
            out = np.full_like(expected[0], np.nan) if rng.random() < 0.5 else None
            h = stream.step(x_t, out=out)
            assert out is None or h is out
            outputs.append(h)
    assert_agree(np.stack(outputs), expected, "output")
    assert_agree(stream.state[0], final[0], "h_n")
    assert_agree(stream.state[1], final[1], "c_n")


@pytest.mark.parametrize("hidden", [256, 333])
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_steps_are_the_sequence_on_any_number_of_threads(dtype: Any, hidden: int) -> None:
    """Steps that give the GIL away, beside a call whose threads share out the units."""
    lstm = LSTM(31, hidden, 2, dtype=dtype, rng=0)
    x = values(6, 3, 31, dtype=dtype)
    for threads in (1, 2):
        set_num_threads(threads)
        output, (h_n, c_n) = lstm(x)
        stream = lstm.stream(3)
        assert_agree(steps_of(stream, x), output, "output")
        assert_agree(stream.state[0], h_n, "h_n")
        assert_agree(stream.state[1], c_n, "c_n")


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_compute_the_equations(dtype: Any) -> None:
    lstm = LSTM(5, 7, 2, dtype=dtype, rng=0)
    x = values(9, 4, 5, dtype=dtype)
    expected, (h_n, c_n) = plain_lstm(lstm, x)
    stream = lstm.stream(4)
    assert_close(steps_of(stream, x), expected, tolerance_of(dtype), "h")
    for actual, wanted in zip(stream.state, (h_n, c_n), strict=True):
        assert_close(actual, wanted, tolerance_of(dtype), "state")


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_are_those_of_torchs_cell(dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    lstm = LSTM(6, 10, dtype=dtype, rng=0)
    cell = torch.nn.LSTMCell(6, 10, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype)
    cell.load_state_dict(
        {k.removesuffix("_l0"): torch.from_numpy(v) for k, v in lstm.state_dict().items()}
    )
    stream, state = lstm.stream(3), None
    for x_t in values(20, 3, 6, dtype=dtype):
        with torch.inference_mode():
            state = cell(torch.from_numpy(x_t), state)
        assert_close(stream.step(x_t), state[0].numpy(), tolerance_of(dtype), "h")
        assert_close(stream.state[1][0], state[1].numpy(), tolerance_of(dtype), "c")


def test_a_batch_first_layer_and_one_with_dropout_stream_as_any_other() -> None:
    lstm = LSTM(3, 4, 2, batch_first=True, dropout=0.5, rng=0)
    x = values(2, 5, 3)
    assert_agree(steps_of(lstm.stream(2), x.swapaxes(0, 1)).swapaxes(0, 1), lstm(x)[0], "output")


def test_a_first_step_leaves_out_the_product_with_no_state() -> None:
    """As a call does: recurrent weights that overflow have no say before there is a state."""
    lstm = LSTM(2, 3, rng=0)
    with lstm.editing() as parameters:
        parameters["weight_hh_l0"][...] = np.inf
    x = values(1, 1, 2)
    stream = lstm.stream(1)
    assert_agree(steps_of(stream, x), lstm(x)[0], "output")
    assert np.isfinite(stream.state[0]).all()
    stream.state = tuple(map(np.zeros_like, stream.state))  # type: ignore[assignment]
    assert np.isnan(stream.step(x[0])).all()


# --- the state -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_stream_begins_with_zeros_and_carries_the_state(batch: int | None) -> None:
    lstm = LSTM(2, 4, 3, rng=0)
    stream = lstm.stream(batch)
    rows = () if batch is None else (batch,)
    for array in stream.state:
        assert_same_bits(array, np.zeros((3, *rows, 4), np.float32))
    h = stream.step(values(*rows, 2))
    assert h.shape == (*rows, 4)
    assert_same_bits(stream.state[0][-1], h)
    assert stream.batch_size == batch


def test_reset_brings_back_the_beginning() -> None:
    lstm, x = LSTM(2, 4, 2, rng=0), values(5, 3, 2)
    stream = lstm.stream(3)
    first = steps_of(stream, x)
    stream.reset()
    assert not stream.state[0].any()
    assert not stream.state[1].any()
    assert_same_bits(steps_of(stream, x), first)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_state_that_was_read_brings_its_moment_back(steps: int) -> None:
    """Whichever of the two places of h is now the current one."""
    lstm, x = LSTM(2, 4, 2, rng=0), values(6, 3, 2)
    stream, other = lstm.stream(3), lstm.stream(3)
    steps_of(stream, x[: steps + 1])
    moment = stream.state
    expected = steps_of(stream, x[steps + 1 :])
    for of in (stream, other):
        of.state = moment
        assert_same_bits(of.state[0], moment[0])
        assert_same_bits(of.state[1], moment[1])
        assert_same_bits(steps_of(of, x[steps + 1 :]), expected)


def test_the_state_and_results_are_copies() -> None:
    lstm, x = LSTM(2, 4, rng=0), values(4, 3, 2)
    expected = steps_of(lstm.stream(3), x)
    stream = lstm.stream(3)
    given = random_state(np.random.default_rng(0), lstm, 3)
    for array in given:
        array[...] = 0
    stream.state = given
    for x_t, wanted in zip(x, expected, strict=True):
        h, state = stream.step(x_t), stream.state
        assert_same_bits(h, wanted)
        for array in (h, *state, *given):
            array[...] = np.nan


def test_an_error_leaves_the_state_alone() -> None:
    lstm, x = LSTM(2, 4, rng=0), values(3, 1, 2)
    stream = lstm.stream(1)
    stream.step(x[0])
    before = stream.state
    with pytest.raises(ValueError, match="x_t"):
        stream.step(x)
    with pytest.raises(ValueError, match="out"):
        stream.step(x[1], out=np.zeros(4, np.float32))
    with pytest.raises(ValueError, match=r"state\[1\]"):
        stream.state = (before[0] + 1, before[1][:, :, 1:])
    with lstm.editing(), pytest.raises(TypeError):
        stream.step("x")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="stale"):
        stream.step(x[1])
    assert_same_bits(stream.state[0], before[0])
    assert_same_bits(stream.state[1], before[1])


def test_streams_of_a_layer_know_nothing_of_each_other() -> None:
    lstm, x = LSTM(2, 4, rng=0), values(6, 2)
    expected = steps_of(lstm.stream(), x)
    streams = [lstm.stream() for _ in range(3)]
    for x_t, wanted in zip(x, expected, strict=True):
        for stream in streams:
            assert_same_bits(stream.step(x_t), wanted)


# --- the weights ---------------------------------------------------------------------------------


def optimise(lstm: LSTM) -> None:
    grads = {name: np.ones_like(array) for name, array in lstm.parameters().items()}
    SGD(lstm.parameters(), 0.1).step(grads)


def edit(lstm: LSTM) -> None:
    with lstm.editing() as parameters:
        parameters["bias_hh_l0"][...] = 2


def load(lstm: LSTM) -> None:
    lstm.load_state_dict({name: array + 1 for name, array in lstm.state_dict().items()})


def edit_a_network(lstm: LSTM) -> None:
    from fastlstm import Linear, Parameters

    network = Parameters.join({"lstm": lstm.parameters(), "head": Linear(4, 2).parameters()})
    with network.editing() as parameters:
        parameters["lstm.bias_hh_l0"][...] = 2


@pytest.mark.parametrize("change", [optimise, edit, load, edit_a_network])
def test_a_stream_is_stale_after_the_weights_changed_until_it_is_reset(
    change: Callable[[LSTM], None],
) -> None:
    lstm, x = LSTM(2, 4, 2, rng=0), values(5, 3, 2)
    stream = lstm.stream(3)
    before = steps_of(stream, x)
    state = stream.state
    change(lstm)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"^stream: stale, .* \(version 0 then, 2 now\)"):
            stream.step(x[0])
    assert_same_bits(stream.state[0], state[0])
    stream.reset()
    assert not stream.state[0].any()
    after = steps_of(stream, x)
    assert_agree(after, lstm(x)[0], "output")
    assert not np.array_equal(after, before)


def test_a_state_outlives_a_change_of_the_weights() -> None:
    """Online learning: go on from the old state with the new weights."""
    lstm, x = LSTM(2, 4, 2, rng=0), values(5, 3, 2)
    stream = lstm.stream(3)
    steps_of(stream, x)
    state = stream.state
    edit(lstm)
    stream.reset()
    stream.state = state
    assert_agree(steps_of(stream, x), lstm(x, state)[0], "output")


def test_weights_that_change_while_a_stream_is_opened_leave_it_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lstm = LSTM(2, 4, rng=0)
    forward = type(lstm._weights).forward

    def change_and_derive(*arguments: Any) -> Any:
        edit(lstm)
        return forward(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(type(lstm._weights), "forward", change_and_derive)
        stream = lstm.stream()
    with pytest.raises(RuntimeError, match="stale"):
        stream.step(values(2))


def test_a_stream_outlives_its_layer() -> None:
    x = values(5, 3, 2)
    expected = LSTM(2, 40, rng=0)(x)[0]
    stream = LSTM(2, 40, rng=0).stream(3)
    gc.collect()
    np.full(1 << 16, np.nan)  # what has been freed is used again
    assert_agree(steps_of(stream, x), expected, "output")


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.skipif(not is_packed(np.dtype(np.float32)), reason="Python code holds BLAS's pool")
@pytest.mark.parametrize("hidden", [8, 200, 512])
def test_a_step_into_out_allocates_nothing(hidden: int) -> None:
    """No object, and no memory beyond the record that NumPy makes to lend an array's buffer."""
    stream = LSTM(32, hidden, 2, rng=0).stream(4)
    x_t, out = values(4, 32), np.empty((4, hidden), np.float32)
    stream.step(x_t, out=out)
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        for _ in range(100):
            stream.step(x_t, out=out)
        blocks = sys.getallocatedblocks() - before
        tracemalloc.start()
        current, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(100):
            stream.step(x_t, out=out)
        after, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    finally:
        gc.enable()
    assert blocks <= 2  # the two names above
    assert after - current <= 200
    assert peak - current < 1024


def test_many_steps_and_streams_leave_nothing_behind() -> None:
    """The smallest object has 16 bytes: one left behind a round would show."""
    lstm, x_t, rounds = LSTM(3, 16, 2, rng=0), values(2, 3), 1000

    def use(rounds: int) -> None:
        for _ in range(rounds):
            stream = lstm.stream(2)
            stream.step(x_t)
            stream.step(np.asfortranarray(x_t))
            with pytest.raises(TypeError):
                stream.step(x_t.astype(np.float64))
            with pytest.raises(ValueError, match="out"):
                stream.step(x_t, out=np.zeros((2, 17), np.float32))
            stream.state = stream.state
            stream.reset()

    tracemalloc.start()
    use(rounds)  # fills the caches of whoever has some
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    use(rounds)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 16 * rounds


def test_no_error_keeps_a_hold_on_the_arrays() -> None:
    """A buffer that was not given back would forbid to resize its array for ever."""
    stream = LSTM(3, 5, rng=0).stream(2)
    x_t, out = values(2, 3), np.zeros((2, 5), np.float32)
    stream.step(x_t, out=out)
    with pytest.raises(ValueError, match="out"):
        stream.step(x_t, out=np.zeros((2, 6), np.float32))
    with pytest.raises(ValueError, match="x_t"):
        stream.step(out, out=out)
    counts = [sys.getrefcount(array) for array in (x_t, out)]
    for _ in range(10):
        stream.step(x_t, out=out)
        with pytest.raises(ValueError, match="x_t"):
            stream.step(out, out=out)
    assert [sys.getrefcount(array) for array in (x_t, out)] == counts
