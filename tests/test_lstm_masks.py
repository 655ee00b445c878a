"""Masks: holes are left out of the sequence, and hold the output of the step before.

test_keras_semantics.py compares the same with Keras itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, RNN, _core
from tests.finite_differences import gradient
from tests.support import (
    Array,
    State,
    assert_close,
    assert_same_bits,
    normal,
    output_shape,
    plain_lstm,
    random_state,
)

ROUNDING = 1e-12
TOLERANCE = 1e-6  # of central differences


def held(mask: Array, valid: Array, backwards: bool) -> Array:
    """What is said of outputs at holes, one sequence at a time and step by step.

    valid (T, B, H) counts where mask (T, B) is true.
    """
    output = np.zeros_like(valid)
    steps = range(len(mask))
    for b in range(mask.shape[1]):
        before = np.zeros(valid.shape[2])
        for t in reversed(steps) if backwards else steps:
            if mask[t, b]:
                before = valid[t, b]
            output[t, b] = before
    return output


def to_the_front(mask: Array, x: Array) -> Array:
    """(T, B, features): the valid steps of each sequence first, then zeros."""
    moved = np.zeros_like(x)
    for b in range(mask.shape[1]):
        moved[: mask[:, b].sum(), b] = x[mask[:, b], b]
    return moved


def from_the_front(mask: Array, moved: Array) -> Array:
    """The way back: zeros at the holes."""
    x = np.zeros_like(moved)
    for b in range(mask.shape[1]):
        x[mask[:, b], b] = moved[: mask[:, b].sum(), b]
    return x


def masked_lstm(lstm: LSTM, x: Array, state: State, mask: Array) -> tuple[Array, State]:
    """What ``lstm(x, state, mask=mask)`` means, by an LSTM written down the plain way."""
    moved, states = plain_lstm(lstm, to_the_front(mask, x), state, mask.sum(axis=0))
    valid = from_the_front(mask, moved)
    hidden = lstm.hidden_size
    parts = [held(mask, valid[..., :hidden], backwards=False)]
    if lstm.bidirectional:
        parts.append(held(mask, valid[..., hidden:], backwards=True))
    return np.concatenate(parts, axis=2), states


@dataclass
class Problem:
    """A random layer and a batch with holes for it, time first, with gradients that arrive."""

    lstm: LSTM
    x: Array
    state: State
    mask: Array
    d_output: Array
    d_state: State

    def backward(self) -> dict[str, Array]:
        _, _, tape = self.lstm.forward(self.x, self.state, mask=self.mask)
        d_x, (d_h_0, d_c_0), grads = self.lstm.backward(tape, self.d_output, self.d_state)
        return {"x": d_x, "h_0": d_h_0, "c_0": d_c_0} | grads


def make_problem(
    seed: int,
    *,
    steps: int = 5,
    batch: int = 4,
    num_layers: int = 1,
    bidirectional: bool = False,
    fullness: float = 0.6,
) -> Problem:
    rng = np.random.default_rng(seed)
    lstm = LSTM(3, 4, num_layers, bidirectional=bidirectional, dtype=np.float64, rng=rng)
    return Problem(
        lstm=lstm,
        x=normal(rng, (steps, batch, 3)),
        state=random_state(rng, lstm, batch),
        mask=rng.random((steps, batch)) < fullness,
        d_output=normal(rng, output_shape(lstm, steps, batch)),
        d_state=random_state(rng, lstm, batch),
    )


problems = st.builds(
    make_problem,
    st.integers(0, 2**32 - 1),
    steps=st.integers(1, 9),
    batch=st.integers(1, 6),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    fullness=st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0]),
)

# Right padding, left padding, holes, both ends, nothing at all.
EVERY_KIND = np.array(
    [
        [1, 0, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1, 0, 0],
    ],
    bool,
)


# --- what a call computes ------------------------------------------------------------------------


@given(problems)
def test_a_hole_is_left_out_and_holds_the_output_before(problem: Problem) -> None:
    output, states = problem.lstm(problem.x, problem.state, mask=problem.mask)
    expected, expected_states = masked_lstm(problem.lstm, problem.x, problem.state, problem.mask)
    assert_close(output, expected, ROUNDING, "output")
    for name, actual, wanted in zip(("h_n", "c_n"), states, expected_states, strict=True):
        assert_close(actual, wanted, ROUNDING, name)


@given(problems)
def test_valid_steps_have_the_bits_of_the_same_sequence_without_holes(problem: Problem) -> None:
    mask, (h, c) = problem.mask, problem.state
    output, (h_n, c_n) = problem.lstm(problem.x, (h, c), mask=mask)
    moved, moved_states = problem.lstm(
        to_the_front(mask, problem.x), (h, c), lengths=mask.sum(axis=0)
    )
    assert_same_bits(output[mask], from_the_front(mask, moved)[mask])
    assert_same_bits(h_n, moved_states[0])
    assert_same_bits(c_n, moved_states[1])


@given(problems)
def test_forward_has_the_bits_of_a_call_and_x_at_holes_is_never_read(problem: Problem) -> None:
    called, called_states = problem.lstm(problem.x, problem.state, mask=problem.mask)
    grads = problem.backward()
    problem.x[~problem.mask] = np.nan
    output, states, tape = problem.lstm.forward(problem.x, problem.state, mask=problem.mask)
    assert_same_bits(output, called)
    for actual, expected in zip(states, called_states, strict=True):
        assert_same_bits(actual, expected)
    d_x, _, _ = problem.lstm.backward(tape, problem.d_output, problem.d_state)
    assert_same_bits(d_x, grads["x"])
    assert not d_x[~problem.mask].any()


@given(problems)
def test_gradients_are_those_of_the_sequence_without_holes(problem: Problem) -> None:
    """... when what arrives at a hole is added to what arrives at the step that it holds."""
    lstm, mask, hidden = problem.lstm, problem.mask, problem.lstm.hidden_size
    gathered = np.zeros_like(problem.d_output)
    for k in range(2 if lstm.bidirectional else 1):
        columns = slice(k * hidden, (k + 1) * hidden)
        for b in range(mask.shape[1]):
            waiting = np.zeros(hidden)  # for the step that the holes hold
            steps = range(len(mask))
            for t in steps if k else reversed(steps):
                waiting += problem.d_output[t, b, columns]
                if mask[t, b]:
                    gathered[t, b, columns], waiting = waiting, np.zeros(hidden)
    moved_x = to_the_front(mask, problem.x)
    _, _, tape = lstm.forward(moved_x, problem.state, lengths=mask.sum(axis=0))
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, to_the_front(mask, gathered), problem.d_state)
    expected = {"x": from_the_front(mask, d_x), "h_0": d_h_0, "c_0": d_c_0} | grads
    for name, actual in problem.backward().items():
        assert_close(actual, expected[name], ROUNDING, name)


@given(problems)
def test_a_mask_without_holes_changes_nothing(problem: Problem) -> None:
    problem.mask[...] = True
    masked = problem.lstm(problem.x, problem.state, mask=problem.mask)
    plain = problem.lstm(problem.x, problem.state)
    assert_same_bits(masked[0], plain[0])
    for actual, expected in zip(masked[1], plain[1], strict=True):
        assert_same_bits(actual, expected)


@given(problems)
def test_a_right_padded_mask_differs_from_lengths_past_the_ends_alone(problem: Problem) -> None:
    lengths = problem.mask.sum(axis=0)
    mask = np.arange(len(problem.x))[:, np.newaxis] < lengths
    output, states = problem.lstm(problem.x, problem.state, mask=mask)
    expected, expected_states = problem.lstm(problem.x, problem.state, lengths=lengths)
    assert_same_bits(output * mask[..., np.newaxis], expected)
    for actual, wanted in zip(states, expected_states, strict=True):
        assert_same_bits(actual, wanted)
    hidden = problem.lstm.hidden_size
    for b, length in enumerate(lengths):
        last = expected[length - 1, b, :hidden] if length else np.zeros(hidden)
        assert_same_bits(output[length:, b, :hidden], np.tile(last, (len(mask) - length, 1)))
        assert not output[length:, b, hidden:].any()  # nothing is before, for who runs backwards


@pytest.mark.parametrize("bidirectional", [False, True])
def test_without_a_valid_step_the_state_passes_and_the_output_is_zero(bidirectional: bool) -> None:
    problem = make_problem(3, num_layers=2, bidirectional=bidirectional)
    mask = np.zeros_like(problem.mask)
    output, states, tape = problem.lstm.forward(problem.x, problem.state, mask=mask)
    assert not output.any()
    d_x, d_state, grads = problem.lstm.backward(tape, problem.d_output, problem.d_state)
    for actual, expected in zip(
        (*states, *d_state), (*problem.state, *problem.d_state), strict=True
    ):
        assert_same_bits(actual, expected)
    assert not d_x.any()
    assert not any(grad.any() for grad in grads.values())


def test_an_example_in_full() -> None:
    """Right of an arrow is what a step holds: outputs of 1, 3, 4 stand at 0 -> nothing, 2 -> 1."""
    rng = np.random.default_rng(0)
    lstm = LSTM(2, 3, bidirectional=True, dtype=np.float64, rng=rng)
    x = normal(rng, (6, 2))
    alone, _ = lstm(x[[1, 3, 4]])
    output, _ = lstm(x, mask=np.array([0, 1, 0, 1, 1, 0], bool))
    zero = np.zeros(3)
    one, three, four = alone[:, :3]
    np.testing.assert_allclose(output[:, :3], [zero, one, one, three, four, four], rtol=1e-12)
    one, three, four = alone[:, 3:]
    np.testing.assert_allclose(output[:, 3:], [one, one, three, three, four, zero], rtol=1e-12)


# --- layouts, and what the mask may be -----------------------------------------------------------


def test_batch_first_and_single_sequences_have_masks_in_their_layout() -> None:
    problem = make_problem(4, num_layers=2, bidirectional=True)
    lstm, mask = problem.lstm, problem.mask
    expected, states = lstm(problem.x, problem.state, mask=mask)
    grads = problem.backward()
    other = LSTM(3, 4, 2, bidirectional=True, batch_first=True, dtype=np.float64)
    other.load_state_dict(lstm.state_dict())
    output, other_states, tape = other.forward(problem.x.swapaxes(0, 1), problem.state, mask=mask.T)
    assert_same_bits(output, expected.swapaxes(0, 1))
    assert_same_bits(other_states[1], states[1])
    d_x, _, other_grads = other.backward(tape, problem.d_output.swapaxes(0, 1), problem.d_state)
    assert_same_bits(d_x, grads["x"].swapaxes(0, 1))
    assert_same_bits(other_grads["weight_hh_l1"], grads["weight_hh_l1"])
    for layer in (lstm, other):
        h, c = problem.state
        single, _, tape = layer.forward(problem.x[:, 1], (h[:, 1], c[:, 1]), mask=mask[:, 1])
        assert_close(single, expected[:, 1], ROUNDING)
        d_x, _, _ = layer.backward(
            tape, problem.d_output[:, 1], (problem.d_state[0][:, 1], problem.d_state[1][:, 1])
        )
        assert_close(d_x, grads["x"][:, 1], ROUNDING)


def test_a_tape_keeps_the_mask_that_forward_saw() -> None:
    problem = make_problem(5, bidirectional=True)
    expected = problem.backward()
    mask = problem.mask.copy()
    _, _, tape = problem.lstm.forward(problem.x, problem.state, mask=mask)
    mask[...] = ~mask
    d_output = problem.d_output.copy()
    d_x, _, _ = problem.lstm.backward(tape, d_output, problem.d_state)
    assert_same_bits(d_x, expected["x"])
    assert_same_bits(d_output, problem.d_output)  # nor is the gradient changed where it was read


def test_any_memory_layout_of_a_mask_will_do() -> None:
    problem = make_problem(6)
    expected, _ = problem.lstm(problem.x, mask=problem.mask)
    for mask in (np.asfortranarray(problem.mask), problem.mask.repeat(2, axis=1)[:, ::2]):
        assert_same_bits(problem.lstm(problem.x, mask=mask)[0], expected)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_a_mask_of_an_empty_batch(shape: tuple[int, int]) -> None:
    problem = make_problem(7, bidirectional=True)
    x = np.zeros((*shape, 3))
    output, (h_n, _), tape = problem.lstm.forward(x, mask=np.zeros(shape, bool))
    assert output.shape == (*shape, 8)
    assert h_n.shape == (2, shape[1], 4)
    assert problem.lstm.backward(tape, output)[0].shape == x.shape


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (np.ones((5, 4)), TypeError, "mask: expected an array of bool, got float64"),
        (np.ones((5, 4), np.int8), TypeError, "mask: expected an array of bool, got int8"),
        ([[True] * 4] * 5, TypeError, "mask: expected a numpy.ndarray of bool, got a list"),
        (np.ones((4, 5), bool), ValueError, r"mask: expected shape \(5, 4\), got \(4, 5\)"),
        (np.ones(5, bool), ValueError, r"mask: expected shape \(5, 4\), got \(5,\)"),
        (np.ones((5, 4, 1), bool), ValueError, "mask: expected shape"),
    ],
)
def test_what_is_no_mask_is_refused(mask: object, error: type[Exception], words: str) -> None:
    problem = make_problem(8)
    layers = [problem.lstm, RNN(3, 4, dtype=np.float64)]
    for call in [call for layer in layers for call in (layer, layer.forward)]:
        with pytest.raises(error, match=words):
            call(problem.x, mask=mask)


def test_batch_first_is_meant_in_the_refusal() -> None:
    lstm = LSTM(3, 4, batch_first=True)
    with pytest.raises(ValueError, match=r"mask: expected shape \(5, 2\), got \(2, 5\)"):
        lstm(np.zeros((5, 2, 3), np.float32), mask=np.ones((2, 5), bool))


def test_mask_and_lengths_together_are_refused() -> None:
    problem = make_problem(9)
    layers = [problem.lstm, RNN(3, 4, dtype=np.float64)]
    for call in [call for layer in layers for call in (layer, layer.forward)]:
        with pytest.raises(ValueError, match="mask: expected either mask or lengths, got both"):
            call(problem.x, mask=problem.mask, lengths=np.full(4, 5))


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_gradients_element_by_element(num_layers: int, bidirectional: bool, batched: bool) -> None:
    """Against central differences, x at the holes included: there they are zero."""
    rng = np.random.default_rng(10)
    lstm = LSTM(2, 2, num_layers, bidirectional=bidirectional, dtype=np.float64, rng=rng)
    mask = EVERY_KIND if batched else EVERY_KIND[:, 2]
    h_0, c_0 = random_state(rng, lstm, 5 if batched else None)
    d_state = random_state(rng, lstm, 5 if batched else None)
    d_output = normal(rng, (*mask.shape, 4 if bidirectional else 2))
    arrays = {"x": normal(rng, (*mask.shape, 2)), "h_0": h_0, "c_0": c_0} | lstm.state_dict()

    def loss(moved: dict[str, Array]) -> float:
        lstm.load_state_dict({name: moved[name] for name in lstm.parameters()})
        output, (h_n, c_n) = lstm(moved["x"], (moved["h_0"], moved["c_0"]), mask=mask)
        sums = (output * d_output).sum() + (h_n * d_state[0]).sum() + (c_n * d_state[1]).sum()
        return float(sums)

    expected = gradient(loss, arrays)
    lstm.load_state_dict({name: arrays[name] for name in lstm.parameters()})
    _, _, tape = lstm.forward(arrays["x"], (h_0, c_0), mask=mask)
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, d_output, d_state)
    for name, actual in ({"x": d_x, "h_0": d_h_0, "c_0": d_c_0} | grads).items():
        assert_close(actual, expected[name], TOLERANCE, name)


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
@pytest.mark.parametrize(
    "cell",
    [
        {"proj_size": 1, "peepholes": True},
        {"layer_norm": True},
        {"clip": 1.5, "input_forget": True, "zoneout": 0.3},
        {"recurrent_dropout": 0.4, "input_dropout": 0.3, "weight_dropout": 0.2},
    ],
    ids=str,
)
def test_gradients_of_other_cells(direction: str, cell: dict[str, Any]) -> None:
    """Whatever a step is: holes are left out of it, and directions run as they do elsewhere."""
    rng = np.random.default_rng(14)
    lstm = LSTM(
        2, 3, bidirectional=direction == "bidirectional", reverse=direction == "reverse",
        dtype=np.float64, rng=rng, **cell,
    )  # fmt: skip
    x, mask = normal(rng, (5, 5, 2)), EVERY_KIND
    output, (h_n, c_n) = lstm(x)
    d_output, d_h_n, d_c_n = (normal(rng, a.shape) for a in (output, h_n, c_n))
    arrays = {"x": x, "h_0": normal(rng, h_n.shape), "c_0": normal(rng, c_n.shape)}
    arrays |= {name: array + 0.1 for name, array in lstm.state_dict().items()}

    def run(moved: dict[str, Array]) -> tuple[Array, State, Any]:
        lstm.load_state_dict({name: moved[name] for name in lstm.parameters()})
        state = moved["h_0"], moved["c_0"]
        return lstm.forward(moved["x"], state, mask=mask, rng=np.random.default_rng(15))

    def loss(moved: dict[str, Array]) -> float:
        output, (h_n, c_n), _ = run(moved)
        return float((output * d_output).sum() + (h_n * d_h_n).sum() + (c_n * d_c_n).sum())

    # A short step: layer normalisation of nearly equal numbers bends.
    expected = gradient(loss, arrays, step=1e-4)
    _, _, tape = run(arrays)
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, d_output, (d_h_n, d_c_n))
    for name, actual in ({"x": d_x, "h_0": d_h_0, "c_0": d_c_0} | grads).items():
        assert_close(actual, expected[name], TOLERANCE, name)


def test_what_arrives_before_the_first_valid_step_goes_nowhere() -> None:
    problem = make_problem(11, bidirectional=True, batch=5)
    problem.mask[...] = EVERY_KIND
    expected = problem.backward()
    hidden = problem.lstm.hidden_size
    for b in range(5):
        valid = np.flatnonzero(EVERY_KIND[:, b])
        first, last = (valid[0], valid[-1]) if len(valid) else (5, -1)
        problem.d_output[:first, b, :hidden] = np.nan
        problem.d_output[last + 1 :, b, hidden:] = np.nan
    for name, actual in problem.backward().items():
        assert_same_bits(actual, expected[name], name)


def test_an_infinite_gradient_at_a_hole_warns_no_more_than_elsewhere() -> None:
    problem = make_problem(12)
    problem.mask[...] = True
    problem.mask[2:4] = False
    problem.d_output[2], problem.d_output[3] = np.inf, -np.inf
    assert np.isnan(problem.backward()["x"]).any()


# --- the promises --------------------------------------------------------------------------------


@pytest.mark.skipif(not _core.VECTOR[4], reason="BLAS promises no bits")
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([np.float32, np.float64]))
def test_company_does_not_matter(seed: int, bidirectional: bool, dtype: type) -> None:
    """Each sequence has the bits that its valid steps have alone."""
    rng = np.random.default_rng(seed)
    lstm = LSTM(5, 19, 2, bidirectional=bidirectional, dtype=dtype, rng=rng)
    x = normal(rng, (7, 6, 5), dtype)
    h, c = random_state(rng, lstm, 6)
    mask = rng.random((7, 6)) < 0.7
    output, (h_n, c_n) = lstm(x, (h, c), mask=mask)
    for b in range(6):
        valid = mask[:, b]
        alone, (h_b, c_b) = lstm(x[valid, b], (h[:, b], c[:, b]))
        assert_same_bits(output[valid, b], alone)
        assert_same_bits(h_n[:, b], h_b)
        assert_same_bits(c_n[:, b], c_b)


# --- the plain RNN, which packs in the same way --------------------------------------------------


def test_a_plain_rnn_has_masks_too() -> None:
    rng = np.random.default_rng(13)
    rnn = RNN(2, 3, dtype=np.float64, rng=rng)
    mask, d_output = EVERY_KIND, normal(rng, (5, 5, 3))
    d_state = normal(rng, (1, 5, 3))
    arrays = {"x": normal(rng, (5, 5, 2)), "h_0": normal(rng, (1, 5, 3))}
    output, h_n, tape = rnn.forward(arrays["x"], arrays["h_0"], mask=mask)
    moved, moved_h_n = rnn(to_the_front(mask, arrays["x"]), arrays["h_0"], lengths=mask.sum(axis=0))
    assert_same_bits(output, held(mask, from_the_front(mask, moved), backwards=False))
    assert_same_bits(h_n, moved_h_n)
    assert_same_bits(rnn(arrays["x"], arrays["h_0"], mask=mask)[0], output)

    def loss(at: dict[str, Array]) -> float:
        output, h_n = rnn(at["x"], at["h_0"], mask=mask)
        return float((output * d_output).sum() + (h_n * d_state).sum())

    expected = gradient(loss, arrays)
    d_x, d_h_0, _ = rnn.backward(tape, d_output, d_state)
    assert_close(d_x, expected["x"], TOLERANCE)
    assert_close(d_h_0, expected["h_0"], TOLERANCE)
