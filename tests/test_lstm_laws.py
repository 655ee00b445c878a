"""Laws that an LSTM obeys whatever its sizes, options, weights and inputs.

On the BLAS path a product may round otherwise when it has other rows beside it, so a law that
changes the batch or cuts the sequence holds to rounding; where the same products are computed it
holds to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, set_num_threads
from fastlstm import threads as threads_module
from tests.support import (
    Array,
    State,
    assert_close,
    assert_same_bits,
    normal,
    output_shape,
    plain_lstm,
    random_state,
    tolerance_of,
)

ROUNDING = 1e-12  # everything here is computed in float64


@dataclass
class Problem:
    """A random layer and a batch for it, time first, with gradients that arrive."""

    lstm: LSTM
    x: Array
    state: State
    lengths: Array
    d_output: Array
    d_state: State

    def backward(self, lengths: Array | None) -> dict[str, Array]:
        _, _, tape = self.lstm.forward(self.x, self.state, lengths=lengths)
        d_x, (d_h_0, d_c_0), grads = self.lstm.backward(tape, self.d_output, self.d_state)
        return {"d_x": d_x, "d_h_0": d_h_0, "d_c_0": d_c_0} | grads


def make_problem(
    seed: int,
    *,
    steps: int,
    batch: int,
    input_size: int = 3,
    hidden_size: int = 4,
    num_layers: int = 1,
    bias: bool = True,
    bidirectional: bool = False,
) -> Problem:
    rng = np.random.default_rng(seed)
    lstm = LSTM(
        input_size, hidden_size, num_layers, bias=bias, bidirectional=bidirectional,
        dtype=np.float64,
    )  # fmt: skip
    # Wide enough to bend every gate, narrow enough that the network is not chaotic: a chaotic one
    # makes any rounding grow from step to step.
    scale = 1.2 / math.sqrt(hidden_size)
    lstm.load_state_dict({k: scale * normal(rng, v.shape) for k, v in lstm.parameters().items()})
    return Problem(
        lstm=lstm,
        x=normal(rng, (steps, batch, input_size)),
        state=random_state(rng, lstm, batch),
        lengths=rng.integers(0, steps + 1, batch),
        d_output=normal(rng, output_shape(lstm, steps, batch)),
        d_state=random_state(rng, lstm, batch),
    )


problems = st.builds(
    make_problem,
    st.integers(0, 2**32 - 1),
    steps=st.integers(1, 7),
    batch=st.integers(1, 6),
    input_size=st.integers(1, 5),
    hidden_size=st.integers(1, 9),
    num_layers=st.integers(1, 3),
    bias=st.booleans(),
    bidirectional=st.booleans(),
)


def past_the_ends(problem: Problem) -> Array:
    """(T, B): True where a sequence has no such step."""
    past: Array = np.arange(len(problem.x))[:, np.newaxis] >= problem.lengths
    return past


def same_batch_first(lstm: LSTM) -> LSTM:
    """The same layer with batch_first."""
    other = LSTM(
        lstm.input_size, lstm.hidden_size, lstm.num_layers, bias=lstm.bias, batch_first=True,
        bidirectional=lstm.bidirectional, dtype=lstm.dtype,
    )  # fmt: skip
    other.load_state_dict(lstm.state_dict())
    return other


# --- what a call computes ------------------------------------------------------------------------


@given(problems, st.booleans(), st.booleans())
def test_a_batch_is_its_sequences_each_computed_alone(
    problem: Problem, with_state: bool, with_lengths: bool
) -> None:
    """... by an LSTM written down the plain way, which knows neither batches nor packing."""
    state = problem.state if with_state else None
    lengths = problem.lengths if with_lengths else None
    output, final = problem.lstm(problem.x, state, lengths=lengths)
    expected, expected_final = plain_lstm(problem.lstm, problem.x, state, lengths)
    assert_close(output, expected, ROUNDING, "output")
    assert_close(final[0], expected_final[0], ROUNDING, "h_n")
    assert_close(final[1], expected_final[1], ROUNDING, "c_n")


@given(problems, st.booleans())
def test_forward_gives_the_bits_of_a_call(problem: Problem, with_lengths: bool) -> None:
    lengths = problem.lengths if with_lengths else None
    called, (h_called, c_called) = problem.lstm(problem.x, problem.state, lengths=lengths)
    output, (h_n, c_n), _ = problem.lstm.forward(problem.x, problem.state, lengths=lengths)
    assert_same_bits(output, called, "output")
    assert_same_bits(h_n, h_called, "h_n")
    assert_same_bits(c_n, c_called, "c_n")


@given(problems)
def test_no_state_is_a_state_of_zeros(problem: Problem) -> None:
    zeros = tuple(np.zeros_like(array) for array in problem.state)
    for lengths in (None, problem.lengths):
        without = problem.lstm(problem.x, lengths=lengths)
        explicit = problem.lstm(problem.x, (zeros[0], zeros[1]), lengths=lengths)
        assert_same_bits(without[0], explicit[0], "output")
        assert_same_bits(without[1][0], explicit[1][0], "h_n")
        assert_same_bits(without[1][1], explicit[1][1], "c_n")


@given(problems)
def test_full_lengths_are_no_lengths(problem: Problem) -> None:
    full = np.full(problem.x.shape[1], len(problem.x))
    expected = problem.backward(None)
    for name, actual in problem.backward(full).items():
        assert_same_bits(actual, expected[name], name)


@given(problems, st.integers(0, 7))
def test_a_sequence_goes_on_where_the_state_left_off(problem: Problem, cut: int) -> None:
    """Two calls with the state carried are one call; of one direction, for the other knows more."""
    if problem.lstm.bidirectional:
        problem = make_problem(cut, steps=len(problem.x), batch=problem.x.shape[1], num_layers=2)
    cut = min(cut, len(problem.x))
    expected, (h_n, c_n) = problem.lstm(problem.x, problem.state)
    first, state = problem.lstm(problem.x[:cut], problem.state)
    second, state = problem.lstm(problem.x[cut:], state)
    assert_close(np.concatenate([first, second]), expected, ROUNDING, "output")
    assert_close(state[0], h_n, ROUNDING, "h_n")
    assert_close(state[1], c_n, ROUNDING, "c_n")


@given(problems)
def test_the_last_output_is_the_final_state(problem: Problem) -> None:
    output, (h_n, _) = problem.lstm(problem.x, problem.state, lengths=problem.lengths)
    hidden = problem.lstm.hidden_size
    for b, length in enumerate(problem.lengths):
        if length:
            last = -2 if problem.lstm.bidirectional else -1
            np.testing.assert_array_equal(output[length - 1, b, :hidden], h_n[last, b])
            if problem.lstm.bidirectional:
                np.testing.assert_array_equal(output[0, b, hidden:], h_n[-1, b])


@given(problems)
def test_permuting_the_batch_permutes_the_results(problem: Problem) -> None:
    order = np.random.default_rng(0).permutation(problem.x.shape[1])
    permuted = Problem(
        problem.lstm,
        problem.x[:, order],
        (problem.state[0][:, order], problem.state[1][:, order]),
        problem.lengths[order],
        problem.d_output[:, order],
        (problem.d_state[0][:, order], problem.d_state[1][:, order]),
    )
    output, _ = problem.lstm(problem.x, problem.state, lengths=problem.lengths)
    actual, _ = problem.lstm(permuted.x, permuted.state, lengths=permuted.lengths)
    assert_close(actual, output[:, order], ROUNDING, "output")
    expected = problem.backward(problem.lengths)
    for name, array in permuted.backward(permuted.lengths).items():
        along_batch = name in ("d_x", "d_h_0", "d_c_0")
        reference = expected[name][:, order] if along_batch else expected[name]
        assert_close(array, reference, ROUNDING, name)


@given(problems)
def test_gradients_of_a_batch_are_those_of_its_sequences(problem: Problem) -> None:
    """Parameters' gradients add up; what belongs to a sequence is its own."""
    expected = problem.backward(problem.lengths)
    totals = {name: np.zeros_like(array) for name, array in expected.items()}
    for b in range(problem.x.shape[1]):
        one = slice(b, b + 1)
        alone = Problem(
            problem.lstm,
            problem.x[:, one],
            (problem.state[0][:, one], problem.state[1][:, one]),
            problem.lengths[one],
            problem.d_output[:, one],
            (problem.d_state[0][:, one], problem.d_state[1][:, one]),
        )
        # Cut to its length instead of telling it.
        length = int(alone.lengths[0])
        alone.x, alone.d_output = alone.x[:length], alone.d_output[:length]
        for name, array in alone.backward(None).items():
            if name == "d_x":
                totals[name][:length, one] = array
            elif name in ("d_h_0", "d_c_0"):
                totals[name][:, one] = array
            else:
                totals[name] += array
    for name, array in expected.items():
        # A sum over sequences may cancel to less than its terms.
        scale = max(1.0, float(np.abs(totals[name]).max(initial=0.0)))
        assert float(np.abs(array - totals[name]).max(initial=0.0)) <= ROUNDING * 10 * scale, name


