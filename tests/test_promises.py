"""The promises of the packed path, all to the bit: company, threads and cuts do not matter.

Each follows from one rule: an element of a product starts from its initial value and adds its
terms in one order, whatever the tile, the batch or the thread. BLAS keeps no such rule, so on the
instruction set "generic" none of this is promised. The other sets of this machine have processes
of their own, see the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, _core, _stack, set_num_threads, threads
from fastlstm._stack import Stack
from tests.processes import run_python, start_python
from tests.support import Array, State, assert_same_bits, normal, output_shape, random_state

pytestmark = pytest.mark.skipif(
    not _core.VECTOR[4],
    reason=f"instruction set {_core.ISA} has no packed kernels, and BLAS promises no bits",
)


@pytest.fixture(autouse=True, scope="module")
def _cut_small_cases_too() -> Iterator[None]:
    """Threads, where a test asks for them, at any size of the work; chunks and runs of 64 rows."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threads, "_num_threads", 1)
        patched.setattr(threads, "LEAST_WORK", 0)
        patched.setattr(_stack, "CHUNK_BYTES", 1)
        patched.setattr(_stack, "RUN_BYTES", 1)
        yield


# Each thread takes some sequences through all steps, or all sequences' share of the hidden units,
# as far as there are several panels of them.
WAYS = ["sequences", "units"]


@contextmanager
def shared_out(way: str, count: int) -> Iterator[None]:
    """The work of `count` threads is shared out in this way, whatever the size of the batch."""
    with pytest.MonkeyPatch.context() as patched, set_num_threads(count):
        patched.setattr(_stack, "LEAST_SEQUENCES", 0 if way == "sequences" else 1 << 30)
        patched.setattr(_stack, "LEAST_STEP_WORK", 0)
        yield


some_threads = st.builds(shared_out, st.sampled_from(WAYS), st.integers(1, 4))


@dataclass
class Batch:
    """A random layer and a batch for it, time first."""

    lstm: LSTM
    x: Array
    state: State
    lengths: Array

    def run(self) -> tuple[Array, State]:
        return self.lstm(self.x, self.state, lengths=self.lengths)


def make_batch(
    seed: int,
    *,
    steps: int,
    batch: int,
    input_size: int = 3,
    hidden_size: int = 5,
    num_layers: int = 1,
    bidirectional: bool = False,
    dtype: Any = np.float32,
) -> Batch:
    rng = np.random.default_rng(seed)
    lstm = LSTM(
        input_size, hidden_size, num_layers, bidirectional=bidirectional, dtype=dtype, rng=rng
    )
    # Twice the usual weights, so that a bit gone astray in one step is seen in later ones.
    lstm.load_state_dict({name: 2 * array for name, array in lstm.state_dict().items()})
    return Batch(
        lstm,
        normal(rng, (steps, batch, input_size), dtype),
        random_state(rng, lstm, batch),
        rng.integers(0, steps + 1, batch),
    )


# More sequences than two tiles have rows; inner sizes and units on both sides of a vector, a panel
# and a pair of panels.
batches = st.builds(
    make_batch,
    st.integers(0, 2**32 - 1),
    steps=st.integers(1, 9),
    batch=st.integers(1, 15),
    input_size=st.sampled_from([1, 4, 70]),
    hidden_size=st.sampled_from([1, 7, 16, 37, 100, 150]),
    num_layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)


def assert_same(actual: tuple[Array, State], expected: tuple[Array, State]) -> None:
    assert_same_bits(actual[0], expected[0], "output")
    assert_same_bits(actual[1][0], expected[1][0], "h_n")
    assert_same_bits(actual[1][1], expected[1][1], "c_n")


# --- the batch -----------------------------------------------------------------------------------


def in_other_company(batch: Batch, chosen: Array, steps: int, rng: np.random.Generator) -> Batch:
    """The chosen sequences, in this order, padded to `steps` with rubbish past their ends."""
    x = normal(rng, (steps, len(chosen), batch.x.shape[2]), batch.x.dtype)
    for place, b in enumerate(chosen):
        length = batch.lengths[b]
        x[:length, place] = batch.x[:length, b]
    h_0, c_0 = batch.state
    return Batch(batch.lstm, x, (h_0[:, chosen], c_0[:, chosen]), batch.lengths[chosen])


def assert_unchanged(
    actual: tuple[Array, State], expected: tuple[Array, State], chosen: Array, lengths: Array
) -> None:
    """What the chosen sequences gave in `expected`, they give in their new places."""
    for place, b in enumerate(chosen):
        own = slice(0, lengths[b])
        assert_same_bits(actual[0][own, place], expected[0][own, b], "output")
        for k, name in enumerate(("h_n", "c_n")):
            assert_same_bits(actual[1][k][:, place], expected[1][k][:, b], name)


