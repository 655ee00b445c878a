"""Threads: how many, whose BLAS pool, many Python threads on one model, and what the GIL does."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from fastlstm import LSTM, _core, get_num_threads, set_num_threads
from fastlstm import threads as teams
from fastlstm._stack import Stack
from fastlstm.threads import (
    LEAST_WORK,
    _blas_hold,
    available_cores,
    blas_libraries,
    team,
)
from tests.processes import run_python
from tests.support import Array, assert_close, assert_same_bits, normal, tolerance_of

Results = dict[str, Array]


@pytest.fixture
def pool() -> Iterator[Any]:
    """SciPy's BLAS pool, set to two threads for the test."""
    pools = _blas_hold._find_pools()
    if not pools:
        pytest.skip("threadpoolctl does not know this BLAS")
    before = pools[0].get_num_threads()
    pools[0].set_num_threads(2)
    yield pools[0]
    pools[0].set_num_threads(before)


def busy_layer(dtype: Any = np.float32) -> LSTM:
    return LSTM(24, 32, 2, bidirectional=True, dtype=dtype, rng=0)


def busy_input(dtype: Any = np.float32, *, seed: int = 0) -> Array:
    """So much work that threads pay: some 4 times LEAST_WORK in each layer and direction."""
    return normal(np.random.default_rng(seed), (40, 160, 24), dtype)


def step_of(lstm: LSTM, x: Array, lengths: Array | None = None) -> Results:
    output, state, tape = lstm.forward(x, lengths=lengths)
    d_x, d_state, grads = lstm.backward(tape, output, state)
    results = {"output": output, "h_n": state[0], "c_n": state[1], "d_x": d_x}
    return results | {"d_h_0": d_state[0], "d_c_0": d_state[1]} | grads


def assert_same_results(actual: Results, expected: Results) -> None:
    assert list(actual) == list(expected)
    for name, array in actual.items():
        assert_same_bits(array, expected[name], name)


def test_the_busy_input_is_busy() -> None:
    assert 4 * LEAST_WORK < 8 * 40 * 160 * 32 * (24 + 32)
    with team(4 * LEAST_WORK, blas=True) as threads:
        alone = not _core.OPENMP or not _blas_hold.possible
        assert threads == (1 if alone else get_num_threads())


# --- how many ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 7, np.int64(3), np.uint8(5)])
def test_the_number_of_threads_is_what_was_set(number: int) -> None:
    set_num_threads(number)
    assert (get_num_threads(), type(get_num_threads())) == (int(number), int)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (0, ValueError), (-1, ValueError), (2**31, ValueError), (2**63, ValueError),
        (10**6, ValueError), (True, TypeError), (1.0, TypeError), ("2", TypeError),
        (None, TypeError), ([2], TypeError), (float("nan"), TypeError),
    ],
)  # fmt: skip
def test_a_bad_number_of_threads_changes_nothing(number: Any, error: type[Exception]) -> None:
    set_num_threads(3)
    with pytest.raises(error, match=r"^num_threads: expected"):
        set_num_threads(number)
    assert get_num_threads() == 3


def test_a_number_of_threads_may_be_set_for_a_block() -> None:
    set_num_threads(3)
    with set_num_threads(5):
        assert get_num_threads() == 5
        with set_num_threads(7):
            assert get_num_threads() == 7
            set_num_threads(2)  # the block's own affair
        assert get_num_threads() == 5
    assert get_num_threads() == 3
    with pytest.raises(KeyboardInterrupt), set_num_threads(5):
        raise KeyboardInterrupt
    assert get_num_threads() == 3
    with pytest.raises(ValueError, match=r"^num_threads: expected"), set_num_threads(0):
        raise AssertionError
    assert get_num_threads() == 3


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, available_cores()),
        ({"FASTLSTM_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4"}, 4),
        ({"FASTLSTM_NUM_THREADS": "3", "OMP_NUM_THREADS": "4"}, 3),
        ({"OMP_NUM_THREADS": " 5 , 2"}, 5),
        ({"FASTLSTM_NUM_THREADS": "many", "OMP_NUM_THREADS": "4"}, 4),
        ({"FASTLSTM_NUM_THREADS": "0", "OMP_NUM_THREADS": "-4"}, available_cores()),
        ({"FASTLSTM_NUM_THREADS": "2.5", "OMP_NUM_THREADS": "٣"}, available_cores()),
        ({"FASTLSTM_NUM_THREADS": "100000000000"}, available_cores()),
    ],
    ids=lambda value: str(value),
)
def test_the_environment_sets_the_number_at_import(
    environment: dict[str, str], expected: int
) -> None:
    code = "import fastlstm; print(fastlstm.get_num_threads())"
    assert int(run_python("-c", code, environment=environment)) == expected