# --- ends ----------------------------------------------------------------------------------------


@given(problems)
def test_what_lies_past_an_end_is_never_read(problem: Problem) -> None:
    past = past_the_ends(problem)
    expected_output, _ = problem.lstm(problem.x, problem.state, lengths=problem.lengths)
    expected = problem.backward(problem.lengths)
    problem.x[past] = np.nan
    problem.d_output[past] = np.nan
    output, _ = problem.lstm(problem.x, problem.state, lengths=problem.lengths)
    assert_same_bits(output, expected_output, "output")
    for name, actual in problem.backward(problem.lengths).items():
        assert np.isfinite(actual).all(), name
        assert_same_bits(actual, expected[name], name)


@given(problems)
def test_past_an_end_there_are_zeros(problem: Problem) -> None:
    past = past_the_ends(problem)
    output, _ = problem.lstm(problem.x, problem.state, lengths=problem.lengths)
    d_x = problem.backward(problem.lengths)["d_x"]
    assert not output[past].any()
    assert not d_x[past].any()
    assert output[~past].all()  # and not elsewhere
    assert d_x[~past].all()


@given(problems)
def test_a_sequence_of_length_zero_passes_its_state_through(problem: Problem) -> None:
    problem.lengths[0] = 0
    output, final = problem.lstm(problem.x, problem.state, lengths=problem.lengths)
    gradients = problem.backward(problem.lengths)
    assert not output[:, 0].any()
    for k, name in enumerate(("d_h_0", "d_c_0")):
        np.testing.assert_array_equal(final[k][:, 0], problem.state[k][:, 0])
        np.testing.assert_array_equal(gradients[name][:, 0], problem.d_state[k][:, 0])


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (3, 0), (0, 0), (4, 2)])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_nothing_to_compute(
    steps: int, batch: int, bidirectional: bool, with_lengths: bool
) -> None:
    """No steps, no sequences, or only sequences of length 0."""
    problem = make_problem(1, steps=steps, batch=batch, num_layers=2, bidirectional=bidirectional)
    if not with_lengths and steps * batch:
        return
    lengths = np.zeros(batch, np.int32) if with_lengths else None
    for output, (h_n, c_n), *_ in (
        problem.lstm(problem.x, problem.state, lengths=lengths),
        problem.lstm.forward(problem.x, problem.state, lengths=lengths),
    ):
        assert output.shape == (steps, batch, 8 if bidirectional else 4)
        assert not output.any()
        np.testing.assert_array_equal(h_n, problem.state[0])
        np.testing.assert_array_equal(c_n, problem.state[1])
    gradients = problem.backward(lengths)
    np.testing.assert_array_equal(gradients.pop("d_h_0"), problem.d_state[0])
    np.testing.assert_array_equal(gradients.pop("d_c_0"), problem.d_state[1])
    assert gradients["d_x"].shape == problem.x.shape
    for name, array in gradients.items():
        assert not array.any(), name


