"""Streams: steps are the sequence, the state is the caller's to read and set, stale ones refuse."""

from __future__ import annotations

import copy
import gc
import pickle
import platform
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from fastlstm import LSTM, SGD, Stream, _core, set_num_threads
from fastlstm._weights import is_packed
from tests.processes import run_python
from tests.strange import (
    Argument,
    Labelled,
    assert_refused,
    assert_refuses_shapes,
    assert_refuses_what_is_no_such_array,
    assert_takes_any_layout,
    every_second,
    fortran_order,
    misaligned,
    read_only,
)
from tests.support import (
    Array,
    State,
    assert_close,
    assert_same_bits,
    normal,
    plain_lstm,
    random_state,
    tolerance_of,
)
from tests.test_threads import longest_silence, subnormals_work

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
    lstm, x_t = LSTM(3, 16, 2, rng=0), values(2, 3)

    def use() -> None:
        stream = lstm.stream(2)
        for _ in range(50):
            stream.step(x_t)
            stream.step(np.asfortranarray(x_t))
            with pytest.raises(TypeError):
                stream.step(x_t.astype(np.float64))
            with pytest.raises(ValueError, match="out"):
                stream.step(x_t, out=np.zeros((2, 17), np.float32))
        stream.state = stream.state
        stream.reset()

    tracemalloc.start()
    for _ in range(5):  # fills the caches of whoever has some
        use()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(5):
        use()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 4096


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


# --- arguments -----------------------------------------------------------------------------------


def step_arguments() -> list[Argument]:
    def step(x_t: Any, batch: int | None, dtype: Any) -> list[Array]:
        stream = LSTM(4, 3, 2, dtype=dtype, rng=0).stream(batch)
        steps_of(stream, values(2, *(() if batch is None else (batch,)), 4, dtype=dtype))
        return [stream.step(x_t), *stream.state]

    return [
        Argument(
            f"{np.dtype(dtype)}-{batch}",
            "x_t",
            values(*(() if batch is None else (batch,)), 4, dtype=dtype),
            lambda a, batch=batch, dtype=dtype: step(a, batch, dtype),
        )
        for dtype in DTYPES
        for batch in (None, 3)
    ]


def state_arguments() -> list[Argument]:
    def go_on(h: Any, c: Any) -> list[Array]:
        stream = LSTM(4, 5, 2, rng=0).stream(3)
        stream.state = (h, c)
        return [stream.step(values(3, 4)), *stream.state]

    h, c = values(2, 3, 5), values(2, 3, 5) + 1
    return [
        Argument("h", "state[0]", h, lambda a: go_on(a, c)),
        Argument("c", "state[1]", c, lambda a: go_on(h, a)),
    ]


ARGUMENTS = step_arguments() + state_arguments()


@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_any_layout_is_taken(argument: Argument, tmp_path: Path) -> None:
    assert_takes_any_layout(argument, tmp_path)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_what_does_not_fit_is_refused_by_name(argument: Argument) -> None:
    assert_refuses_what_is_no_such_array(argument)
    good = argument.good.shape
    for axis in range(len(good)):
        for size in (0, good[axis] - 1, good[axis] + 1):
            assert_refuses_shapes(argument, (*good[:axis], size, *good[axis + 1 :]))
    assert_refuses_shapes(argument, (), good[1:], (1, *good), (*good, 1), (*good[::-1], 2))
    if len(good) == 2:
        assert_refused(argument, np.matrix(argument.good, dtype=argument.good.dtype), "matrix")


def test_an_argument_of_a_huge_shape_or_stride_is_refused_or_read_right() -> None:
    stream = LSTM(4, 3, rng=0).stream(2)
    one = np.ones(1, np.float32)
    for shape in ((2**40, 4), (2, 2**40), (2**20, 2**20)):
        with pytest.raises(ValueError, match=r"^x_t: expected shape \(2, 4\)"):
            stream.step(as_strided(one, shape, (0, 0)))
    far = np.zeros((2, 1 << 20), np.float32)
    far[:, :4] = values(2, 4)
    h = stream.step(far[:, :4])
    stream.reset()
    assert_same_bits(h, stream.step(values(2, 4)))


def test_a_dtype_of_another_name_is_the_same() -> None:
    stream = LSTM(4, 3, rng=0).stream(2)
    named: Any = np.dtype(np.float32, metadata={"unit": "volt"})
    h = stream.step(values(2, 4).astype(named))
    stream.reset()
    assert_same_bits(stream.step(values(2, 4).astype("=f4")), h)


@pytest.mark.parametrize("batch", [None, 3])
def test_out_is_filled_and_returned(batch: int | None) -> None:
    lstm = LSTM(4, 6, 2, rng=0)
    rows = () if batch is None else (batch,)
    x = values(5, *rows, 4)
    expected = steps_of(lstm.stream(batch), x)
    stream, labelled = lstm.stream(batch), lstm.stream(batch)
    buffer = np.full((5, *rows, 6), np.nan, np.float32)
    for x_t, out in zip(x, buffer, strict=True):
        assert stream.step(x_t, out=out) is out
        other = np.empty(out.shape, np.float32).view(Labelled)
        assert labelled.step(x_t, out=other) is other
        assert_same_bits(np.asarray(other), out)
    assert_same_bits(buffer, expected)