def test_cores_are_those_of_the_affinity() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        "import fastlstm; print(fastlstm.get_num_threads())"
    )
    if not hasattr(__import__("os"), "sched_setaffinity"):
        pytest.skip("no affinity on this system")
    assert int(run_python("-c", code)) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("threads", [2, 3, 8, 64])
def test_any_number_of_threads_computes_the_same(threads: int, lengths: bool, dtype: type) -> None:
    lstm, x = busy_layer(dtype), busy_input(dtype)
    ends = np.random.default_rng(1).integers(0, 41, 160) if lengths else None
    set_num_threads(1)
    expected = step_of(lstm, x, ends)
    set_num_threads(threads)
    for name, array in step_of(lstm, x, ends).items():
        assert_close(array, expected[name], tolerance_of(dtype), name)


def test_one_number_of_threads_gives_the_same_bits_each_time() -> None:
    lstm, x = busy_layer(), busy_input()
    set_num_threads(2)
    expected = step_of(lstm, x)
    for _ in range(5):
        assert_same_results(step_of(lstm, x), expected)


def test_more_threads_than_sequences_are_no_harm() -> None:
    lstm = LSTM(64, 64, rng=0)
    x = normal(np.random.default_rng(0), (200, 1, 64), np.float32)
    set_num_threads(1)
    expected = step_of(lstm, x)
    set_num_threads(16)
    for name, array in step_of(lstm, x).items():
        assert_close(array, expected[name], tolerance_of(np.float32), name)


# --- many Python threads -------------------------------------------------------------------------


@pytest.fixture
def _quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# Shared out by sequences, or, of a batch that is too small for that, by hidden units.
WAYS = {"sequences": (40, 160, 32), "units": (80, 6, 150)}  # steps, batch, units


def test_the_ways_to_share_out_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tests of both would be of one."""
    split, taken = Stack._split, set[tuple[int, int]]()

    def note(*arguments: Any) -> tuple[Array, Array]:
        blocks, shares = split(*arguments)
        taken.add((len(blocks) - 1, len(shares) - 1))
        return blocks, shares

    monkeypatch.setattr(Stack, "_split", note)
    set_num_threads(2)
    alone = not _core.OPENMP or not (_core.VECTOR[4] or _blas_hold.possible)
    for way, (steps, batch, hidden) in WAYS.items():
        taken.clear()
        lstm = LSTM(24, hidden, rng=0)
        step_of(lstm, normal(np.random.default_rng(0), (steps, batch, 24), np.float32))
        shared = (1, 2) if way == "units" and _core.VECTOR[4] else (2, 1)
        assert taken == {(1, 1) if alone else shared}


@pytest.mark.usefixtures("_quick_switches")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("threads", [1, 2])
def test_eight_python_threads_on_one_model_get_the_bits_of_one(threads: int, way: str) -> None:
    set_num_threads(threads)
    steps, batch, hidden = WAYS[way]
    lstm = LSTM(24, hidden, 2, bidirectional=way == "sequences", rng=0)
    rng = np.random.default_rng(0)
    xs = [normal(rng, (steps, batch, 24), np.float32) for _ in range(4)]
    lengths = [None, None, np.arange(batch) * 7 % (steps + 1), np.full(batch, 7)]
    expected = [step_of(lstm, x, ends) for x, ends in zip(xs, lengths, strict=True)]
    together = threading.Barrier(8)

    def work(worker: int) -> None:
        together.wait()
        for turn in range(4):
            k = (worker + turn) % 4
            assert_same_results(step_of(lstm, xs[k], lengths[k]), expected[k])
            assert_same_bits(lstm(xs[k], lengths=lengths[k])[0], expected[k]["output"])

    with ThreadPoolExecutor(8) as workers:
        for future in [workers.submit(work, worker) for worker in range(8)]:
            future.result()


@pytest.mark.usefixtures("_quick_switches")
def test_of_many_threads_that_share_a_tape_exactly_one_gets_the_gradients() -> None:
    lstm = LSTM(3, 4, rng=0)
    for _ in range(30):
        output, _, tape = lstm.forward(np.ones((5, 2, 3), np.float32))
        together = threading.Barrier(4)

        def attempt(
            tape: Any = tape, output: Array = output, together: threading.Barrier = together
        ) -> bool:
            together.wait()
            try:
                lstm.backward(tape, output)
            except RuntimeError:
                return False
            return True

        with ThreadPoolExecutor(4) as workers:
            outcomes = [future.result() for future in [workers.submit(attempt) for _ in range(4)]]
        assert sum(outcomes) == 1


def longest_silence(call: Callable[[], Any]) -> tuple[float, float]:
    """Run `call` beside a Python thread that ticks; the call's seconds, and the longest without."""
    ticks, stop, started = [], threading.Event(), threading.Event()

    def tick() -> None:
        started.set()
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    started.wait()
    begin = time.perf_counter()
    call()
    end = time.perf_counter()
    stop.set()
    ticker.join()
    heard = [begin, *(moment for moment in ticks if begin < moment < end), end]
    return end - begin, float(np.diff(heard).max())


