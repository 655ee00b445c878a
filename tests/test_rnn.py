"""The plain RNN against a literal loop, finite differences and torch, with lengths and states."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.layers import Dropout
from fastlstm.rnn import RNN
from fastlstm.threads import set_num_threads
from tests.finite_differences import gradient
from tests.strange import (
    assert_refuses_shapes,
    assert_refuses_what_is_no_such_array,
    assert_takes_any_layout,
    spoil,
)
from tests.support import (
    Array,
    assert_close,
    assert_same_bits,
    normal,
    plain_rnn,
    tolerance_of,
)
from tests.test_arrays import Argument

DTYPES = [np.float32, np.float64]
GRADIENT_BOUND = 1e-6
STEPS, BATCH, INPUT, HIDDEN = 6, 4, 3, 5

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_stack = pytest.mark.parametrize(
    ("num_layers", "directions"), [(1, 1), (1, 2), (3, 1), (2, 2)]
)
# Of T = 6 steps for B = 4 sequences: in no order, all alike, with none of a step, and none at all.
every_lengths = pytest.mark.parametrize(
    "lengths", [None, [3, 6, 1, 5], [6, 6, 6, 6], [2, 4, 4, 3], [0, 6, 0, 2], [0, 0, 0, 0]], ids=str
)


def as_array(lengths: list[int] | None) -> Array | None:
    return None if lengths is None else np.array(lengths)


@dataclass
class Inputs:
    """A batch, time first, with gradients of all that comes out of it."""

    dtype: Any = np.float32
    num_layers: int = 1
    directions: int = 1
    x: Array = field(init=False)
    h_0: Array = field(init=False)
    d_output: Array = field(init=False)
    d_h_n: Array = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(3)
        self.x = normal(rng, (STEPS, BATCH, INPUT), self.dtype)
        state = (self.num_layers * self.directions, BATCH, HIDDEN)
        self.h_0 = normal(rng, state, self.dtype)
        self.d_output = normal(rng, (STEPS, BATCH, self.directions * HIDDEN), self.dtype)
        self.d_h_n = normal(rng, state, self.dtype)


def layer(dtype: Any = np.float32, num_layers: int = 1, **options: Any) -> RNN:
    return RNN(INPUT, HIDDEN, num_layers, dtype=dtype, rng=1, **options)


def passes(
    rnn: RNN, inputs: Inputs, lengths: list[int] | None, *, with_state: bool = True
) -> dict[str, Array]:
    """Everything that forward and backward give, by name."""
    state = inputs.h_0 if with_state else None
    output, h_n, tape = rnn.forward(inputs.x, state, lengths=as_array(lengths))
    d_x, d_h_0, grads = rnn.backward(tape, inputs.d_output, inputs.d_h_n)
    return {"output": output, "h_n": h_n, "x": d_x, "h_0": d_h_0} | grads


# --- values and gradients ------------------------------------------------------------------------


@every_lengths
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_state", [True, False])
@every_stack
@every_dtype
def test_outputs_are_those_of_the_loop(
    lengths: list[int] | None,
    bias: bool,
    with_state: bool,
    num_layers: int,
    directions: int,
    dtype: Any,
) -> None:
    rnn = layer(dtype, num_layers, bias=bias, bidirectional=directions == 2)
    inputs = Inputs(dtype, num_layers, directions)
    state = inputs.h_0 if with_state else None
    output, h_n = rnn(inputs.x, state, lengths=as_array(lengths))
    expected, expected_state = plain_rnn(rnn, inputs.x, state, lengths)
    assert output.dtype == h_n.dtype == dtype
    assert_close(output, expected, tolerance_of(dtype), "output")
    assert_close(h_n, expected_state, tolerance_of(dtype), "h_n")


@pytest.mark.parametrize("lengths", [None, [3, 6, 1, 5], [2, 4, 4, 3], [0, 6, 0, 2]], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@every_stack
def test_gradients_are_finite_differences(
    lengths: list[int] | None, bias: bool, num_layers: int, directions: int
) -> None:
    rnn = layer(np.float64, num_layers, bias=bias, bidirectional=directions == 2)
    inputs = Inputs(np.float64, num_layers, directions)
    weights = rnn.state_dict()

    def loss(arrays: dict[str, Array]) -> float:
        x, h_0 = arrays.pop("x"), arrays.pop("h_0")
        rnn.load_state_dict(arrays)
        output, h_n = plain_rnn(rnn, x, h_0, lengths)
        return float((output * inputs.d_output).sum() + (h_n * inputs.d_h_n).sum())

    expected = gradient(loss, weights | {"x": inputs.x, "h_0": inputs.h_0})
    rnn.load_state_dict(weights)
    results = passes(rnn, inputs, lengths)
    for name, array in expected.items():
        assert_close(results[name], array, GRADIENT_BOUND, name)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(24))
@every_dtype
def test_everything_equals_torchs(seed: int, dtype: Any) -> None:
    """Sizes from 1 on, both layouts, both directions, with and without the rest, at random."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    steps, batch, width, hidden, layers = (int(size) for size in rng.integers(1, (9, 6, 7, 12, 4)))
    bias, batch_first, both, with_state, with_lengths = map(bool, rng.integers(0, 2, 5))
    options = {"bias": bias, "batch_first": batch_first, "bidirectional": both}
    rnn = RNN(width, hidden, layers, dtype=dtype, rng=rng, **options)  # type: ignore[arg-type]
    theirs = torch.nn.RNN(
        width, hidden, layers, dtype=getattr(torch, np.dtype(dtype).name), **options
    )
    shapes = {name: tuple(w.shape) for name, w in theirs.state_dict().items()}
    assert shapes == {name: w.shape for name, w in rnn.state_dict().items()}
    assert [*theirs.state_dict()] == [*rnn.state_dict()]
    theirs.load_state_dict({name: torch.tensor(w) for name, w in rnn.parameters().items()})

    leading = (batch, steps) if batch_first else (steps, batch)
    x = normal(rng, (*leading, width), dtype)
    runs = layers * (2 if both else 1)
    h_0 = normal(rng, (runs, batch, hidden), dtype) if with_state else None
    lengths = rng.integers(1, steps + 1, batch) if with_lengths else None
    output, h_n, tape = rnn.forward(x, h_0, lengths=lengths)
    d_output, d_h_n = normal(rng, output.shape, dtype), normal(rng, h_n.shape, dtype)
    d_x, d_h_0, grads = rnn.backward(tape, d_output, d_h_n)

    their_x = torch.tensor(x, requires_grad=True)
    start = np.zeros_like(h_n) if h_0 is None else h_0
    their_h = torch.tensor(start, requires_grad=True)
    pack, unpack = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
    if lengths is None:
        their_output, their_h_n = theirs(their_x, their_h)
    else:
        packed = pack(their_x, torch.tensor(lengths), batch_first, enforce_sorted=False)
        their_packed, their_h_n = theirs(packed, their_h)
        their_output, _ = unpack(their_packed, batch_first, total_length=steps)
    torch.autograd.backward(
        (their_output, their_h_n), (torch.tensor(d_output), torch.tensor(d_h_n))
    )
    expected = {"output": their_output.detach(), "h_n": their_h_n.detach()}
    expected |= {"d_x": their_x.grad, "d_h_0": their_h.grad}
    expected |= {name: parameter.grad for name, parameter in theirs.named_parameters()}
    actual = {"output": output, "h_n": h_n, "d_x": d_x, "d_h_0": d_h_0} | grads
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert_close(actual[name], array.numpy(), tolerance_of(dtype), name)