@given(batches, st.integers(0, 2**32 - 1), st.integers(0, 4), some_threads)
def test_a_sequence_has_the_same_bits_in_any_company(
    batch: Batch, seed: int, padding: int, threads_of_company: AbstractContextManager[None]
) -> None:
    """Others may be missing, there twice, or in another order, and the padding longer.

    On some threads, where it was one before.
    """
    rng = np.random.default_rng(seed)
    expected = batch.run()
    chosen = rng.integers(0, len(batch.lengths), rng.integers(1, 2 * len(batch.lengths) + 1))
    steps = int(batch.lengths[chosen].max()) + padding
    with threads_of_company:
        actual = in_other_company(batch, chosen, steps, rng).run()
    assert_unchanged(actual, expected, chosen, batch.lengths)


@given(batches)
def test_a_sequence_has_the_same_bits_alone(batch: Batch) -> None:
    """... cut to its length, with a batch axis and without one."""
    output, (h_n, c_n) = batch.run()
    for b, length in enumerate(batch.lengths):
        x, h_0, c_0 = batch.x[:length, b], batch.state[0][:, b], batch.state[1][:, b]
        expected = output[:length, b], (h_n[:, b], c_n[:, b])
        assert_same(batch.lstm(x, (h_0, c_0)), expected)
        alone, (h, c) = batch.lstm(x[:, np.newaxis], (h_0[:, np.newaxis], c_0[:, np.newaxis]))
        assert_same((alone[:, 0], (h[:, 0], c[:, 0])), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_so_it_is_in_a_large_batch(dtype: Any, bidirectional: bool) -> None:
    """Of more rows, 120, and more terms, 256, than are multiplied in one go."""
    batch = make_batch(
        1, steps=3, batch=131, input_size=300, hidden_size=260, bidirectional=bidirectional,
        dtype=dtype,
    )  # fmt: skip
    expected = batch.run()
    rng = np.random.default_rng(2)
    for chosen in (rng.permutation(131), rng.permutation(131)[:7], np.array([130])):
        actual = in_other_company(batch, chosen, 5, rng).run()
        assert_unchanged(actual, expected, chosen, batch.lengths)


# --- threads -------------------------------------------------------------------------------------


def everything(batch: Batch, with_lengths: bool) -> dict[str, Array]:
    """Outputs, final states and all gradients."""
    lengths = batch.lengths if with_lengths else None
    rng = np.random.default_rng(0)
    shape = output_shape(batch.lstm, *batch.x.shape[:2])
    called, called_state = batch.lstm(batch.x, batch.state, lengths=lengths)
    output, state, tape = batch.lstm.forward(batch.x, batch.state, lengths=lengths)
    assert_same((output, state), (called, called_state))
    d_x, d_state, grads = batch.lstm.backward(
        tape, normal(rng, shape, batch.x.dtype), random_state(rng, batch.lstm, shape[1])
    )
    named = {"output": output, "h_n": state[0], "c_n": state[1], "d_x": d_x}
    return named | {"d_h_0": d_state[0], "d_c_0": d_state[1]} | grads


def assert_no_thread_matters(batch: Batch, with_lengths: bool) -> None:
    expected = everything(batch, with_lengths)
    for way in WAYS:
        for count in (2, 3, 4):
            with shared_out(way, count):
                actual = everything(batch, with_lengths)
            for name, array in actual.items():
                assert_same_bits(array, expected[name], f"{name} of {count} threads by {way}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_ways_of_sharing_are_taken(
    way: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... forward and back, or what follows would be about something that never happens."""
    split, taken = Stack._split, Counter[tuple[int, int]]()

    def note(*arguments: Any) -> tuple[Array, Array]:
        blocks, shares = split(*arguments)
        taken[len(blocks) - 1, len(shares) - 1] += 1
        return blocks, shares

    monkeypatch.setattr(Stack, "_split", note)
    batch = make_batch(0, steps=3, batch=4, hidden_size=150, dtype=dtype)
    with shared_out(way, 2):
        everything(batch, False)
    two = (2, 1) if way == "sequences" else (1, 2)
    # A call, forward and backward.
    assert taken == {two if _core.OPENMP else (1, 1): 3}


@given(batches, st.booleans())
def test_outputs_and_gradients_are_the_same_bits_on_any_number_of_threads(
    batch: Batch, with_lengths: bool
) -> None:
    """... and those of a call are those of forward."""
    assert_no_thread_matters(batch, with_lengths)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_so_they_are_where_sums_run_over_many_rows(dtype: Any) -> None:
    batch = make_batch(
        3, steps=40, batch=16, input_size=50, hidden_size=70, bidirectional=True, dtype=dtype
    )
    assert_no_thread_matters(batch, True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_so_they_are_where_sums_have_many_terms(dtype: Any) -> None:
    """More than twice as many as are multiplied in one go, 256, for more rows than a tile has."""
    batch = make_batch(5, steps=2, batch=8, input_size=520, hidden_size=530, dtype=dtype)
    assert_no_thread_matters(batch, True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sequence_alone_has_the_bits_of_many_where_sums_have_many_terms(dtype: Any) -> None:
    """Many rows multiply 256 terms in one go, few rows all of them."""
    batch = make_batch(6, steps=3, batch=8, input_size=520, hidden_size=530, dtype=dtype)
    output, _ = batch.lstm(batch.x, batch.state)
    h, c = batch.state
    for b in range(8):
        one = slice(b, b + 1)
        alone, _ = batch.lstm(batch.x[:, one], (h[:, one], c[:, one]))
        assert_same_bits(alone, output[:, one], f"sequence {b}")


# Four threads are asked for; prints whether all is as with one.
SMALL_TEAM = """
import sys
import numpy as np
from fastlstm import LSTM, _stack, set_num_threads, threads
threads.LEAST_WORK, _stack.LEAST_STEP_WORK, _stack.LEAST_SEQUENCES = 0, 0, int(sys.argv[1])
rng = np.random.default_rng(0)
lstm = LSTM(3, 300, rng=rng)
x = rng.standard_normal((6, 9, 3)).astype(np.float32)
lengths = np.arange(9) % 7

def everything():
    output, state, tape = lstm.forward(x, lengths=lengths)
    d_x, d_state, grads = lstm.backward(tape, output, state)
    return [output, *state, d_x, *d_state, *grads.values()]

with set_num_threads(1):
    expected = everything()
set_num_threads(4)
print([np.array_equal(a, b) for a, b in zip(everything(), expected)].count(False))
"""


@pytest.mark.parametrize("least_sequences", [0, 1 << 30])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_fewer_threads_than_were_asked_for_do_all_the_work(most: int, least_sequences: int) -> None:
    """OpenMP's own limit is below our number: the team is smaller than the shares are many."""
    limit = {"OMP_THREAD_LIMIT": str(most), "FASTLSTM_ISA": _core.ISA}
    assert run_python("-c", SMALL_TEAM, str(least_sequences), environment=limit).strip() == "0"


# --- cuts in time --------------------------------------------------------------------------------


@given(batches.filter(lambda batch: not batch.lstm.bidirectional), st.integers(1, 9), some_threads)
def test_a_stream_is_the_sequence(
    batch: Batch, stride: int, on_threads: AbstractContextManager[None]
) -> None:
    """Fed a step at a time, or a few, with the state carried; of one direction."""
    with on_threads:
        expected = batch.lstm(batch.x, batch.state)
    for each in (1, stride):
        state, outputs = batch.state, []
        for t in range(0, len(batch.x), each):
            output, state = batch.lstm(batch.x[t : t + each], state)
            outputs.append(output)
        assert_same((np.concatenate(outputs), state), expected)
    stream = batch.lstm.stream(batch.x.shape[1])
    stream.state = batch.state
    assert_same((np.stack([stream.step(x_t) for x_t in batch.x]), stream.state), expected)


def test_so_it_is_over_many_steps() -> None:
    """300 steps one at a time, alone, against the sequence in the company of others."""
    batch = make_batch(4, steps=300, batch=13, input_size=8, hidden_size=100, num_layers=2)
    output, (h_n, c_n) = batch.lstm(batch.x, batch.state)
    stream = batch.lstm.stream()
    state = stream.state = batch.state[0][:, 5], batch.state[1][:, 5]
    for t in range(300):
        step, state = batch.lstm(batch.x[t : t + 1, 5], state)
        assert_same_bits(step[0], output[t, 5], f"step {t}")
        assert_same_bits(stream.step(batch.x[t, 5]), output[t, 5], f"step {t}")
    for h, c in (state, stream.state):
        assert_same_bits(h, h_n[:, 5], "h_n")
        assert_same_bits(c, c_n[:, 5], "c_n")


# --- the initial state ---------------------------------------------------------------------------


@given(batches, st.booleans(), some_threads)
def test_no_state_is_a_state_of_zeros(
    batch: Batch, with_lengths: bool, on_threads: AbstractContextManager[None]
) -> None:
    """Left out of the product, they change nothing (but for the sign of a zero)."""
    lengths = batch.lengths if with_lengths else None
    h_0, c_0 = np.zeros_like(batch.state[0]), np.zeros_like(batch.state[1])
    with on_threads:
        without = batch.lstm(batch.x, lengths=lengths)
    assert_same(without, batch.lstm(batch.x, (h_0, c_0), lengths=lengths))
    output, state, _ = batch.lstm.forward(batch.x, lengths=lengths)
    assert_same((output, state), without)


# --- the other instruction sets ------------------------------------------------------------------


@pytest.mark.parametrize("isa", ["avx512", "avx2", "neon"])
def test_every_other_instruction_set_keeps_them_too(isa: str) -> None:
    """All tests of this file but this one, in a process that has picked that set."""
    chosen = {"FASTLSTM_ISA": isa}
    if isa == _core.ISA:
        pytest.skip("this process has it")
    if "not supported" in start_python("-c", "import fastlstm", environment=chosen).stderr:
        pytest.skip(f"this machine has no {isa}")
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not every_other", __file__]
    printed = run_python(*command, environment=chosen, timeout=300)
    assert " passed" in printed
    assert "skipped" not in printed
