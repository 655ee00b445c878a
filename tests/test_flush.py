"""Numbers below the normal range: zero in the time loop and in products, and nowhere else.

States and gradients that decay to nothing pass through them, where many processors take a hundred
times as long for an operation (benchmarks/denormals.py measures what that comes to).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, _core, _stack, set_num_threads, threads
from tests.floating_point import flags, flushing, mode, needs_the_mode, subnormals_work
from tests.processes import run_python
from tests.support import Array, assert_same_bits, normal

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# The work of a team, by sequences or by units; one thread has no team.
teams = pytest.mark.parametrize(
    ("count", "least_sequences"),
    [(1, 0), (4, 0), (4, 1 << 30)],
    ids=["one thread", "four by sequences", "four by units"],
)
BATCH, INPUT, HIDDEN = 5, 3, 150
SMALLEST = {t: float(np.finfo(t).smallest_normal) for t in (np.float32, np.float64)}


@pytest.fixture(autouse=True)
def _small_work_has_threads_too(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "LEAST_WORK", 0)
    assert subnormals_work()
    yield
    assert subnormals_work()


def share_out(count: int, least_sequences: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stack, "LEAST_SEQUENCES", least_sequences)
    monkeypatch.setattr(_stack, "LEAST_STEP_WORK", 0)
    set_num_threads(count)


# --- what decays ---------------------------------------------------------------------------------


def steps_of(dtype: Any) -> int:
    """More halvings than there are subnormal powers of 2, from a few above them."""
    return int(np.finfo(dtype).nmant) + 12


def decaying(dtype: Any, bidirectional: bool = False) -> tuple[LSTM, Array, tuple[Array, Array]]:
    """A layer that halves its state at each step, its input, and a state that is small already."""
    rng = np.random.default_rng(0)
    lstm = LSTM(INPUT, HIDDEN, bias=False, bidirectional=bidirectional, dtype=dtype, rng=rng)
    small = SMALLEST[dtype] * 64
    state = rng.uniform(small, 2 * small, (1 + bidirectional, BATCH, HIDDEN)).astype(dtype)
    return lstm, np.zeros((steps_of(dtype), BATCH, INPUT), dtype), (state, state * dtype(0.7))


def everything(lstm: LSTM, x: Array, state: tuple[Array, Array]) -> dict[str, Array]:
    """Of a pass whose only gradients are those of the last step, and as small as the state."""
    output, (h_n, c_n), tape = lstm.forward(x, state)
    called, called_state = lstm(x, state)
    assert_same_bits(called, output, "output of a call")
    assert_same_bits(called_state[1], c_n, "c_n of a call")
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, None, state)
    if _core.VECTOR[x.itemsize]:
        tape = lstm.forward(x, state, checkpoint=True)[-1]
        again = lstm.backward(tape, None, state)[1]
        assert_same_bits(again[0], d_h_0, "d_h_0 of gates made anew")
        assert_same_bits(again[1], d_c_0, "d_c_0 of gates made anew")
    results = {"output": output, "h_n": h_n, "c_n": c_n, "d_h_0": d_h_0, "d_c_0": d_c_0}
    return results | {"d_x": d_x} | grads


@every_dtype
@teams
@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_decays_below_the_normal_range_becomes_zero(
    dtype: Any,
    count: int,
    least_sequences: int,
    bidirectional: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """... and all else is what a layer gives that works with numbers far from that range."""
    share_out(count, least_sequences, monkeypatch)
    lstm, x, state = decaying(dtype, bidirectional)
    smallest = SMALLEST[dtype]
    results = everything(lstm, x, state)
    # So near to zero the layer is linear in its state, as far as a float can tell.
    scale = 1e9 * smallest
    larger = (state[0] / dtype(scale), state[1] / dtype(scale))
    expected = everything(lstm, x, (larger[0] * dtype(1e-9), larger[1] * dtype(1e-9)))
    in_range = np.abs(expected["output"].astype(np.longdouble)) * np.longdouble(1e9 * scale)
    assert ((in_range > 0) & (in_range < smallest)).any(), "nothing decays below the normal range"
    for name, found in results.items():
        assert ((found == 0) | (np.abs(found) >= smallest)).all(), f"{name} has subnormal numbers"
        if name.startswith("weight"):
            continue  # a product of two of them: all zeros
        exact = expected[name].astype(np.longdouble) * np.longdouble(1e9 * scale)
        error = np.abs(found - exact)
        bound = 1e-5 * np.abs(exact) + 16 * np.longdouble(smallest)
        assert (error <= bound).all(), f"{name}: {float((error / bound).max()):.3g} of the bound"


@every_dtype
@teams
def test_what_comes_in_below_the_normal_range_counts_as_zero(
    dtype: Any, count: int, least_sequences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A c_0 that would be seen in a c that is itself just above it."""
    share_out(count, least_sequences, monkeypatch)
    lstm = LSTM(INPUT, HIDDEN, bias=False, dtype=dtype, rng=0)
    x = np.full((1, BATCH, INPUT), SMALLEST[dtype] * 100, dtype)
    zero = np.zeros((1, BATCH, HIDDEN), dtype)
    subnormal = np.full_like(zero, SMALLEST[dtype] * 0.9)
    assert subnormal.all()
    _, (_, expected) = lstm(x, (zero, zero))
    assert (np.abs(expected) > SMALLEST[dtype]).any()
    _, (_, found) = lstm(x, (zero, subnormal))
    assert_same_bits(found, expected)
    _, (_, found), _ = lstm.forward(x, (zero, subnormal))
    assert_same_bits(found, expected)