# --- layouts -------------------------------------------------------------------------------------


@given(problems, st.booleans())
def test_batch_first_is_the_same_with_axes_swapped(problem: Problem, with_lengths: bool) -> None:
    lengths = problem.lengths if with_lengths else None
    other = same_batch_first(problem.lstm)
    expected_output, _ = problem.lstm(problem.x, problem.state, lengths=lengths)
    expected = problem.backward(lengths)
    x, d_output = problem.x.swapaxes(0, 1), problem.d_output.swapaxes(0, 1)
    output, final, tape = other.forward(x, problem.state, lengths=lengths)
    d_x, (d_h_0, d_c_0), grads = other.backward(tape, d_output, problem.d_state)
    assert_same_bits(output, expected_output.swapaxes(0, 1), "output")
    assert_same_bits(d_x, expected["d_x"].swapaxes(0, 1), "d_x")
    assert final[0].shape == problem.state[0].shape
    for name, array in ({"d_h_0": d_h_0, "d_c_0": d_c_0} | grads).items():
        assert_same_bits(array, expected[name], name)


@given(problems, st.booleans())
def test_a_sequence_without_its_batch_axis(problem: Problem, with_length: bool) -> None:
    x, d_output = problem.x[:, :1], problem.d_output[:, :1]
    state = problem.state[0][:, :1], problem.state[1][:, :1]
    d_state = problem.d_state[0][:, :1], problem.d_state[1][:, :1]
    lengths = problem.lengths[:1] if with_length else None
    length = int(problem.lengths[0]) if with_length else None
    output, final, tape = problem.lstm.forward(x, state, lengths=lengths)
    d_x, d_initial, grads = problem.lstm.backward(tape, d_output, d_state)

    flat_output, flat_final, flat_tape = problem.lstm.forward(
        x[:, 0], (state[0][:, 0], state[1][:, 0]), lengths=length
    )
    flat_d_x, flat_d_initial, flat_grads = problem.lstm.backward(
        flat_tape, d_output[:, 0], (d_state[0][:, 0], d_state[1][:, 0])
    )
    assert_same_bits(flat_output, output[:, 0], "output")
    assert_same_bits(flat_d_x, d_x[:, 0], "d_x")
    for k in range(2):
        assert_same_bits(flat_final[k], final[k][:, 0], "state")
        assert_same_bits(flat_d_initial[k], d_initial[k][:, 0], "d_state")
    for name, array in flat_grads.items():
        assert_same_bits(array, grads[name], name)