def test_out_may_be_x_itself_or_overlap_it() -> None:
    """What a network that feeds on its own output wants."""
    lstm, first = LSTM(5, 5, 2, rng=0), values(1, 5)
    plain, fed, shifted = lstm.stream(1), lstm.stream(1), lstm.stream(1)
    h, x_t, memory = first, first.copy(), np.concatenate([first[0], [0]]).astype(np.float32)
    for _ in range(6):
        h = plain.step(h)
        fed.step(x_t, out=x_t)
        assert_same_bits(x_t, h)
        shifted.step(memory[np.newaxis, :5], out=memory[np.newaxis, 1:])
        memory[:-1] = memory[1:].copy()
        assert_same_bits(memory[np.newaxis, :5], h)


@pytest.mark.parametrize("batch", [None, 2])
def test_an_out_that_cannot_be_written_in_place_is_refused(
    batch: int | None, tmp_path: Path
) -> None:
    stream = LSTM(4, 3, rng=0).stream(batch)
    rows = () if batch is None else (batch,)
    good, x_t = values(*rows, 3), values(*rows, 4)
    layouts = [every_second, misaligned, read_only] + ([fortran_order] if rows else [])
    for layout in layouts:
        bad = layout(good, tmp_path)
        with pytest.raises(ValueError, match=r"^out: expected a C-contiguous, aligned, writable"):
            stream.step(x_t, out=bad)
        assert_same_bits(np.array(bad), good)
    # The layer's own weights are read-only too.
    weights = LSTM(3, 3, rng=0)
    with pytest.raises(ValueError, match="read-only"):
        weights.stream(3).step(values(3, 3), out=weights.weight_hh_l0[:3])


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_an_out_that_does_not_fit_is_refused_by_name() -> None:
    stream = LSTM(4, 3, rng=0).stream(2)
    argument = Argument(
        "out", "out", values(2, 3), lambda a: [stream.step(values(2, 4), out=a)], optional=True
    )
    assert_refuses_what_is_no_such_array(argument)
    assert_refuses_shapes(argument, (), (3,), (1, 3), (2, 2), (2, 4), (3, 2), (2, 3, 1), (1, 2, 3))
    assert_refused(argument, np.matrix(values(2, 3), dtype=np.float32), "matrix")


def test_out_is_named() -> None:
    stream = LSTM(4, 3, rng=0).stream()
    with pytest.raises(TypeError, match="positional"):
        stream.step(values(4), values(3))  # type: ignore[misc]
    with pytest.raises(TypeError):
        stream.step()  # type: ignore[call-arg]


def test_a_state_must_be_a_pair() -> None:
    stream = LSTM(4, 3, rng=0).stream(2)
    h = values(1, 2, 3)
    pairs: list[Any] = [h, None, "hc", np.stack((h, h))]
    for pair in pairs:
        with pytest.raises(TypeError, match=r"^state: expected a pair"):
            stream.state = pair
    with pytest.raises(ValueError, match=r"^state: .* got 3 items"):
        stream.state = (h, h, h)  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"^state\[1\] .* got None"):
        stream.state = (h, None)  # type: ignore[assignment]


def test_a_bidirectional_layer_has_no_stream() -> None:
    with pytest.raises(ValueError, match=r"^stream: .* bidirectional"):
        LSTM(2, 3, bidirectional=True).stream(1)


@pytest.mark.parametrize("bad", [0, -1, 2**31, 10**30])
def test_a_batch_size_out_of_range_is_refused(bad: int) -> None:
    with pytest.raises(ValueError, match=r"^batch_size: "):
        LSTM(2, 3).stream(bad)


@pytest.mark.parametrize("bad", [1.0, "1", True, (1,)])
def test_a_batch_size_that_is_no_number_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^batch_size: "):
        LSTM(2, 3).stream(bad)
    assert LSTM(2, 3).stream(np.int64(2)).batch_size == 2  # type: ignore[arg-type]


# --- one user's object ---------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_cannot_be_copied(duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="copied or pickled"):
        duplicate(LSTM(2, 3).stream())


def test_a_stream_has_no_attributes_to_spoil() -> None:
    stream = LSTM(2, 3).stream(2)
    for name in ("batch_size", "anything"):
        with pytest.raises(AttributeError):
            setattr(stream, name, 3)
    assert repr(stream) == "<Stream of LSTM 2 -> 3, batch_size=2>"


@pytest.mark.parametrize("kind", [Stream, _core.Stepper])
def test_an_object_that_was_never_opened_does_not_crash(kind: Any) -> None:
    blank = kind.__new__(kind)
    for x_t in (values(2), values(1, 2)):
        with pytest.raises(AttributeError):
            blank.step(x_t)
    with pytest.raises((AttributeError, TypeError)):
        blank._state()