@needs_the_mode
@every_dtype
@teams
def test_results_are_those_of_a_caller_who_flushes(
    dtype: Any, count: int, least_sequences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where subnormal numbers count as zero everywhere."""
    share_out(count, least_sequences, monkeypatch)
    lstm, x, state = decaying(dtype)
    found = everything(lstm, x, state)
    with flushing(True):
        expected = everything(lstm, x, state)
    for name, array in found.items():
        assert_same_bits(array, expected[name], name)


# --- the mode of threads -------------------------------------------------------------------------


def calls(lstm: LSTM, x: Array) -> list[Callable[[], Any]]:
    """Each kind of call; the tapes are made before."""
    tapes = [lstm.forward(x)[-1] for _ in range(2)]
    smaller = lstm.forward(x, checkpoint=True)[-1]
    output = np.ones((*x.shape[:2], lstm.hidden_size), lstm.dtype)
    stream = lstm.stream(x.shape[1])
    return [
        lambda: lstm(x),
        lambda: lstm.forward(x),
        lambda: lstm.backward(tapes[0], output),
        lambda: lstm.backward(smaller, output),
        lambda: lstm.backward(tapes[1], output * lstm.dtype.type(1e-37)),
        lambda: stream.step(x[0]),
    ]


@needs_the_mode
@every_dtype
@teams
@pytest.mark.parametrize("flushes", [False, True])
def test_the_callers_mode_is_as_before_after_every_call(
    dtype: Any, count: int, least_sequences: int, flushes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... and the flags of exceptions that were up are up."""
    share_out(count, least_sequences, monkeypatch)
    lstm = LSTM(INPUT, HIDDEN, dtype=dtype, rng=0)
    x = normal(np.random.default_rng(0), (4, BATCH, INPUT), dtype)
    for call in calls(lstm, x):
        with flushing(flushes):
            before, up = mode(), flags()
            call()
            assert mode() == before
            assert flags() & up == up
            assert subnormals_work() is not flushes


def test_a_call_that_fails_leaves_the_mode_alone() -> None:
    lstm = LSTM(INPUT, HIDDEN, rng=0)
    with pytest.raises(ValueError, match="x"):
        lstm(np.ones((4, BATCH, INPUT + 1), np.float32))
    assert subnormals_work()


# A thread begins with the mode of the one that starts it, so no other test may come before. What
# mode a team's threads are in is seen in a sum that they share, and that the core does not flush.
AFTERWARDS = """
import sys
import numpy as np
from fastlstm import LSTM, _core, _stack, set_num_threads, threads
threads.LEAST_WORK, _stack.LEAST_STEP_WORK = 0, 0
count, _stack.LEAST_SEQUENCES = int(sys.argv[1]), int(sys.argv[2])
set_num_threads(count)
lstm = LSTM(3, 300, rng=0)
x = np.ones((4, 5, 3), np.float32)
rows, out = np.full((2, 64), 1e-40, np.float32), np.empty(64, np.float32)

def kept():
    _core.sum_rows(out, np.empty_like(out), rows, False, count)
    return int((out == rows.sum(axis=0)).sum())

seen = [kept()]
output = lstm(x)[0]
seen.append(kept())
tape = lstm.forward(x)[-1]
seen.append(kept())
lstm.backward(tape, output)
seen.append(kept())
lstm.backward(lstm.forward(x, checkpoint=True)[-1], output)
print([*seen, kept()])
"""


@teams
def test_the_threads_of_a_team_do_not_flush_afterwards(count: int, least_sequences: int) -> None:
    """OpenMP's threads belong to the whole process: others' work runs on them, too."""
    chosen = {"FASTLSTM_ISA": _core.ISA}
    printed = run_python("-c", AFTERWARDS, str(count), str(least_sequences), environment=chosen)
    assert printed.strip() == "[64, 64, 64, 64, 64]"


# --- everything else in the process --------------------------------------------------------------


def test_subnormal_arithmetic_works_after_import_in_a_fresh_process() -> None:
    code = (
        "import numpy as np, threading; import fastlstm; from tests.floating_point import "
        "subnormals_work as works; seen = [works()];"
        "thread = threading.Thread(target=lambda: seen.append(works()));"
        "thread.start(); thread.join(); print(seen)"
    )
    assert run_python("-W", "ignore", "-c", code).strip() == "[True, True]"


def test_subnormal_arithmetic_works_after_a_run_in_every_thread() -> None:
    set_num_threads(2)
    lstm = LSTM(INPUT, HIDDEN, rng=0)
    x = normal(np.random.default_rng(0), (40, BATCH, INPUT), np.float32)

    def run() -> tuple[bool, bool]:
        output, _, tape = lstm.forward(x)
        lstm.backward(tape, output)
        with ThreadPoolExecutor(1) as started_later:
            return subnormals_work(), started_later.submit(subnormals_work).result()

    assert run() == (True, True)
    with ThreadPoolExecutor(4) as workers:
        outcomes = [future.result() for future in [workers.submit(run) for _ in range(4)]]
    assert outcomes == [(True, True)] * 4


def test_subnormal_arithmetic_works_beside_a_run() -> None:
    """The mode is each thread's own."""
    lstm = LSTM(INPUT, HIDDEN, rng=0)
    x = normal(np.random.default_rng(0), (400, BATCH, INPUT), np.float32)
    runner = threading.Thread(target=lambda: [lstm(x) for _ in range(5)])
    runner.start()
    beside = []
    while runner.is_alive():
        beside.append(subnormals_work())
    runner.join()
    assert all(beside)