# --- laws ----------------------------------------------------------------------------------------


@every_lengths
@every_stack
@every_dtype
def test_inference_has_the_bits_of_forward(
    lengths: list[int] | None, num_layers: int, directions: int, dtype: Any
) -> None:
    rnn = layer(dtype, num_layers, bidirectional=directions == 2)
    inputs = Inputs(dtype, num_layers, directions)
    output, h_n = rnn(inputs.x, inputs.h_0, lengths=as_array(lengths))
    kept, kept_state, _ = rnn.forward(inputs.x, inputs.h_0, lengths=as_array(lengths))
    assert_same_bits(kept, output)
    assert_same_bits(kept_state, h_n)


@pytest.mark.parametrize("lengths", [None, [3, 6, 1, 5], [0, 6, 0, 2]], ids=str)
def test_batch_first_swaps_the_axes_and_nothing_else(lengths: list[int] | None) -> None:
    inputs = Inputs()
    expected = passes(layer(), inputs, lengths)
    flipped = Inputs()
    flipped.x, flipped.d_output = inputs.x.swapaxes(0, 1), inputs.d_output.swapaxes(0, 1)
    for name, array in passes(layer(batch_first=True), flipped, lengths).items():
        swapped = array.swapaxes(0, 1) if name in ("output", "x") else array
        assert_same_bits(swapped, expected[name], name)