def test_a_call_that_holds_the_gil_is_heard_as_silence() -> None:
    number = 3**400_000
    seconds, silence = longest_silence(lambda: number * number * number)  # one long call in C
    assert silence > 0.25 * seconds


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("way", ["infer", "forward", "backward"])
def test_the_gil_is_released_during_a_long_call(way: str, threads: int) -> None:
    """If the core held it, another thread would be silent for most of the call.

    A busy machine can silence a thread too, so the best of some attempts counts.
    """
    set_num_threads(threads)
    lstm = LSTM(1, 160, rng=0)  # the recurrence is nearly all of the work, shared out by units
    x = np.ones((500, 8, 1), np.float32)
    output, _ = lstm(x)

    def run() -> tuple[float, float]:
        if way == "infer":
            return longest_silence(lambda: lstm(x))
        if way == "forward":
            return longest_silence(lambda: lstm.forward(x))
        _, _, tape = lstm.forward(x)
        return longest_silence(lambda: lstm.backward(tape, output))

    seconds, _ = run()
    x = np.repeat(x, max(1, round(0.15 / seconds)), axis=0)  # at least 150 ms
    output, _ = lstm(x)
    shares = []
    for _ in range(8):
        seconds, silence = run()
        shares.append(silence / seconds)
        if shares[-1] < 0.25:
            return
    raise AssertionError(f"silent for these shares of the call: {shares}")


# --- SciPy's BLAS pool ---------------------------------------------------------------------------


def test_blas_is_held_at_one_thread_during_a_region_and_restored(pool: Any) -> None:
    with team(1e12, blas=True):
        assert pool.get_num_threads() == 1
    assert pool.get_num_threads() == 2


def test_blas_is_restored_after_the_last_of_overlapping_calls(pool: Any) -> None:
    first, second, third = team(1e12, blas=True), team(1.0, blas=True), team(1e12, blas=True)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert pool.get_num_threads() == 1
    third.__enter__()
    second.__exit__(None, None, None)
    assert pool.get_num_threads() == 1
    third.__exit__(None, None, None)
    assert pool.get_num_threads() == 2