# --- gradients -----------------------------------------------------------------------------------


@given(problems)
def test_gradients_are_linear_in_what_arrives(problem: Problem) -> None:
    """Output and states each carry their own; nothing is dropped, and None stands for zeros."""

    def run(d_output: Array | None, d_state: tuple[Array | None, Array | None] | None) -> Array:
        _, _, tape = problem.lstm.forward(problem.x, problem.state, lengths=problem.lengths)
        d_x, d_initial, grads = problem.lstm.backward(tape, d_output, d_state)
        return np.concatenate([a.ravel() for a in (d_x, *d_initial, *grads.values())])

    d_h, d_c = problem.d_state
    parts = run(problem.d_output, None) + run(None, (d_h, None)) + run(None, (None, d_c))
    assert_close(parts, run(problem.d_output, problem.d_state), ROUNDING, "sum")
    assert not run(None, None).any()


@given(problems)
def test_two_backward_passes_give_the_same_and_share_nothing(problem: Problem) -> None:
    first, second = problem.backward(problem.lengths), problem.backward(problem.lengths)
    arrays = [*first.values(), *second.values()]
    for k, array in enumerate(arrays):
        assert array.flags.writeable
        for other in arrays[k + 1 :]:
            assert not np.shares_memory(array, other)
    for name, array in first.items():
        assert_same_bits(array, second[name], name)


@given(problems, st.booleans())
def test_nothing_handed_in_is_modified(problem: Problem, with_lengths: bool) -> None:
    handed_in = [problem.x, *problem.state, problem.lengths, problem.d_output, *problem.d_state]
    handed_in += problem.lstm.parameters().values()
    before = [array.copy() for array in handed_in]
    lengths = problem.lengths if with_lengths else None
    problem.lstm(problem.x, problem.state, lengths=lengths)
    problem.backward(lengths)
    for array, copy in zip(handed_in, before, strict=True):
        assert_same_bits(array, copy)