@pytest.mark.parametrize("length", [None, 0, 3, STEPS])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_single_sequence_needs_no_axis_for_the_batch(
    length: int | None, batch_first: bool
) -> None:
    rnn, inputs = layer(batch_first=batch_first), Inputs()
    x, h_0, d_output, d_h_n = (a[:, 0] for a in (inputs.x, inputs.h_0, inputs.d_output,
                                                 inputs.d_h_n))  # fmt: skip
    output, h_n, tape = rnn.forward(x, h_0, lengths=length)
    d_x, d_h_0, grads = rnn.backward(tape, d_output, d_h_n)
    plain, one = layer(), Inputs()
    one.x, one.h_0, one.d_output, one.d_h_n = (
        a[:, :1] for a in (inputs.x, inputs.h_0, inputs.d_output, inputs.d_h_n)
    )
    expected = passes(plain, one, None if length is None else [length])
    actual = {"output": output, "h_n": h_n, "x": d_x, "h_0": d_h_0} | grads
    for name, array in actual.items():
        alone = expected[name][:, 0] if name in ("output", "h_n", "x", "h_0") else expected[name]
        assert_same_bits(array, alone, name)


@pytest.mark.parametrize("lengths", [[3, 6, 1, 5], [2, 4, 4, 3], [0, 6, 0, 2]], ids=str)
def test_what_lies_past_an_end_is_neither_read_nor_written(lengths: list[int]) -> None:
    clean, dirty = Inputs(), Inputs()
    for b, length in enumerate(lengths):
        dirty.x[length:, b] = np.nan
        dirty.d_output[length:, b] = np.nan
    expected = passes(layer(), clean, lengths)
    for name, array in passes(layer(), dirty, lengths).items():
        assert_same_bits(array, expected[name], name)
    for b, length in enumerate(lengths):
        assert not expected["output"][length:, b].any()
        assert not expected["x"][length:, b].any()
        if length == 0:
            assert_same_bits(expected["h_n"][:, b], clean.h_0[:, b])
            assert_same_bits(expected["h_0"][:, b], clean.d_h_n[:, b])
        else:
            assert_same_bits(expected["h_n"][0, b], expected["output"][length - 1, b])


def test_lengths_of_zero_alone_have_gradients_of_zero() -> None:
    rnn, inputs = layer(), Inputs()
    results = passes(rnn, inputs, [0] * BATCH)
    assert_same_bits(results.pop("h_n"), inputs.h_0)
    assert_same_bits(results.pop("h_0"), inputs.d_h_n)
    assert {"output", "x", *rnn.parameters()} == results.keys()
    assert not any(array.any() for array in results.values())


def test_full_lengths_are_no_lengths() -> None:
    expected = passes(layer(), Inputs(), None)
    for name, array in passes(layer(), Inputs(), [STEPS] * BATCH).items():
        assert_same_bits(array, expected[name], name)


def test_no_state_is_a_state_of_zeros() -> None:
    inputs = Inputs()
    inputs.h_0[...] = 0
    expected = passes(layer(), inputs, [3, 6, 1, 5])
    for name, array in passes(layer(), inputs, [3, 6, 1, 5], with_state=False).items():
        assert_same_bits(array, expected[name], name)


