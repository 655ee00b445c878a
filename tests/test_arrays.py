"""Every array that the LSTM takes, in every memory layout and with everything wrong with it.

The table ARGUMENTS holds each of them once, with a call that puts an array in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from tests.strange import (
    LAYOUTS,
    OTHER_DTYPES,
    Argument,
    assert_refused,
    misaligned,
    misaligned_and_strided,
    overlapping,
)
from tests.support import Array, assert_same_bits, normal

STEPS, BATCH, INPUT, HIDDEN = 5, 3, 4, 3
GATES = ("f", "i", "C", "o")


def layer(**options: Any) -> LSTM:
    return LSTM(INPUT, HIDDEN, 2, bidirectional=True, rng=1, **options)


def values(*shape: int) -> Array:
    return normal(np.random.default_rng(shape), shape, np.float32)


def state_values(*, of: int = 0) -> Array:
    return values(4, BATCH, HIDDEN) + np.float32(of)


# --- the table of arguments ----------------------------------------------------------------------


@dataclass
class Inputs:
    """What a full call takes."""

    x: Any = field(default_factory=lambda: values(STEPS, BATCH, INPUT))
    h: Any = field(default_factory=state_values)
    c: Any = field(default_factory=lambda: state_values(of=1))
    lengths: Any = field(default_factory=lambda: np.array([2, 5, 4]))


def infer(lstm: LSTM, inputs: Inputs) -> list[Array]:
    output, state = lstm(inputs.x, (inputs.h, inputs.c), lengths=inputs.lengths)
    return [output, *state]


def train(lstm: LSTM, inputs: Inputs) -> list[Array]:
    output, state, tape = lstm.forward(inputs.x, (inputs.h, inputs.c), lengths=inputs.lengths)
    results = [output.copy(), *(array.copy() for array in state)]
    d_x, d_state, grads = lstm.backward(tape, np.ones_like(output))
    return [*results, d_x, *d_state, *grads.values()]


def go_back(d_output: Any, d_h: Any, d_c: Any, **options: Any) -> list[Array]:
    lstm = layer(**options)
    x = values(BATCH, STEPS, INPUT) if lstm.batch_first else values(STEPS, BATCH, INPUT)
    _, _, tape = lstm.forward(x)
    d_x, d_state, grads = lstm.backward(tape, d_output, (d_h, d_c))
    return [d_x, *d_state, *grads.values()]


def call_arguments() -> list[Argument]:
    """The arguments of a call and of forward, in full and in the other forms of x."""

    def argument(way: Callable[[LSTM, Inputs], list[Array]], name: str, key: str) -> Argument:
        return Argument(
            f"{way.__name__}-{key}",
            name,
            getattr(Inputs(), key),
            lambda array: way(layer(), Inputs(**{key: array})),
            optional=key == "lengths",
            free_axes=(0,) if key == "x" else (),  # lengths still fit in a longer x
            leading={1: r"lengths|state\[0\]"} if key == "x" else {},
        )

    named = {"x": "x", "h": "state[0]", "c": "state[1]", "lengths": "lengths"}
    full = [argument(way, name, key) for way in (infer, train) for key, name in named.items()]
    alone = {
        "x": (layer(), values(STEPS, BATCH, INPUT), (0, 1), (2,)),
        "x-batch_first": (layer(batch_first=True), values(BATCH, STEPS, INPUT), (0, 1), (2,)),
        "x-unbatched": (layer(), values(STEPS, INPUT), (0,), (3,)),
    }
    return full + [
        Argument(key, "x", x, lambda a, lstm=lstm: [lstm(a)[0]], free_axes=axes, free_ranks=ranks)
        for key, (lstm, x, axes, ranks) in alone.items()
    ]


def backward_arguments() -> list[Argument]:
    d_output, d_h, d_c = values(STEPS, BATCH, 2 * HIDDEN), state_values(), state_values(of=2)
    flipped = values(BATCH, STEPS, 2 * HIDDEN)
    return [
        Argument("d_output", "d_output", d_output, lambda a: go_back(a, d_h, d_c), optional=True),
        Argument(
            "d_output-batch_first", "d_output", flipped,
            lambda a: go_back(a, d_h, d_c, batch_first=True), optional=True,
        ),
        Argument("d_h", "d_state[0]", d_h, lambda a: go_back(d_output, a, d_c), optional=True),
        Argument("d_c", "d_state[1]", d_c, lambda a: go_back(d_output, d_h, a), optional=True),
    ]  # fmt: skip


def weight_arguments() -> list[Argument]:
    def load(name: str, array: Any) -> list[Array]:
        lstm = layer()
        lstm.load_state_dict(layer().state_dict() | {name: array})
        return [*lstm.parameters().values(), lstm(Inputs().x)[0]]

    return [
        Argument(
            f"load-{name}", f"state_dict[{name!r}]", values(*weight.shape),
            lambda array, name=name: load(name, array),
        )
        for name, weight in layer().parameters().items()
    ]  # fmt: skip


def gate_arguments() -> list[Argument]:
    shapes = {f"W_{gate}": (HIDDEN, HIDDEN + INPUT) for gate in GATES}
    shapes |= {f"b_{gate}": (HIDDEN,) for gate in GATES}
    good = {name: values(*shape) + k for k, (name, shape) in enumerate(shapes.items())}

    def build(name: str, array: Any) -> list[Array]:
        lstm = LSTM.from_gates(**(good | {name: array}))
        return [*lstm.parameters().values(), lstm(Inputs().x)[0]]

    return [
        Argument(
            name, name, array, lambda given, name=name: build(name, given),
            leading={0: "W_[fi]", 1: "W_[fi]"} if name == "W_f" else {},
        )
        for name, array in good.items()
    ]  # fmt: skip


ARGUMENTS = call_arguments() + backward_arguments() + weight_arguments() + gate_arguments()


# --- any layout is taken ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_any_layout_gives_the_bits_of_the_compact_copy(
    argument: Argument, layout: Callable[[Array, Path], Array], tmp_path: Path
) -> None:
    strange = layout(argument.good, tmp_path)
    plain = np.array(strange, order="C", subok=False)
    before = plain.copy()
    results, expected = argument.call(strange), argument.call(plain)
    for k, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        assert_same_bits(result, wanted, f"result {k}")
        assert type(result) is np.ndarray
        assert not np.shares_memory(result, strange)
    np.testing.assert_array_equal(strange, before, err_msg="the input was modified")


@pytest.mark.parametrize("layout", [misaligned, misaligned_and_strided, overlapping])
def test_the_strange_layouts_are_strange(
    layout: Callable[[Array, Path], Array], tmp_path: Path
) -> None:
    strange = layout(values(4, 3, 2), tmp_path)
    if layout is overlapping:
        assert np.shares_memory(strange[0], strange[1])
    else:
        assert not strange.flags.aligned


# --- what is refused -----------------------------------------------------------------------------


def is_integer(argument: Argument) -> bool:
    return argument.name == "lengths"


@pytest.mark.parametrize("dtype", OTHER_DTYPES)
@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_another_dtype_is_refused_by_name(argument: Argument, dtype: str) -> None:
    bad = np.ones(argument.good.shape).astype("int64").astype(dtype)
    # W_f, which settles the dtype, is told as one: dtype('O').
    assert_refused(argument, bad, repr(bad.dtype) if argument.name == "W_f" else str(bad.dtype))


@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_numbers_of_another_kind_are_refused(argument: Argument) -> None:
    kinds = ["float32", "float64"] if is_integer(argument) else ["int8", "int64", "uint32"]
    for kind in kinds:
        assert_refused(argument, np.ones(argument.good.shape, kind), kind)


@pytest.mark.parametrize("argument", [a for a in ARGUMENTS if not is_integer(a)], ids=str)
def test_the_other_precision_is_not_cast(argument: Argument) -> None:
    double = argument.good.astype(np.float64)
    if argument.name == "W_f":  # settles the dtype of all
        with pytest.raises(TypeError, match=r"^W_i: expected .* float64, got float32"):
            argument.call(double)
    else:
        assert_refused(argument, double, "float64")


@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_foreign_byte_order_is_refused(argument: Argument) -> None:
    swapped = argument.good.astype(argument.good.dtype.newbyteorder())
    assert_refused(argument, swapped, swapped.dtype.str)


@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_a_structured_dtype_is_refused(argument: Argument) -> None:
    record = np.zeros(argument.good.shape, np.dtype([("value", argument.good.dtype)]))
    assert_refused(argument, record, "value")
    assert_refused(argument, record.view(np.recarray), "value")


@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_what_is_no_array_is_refused_by_its_type(argument: Argument) -> None:
    class Lookalike:
        """Has what numpy.asarray would look for."""

        def __init__(self, array: Array) -> None:
            self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, 3

        def __array__(self, *_: Any, **__: Any) -> Array:
            return self.array

    rows = argument.good.tolist()
    assert_refused(argument, rows, "list")
    assert_refused(argument, tuple(rows), "tuple")
    assert_refused(argument, "array")
    assert_refused(argument, Lookalike(argument.good), "Lookalike")
    assert_refused(argument, memoryview(argument.good), "memoryview")
    assert_refused(argument, argument.good.ravel()[0])  # a scalar
    if not argument.optional:
        assert_refused(argument, None, "None")


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_a_masked_array_and_a_matrix_are_refused(argument: Argument) -> None:
    assert_refused(argument, np.ma.masked_array(argument.good), "masked array")
    matrix = np.matrix(argument.good.reshape(len(argument.good), -1), dtype=argument.good.dtype)
    assert_refused(argument, matrix, "matrix")


WRONG_RANKS = [
    pytest.param(argument, rank, id=f"{argument}-{rank}")
    for argument in ARGUMENTS
    for rank in range(6)
    if rank not in (argument.good.ndim, *argument.free_ranks)
]


@pytest.mark.parametrize(("argument", "rank"), WRONG_RANKS)
def test_a_wrong_rank_is_refused(argument: Argument, rank: int) -> None:
    good = argument.good.shape
    # Every size is one that fits, in front of or behind which axes are missing or too many.
    for shape in {(1,) * (rank - len(good)) + good[-rank:] if rank else (), (good * 5)[:rank]}:
        wrong = np.ones(shape, argument.good.dtype)
        if argument.name == "x" and rank == 2:  # one sequence: then it is the state that misfits
            with pytest.raises(ValueError, match=r"^(lengths|state\[0\]|x)"):
                argument.call(wrong)
        else:
            assert_refused(argument, wrong, str(shape))


@pytest.mark.parametrize("change", ["one more", "one less", "none"])
@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_a_wrong_size_is_refused_in_every_axis(argument: Argument, change: str) -> None:
    for axis, size in enumerate(argument.good.shape):
        if axis in argument.free_axes:
            continue
        shape = list(argument.good.shape)
        shape[axis] = {"one more": size + 1, "one less": size - 1, "none": 0}[change]
        wrong = np.ones(shape, argument.good.dtype)
        if axis in argument.leading:
            with pytest.raises(ValueError, match=rf"^({argument.leading[axis]}).*: expected shape"):
                argument.call(wrong)
        else:
            assert_refused(argument, wrong, str(tuple(shape)))


def test_a_length_of_zero_gives_empty_or_untouched_results() -> None:
    lstm, state = layer(), (state_values(), state_values(of=1))
    for steps, batch in ((0, BATCH), (STEPS, 0), (0, 0)):
        initial = (state[0][:, :batch], state[1][:, :batch])
        output, final, tape = lstm.forward(values(steps, batch, INPUT), initial)
        assert output.shape == (steps, batch, 2 * HIDDEN)
        d_x, d_state, grads = lstm.backward(tape, np.ones_like(output), final)
        assert d_x.shape == (steps, batch, INPUT)
        assert all(not grad.any() for grad in grads.values())
        for given, came, carried in zip(initial, final, d_state, strict=True):
            assert_same_bits(came, given)
            assert_same_bits(carried, given)
        assert_same_bits(lstm(values(steps, batch, INPUT), initial)[0], output)


def test_a_pair_must_be_a_pair() -> None:
    lstm, x, h = layer(), values(STEPS, BATCH, INPUT), state_values()
    _, _, tape = lstm.forward(x)
    for pair in (h, "hc", {0: h, 1: h}, iter((h, h)), 2, np.stack((h, h))):
        with pytest.raises(TypeError, match=r"^state: expected a pair"):
            lstm(x, pair)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^d_state: expected a pair"):
            lstm.backward(tape, None, pair)  # type: ignore[arg-type]
    for pair in ((), (h,), (h, h, h)):
        with pytest.raises(ValueError, match=rf"^state: .* got {len(pair)} items"):
            lstm(x, pair)  # type: ignore[arg-type]
    for missing in ((h, None), (None, h), (None, None)):
        with pytest.raises(TypeError, match=r"^state\[[01]\] .* got None"):
            lstm(x, missing)  # type: ignore[arg-type]


# --- whose memory is whose -----------------------------------------------------------------------


def test_inputs_may_be_one_array() -> None:
    lstm = LSTM(HIDDEN, HIDDEN, 1, rng=2)
    x = values(1, BATCH, HIDDEN)

    def step(*arrays: Array) -> list[Array]:
        x, h, c, d_output, d_h, d_c = arrays
        output, state, tape = lstm.forward(x, (h, c))
        d_x, d_state, grads = lstm.backward(tape, d_output, (d_h, d_c))
        return [output, *state, d_x, *d_state, *grads.values()]

    before = x.copy()
    together, apart = step(*[x] * 6), step(*(x.copy() for _ in range(6)))
    for actual, expected in zip(together, apart, strict=True):
        assert_same_bits(actual, expected)
    assert_same_bits(x, before)


def test_inputs_may_be_parameters() -> None:
    lstm = LSTM(HIDDEN, HIDDEN, 1, rng=2)
    before = lstm.state_dict()
    x, h = lstm.weight_hh_l0, lstm.weight_ih_l0[:1]
    output, state, tape = lstm.forward(x, (h, h))
    expected = lstm(x.copy(), (h.copy(), h.copy()))
    assert_same_bits(output, expected[0])
    lstm.backward(tape, output, state)
    for name, weight in lstm.parameters().items():
        assert_same_bits(weight, before[name], name)


def test_outputs_fed_back_as_inputs_and_gradients_stay_what_they_were() -> None:
    lstm = LSTM(HIDDEN, HIDDEN, 1, rng=2)
    first = lstm.forward(values(STEPS, BATCH, HIDDEN))
    kept = [first[0].copy(), *(array.copy() for array in first[1])]
    lstm.forward(first[0], first[1])
    lstm.backward(first[2], first[0], first[1])
    for array, copy in zip((first[0], *first[1]), kept, strict=True):
        assert_same_bits(array, copy)


@pytest.mark.parametrize("lengths", [None, [5, 5, 5], [2, 5, 0], [0, 0, 0]])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_tape_does_not_see_what_happens_to_inputs_and_results(
    lengths: list[int] | None, batch_first: bool
) -> None:
    lstm = layer(batch_first=batch_first)
    shape = (BATCH, STEPS, INPUT) if batch_first else (STEPS, BATCH, INPUT)

    def run(*, spoil: bool) -> list[Array]:
        inputs = Inputs(x=values(*shape))
        inputs.lengths = None if lengths is None else np.array(lengths)
        taken = (inputs.x, inputs.h, inputs.c, inputs.lengths)
        output, state, tape = lstm.forward(inputs.x, (inputs.h, inputs.c), lengths=inputs.lengths)
        d_output = np.ones_like(output)
        for array in (*taken, output, *state) if spoil else ():
            if array is not None:
                array[...] = 0 if array.dtype.kind == "i" else np.nan
        d_x, d_state, grads = lstm.backward(tape, d_output)
        return [d_x, *d_state, *grads.values()]

    for actual, expected in zip(run(spoil=True), run(spoil=False), strict=True):
        assert np.isfinite(expected).all()
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("lengths", [None, [5, 5, 5], [2, 5, 0]])
@pytest.mark.parametrize("with_state", [False, True])
def test_results_share_memory_with_nothing(lengths: list[int] | None, with_state: bool) -> None:
    lstm = layer()
    inputs = Inputs(lengths=None if lengths is None else np.array(lengths))
    state = (inputs.h, inputs.c) if with_state else None
    output, final, tape = lstm.forward(inputs.x, state, lengths=inputs.lengths)
    d_output, d_final = np.ones_like(output), (np.ones_like(final[0]), np.ones_like(final[1]))
    d_x, d_state, grads = lstm.backward(tape, d_output, d_final)
    inferred, inferred_state = lstm(inputs.x, state, lengths=inputs.lengths)
    results = [output, *final, d_x, *d_state, *grads.values(), inferred, *inferred_state]
    others = [inputs.x, inputs.h, inputs.c, d_output, *d_final, *lstm.parameters().values()]
    for k, result in enumerate(results):
        assert result.flags.writeable
        for other in (*results[:k], *others):
            assert not np.shares_memory(result, other)


def test_loaded_weights_are_copies_both_ways() -> None:
    lstm, other = layer(), LSTM(INPUT, HIDDEN, 2, bidirectional=True, rng=9)
    weights = other.state_dict()
    lstm.load_state_dict(weights)
    loaded = lstm.state_dict()
    for name, weight in lstm.parameters().items():
        assert not np.shares_memory(weight, weights[name])
        assert not np.shares_memory(weight, loaded[name])
        assert_same_bits(weight, other.parameters()[name], name)


def test_loading_a_layers_own_views_in_another_order_exchanges_them() -> None:
    lstm = LSTM(HIDDEN, HIDDEN, 1, rng=4)
    before = lstm.state_dict()
    views = dict(lstm.parameters())
    views["weight_ih_l0"], views["weight_hh_l0"] = views["weight_hh_l0"], views["weight_ih_l0"]
    lstm.load_state_dict(views)
    assert_same_bits(lstm.weight_ih_l0, before["weight_hh_l0"])
    assert_same_bits(lstm.weight_hh_l0, before["weight_ih_l0"])


# --- values that are not numbers -----------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [4, 5, 3]])
def test_a_nan_in_one_sequence_touches_no_other(lengths: list[int] | None) -> None:
    lstm = layer()
    ends = None if lengths is None else np.array(lengths)
    x, d_output = values(STEPS, BATCH, INPUT), values(STEPS, BATCH, 2 * HIDDEN)
    poisoned = x.copy()
    poisoned[1, 1, 2] = np.nan

    def run(x: Array) -> list[Array]:
        output, state, tape = lstm.forward(x, lengths=ends)
        d_x, d_state, _ = lstm.backward(tape, d_output)
        return [output, *state, d_x, *d_state]

    for actual, expected in zip(run(poisoned), run(x), strict=True):
        assert_same_bits(actual[:, [0, 2]], expected[:, [0, 2]])
        assert np.isnan(actual[:, 1]).any()


def test_what_lies_past_an_end_is_never_read() -> None:
    lstm, lengths = layer(), np.array([2, 0, 5])
    past = np.arange(STEPS)[:, None] >= lengths
    x, d_output = values(STEPS, BATCH, INPUT), values(STEPS, BATCH, 2 * HIDDEN)

    def run(filler: float) -> list[Array]:
        x[past], d_output[past] = filler, filler
        output, state, tape = lstm.forward(x, lengths=lengths)
        d_x, d_state, grads = lstm.backward(tape, d_output)
        assert not output[past].any()
        assert not d_x[past].any()
        return [output, *state, d_x, *d_state, *grads.values()]

    for actual, expected in zip(run(np.nan), run(0.0), strict=True):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_inputs_saturate_the_gates(dtype: type, value: float) -> None:
    """σ(±∞) is 0 or 1 and tanh(±∞) is ±1, so c_1 = i·g and h_1 = o·tanh(c_1) are plain numbers."""
    lstm = LSTM(1, HIDDEN, dtype=dtype, rng=5)
    output, (h, c) = lstm(np.full((1, 1, 1), value, dtype))
    signs = np.sign(lstm.weight_ih_l0[:, 0]) * np.sign(value)
    i, _, g, o = signs.reshape(4, HIDDEN)
    expected = (i > 0) * g
    np.testing.assert_array_equal(c[0, 0], expected)
    np.testing.assert_allclose(h[0, 0], (o > 0) * np.tanh(expected), rtol=1e-6)
    long, _ = lstm(np.full((50, 2, 1), value, dtype))
    assert np.isfinite(long).all()
    assert_same_bits(long[0, 0], output[0, 0])