@given(problems, st.booleans())
def test_what_comes_out_may_be_overwritten(problem: Problem, with_lengths: bool) -> None:
    """The tape has copies: neither the results nor the inputs are read again by backward."""
    lengths = problem.lengths if with_lengths else None
    expected = problem.backward(lengths)
    x, state = problem.x.copy(), (problem.state[0].copy(), problem.state[1].copy())
    output, final, tape = problem.lstm.forward(x, state, lengths=lengths)
    for array in (x, output, *state, *final):
        array[...] = np.nan
    d_x, (d_h_0, d_c_0), grads = problem.lstm.backward(tape, problem.d_output, problem.d_state)
    for name, array in ({"d_x": d_x, "d_h_0": d_h_0, "d_c_0": d_c_0} | grads).items():
        assert_same_bits(array, expected[name], name)


# --- large ones ----------------------------------------------------------------------------------


def test_a_hundred_thousand_steps() -> None:
    """No recursion, nothing on the stack that grows; the gradient through them is that of parts."""
    problem = make_problem(3, steps=100_000, batch=1, input_size=1, hidden_size=2)
    lstm, half = problem.lstm, 49_999
    output, (h_n, c_n), tape = lstm.forward(problem.x, problem.state)
    d_x, d_initial, _ = lstm.backward(tape, problem.d_output, problem.d_state)

    first, middle, first_tape = lstm.forward(problem.x[:half], problem.state)
    second, final, second_tape = lstm.forward(problem.x[half:], middle)
    assert_close(np.concatenate([first, second]), output, ROUNDING, "output")
    assert_close(final[0], h_n, ROUNDING, "h_n")
    assert_close(final[1], c_n, ROUNDING, "c_n")
    d_second, d_middle, _ = lstm.backward(second_tape, problem.d_output[half:], problem.d_state)
    d_first, d_start, _ = lstm.backward(first_tape, problem.d_output[:half], d_middle)
    assert_close(np.concatenate([d_first, d_second]), d_x, ROUNDING, "d_x")
    assert_close(d_start[0], d_initial[0], ROUNDING, "d_h_0")
    assert_close(d_start[1], d_initial[1], ROUNDING, "d_c_0")


# Lengths such that blocks of sequences are even, uneven, or for some threads empty.
THREADED_LENGTHS = {
    "none": None,
    "even": np.arange(12) % 5 + 40,
    "uneven": np.array([60, 1, 0, 2, 1, 0, 0, 3, 1, 1, 0, 1]),
    "one": np.array([0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("lengths", THREADED_LENGTHS.values(), ids=THREADED_LENGTHS)
@pytest.mark.parametrize("threads", [2, 3, 16])
def test_the_number_of_threads_does_not_matter(
    threads: int, lengths: Array | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of the time loop against one, at any size of the work."""
    monkeypatch.setattr(threads_module, "LEAST_WORK", 0)
    problem = make_problem(
        4, steps=60, batch=12, input_size=11, hidden_size=21, num_layers=2, bidirectional=True
    )
    set_num_threads(1)
    expected_output, expected_final = problem.lstm(problem.x, problem.state, lengths=lengths)
    expected = problem.backward(lengths)
    set_num_threads(threads)
    output, final = problem.lstm(problem.x, problem.state, lengths=lengths)
    assert_close(output, expected_output, ROUNDING, "output")
    assert_close(final[0], expected_final[0], ROUNDING, "h_n")
    assert_close(final[1], expected_final[1], ROUNDING, "c_n")
    for name, array in problem.backward(lengths).items():
        assert_close(array, expected[name], ROUNDING, name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_begin_by_themselves_where_the_work_is_large(dtype: type) -> None:
    rng = np.random.default_rng(5)
    lstm = LSTM(50, 100, dtype=dtype, rng=rng)
    x = normal(rng, (40, 16, 50), dtype)
    operations = 8 * 40 * 16 * 100 * 150
    assert operations > 2 * threads_module.LEAST_WORK
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        output, _, tape = lstm.forward(x)
        d_x, _, grads = lstm.backward(tape, normal(np.random.default_rng(6), output.shape, dtype))
        results.append({"output": output, "d_x": d_x} | grads)
    for name, array in results[0].items():
        assert_close(results[1][name], array, tolerance_of(dtype), name)