def test_no_gradient_is_a_gradient_of_zeros() -> None:
    rnn, inputs = layer(), Inputs()

    def back(d_output: Array | None, d_state: Array | None) -> list[Array]:
        _, _, tape = rnn.forward(inputs.x, inputs.h_0)
        d_x, d_h_0, grads = rnn.backward(tape, d_output, d_state)
        return [d_x, d_h_0, *grads.values()]

    zeros, zero_state = np.zeros_like(inputs.d_output), np.zeros_like(inputs.d_h_n)
    for missing, given in (
        ((None, inputs.d_h_n), (zeros, inputs.d_h_n)),
        ((inputs.d_output, None), (inputs.d_output, zero_state)),
        ((None, None), (zeros, zero_state)),
    ):
        for actual, expected in zip(back(*missing), back(*given), strict=True):
            assert_same_bits(actual, expected)


def test_dropout_acts_between_layers_and_only_with_a_generator() -> None:
    """Two layers with dropout are one, `Dropout`, and one, which draw the same masks."""
    lengths = np.array([3, 6, 1, 5])
    x, bound, dropout = Inputs(np.float64).x, 1e-14, Dropout(0.4)
    rnn = layer(np.float64, 2, dropout=0.4)
    first, second = layer(np.float64), RNN(HIDDEN, HIDDEN, dtype=np.float64)
    weights = rnn.state_dict()
    for own, number in ((first, 0), (second, 1)):
        own.load_state_dict(
            {name: weights[name.replace("_l0", f"_l{number}")] for name in own.parameters()}
        )
    assert_same_bits(rnn.forward(x, lengths=lengths)[0], rnn(x, lengths=lengths)[0])

    output, h_n, tape = rnn.forward(x, lengths=lengths, rng=np.random.default_rng(5))
    # Masks are drawn for packed rows: of each step, those of the longest sequences first.
    order = np.argsort(-lengths, kind="stable")
    valid = np.arange(STEPS)[:, np.newaxis] < lengths[order]
    below, first_n, first_tape = first.forward(x[:, order], lengths=lengths[order])
    kept, drop_tape = dropout.forward(below[valid], np.random.default_rng(5))
    below[valid] = kept
    above, second_n, second_tape = second.forward(below, lengths=lengths[order])
    assert_close(output[:, order], above, bound)
    assert_close(h_n[:, order], np.concatenate([first_n, second_n]), bound)

    d_output = Inputs(np.float64).d_output
    d_x, _, grads = rnn.backward(tape, d_output)
    d_below, _, second_grads = second.backward(second_tape, d_output[:, order])
    d_kept, _ = dropout.backward(drop_tape, d_below[valid])
    d_below[valid] = d_kept
    d_first, _, first_grads = first.backward(first_tape, d_below)
    assert_close(d_x[:, order], d_first, 1e-13)
    for number, part in ((0, first_grads), (1, second_grads)):
        for name, array in part.items():
            assert_close(grads[name.replace("_l0", f"_l{number}")], array, 1e-13, name)


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0)])
def test_no_steps_or_no_sequences_leave_states_as_they_are(steps: int, batch: int) -> None:
    rnn = layer()
    h_0 = Inputs().h_0[:, :batch]
    output, h_n, tape = rnn.forward(np.empty((steps, batch, INPUT), np.float32), h_0)
    assert output.shape == (steps, batch, HIDDEN)
    assert_same_bits(h_n, h_0)
    d_x, d_h_0, grads = rnn.backward(tape, output, h_n)
    assert d_x.shape == (steps, batch, INPUT)
    assert_same_bits(d_h_0, h_0)
    assert [*grads] == [*rnn.parameters()]
    assert not any(grad.any() for grad in grads.values())