def test_blas_is_restored_after_an_exception(pool: Any) -> None:
    def fail() -> None:
        with team(1e12, blas=True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert pool.get_num_threads() == 2


@pytest.mark.parametrize("name", ["forward", "backward", "matmul"])
def test_blas_is_restored_when_the_core_fails(
    name: str, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fail(*_: Any) -> None:
        seen.append(pool.get_num_threads())
        raise MemoryError

    monkeypatch.setitem(_core.VECTOR, 4, 0)  # no packed kernels: BLAS serves everywhere
    lstm, x = busy_layer(), busy_input()
    expected = step_of(lstm, x)
    with monkeypatch.context() as patched:
        patched.setattr(_core, name, fail)
        with pytest.raises(MemoryError):
            step_of(lstm, x)
    assert seen == [1]
    assert pool.get_num_threads() == 2
    assert_same_results(step_of(lstm, x), expected)


def test_blas_is_restored_after_calls_large_and_small(pool: Any) -> None:
    step_of(busy_layer(), busy_input())
    assert pool.get_num_threads() == 2
    step_of(LSTM(3, 4, rng=0), np.ones((5, 2, 3), np.float32))
    assert pool.get_num_threads() == 2
    with pytest.raises(ValueError, match=r"^x: expected shape"):
        LSTM(3, 4, rng=0)(np.ones((5, 2, 9), np.float32))
    assert pool.get_num_threads() == 2


@pytest.mark.usefixtures("_quick_switches")
def test_blas_is_restored_after_many_threads_that_overlap(pool: Any) -> None:
    lstm, x = LSTM(16, 24, rng=0), normal(np.random.default_rng(0), (10, 20, 16), np.float32)
    held = []

    def work() -> None:
        for _ in range(50):
            step_of(lstm, x)
            with team(1.0, blas=True):
                held.append(pool.get_num_threads())

    with ThreadPoolExecutor(8) as workers:
        for future in [workers.submit(work) for _ in range(8)]:
            future.result()
    assert set(held) == {1}
    assert pool.get_num_threads() == 2


def test_a_limit_that_a_caller_has_set_by_threadpoolctl_outlives_our_calls(pool: Any) -> None:
    """threadpoolctl lets one thread at a time set the size, and quietly ignores the others."""
    lstm, x = busy_layer(), busy_input()
    with ThreadPoolExecutor(1) as worker:  # a thread that lives on, and could keep control
        with threadpool_limits(3, user_api="blas"):
            worker.submit(step_of, lstm, x).result()
            assert pool.get_num_threads() == 3
            step_of(lstm, x)
            assert pool.get_num_threads() == 3
            worker.submit(step_of, lstm, x).result()
        assert pool.get_num_threads() == 2


def test_the_blas_that_scipy_calls_is_named() -> None:
    assert blas_libraries()


STEP = """
import sys
import numpy as np
from fastlstm import LSTM
from fastlstm.threads import _blas_hold
lstm = LSTM(24, 32, 2, bidirectional=True, dtype=np.float64, rng=0)
x = np.random.default_rng(0).standard_normal((40, 160, 24))
before = [pool.get_num_threads() for pool in _blas_hold._find_pools()]
output, state, tape = lstm.forward(x)
d_x, d_state, grads = lstm.backward(tape, output, state)
assert before == [pool.get_num_threads() for pool in _blas_hold._find_pools()]
np.savez(sys.argv[1], output=output, h_n=state[0], c_n=state[1], d_x=d_x, d_h_0=d_state[0],
         d_c_0=d_state[1], **grads)
"""


@pytest.mark.parametrize("openblas", [None, "8"])
def test_results_do_not_depend_on_the_threads_of_openblas(
    openblas: str | None, tmp_path: Any
) -> None:
    path = tmp_path / "results.npz"
    environment = {} if openblas is None else {"OPENBLAS_NUM_THREADS": openblas}
    run_python("-c", STEP, str(path), environment=environment)
    expected = step_of(busy_layer(np.float64), busy_input(np.float64))
    with np.load(path) as results:
        assert set(results) == set(expected)
        for name, array in expected.items():
            assert_close(results[name], array, 1e-12, name)


# --- how many work -------------------------------------------------------------------------------


def members(work: float, *, blas: bool = False) -> int:
    with teams.team(work, blas=blas) as count:
        return count


@pytest.mark.skipif(not _core.OPENMP, reason="built without OpenMP")
def test_threads_that_sleep_need_more_work_to_be_worth_waking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(teams, "perf_counter", lambda: now)
    monkeypatch.setattr(teams, "_busy_until", 0.0)
    with set_num_threads(2):
        some, much = teams.LEAST_WORK, teams.ASLEEP * teams.LEAST_WORK
        assert members(some) == 1
        assert members(some) == 2  # straight after
        now += 0.9 * teams.AWAKE
        assert members(some) == 2
        now += 1.1 * teams.AWAKE
        assert members(some) == 1
        now += 2 * teams.AWAKE
        assert members(much) == 2
        assert members(some - 1) == 1


@pytest.mark.skipif(not _core.OPENMP, reason="built without OpenMP")
def test_with_blas_the_clock_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 2 if teams._blas_hold.possible else 1
    monkeypatch.setattr(teams, "_busy_until", np.inf)
    with set_num_threads(2):
        assert members(teams.ASLEEP * teams.LEAST_WORK - 1, blas=True) == 1
        assert members(teams.ASLEEP * teams.LEAST_WORK, blas=True) == most


@pytest.mark.skipif(not _core.OPENMP, reason="built without OpenMP")
def test_each_thread_of_a_team_has_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teams, "_busy_until", np.inf)
    with set_num_threads(64):
        assert members(teams.LEAST_WORK) == 2
        assert members(8 * teams.LEAST_WORK) == 16
        assert members(1000 * teams.LEAST_WORK) == 64


def test_a_limit_is_one_of_the_python_thread_that_set_it() -> None:
    much = 100 * teams.ASLEEP * teams.LEAST_WORK
    with set_num_threads(3):
        with teams.at_most(2), teams.at_most(5):
            assert members(much) == 2
            assert members(much, blas=True) <= 2
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(members, much).result() == 3
            with teams.at_most(1):
                assert members(much) == 1
            assert members(much) == 2
        assert members(much) == 3
        with teams.at_most(8):
            assert members(much) == 3
