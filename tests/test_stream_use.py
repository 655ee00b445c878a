"""What may be handed to a stream, by whom, and what a step leaves alone."""

from __future__ import annotations

import copy
import pickle
import platform
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from fastlstm import LSTM, Stream, _core
from tests.floating_point import subnormals_work
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
from tests.support import Array, State, assert_same_bits
from tests.test_stream import DTYPES, steps_of, values
from tests.test_threads import longest_silence

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