def test_two_halves_are_the_whole_when_the_state_is_carried() -> None:
    rnn, inputs = layer(np.float64), Inputs(np.float64)
    output, h_n, whole = rnn.forward(inputs.x, inputs.h_0)
    first, middle, tape = rnn.forward(inputs.x[:4], inputs.h_0)
    second, last, later = rnn.forward(inputs.x[4:], middle)
    assert_close(np.concatenate([first, second]), output, 1e-14)
    assert_close(last, h_n, 1e-14)
    d_x, d_h_0, grads = rnn.backward(whole, inputs.d_output, inputs.d_h_n)
    d_second, d_middle, later_grads = rnn.backward(later, inputs.d_output[4:], inputs.d_h_n)
    d_first, d_start, first_grads = rnn.backward(tape, inputs.d_output[:4], d_middle)
    assert_close(np.concatenate([d_first, d_second]), d_x, 1e-13)
    assert_close(d_start, d_h_0, 1e-13)
    for name, grad in grads.items():
        assert_close(first_grads[name] + later_grads[name], grad, 1e-13, name)


def test_work_for_several_threads_is_done_alike() -> None:
    rng = np.random.default_rng(0)
    rnn = RNN(80, 90, dtype=np.float64, rng=rng)
    x, lengths = normal(rng, (12, 40, 80)), [*rng.integers(0, 13, 40)]
    for threads in (1, 2, 3):
        set_num_threads(threads)
        output, h_n = rnn(x, lengths=as_array(lengths))
        expected, expected_state = plain_rnn(rnn, x, None, lengths)
        assert_close(output, expected, 1e-12)
        assert_close(h_n, expected_state, 1e-12)


def test_gradients_that_explode_are_not_finite_and_give_no_warning() -> None:
    """h is 1 after the first step, where tanh' is 0, and 0 after all others, where tanh' is 1."""
    rnn = RNN(1, 1, bias=False, rng=0)
    rnn.load_state_dict({name: np.full((1, 1), 100, np.float32) for name in rnn.parameters()})
    x = np.zeros((40, 1, 1), np.float32)
    x[0], x[1] = 1, -1
    output, _, tape = rnn.forward(x)
    d_x, _, _ = rnn.backward(tape, None, np.ones((1, 1, 1), np.float32))
    assert output.ravel().tolist() == [1] + 39 * [0]
    assert d_x[-1, 0, 0] == 100
    assert np.isinf(d_x[1, 0, 0])
    assert np.isnan(d_x[0, 0, 0])  # 0 times infinity


def test_a_nan_stays_in_its_sequence() -> None:
    rnn, inputs = layer(), Inputs()
    expected, _ = rnn(inputs.x)
    inputs.x[2, 1, 0] = np.nan
    output, h_n = rnn(inputs.x)
    others = [0, 2, 3]
    assert_same_bits(output[:, others], expected[:, others])
    assert_same_bits(output[:2], expected[:2])
    assert np.isnan(output[2:, 1]).all()
    assert np.isnan(h_n[0, 1]).all()


# --- parameters ----------------------------------------------------------------------------------


def test_parameters_have_torchs_names_and_shapes_and_are_drawn_from_the_seed() -> None:
    shapes = {"weight_ih_l0": (HIDDEN, INPUT), "weight_hh_l0": (HIDDEN, HIDDEN)}
    both = {"bias_ih_l0": (HIDDEN,), "bias_hh_l0": (HIDDEN,)}
    for bias, expected in ((True, shapes | both), (False, shapes)):
        rnn, double = layer(bias=bias), layer(np.float64, bias=bias)
        assert {name: array.shape for name, array in rnn.parameters().items()} == expected
        for name, array in rnn.parameters().items():
            assert_same_bits(array, double.parameters()[name].astype(np.float32), name)
    with pytest.raises(ValueError, match="read-only"):
        layer().weight_ih_l0[0, 0] = 1


def test_parameters_are_initialised_as_torch_does() -> None:
    rnn = RNN(300, 100, rng=0)
    for name, array in rnn.parameters().items():
        slack = 0.01 if array.ndim == 2 else 0.15
        assert (1 - slack) * 0.1 < np.abs(array).max() <= 0.1, name
        assert abs(array.std() - 0.1 / math.sqrt(3)) < slack * 0.1, name
        assert abs(array.mean()) < 4 * 0.1 / math.sqrt(3 * array.size), name


# --- tapes and memory ----------------------------------------------------------------------------