class Meddler:
    """Runs something when it is looked at closely, amid a step."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act, self.errors = act, list[Exception]()

    @property
    def __class__(self) -> type:  # type: ignore[override]
        try:
            self.act()
        except Exception as error:  # noqa: BLE001
            self.errors.append(error)
        return np.ndarray


@pytest.mark.parametrize("use", ["step", "read", "set", "reset"])
def test_a_stream_in_use_refuses_another_user(use: str) -> None:
    lstm, x_t = LSTM(2, 3, rng=0), values(1, 2)
    stream = lstm.stream(1)
    expected = lstm.stream(1).step(x_t)
    zeros: State = stream.state
    act = {
        "step": lambda: stream.step(x_t),
        "read": lambda: stream.state,
        "set": lambda: setattr(stream, "state", zeros),
        "reset": stream.reset,
    }[use]
    meddler = Meddler(act)
    with pytest.raises(Exception):  # noqa: B017, PT011, whatever NumPy makes of it
        stream.step(meddler)  # type: ignore[arg-type]
    assert meddler.errors
    for error in meddler.errors:
        assert isinstance(error, RuntimeError)
        assert "in use" in str(error)
    assert_same_bits(stream.step(x_t), expected)


@pytest.mark.parametrize(("hidden", "batch"), [(16, 1), (512, 16)])
def test_threads_that_share_a_stream_against_the_rule_neither_crash_nor_spoil_it(
    hidden: int, batch: int
) -> None:
    """Each step is taken whole or refused: n of them that were taken make the state of n steps."""
    lstm, x_t = LSTM(hidden, hidden, rng=0), values(batch, hidden)
    stream = lstm.stream(batch)
    together = threading.Barrier(4)

    def hammer() -> int:
        together.wait()
        taken = 0
        for _ in range(40):
            try:
                stream.step(x_t)
                taken += 1
            except RuntimeError as error:
                assert "in use" in str(error)  # noqa: PT017
        return taken

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as workers:
            taken = sum(future.result() for future in [workers.submit(hammer) for _ in range(4)])
    finally:
        sys.setswitchinterval(before)
    alone = lstm.stream(batch)
    for _ in range(taken):
        alone.step(x_t)
    assert taken
    assert_same_bits(stream.state[0], alone.state[0])
    assert_same_bits(stream.state[1], alone.state[1])


def test_threads_with_a_stream_each_get_the_serial_bits() -> None:
    lstm, x = LSTM(24, 160, 2, rng=0), values(40, 4, 24)
    expected = steps_of(lstm.stream(4), x)
    with ThreadPoolExecutor(4) as workers:
        futures = [workers.submit(lambda: steps_of(lstm.stream(4), x)) for _ in range(8)]
    for future in futures:
        assert_same_bits(future.result(), expected)


def test_the_gil_is_released_during_a_large_step() -> None:
    """A busy machine can silence a thread too, so the best of some attempts counts."""
    stream = LSTM(512, 512, rng=0).stream(512)
    x_t, out = values(512, 512), np.empty((512, 512), np.float32)
    shares = []
    for _ in range(12):
        seconds, silence = longest_silence(lambda: stream.step(x_t, out=out))
        shares.append(silence / seconds)
        if shares[-1] < 0.5:
            return
    raise AssertionError(f"silent for these shares of a step: {shares}")


# --- the process ---------------------------------------------------------------------------------


FLUSHING = platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64")


@pytest.mark.parametrize("hidden", [4, 512])
@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_numbers_are_zero_in_a_step_and_only_there(dtype: Any, hidden: int) -> None:
    """f ⊙ c falls below the normal range and becomes zero instead of a slow subnormal number."""
    lstm = LSTM(1, hidden, dtype=dtype, rng=0)
    lstm.load_state_dict({name: 0 * array for name, array in lstm.state_dict().items()})
    stream = lstm.stream(1)
    least = np.full((1, 1, hidden), np.finfo(dtype).smallest_normal)
    stream.state = (0 * least, least)
    stream.step(np.zeros((1, 1), dtype))  # f = 1/2, g = 0
    assert subnormals_work()
    c = stream.state[1]
    assert (c == (0 if FLUSHING else least / 2)).all()


FORKED = """
import os, sys, warnings
import numpy as np
import fastlstm
warnings.simplefilter("ignore")
fastlstm.set_num_threads(2)
lstm = fastlstm.LSTM(64, 300, rng=0)
x = np.random.default_rng(0).standard_normal((50, 40, 64)).astype(np.float32)
lstm(x)                                       # with threads
stream = lstm.stream(40)
stream.step(x[0])
child = os.fork()
h = stream.step(x[1]).tobytes()
again = lstm.stream(40)
again.step(x[0])
same = again.step(x[1]).tobytes() == h
if child == 0:
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), same)
"""


@pytest.mark.skipif(not hasattr(sys, "getswitchinterval") or sys.platform == "win32", reason="fork")
def test_a_stream_goes_on_in_a_forked_child() -> None:
    assert run_python("-c", FORKED).split() == ["0", "True"]
