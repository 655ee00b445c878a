"""Activation checkpointing: the same gradients from a much smaller tape.

On the packed path the same to the bit, on BLAS but for rounding.
"""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, _core, _scratch, _stack, set_num_threads, threads
from fastlstm._recompute import segments, whole
from fastlstm.packing import Packing
from tests.finite_differences import gradient
from tests.support import (
    Array,
    assert_close,
    assert_same_bits,
    normal,
    output_shape,
    random_state,
    run_case,
    tolerance_of,
)
from tests.witnesses.cases import SMALL, draw
from tests.witnesses.stored import SMALL_SEEDS, stored_results

DTYPES = [np.float32, np.float64]


@pytest.fixture(autouse=True, scope="module")
def _cut_small_cases_too() -> Iterator[None]:
    """Runs and chunks of 64 rows, and threads, where a test asks for them, at any size."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threads, "_num_threads", 1)
        patched.setattr(threads, "LEAST_WORK", 0)
        patched.setattr(_stack, "LEAST_STEP_WORK", 0)
        patched.setattr(_stack, "CHUNK_BYTES", 1)
        patched.setattr(_stack, "RUN_BYTES", 1)
        yield


# --- the same gradients --------------------------------------------------------------------------


@dataclass
class Problem:
    """A random layer, with a batch for it; time first."""

    lstm: LSTM
    x: Array
    state: tuple[Array, Array] | None
    absence: dict[str, Array]  # lengths, a mask, or nothing
    seed: int
    dropping: bool

    def gradients(self, checkpoint: bool) -> dict[str, Array]:
        """... and outputs."""
        rng = np.random.default_rng(self.seed)
        lstm, dtype = self.lstm, self.x.dtype
        output, (h_n, c_n), tape = lstm.forward(
            self.x, self.state, **self.absence, checkpoint=checkpoint,
            rng=np.random.default_rng(1) if self.dropping else None,
        )  # fmt: skip
        d_output = normal(rng, output.shape, dtype)
        d_state = random_state(rng, lstm, self.x.shape[1])
        d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, d_output, d_state)
        results = {"output": output, "h_n": h_n, "c_n": c_n}
        return results | {"d_x": d_x, "d_h_0": d_h_0, "d_c_0": d_c_0} | grads


@st.composite
def problems(draw_from: st.DrawFn) -> Problem:
    """Of several segments, if steps and sequences are many."""
    seed = draw_from(st.integers(0, 2**32 - 1))
    steps, batch = draw_from(st.integers(1, 150)), draw_from(st.integers(1, 12))
    directions = draw_from(st.sampled_from(["forward", "reverse", "bidirectional"]))
    dropping, num_layers = draw_from(st.booleans()), draw_from(st.integers(1, 3))
    absence = draw_from(st.sampled_from(["none", "lengths", "mask"]))
    dtype = draw_from(st.sampled_from(DTYPES))
    rng = np.random.default_rng(seed)
    lstm = LSTM(
        draw_from(st.sampled_from([1, 4, 70])),
        draw_from(st.sampled_from([1, 7, 16, 37, 70])),
        num_layers,
        bias=draw_from(st.booleans()),
        dropout=0.3 if dropping and num_layers > 1 else 0.0,
        bidirectional=directions == "bidirectional",
        reverse=directions == "reverse",
        input_dropout=0.2 if dropping else 0.0,
        locked_dropout=draw_from(st.booleans()),
        weight_dropout=0.2 if dropping else 0.0,
        dtype=dtype,
        rng=rng,
    )
    absences = {
        "none": {},
        "lengths": {"lengths": rng.integers(0, steps + 1, batch)},
        "mask": {"mask": rng.random((steps, batch)) < 0.8},
    }
    x = normal(rng, (steps, batch, lstm.input_size), dtype)
    state = random_state(rng, lstm, batch) if draw_from(st.booleans()) else None
    return Problem(lstm, x, state, absences[absence], seed, dropping)


def assert_alike(actual: dict[str, Array], expected: dict[str, Array], what: str = "") -> None:
    assert list(actual) == list(expected)
    for name, array in actual.items():
        if _core.VECTOR[array.itemsize]:
            assert_same_bits(array, expected[name], f"{name} {what}")
        else:
            assert_close(array, expected[name], tolerance_of(array.dtype), f"{name} {what}")


@given(problems(), st.integers(1, 4), st.sampled_from([0, 1 << 30]))
def test_gradients_are_the_same(problem: Problem, count: int, least_sequences: int) -> None:
    """... on any number of threads, that share out sequences or units."""
    expected = problem.gradients(checkpoint=False)
    assert_alike(problem.gradients(checkpoint=True), expected)
    with set_num_threads(count), pytest.MonkeyPatch.context() as patched:
        patched.setattr(_stack, "LEAST_SEQUENCES", least_sequences)
        assert_alike(problem.gradients(checkpoint=True), expected, f"on {count} threads")


@pytest.mark.parametrize("dtype", DTYPES)
def test_so_they_are_of_many_units_and_rows(dtype: Any) -> None:
    """More than are multiplied in one go, 256 terms and 120 rows, in one chunk of a segment."""
    rng = np.random.default_rng(0)
    lstm = LSTM(260, 260, dtype=dtype, rng=rng)
    x, lengths = normal(rng, (6, 70, 260), dtype), rng.integers(3, 7, 70)
    assert [segment.last for segment in segments(Packing(6, 70, lengths), 64)] == [3, 6]
    problem = Problem(lstm, x, random_state(rng, lstm, 70), {"lengths": lengths}, 0, dropping=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_stack, "CHUNK_BYTES", 1 << 22)
        expected = problem.gradients(checkpoint=False)
        assert_alike(problem.gradients(checkpoint=True), expected)
        with set_num_threads(3):
            assert_alike(problem.gradients(checkpoint=True), expected)


@pytest.mark.parametrize("seed", SMALL_SEEDS[:60])
def test_results_are_those_of_torch(seed: int) -> None:
    """On cases so small that they have one segment; their gates are made anew all the same."""
    case = draw(seed, SMALL)
    actual = run_case(case, np.float64, checkpoint=True)
    for name, array in stored_results(seed).items():
        assert_close(actual[name], array, 1e-12, f"{name} of {case.describe()}")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_are_finite_differences(bidirectional: bool) -> None:
    """Over several segments, in some directions of each array."""
    rng = np.random.default_rng(0)
    lstm = LSTM(
        2, 3, 2, bidirectional=bidirectional, dropout=0.3, weight_dropout=0.3, input_dropout=0.2,
        dtype=np.float64, rng=rng,
    )  # fmt: skip
    lengths = np.array([60, 0, 41, 57])
    packing = Packing(60, 4, lengths)
    assert len(segments(packing, 64)) > 2
    weights = {name: 0.8 * normal(rng, w.shape) for name, w in lstm.parameters().items()}
    h_0, c_0 = random_state(rng, lstm, 4)
    arrays = {"x": normal(rng, (60, 4, 2)), "h_0": h_0, "c_0": c_0} | weights
    ways = {name: normal(rng, array.shape) for name, array in arrays.items()}
    d_output = normal(rng, output_shape(lstm, 60, 4))
    d_state = random_state(rng, lstm, 4)

    def forward(moved: dict[str, Array], checkpoint: bool) -> Any:
        lstm.load_state_dict({name: moved[name] for name in lstm.parameters()})
        return lstm.forward(
            moved["x"], (moved["h_0"], moved["c_0"]), lengths=lengths, checkpoint=checkpoint,
            rng=np.random.default_rng(5),
        )  # fmt: skip

    def loss(far: dict[str, Array]) -> float:
        moved = {name: array + far[name] * ways[name] for name, array in arrays.items()}
        output, (h_n, c_n), _ = forward(moved, checkpoint=False)
        return float(
            (output * d_output).sum() + (h_n * d_state[0]).sum() + (c_n * d_state[1]).sum()
        )

    slopes = gradient(loss, {name: np.zeros(()) for name in arrays}, step=1e-4)
    tape = forward(arrays, checkpoint=True)[-1]
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, d_output, d_state)
    for name, found in ({"x": d_x, "h_0": d_h_0, "c_0": d_c_0} | grads).items():
        scale = float(np.abs(found * ways[name]).sum())
        assert scale > 1e-3, name
        assert abs(float((found * ways[name]).sum()) - slopes[name]) <= 1e-6 * scale, name


@pytest.mark.parametrize("lengths", [None, [0, 0]])
@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0), (3, 2), (1, 1)])
def test_batches_of_nothing_pass(steps: int, batch: int, lengths: list[int] | None) -> None:
    lstm = LSTM(3, 4, 2, bidirectional=True, rng=0)
    x = np.ones((steps, batch, 3), np.float32)
    given_lengths = {} if lengths is None else {"lengths": np.array(lengths)[:batch]}
    problem = Problem(lstm, x, None, given_lengths, 0, dropping=False)
    assert_alike(problem.gradients(checkpoint=True), problem.gradients(checkpoint=False))


def test_one_sequence_without_a_batch() -> None:
    lstm = LSTM(3, 4, rng=0)
    x = normal(np.random.default_rng(0), (300, 3), np.float32)
    results = []
    for checkpoint in (False, True):
        output, _, tape = lstm.forward(x, checkpoint=checkpoint)
        d_x, _, grads = lstm.backward(tape, output)
        results.append({"output": output, "d_x": d_x} | grads)
    assert_alike(results[1], results[0])


def test_what_is_no_flag_is_refused() -> None:
    with pytest.raises(TypeError, match="checkpoint"):
        LSTM(3, 4).forward(np.ones((2, 1, 3), np.float32), checkpoint=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"proj_size": 2}, {"peepholes": True}, {"clip": 3.0}, {"input_forget": True},
        {"layer_norm": True}, {"zoneout": 0.1}, {"activations": ("relu", "tanh", "tanh")},
        {"recurrent_dropout": 0.2},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_a_cell_that_is_not_plain_is_refused(options: dict[str, Any]) -> None:
    lstm, x = LSTM(3, 4, **options), np.ones((2, 1, 3), np.float32)
    with pytest.raises(ValueError, match=f"checkpoint: .*{next(iter(options))}"):
        lstm.forward(x, checkpoint=True, rng=np.random.default_rng(0))
    lstm.forward(x, rng=np.random.default_rng(0))


def test_recurrent_dropout_that_does_not_act_is_no_obstacle() -> None:
    lstm, x = LSTM(3, 4, recurrent_dropout=0.2, rng=0), np.ones((2, 1, 3), np.float32)
    output, _, tape = lstm.forward(x, checkpoint=True)
    assert_same_bits(output, lstm(x)[0])
    lstm.backward(tape, output)


# --- the smaller tape ----------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(1, 9), st.integers(1, 500), st.booleans())
def test_segments_are_whole_runs_and_about_as_many_as_each_has_steps(
    steps: int, batch: int, rows: int, with_lengths: bool
) -> None:
    lengths = np.arange(batch) * steps // batch + 1 if with_lengths else None
    packing = Packing(steps, batch, lengths)
    longest, runs = len(packing.active), packing.runs(rows)
    found = segments(packing, rows)
    assert [run for segment in found for run in segment.runs] == [*runs]
    assert whole(packing, rows)[0].runs == runs
    for segment in found:
        assert (segment.first, segment.last) == (segment.runs[0][0], segment.runs[-1][1])
        assert segment.rows.start == packing.offsets[segment.first]
        assert segment.rows.stop == packing.offsets[segment.last]
        assert segment.packing.rows == segment.rows.stop - segment.rows.start
        assert segment.packing.batch == packing.active[segment.first]
    assert len(found) <= math.ceil(math.sqrt(longest))
    widest_run = max(last - first for first, last, _ in runs)
    assert max(s.last - s.first for s in found) <= math.sqrt(longest) + widest_run


def test_boundaries_within_a_segment_are_its_own_and_those_between() -> None:
    packing = Packing(100, 2)
    cuts = segments(packing, 8)
    bounds = packing.chunks(6)[0]
    for cut in cuts:
        assert cut.within(bounds).tolist() == [
            cut.first, *(t for t in bounds if cut.first < t < cut.last), cut.last
        ]  # fmt: skip
        assert cut.within(bounds).dtype == np.intp


def held_bytes(lstm: LSTM, steps: int, batch: int, checkpoint: bool) -> int:
    """Of the arrays of the tape, beyond the inputs and outputs of all layers."""
    x = np.ones((steps, batch, lstm.input_size), lstm.dtype)
    _, layers = lstm.forward(x, checkpoint=checkpoint)[-1].take(lstm.parameters().version)
    arrays: dict[int, Array] = {}
    for layer in layers:
        for run in layer.runs:
            kept = [*run.starts.values(), *(run.kept or ()), run.h_0]
            arrays |= {id(array): array for array in kept}
    return sum(array.nbytes for array in arrays.values())


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_tape_grows_with_the_root_of_the_steps(bidirectional: bool) -> None:
    lstm = LSTM(3, 8, 2, bidirectional=bidirectional, rng=0)
    steps, batch = np.array([100, 400, 1600, 6400]), 16
    kept = [held_bytes(lstm, t, batch, checkpoint=False) for t in steps.tolist()]
    held = [held_bytes(lstm, t, batch, checkpoint=True) for t in steps.tolist()]
    exponent = np.diff(np.log(held)) / np.diff(np.log(steps))
    assert (np.diff(np.log(kept)) / np.diff(np.log(steps)) > 0.98).all()
    assert ((exponent > 0.35) & (exponent < 0.55)).all(), exponent
    one_state = batch * 8 * 4 * 2 * (1 + bidirectional)
    assert all(size <= (math.sqrt(t) + 1) * one_state for t, size in zip(steps, held, strict=True))


def test_memory_at_the_peak_of_a_step_shrinks() -> None:
    """To little more than what inputs, outputs and their gradients take."""
    lstm = LSTM(1, 16, rng=0)
    x = np.ones((3000, 16, 1), np.float32)
    peaks = {}
    for checkpoint in (False, True):
        _scratch._kept.clear()
        tracemalloc.start()
        output, _, tape = lstm.forward(x, checkpoint=checkpoint)
        lstm.backward(tape, output)
        peaks[checkpoint] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        del tape
    assert peaks[False] > 6 * output.nbytes  # gates, c, h and what was returned
    assert peaks[True] < 3.5 * output.nbytes