def test_a_tape_serves_once_its_own_layer_while_weights_stay() -> None:
    rnn, twin, inputs = layer(), layer(), Inputs()
    output, _, tape = rnn.forward(inputs.x)
    with pytest.raises(ValueError, match=r"^tape: .* another layer"):
        twin.backward(tape, output)
    with pytest.raises(TypeError, match=r"^tape: expected the Tape"):
        rnn.backward(output, output)  # type: ignore[arg-type]
    for bad in (output[:-1], output.astype(np.float64), output.tolist(), output[..., :-1]):
        with pytest.raises((TypeError, ValueError), match=r"^d_output: "):
            rnn.backward(tape, bad)
    for bad in (inputs.h_0[:, :-1], inputs.h_0[0], (inputs.h_0, inputs.h_0)):
        with pytest.raises((TypeError, ValueError), match=r"^d_state: "):
            rnn.backward(tape, output, bad)
    rnn.backward(tape, output)  # none of these used it up
    with pytest.raises(RuntimeError, match=r"^tape: used"):
        rnn.backward(tape, output)
    output, _, tape = rnn.forward(inputs.x)
    with rnn.editing() as weights:
        weights["bias_hh_l0"] += 1
    with pytest.raises(RuntimeError, match=r"^tape: stale"):
        rnn.backward(tape, output)


