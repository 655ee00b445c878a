"""Memory that calls keep for each other: who owns it, how much there is, and what it is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from fastlstm import LSTM, _scratch
from tests.support import assert_same_bits, normal

FLOAT32 = np.dtype(np.float32)
LARGE = (_scratch.SMALLEST // 4,)  # float32


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    _scratch._kept.clear()
    yield
    _scratch._kept.clear()


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_what_is_given_is_taken_again() -> None:
    first = _scratch.take(LARGE, FLOAT32)
    where = address(first)
    _scratch.give(first)
    del first
    assert address(_scratch.take(LARGE, FLOAT32)) == where


def test_a_like_size_of_another_type_and_shape_has_the_same_room() -> None:
    first = _scratch.take((1000, 64), FLOAT32)
    _scratch.give(first[:, 3:7])  # a view gives the whole
    second = _scratch.take((63, 500), np.dtype(np.float64))
    assert np.shares_memory(first, second)
    assert second.shape == (63, 500)
    assert second.dtype == np.float64
    assert second.flags.c_contiguous
    assert second.flags.writeable


def test_what_is_taken_has_one_owner() -> None:
    taken = [_scratch.take(LARGE, FLOAT32) for _ in range(5)]
    _scratch.give(taken[0], taken[3])
    taken[0], taken[3] = _scratch.take(LARGE, FLOAT32), _scratch.take(LARGE, FLOAT32)
    for k, array in enumerate(taken):
        array[...] = k
    assert [float(array[-1]) for array in taken] == [0, 1, 2, 3, 4]


def test_small_arrays_and_those_of_others_are_not_kept() -> None:
    small = _scratch.take((4, 4), FLOAT32)
    theirs = np.zeros(LARGE, np.float32)
    _scratch.give(small, theirs, theirs[::2], np.zeros((9, 7), np.float32).T)
    assert _scratch._kept == []


def test_no_more_is_kept_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scratch, "MOST", 3 * _scratch.SMALLEST)
    arrays = [_scratch.take(LARGE, FLOAT32) for _ in range(5)]
    places = [address(array) for array in arrays]
    _scratch.give(*arrays)
    assert [address(block) for block in _scratch._kept] == places[2:]  # the ones given last
    _scratch.give(_scratch.take((4 * LARGE[0],), FLOAT32))
    assert _scratch._kept == []


def test_whoever_finds_the_lock_taken_does_without() -> None:
    array = _scratch.take(LARGE, FLOAT32)
    with _scratch._lock:
        _scratch.give(array)
        assert _scratch.take(LARGE, FLOAT32).shape == LARGE
    assert _scratch._kept == []


def test_steps_reuse_their_memory_and_hand_out_none_of_it() -> None:
    lstm = LSTM(30, 40, num_layers=2, bidirectional=True, rng=0)
    rng = np.random.default_rng(0)
    x, d_output = normal(rng, (60, 9, 30), np.float32), normal(rng, (60, 9, 80), np.float32)

    def step() -> list[np.ndarray]:
        output, (h_n, c_n), tape = lstm.forward(x)
        d_x, (d_h, d_c), grads = lstm.backward(tape, d_output)
        inferred, _ = lstm(x)
        return [output, h_n, c_n, d_x, d_h, d_c, *grads.values(), inferred]

    first = step()
    kept = sorted(address(block) for block in _scratch._kept)
    copies = [array.copy() for array in first]
    assert kept
    for block in _scratch._kept:
        assert not any(np.shares_memory(block, array) for array in first)
    second = step()
    assert sorted(address(block) for block in _scratch._kept) == kept
    for before, array, again in zip(copies, first, second, strict=True):
        assert_same_bits(array, before, "an earlier result")
        assert_same_bits(again, before, "a later step")


def test_a_tape_that_waits_keeps_its_memory_to_itself() -> None:
    lstm = LSTM(30, 40, rng=0)
    rng = np.random.default_rng(1)
    x, other = normal(rng, (60, 9, 30), np.float32), normal(rng, (60, 9, 30), np.float32)
    d_output = normal(rng, (60, 9, 40), np.float32)
    _, _, tape = lstm.forward(x)
    expected = lstm.backward(tape, d_output)
    _, _, waiting = lstm.forward(x)
    for _ in range(3):
        _, _, tape = lstm.forward(other)
        lstm.backward(tape, d_output)
        lstm(other)
    d_x, _, grads = lstm.backward(waiting, d_output)
    assert_same_bits(d_x, expected[0], "d_x")
    for name, grad in grads.items():
        assert_same_bits(grad, expected[2][name], name)


def test_threads_do_not_get_in_each_others_way() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(300):
            array = _scratch.take((LARGE[0] + turn % 3,), FLOAT32)
            array.fill(number)
            if (array != number).any():
                wrong.append(turn)
            _scratch.give(array)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