@pytest.mark.parametrize("lengths", [None, [6, 6, 6, 6], [3, 6, 0, 5]], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_results_are_fresh_and_inputs_stay(lengths: list[int] | None, batch_first: bool) -> None:
    rnn, inputs = layer(batch_first=batch_first), Inputs()
    if batch_first:
        inputs.x = np.ascontiguousarray(inputs.x.swapaxes(0, 1))
        inputs.d_output = np.ascontiguousarray(inputs.d_output.swapaxes(0, 1))
    given = [inputs.x, inputs.h_0, inputs.d_output, inputs.d_h_n]
    before = [array.copy() for array in given]
    results = list(passes(rnn, inputs, lengths).values())
    results += rnn(inputs.x, inputs.h_0, lengths=as_array(lengths))
    for k, result in enumerate(results):
        assert result.flags.writeable
        for other in (*results[:k], *given, *rnn.parameters().values()):
            assert not np.shares_memory(result, other)
    for array, kept in zip(given, before, strict=True):
        assert_same_bits(array, kept)


@pytest.mark.parametrize("lengths", [None, [6, 6, 6, 6], [3, 6, 0, 5]], ids=str)
def test_the_tape_does_not_see_what_happens_to_inputs_and_results(
    lengths: list[int] | None,
) -> None:
    def run(*, spoiled: bool) -> list[Array]:
        rnn, inputs, ends = layer(), Inputs(), as_array(lengths)
        output, h_n, tape = rnn.forward(inputs.x, inputs.h_0, lengths=ends)
        if spoiled:
            spoil(inputs.x, inputs.h_0, output, h_n, *([] if ends is None else [ends]))
        d_x, d_h_0, grads = rnn.backward(tape, inputs.d_output, inputs.d_h_n)
        return [d_x, d_h_0, *grads.values()]

    for actual, expected in zip(run(spoiled=True), run(spoiled=False), strict=True):
        assert np.isfinite(expected).all()
        assert_same_bits(actual, expected)


# --- bad input -----------------------------------------------------------------------------------


def array_arguments() -> list[Argument]:
    inputs = Inputs()

    def train(**given: Any) -> list[Array]:
        arrays = {"x": inputs.x, "h_0": inputs.h_0, "lengths": np.array([3, 6, 1, 5])} | given
        rnn = layer()
        output, h_n, tape = rnn.forward(arrays["x"], arrays["h_0"], lengths=arrays["lengths"])
        d_x, d_h_0, grads = rnn.backward(
            tape, given.get("d_output", inputs.d_output), given.get("d_h_n", inputs.d_h_n)
        )
        return [output, h_n, d_x, d_h_0, *grads.values()]

    def infer(x: Any) -> list[Array]:
        return list(layer()(x, inputs.h_0))

    optional: dict[str, tuple[str, Array]] = {
        "h_0": ("state", inputs.h_0),
        "lengths": ("lengths", np.array([3, 6, 1, 5])),
        "d_output": ("d_output", inputs.d_output),
        "d_h_n": ("d_state", inputs.d_h_n),
    }
    return [
        Argument("x-infer", "x", inputs.x, infer),
        Argument("x", "x", inputs.x, lambda a: train(x=a)),
        *(
            Argument(key, name, good, lambda a, key=key: train(**{key: a}), optional=True)
            for key, (name, good) in optional.items()
        ),
    ]


every_argument = pytest.mark.parametrize("argument", array_arguments(), ids=str)


@every_argument
def test_any_layout_gives_the_same_bits(argument: Argument, tmp_path: Path) -> None:
    assert_takes_any_layout(argument, tmp_path)


@every_argument
def test_what_is_no_such_array_is_refused(argument: Argument) -> None:
    assert_refuses_what_is_no_such_array(argument)


@every_argument
def test_a_wrong_shape_is_refused(argument: Argument) -> None:
    good = argument.good.shape
    if argument.name == "x":
        assert_refuses_shapes(
            argument,
            (STEPS, BATCH, INPUT + 1),
            (STEPS, BATCH, 0),
            (INPUT,),
            (STEPS, BATCH, 1, INPUT),
            (),
        )
        with pytest.raises(ValueError, match=r"^(lengths|state): expected shape"):
            argument.call(np.ones((STEPS, BATCH + 1, INPUT), np.float32))
    else:
        one_more = [
            tuple(size + (axis == k) for k, size in enumerate(good)) for axis in range(len(good))
        ]
        assert_refuses_shapes(argument, *one_more, good[1:], (*good, 1), (1, *good), (0, *good[1:]))


def test_lengths_out_of_range_are_refused() -> None:
    rnn, inputs = layer(), Inputs()
    for bad in (-1, STEPS + 1, 2**40):
        with pytest.raises(ValueError, match=rf"^lengths: expected values from 0 to 6, got {bad}"):
            rnn(inputs.x, lengths=np.array([1, bad, 2, 3]))
    for wrong in (3, True, "3"):
        with pytest.raises(TypeError, match=r"^lengths: "):
            rnn(inputs.x, lengths=wrong)  # type: ignore[arg-type]


def test_more_rows_than_blas_can_count_are_refused_before_any_is_copied() -> None:
    x = np.broadcast_to(np.float32(0), (2**16, 2**16, INPUT))
    for way in (layer(), layer().forward):
        with pytest.raises(ValueError, match=r"^x, its rows T \* B: 65536 \* 65536"):
            way(x)


def test_options_are_checked() -> None:
    for name, position in (("input_size", 0), ("hidden_size", 1)):
        for bad, error in product((0, -1, 2**31), (ValueError,)):
            sizes = [3, 3]
            sizes[position] = bad
            with pytest.raises(error, match=rf"^{name}: "):
                RNN(*sizes)
        for wrong in (2.0, None, "3", True):
            mixed: list[Any] = [3, 3]
            mixed[position] = wrong
            with pytest.raises(TypeError, match=rf"^{name}: expected a whole number"):
                RNN(*mixed)
    for name in ("bias", "batch_first", "bidirectional"):
        with pytest.raises(TypeError, match=rf"^{name}: expected True or False"):
            RNN(3, 3, **{name: 1})
    with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64"):
        RNN(3, 3, dtype=np.float16)
    with pytest.raises(TypeError, match=r"^rng: "):
        RNN(3, 3, rng="seed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^hidden_size: .* exceeds"):
        RNN(3, 2**16)
    with pytest.raises(ValueError, match=r"^dropout: "):
        RNN(3, 3, 2, dropout=1.5)
    with pytest.raises(ValueError, match=r"^num_layers: "):
        RNN(3, 3, 0)
    with pytest.warns(UserWarning, match="dropout acts between layers"):
        RNN(3, 3, dropout=0.5)
    assert repr(layer()) == "RNN(3, 5, 1)"
    assert repr(layer(num_layers=2, bidirectional=True)) == "RNN(3, 5, 2, bidirectional=True)"
