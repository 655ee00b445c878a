"""Bugs that other LSTM libraries have shipped: each class has a test of its name.

1 to 9 are about shapes and trust, 10 to 21 about values. In brackets, where it was seen.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from fastlstm import LSTM, _core
from fastlstm.packing import Packing
from tests.finite_differences import gradient
from tests.support import (
    Array,
    assert_close,
    assert_same_bits,
    normal,
    plain_lstm,
    plain_run,
    random_state,
    tolerance_of,
)

STEPS, BATCH, INPUT, HIDDEN = 6, 3, 4, 5


def model(num_layers: int = 1, **options: Any) -> LSTM:
    """An LSTM whose biases are as large as its weights, and all of whose weights differ."""
    return LSTM(INPUT, HIDDEN, num_layers, **({"rng": 1, "dtype": np.float64} | options))


def inputs(*shape: int, dtype: Any = np.float64) -> Array:
    return normal(np.random.default_rng(shape), shape or (STEPS, BATCH, INPUT), dtype)


def step_of(
    lstm: LSTM, x: Array, state: Any = None, lengths: Array | None = None
) -> dict[str, Array]:
    """Every result of forward and backward, with ones as the gradients of all outputs."""
    output, final, tape = lstm.forward(x, state, lengths=lengths)
    ones = (np.ones_like(final[0]), np.ones_like(final[1]))
    d_x, d_state, grads = lstm.backward(tape, np.ones_like(output), ones)
    results = {"output": output, "h_n": final[0], "c_n": final[1]}
    return results | {"d_x": d_x, "d_h_0": d_state[0], "d_c_0": d_state[1]} | grads


def litter_memory() -> None:
    """Leave NaN in memory that the next arrays are likely to get from the allocator."""
    sizes = [2**power + extra for power in range(2, 14) for extra in (0, 8, 24)]
    arrays = [np.full(size, np.nan) for size in sizes for _ in range(8)]
    del arrays


# --- shapes and trust ----------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[0, 0, 0], [0, 3, 6], [6, 0, 0]])
def test_bug_01_a_length_of_zero_reads_before_the_start(lengths: list[int]) -> None:
    """[ONNX Runtime, TensorFlow, PyTorch: index -1, heap leaked into h_n, segfaults]"""
    lstm, ends = model(3, bidirectional=True), np.array(lengths)
    state = random_state(np.random.default_rng(0), lstm, BATCH)
    empty = ends == 0
    litter_memory()
    results = step_of(lstm, inputs(), state, ends)
    assert_same_bits(results["h_n"][:, empty], state[0][:, empty])
    assert_same_bits(results["c_n"][:, empty], state[1][:, empty])
    assert not results["output"][:, empty].any()
    assert not results["d_x"][:, empty].any()
    # The gradient of the final state, ones, passes through to the initial one.
    assert (results["d_h_0"][:, empty] == 1).all()
    assert (results["d_c_0"][:, empty] == 1).all()
    if empty.all():
        assert not any(results[name].any() for name in lstm.parameters())


@pytest.mark.parametrize("shape", [(0, BATCH, INPUT), (STEPS, 0, INPUT), (0, 0, INPUT)])
def test_bug_01_no_steps_or_no_sequences(shape: tuple[int, ...]) -> None:
    lstm = model(2, bidirectional=True)
    results = step_of(lstm, inputs(*shape))
    assert results["output"].shape == (*shape[:2], 2 * HIDDEN)
    assert results["h_n"].shape == results["d_c_0"].shape == (4, shape[1], HIDDEN)
    assert results["d_x"].shape == shape
    assert not any(results[name].any() for name in lstm.parameters())
    lengths = np.zeros(shape[1], np.int64)
    for name, array in step_of(lstm, inputs(*shape), None, lengths).items():
        assert_same_bits(array, results[name], name)


@pytest.mark.parametrize("batch_first", [False, True])
def test_bug_02_a_tail_is_left_uninitialised_where_no_sequence_is_full(batch_first: bool) -> None:
    """[ONNX Runtime: max(lengths) < T]"""
    lstm, lengths = model(2, bidirectional=True, batch_first=batch_first), np.array([2, 1, 3])
    shape = (BATCH, STEPS, INPUT) if batch_first else (STEPS, BATCH, INPUT)
    for _ in range(5):
        litter_memory()
        results = step_of(lstm, inputs(*shape), None, lengths)
        for name in ("output", "d_x"):
            array = results[name].swapaxes(0, 1) if batch_first else results[name]
            for b, length in enumerate(lengths):
                assert array[:length, b].all()
                assert not array[length:, b].any()


@pytest.mark.parametrize("length", [STEPS + 1, 2**31, 2**32 + 2, 2**63 - 1, -1, -(2**63)])
def test_bug_03_a_length_beyond_the_sequence_is_believed(length: int) -> None:
    """[TensorFlow: segfault; ONNX Runtime: an error that states the wrong bounds]"""
    with pytest.raises(ValueError, match=rf"^lengths: .* from 0 to {STEPS}, got {length}$"):
        model().forward(inputs(), lengths=np.array([1, length, 2]))
    for within in (0, STEPS):
        model()(inputs(), lengths=np.array([1, within, 2]))


@pytest.mark.parametrize("change", [-1, 1])
def test_bug_04_weights_that_do_not_match_the_hidden_size(change: int) -> None:
    """[ONNX Runtime, WebNN: heap reads out of bounds; weights were never checked]"""
    lstm = model(2, bidirectional=True)
    for name, weight in lstm.state_dict().items():
        for axis in range(weight.ndim):
            shape = list(weight.shape)
            shape[axis] += change
            state_dict = lstm.state_dict() | {name: np.zeros(shape)}
            with pytest.raises(ValueError, match=rf"^state_dict\['{name}'\]: expected shape"):
                lstm.load_state_dict(state_dict)
            with pytest.raises(ValueError, match=name), lstm.editing() as parameters:
                parameters[name] = np.zeros(shape)


def test_bug_04_sizes_are_changed_after_construction() -> None:
    lstm = model(2)
    x, expected = inputs(), model(2)(inputs())[0]
    for name in ("input_size", "hidden_size", "num_layers", "bidirectional", "dtype", "bias"):
        with pytest.raises(AttributeError, match=name):
            setattr(lstm, name, getattr(lstm, name))
    for name in lstm.parameters():
        weight = getattr(lstm, name)
        with pytest.raises(AttributeError, match=name):
            setattr(lstm, name, np.zeros(3))
        with pytest.raises(ValueError, match=r"WRITEABLE|writeable"):
            weight.flags.writeable = True
        with pytest.raises(ValueError, match=r"resize|own"):
            weight.resize(1)
        weight.shape = (1, -1)  # harmless: this view is the caller's own
        assert getattr(lstm, name).shape != weight.shape
    assert_same_bits(lstm(x)[0], expected)


@pytest.mark.parametrize("rank", range(6))
def test_bug_05_a_dimension_is_read_before_the_rank_is_checked(rank: int) -> None:
    """[ONNX Runtime, LiteRT, TensorFlow: shapes of too few axes read out of bounds]"""
    lstm, x = model(), inputs()
    h = random_state(np.random.default_rng(0), lstm, BATCH)[0]
    output, _, tape = lstm.forward(x)
    odd = np.zeros((1,) * rank)
    calls: list[Callable[[], Any]] = [
        lambda: lstm(odd),
        lambda: lstm(x, (odd, h)),
        lambda: lstm(x, (h, odd)),
        lambda: lstm(x, lengths=odd.astype(int)),
        lambda: lstm.backward(tape, odd),
        lambda: lstm.backward(tape, output, (odd, h)),
        lambda: lstm.backward(tape, output, (h, odd)),
        lambda: lstm.load_state_dict(lstm.state_dict() | {"weight_ih_l0": odd}),
        lambda: lstm.load_state_dict(lstm.state_dict() | {"bias_hh_l0": odd}),
        lambda: LSTM.from_gates(*[odd] * 8),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="expected shape"):
            call()


def test_bug_06_a_malformed_state_is_taken() -> None:
    """[PyTorch: LSTMCell with one tensor for the pair: segfaults and memory corruption]"""
    lstm, x = model(2), inputs()
    h, c = random_state(np.random.default_rng(0), lstm, BATCH)
    malformed: list[Any] = [
        h, (h,), [h, c, c], (h, None), (None, c), ((h, c), (h, c)), (h[:1], c), (h, c[:, :1]),
        (h, c[..., :-1]), (h[:, 0], c[:, 0]), (h.tolist(), c), (h, c.astype(np.float32)), "hc",
    ]  # fmt: skip
    _, _, tape = lstm.forward(x)
    for state in malformed:
        with pytest.raises((TypeError, ValueError), match=r"^state"):
            lstm(x, state)
        if not any(member is None for member in state):  # which stands for zeros there
            with pytest.raises((TypeError, ValueError), match=r"^d_state"):
                lstm.backward(tape, None, state)


@pytest.mark.parametrize("lengths", [[1, 6, 3], [3, 6, 1], [6, 1, 6], [2, 2, 2], [1, 0, 6]])
def test_bug_07_packed_metadata_is_trusted(lengths: list[int]) -> None:
    """[PyTorch: batch_sizes that do not fall; out of bounds]. Ours is made here, from any order."""
    lstm, x, ends = model(2, bidirectional=True), inputs(), np.array(lengths)
    packing = Packing(STEPS, BATCH, ends)
    assert (np.diff(packing.active) <= 0).all()
    assert packing.offsets[0] == 0
    assert packing.offsets[-1] == packing.rows == ends.sum()
    expected, state = plain_lstm(lstm, x, None, ends)
    output, (h, c) = lstm(x, lengths=ends)
    assert_close(output, expected, tolerance_of(output.dtype))
    assert_close(h, state[0], tolerance_of(h.dtype))
    assert_close(c, state[1], tolerance_of(c.dtype))


# Every way in which weights change.
def change_by_loading(lstm: LSTM) -> None:
    lstm.load_state_dict(lstm.state_dict())


def change_by_editing(lstm: LSTM) -> None:
    with lstm.editing() as parameters:
        parameters["weight_hh_l0"][0, 0] += 1


def change_by_editing_nothing(lstm: LSTM) -> None:
    with lstm.editing():
        pass


def change_by_optimiser(lstm: LSTM) -> None:
    with lstm.parameters().updating() as owned:
        for array in owned.values():
            array *= 0.5


def change_half_way(lstm: LSTM) -> None:
    def change() -> None:
        with lstm.parameters().updating() as owned:
            owned["weight_hh_l0"][...] = 0
            owned["unknown"][...] = 0

    with pytest.raises(KeyError):
        change()


CHANGES = [
    change_by_loading, change_by_editing, change_by_editing_nothing, change_by_optimiser,
    change_half_way,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_bug_08_a_tape_outlives_its_weights(change: Callable[[LSTM], None]) -> None:
    """[PyTorch, TensorFlow: backward with a cache that is undersized or of something else]"""
    lstm = model(2)
    output, _, tape = lstm.forward(inputs())
    change(lstm)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"^tape: stale, the weights changed since forward"):
            lstm.backward(tape, output)
    output, _, tape = lstm.forward(inputs())
    lstm.backward(tape, output)


def test_bug_08_a_tape_is_used_twice() -> None:
    lstm = model()
    output, _, tape = lstm.forward(inputs())
    lstm.backward(tape, output)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"^tape: used already"):
            lstm.backward(tape, output)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"]
)
def test_bug_08_a_copied_tape_would_be_used_twice(duplicate: Callable[[Any], Any]) -> None:
    _, _, tape = model().forward(inputs())
    with pytest.raises(TypeError, match="cannot be copied"):
        duplicate(tape)


def test_bug_08_a_tape_is_another_layers() -> None:
    lstm = model()
    output, _, tape = lstm.forward(inputs())
    for other in (model(), copy.deepcopy(lstm), LSTM(INPUT, 9, dtype=np.float64)):
        with pytest.raises(ValueError, match=r"^tape: .* was made by another layer"):
            other.backward(tape, output)
    lstm.backward(tape, output)


@pytest.mark.parametrize("tape", [None, 0, "tape", (), {}, object(), np.zeros(3), LSTM])
def test_bug_08_a_tape_is_no_tape(tape: Any) -> None:
    with pytest.raises(TypeError, match=r"^tape: expected the Tape that forward returned, got"):
        model().backward(tape, inputs(STEPS, BATCH, HIDDEN))


def test_bug_08_a_failed_check_leaves_the_tape_usable() -> None:
    lstm, x = model(2, bidirectional=True), inputs()
    expected = step_of(lstm, x)
    output, (h, c), tape = lstm.forward(x)
    d_output, ones = np.ones_like(output), np.ones_like(h)
    attempts: list[tuple[Any, Any]] = [
        (d_output[:-1], None), (d_output[..., :-1], None), (d_output.swapaxes(0, 1), None),
        (d_output.astype(np.float32), None), (d_output.tolist(), None), (d_output, h),
        (d_output, (h, c, c)), (d_output, (h[:1], c)), (d_output, (h, c[:, :1])),
        (d_output, (h, "c")), (d_output[None], (h, c)),
    ]  # fmt: skip
    for wrong_output, wrong_state in attempts:
        with pytest.raises((TypeError, ValueError)):
            lstm.backward(tape, wrong_output, wrong_state)
    with pytest.raises(ValueError, match="another layer"):
        model(2, bidirectional=True).backward(tape, d_output)
    d_x, d_state, grads = lstm.backward(tape, d_output, (ones, ones))
    assert_same_bits(d_x, expected["d_x"])
    assert_same_bits(d_state[0], expected["d_h_0"])
    for name, grad in grads.items():
        assert_same_bits(grad, expected[name], name)


def test_bug_08_tapes_of_one_layer_do_not_mix() -> None:
    """Two forwards of different shapes, their backwards in the other order."""
    lstm, first, second = model(2), inputs(), inputs(2, 1, INPUT)
    tapes = [lstm.forward(x) for x in (first, second)]
    results = [lstm.backward(tape, np.ones_like(output)) for output, _, tape in reversed(tapes)]
    for x, (d_x, _, grads) in zip((second, first), results, strict=True):
        output, _, tape = lstm.forward(x)
        d_x_alone, _, grads_alone = lstm.backward(tape, np.ones_like(output))
        assert_same_bits(d_x, d_x_alone)
        for name, grad in grads.items():
            assert_same_bits(grad, grads_alone[name], name)


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 0}, {"num_layers": -49}, {"num_layers": 2**31}, {"hidden_size": 0},
        {"hidden_size": -1}, {"hidden_size": 2**31}, {"input_size": 0}, {"input_size": -1},
        {"dropout": -0.1}, {"dropout": 1.1}, {"dropout": float("nan")}, {"dropout": float("inf")},
    ],
    ids=str,
)  # fmt: skip
def test_bug_09_negative_and_huge_scalars(options: dict[str, Any]) -> None:
    """[PyTorch: num_layers=-49 corrupts the heap; ONNX Runtime: hidden_size <= 0]"""
    (name,) = options
    with pytest.raises(ValueError, match=rf"^{name}: "):
        LSTM(**({"input_size": 3, "hidden_size": 3, "num_layers": 2} | options))


# --- values --------------------------------------------------------------------------------------


def test_bug_10_the_reverse_direction_starts_in_the_padding_or_from_the_wrong_state() -> None:
    """[ONNX Runtime, onnx-tensorflow, MXNet, PyTorch]. Each row is run alone, turned round."""
    lstm, x, lengths = model(bidirectional=True), inputs(), np.array([2, 6, 3])
    state = random_state(np.random.default_rng(0), lstm, BATCH)
    x[np.arange(STEPS)[:, None] >= lengths] = 1e6
    output, (h_n, c_n) = lstm(x, state, lengths=lengths)
    w = lstm.parameters()
    bias = w["bias_ih_l0_reverse"] + w["bias_hh_l0_reverse"]
    for b, length in enumerate(lengths):
        outputs, h, c = plain_run(
            x[:length, b][::-1], state[0][1, b], state[1][1, b],
            w["weight_ih_l0_reverse"], w["weight_hh_l0_reverse"], bias,
        )  # fmt: skip
        assert_close(output[:length, b, HIDDEN:], outputs[::-1], 1e-12)
        assert_close(h_n[1, b], h, 1e-12)
        assert_close(c_n[1, b], c, 1e-12)


def test_bug_11_the_final_state_is_taken_at_the_end_of_the_padding() -> None:
    """[RLlib, TorchRL, AllenNLP]"""
    lstm, lengths = model(2, bidirectional=True), np.array([2, 6, 1])
    output, (h_n, _) = lstm(inputs(), lengths=lengths)
    for b, length in enumerate(lengths):
        assert_same_bits(h_n[-2, b], output[length - 1, b, :HIDDEN])
        assert_same_bits(h_n[-1, b], output[0, b, HIDDEN:])


@pytest.mark.parametrize("lengths", [None, [2, 4, 1]])
def test_bug_12_a_gradient_is_overwritten_in_a_stack_of_bidirectional_layers(
    lengths: list[int] | None,
) -> None:
    """[MXNet: dx over dy before the other direction had read it, from three layers on]"""
    lstm = LSTM(2, 2, 3, bidirectional=True, dtype=np.float64, rng=3)
    ends = None if lengths is None else np.array(lengths)
    state = random_state(np.random.default_rng(0), lstm, BATCH)
    arrays = {"x": inputs(4, BATCH, 2), "h_0": state[0], "c_0": state[1], **lstm.state_dict()}
    d_output = inputs(4, BATCH, 4)
    other = copy.deepcopy(lstm)

    def loss(moved: dict[str, Array]) -> float:
        other.load_state_dict({name: moved[name] for name in other.parameters()})
        output, _ = other(moved["x"], (moved["h_0"], moved["c_0"]), lengths=ends)
        return float((output * d_output).sum())

    _, _, tape = lstm.forward(arrays["x"], state, lengths=ends)
    d_x, d_state, grads = lstm.backward(tape, d_output)
    actual = {"x": d_x, "h_0": d_state[0], "c_0": d_state[1], **grads}
    for name, expected in gradient(loss, arrays).items():
        assert_close(actual[name], expected, 1e-6, name)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_bug_13_packed_weights_go_stale(change: Callable[[LSTM], None]) -> None:
    """[MXNet with MKL-DNN: weights reordered once and kept after they had changed]"""
    lstm, x = model(2), inputs()
    step_of(lstm, x)
    change(lstm)
    fresh = model(2)
    fresh.load_state_dict(lstm.state_dict())
    for (name, actual), expected in zip(
        step_of(lstm, x).items(), step_of(fresh, x).values(), strict=True
    ):
        assert_same_bits(actual, expected, name)


def test_bug_13_weights_are_written_behind_the_layers_back() -> None:
    lstm = model()
    for name, weight in lstm.parameters().items():
        with pytest.raises(ValueError, match="read-only"):
            weight[...] = 0
        with pytest.raises(ValueError, match="read-only"):
            weight += 1
        with pytest.raises(TypeError):
            lstm.parameters()[name] = weight  # type: ignore[index]
    for name, weight in model().parameters().items():
        assert_same_bits(lstm.parameters()[name], weight, name)


def test_bug_13_editing_is_all_or_nothing() -> None:
    lstm = model()
    before, version = lstm.state_dict(), lstm.parameters().version

    def interrupted(parameters: dict[str, Array]) -> None:
        parameters["weight_ih_l0"][...] = 7
        raise KeyboardInterrupt

    def misshapen(parameters: dict[str, Array]) -> None:
        parameters["weight_ih_l0"][...] = 7
        parameters["bias_hh_l0"] = np.zeros(3)

    def of_another_dtype(parameters: dict[str, Array]) -> None:
        parameters["weight_ih_l0"][...] = 7
        parameters["bias_hh_l0"] = np.zeros(4 * HIDDEN, np.float32)

    def incomplete(parameters: dict[str, Array]) -> None:
        parameters["weight_ih_l0"][...] = 7
        del parameters["bias_hh_l0"]

    def excessive(parameters: dict[str, Array]) -> None:
        parameters["weight_ih_l0"][...] = 7
        parameters["weight_ih_l9"] = np.zeros(3)

    for edit in (interrupted, misshapen, of_another_dtype, incomplete, excessive):
        with (
            pytest.raises((KeyboardInterrupt, TypeError, ValueError)),
            lstm.editing() as parameters,
        ):
            edit(parameters)
        assert lstm.parameters().version == version
        for name, weight in lstm.parameters().items():
            assert_same_bits(weight, before[name], name)
    with lstm.editing() as parameters:
        parameters["bias_hh_l0"][...] = 7
    parameters["bias_hh_l0"][...] = 8  # what was handed out is a copy
    assert (lstm.bias_hh_l0 == 7).all()


def test_bug_14_scratch_is_not_cleared_between_calls() -> None:
    """[ONNX Runtime: no bias, batch >= 3]. Each call after others of other sizes, and after NaN."""
    for bias in (False, True):
        lstm = model(2, bidirectional=True, bias=bias)
        shapes = [(6, 3), (2, 1), (9, 7), (1, 4), (6, 3), (6, 3)]
        alone = {
            shape: step_of(model(2, bidirectional=True, bias=bias), inputs(*shape, INPUT))
            for shape in shapes
        }
        for shape in shapes:
            litter_memory()
            for name, array in step_of(lstm, inputs(*shape, INPUT)).items():
                assert_same_bits(array, alone[shape][name], name)


def test_bug_15_weight_gradients_accumulate_from_call_to_call() -> None:
    """[oneDNN: added to what the caller's buffer held]. Ours are fresh each time."""
    lstm, x = model(2), inputs()
    first, second = step_of(lstm, x), step_of(lstm, x)
    for name, array in first.items():
        assert_same_bits(second[name], array, name)
        assert not np.shares_memory(second[name], array)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
def test_bug_16_a_nan_depends_on_the_place_in_a_vector(dtype: type, function: str) -> None:
    """[PyTorch: in seven kernels, NaN in the vectorised part, a number in the tail]"""
    x = np.linspace(-3, 3, 35, dtype=dtype)
    for size in range(1, len(x) + 1):
        clean = np.empty(size, dtype)
        getattr(_core, function)(clean, x[:size].copy())
        for place in range(size):
            poisoned, out = x[:size].copy(), np.empty(size, dtype)
            poisoned[place] = np.nan
            getattr(_core, function)(out, poisoned)
            assert np.isnan(out[place])
            clean_elsewhere = clean.copy()
            clean_elsewhere[place] = np.nan
            assert_same_bits(out, clean_elsewhere)


@pytest.mark.parametrize("hidden", [1, 3, 8, 17])
def test_bug_16_a_nan_spreads_through_every_hidden_unit_alike(hidden: int) -> None:
    lstm = LSTM(2, hidden, rng=0)
    x = np.ones((3, 2, 2), np.float32)
    x[1, 0, 0] = np.nan
    results = step_of(lstm, x)
    assert not np.isnan(results["output"][0]).any()
    assert np.isnan(results["output"][1:, 0]).all()
    assert not np.isnan(results["output"][:, 1]).any()
    for name in lstm.parameters():
        assert np.isnan(results[name]).all() or name.startswith("weight"), name


def test_bug_17_activations_are_clipped() -> None:
    """[ONNX Runtime: sigmoid cut at ±20, tanh at ±10]. All magnitudes that float32 has."""
    x = np.ldexp(np.float32(1), np.arange(-149, 128, dtype=np.int32)).astype(np.float32)
    x = np.concatenate([-x[::-1], x * np.float32(1.5), x])
    x = np.sort(np.concatenate([x, np.linspace(-110, 110, 20001, dtype=np.float32)]))
    for function, reference, lowest in ((_core.sigmoid, expit, 0), (_core.tanh, np.tanh, -1)):
        out = np.empty_like(x)
        function(out, x)
        assert out.min() >= lowest
        assert out.max() == 1
        expected = reference(x.astype(np.float64))
        normal_range = np.abs(expected) >= np.finfo(np.float32).tiny
        ulp = np.spacing(np.abs(expected).astype(np.float32))
        errors = np.abs(out.astype(np.float64) - expected) / ulp
        assert errors[normal_range].max() <= 4
        falls = -np.diff(out) / ulp[1:]
        assert falls.max() <= 4, "further from monotone than the rounding of two neighbours"
    # Between -20 and -87 a sigmoid that is cut at -20 is wrong by up to 29 orders of magnitude.
    deep = np.array([-30, -60, -85], np.float32)
    out = np.empty_like(deep)
    _core.sigmoid(out, deep)
    np.testing.assert_allclose(out, expit(deep.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lengths", [None, [3, 9, 1, 9, 0, 5, 2, 7]])
def test_bug_18_a_batch_differs_from_its_sequences_alone(
    dtype: type, lengths: list[int] | None
) -> None:
    """[PyTorch on the CPU]. Up to the rounding of another order of summation."""
    lstm = LSTM(INPUT, HIDDEN, 2, bidirectional=True, dtype=dtype, rng=1)
    x = inputs(9, 8, INPUT, dtype=dtype)
    ends = None if lengths is None else np.array(lengths)
    output, (h, c) = lstm(x, lengths=ends)
    for b in range(8):
        alone = None if ends is None else ends[b : b + 1]
        row, (h_row, c_row) = lstm(x[:, b : b + 1], lengths=alone)
        tolerance = tolerance_of(dtype) / 10
        assert_close(output[:, b : b + 1], row, tolerance)
        assert_close(h[:, b : b + 1], h_row, tolerance)
        assert_close(c[:, b : b + 1], c_row, tolerance)


def test_bug_19_a_long_sequence_overflows_the_stack() -> None:
    """[PyTorch: recursion in backward, from 320 steps on]"""
    steps = 100_000
    lstm = LSTM(1, 2, rng=0)
    x = inputs(steps, 1, 1, dtype=np.float32)
    results = step_of(lstm, x)
    assert all(np.isfinite(array).all() for array in results.values())
    # A step forgets: what the last 200 steps give from a cold start is what they gave here, and
    # their gradients with respect to the inputs are the same.
    warm = step_of(lstm, x[-200:])
    assert_close(results["output"][-20:], warm["output"][-20:], 1e-5)
    assert_close(results["d_x"][-20:], warm["d_x"][-20:], 1e-5)


def test_bug_20_a_strided_gradient_is_read_as_if_it_were_compact() -> None:
    """[PyTorch: wrong gradients where d_output is no contiguous array]"""
    lstm, x = model(2, bidirectional=True), inputs()
    width = 2 * HIDDEN
    d_output = inputs(STEPS, BATCH, width)
    strange = [
        np.ascontiguousarray(d_output.transpose(2, 0, 1)).transpose(1, 2, 0),
        np.ascontiguousarray(d_output.swapaxes(0, 1)).swapaxes(0, 1),
        np.concatenate([d_output, d_output], axis=2)[..., :width],
    ]
    _, _, tape = lstm.forward(x)
    expected = lstm.backward(tape, d_output)
    for view in strange:
        assert not view.flags.c_contiguous
        _, _, tape = lstm.forward(x)
        d_x, _, grads = lstm.backward(tape, view)
        assert_same_bits(d_x, expected[0])
        for name, grad in grads.items():
            assert_same_bits(grad, expected[2][name], name)


def test_bug_21_gate_orders_and_biases_are_mixed_up() -> None:
    """[Every pair of libraries: i f g o, i f o g, i o f c, f i o c; one bias or two]

    Weights over [h, x] for each gate, all different, through the four equations as written.
    """
    rng = np.random.default_rng(0)
    shapes = {"W": (HIDDEN, HIDDEN + INPUT), "b": (HIDDEN,)}
    gates = {f"{kind}_{gate}": normal(rng, shapes[kind]) for gate in "fiCo" for kind in "Wb"}
    lstm = LSTM.from_gates(**gates)
    x, (h, c) = inputs(), random_state(rng, lstm, BATCH)
    output, (h_n, c_n) = lstm(x, (h, c))
    h, c = h[0], c[0]
    for t in range(STEPS):
        joined = np.concatenate([h, x[t]], axis=1)
        f, i, o = (expit(joined @ gates[f"W_{gate}"].T + gates[f"b_{gate}"]) for gate in "fio")
        c = f * c + i * np.tanh(joined @ gates["W_C"].T + gates["b_C"])
        h = o * np.tanh(c)
        assert_close(output[t], h, 1e-12)
    assert_close(h_n[0], h, 1e-12)
    assert_close(c_n[0], c, 1e-12)


def test_bug_21_a_round_trip_through_a_state_dict_changes_something() -> None:
    lstm = model(2, bidirectional=True)
    other = LSTM(INPUT, HIDDEN, 2, bidirectional=True, dtype=np.float64, rng=99)
    other.load_state_dict(lstm.state_dict())
    assert list(other.state_dict()) == list(lstm.state_dict())
    for (name, actual), expected in zip(
        step_of(other, inputs()).items(), step_of(lstm, inputs()).values(), strict=True
    ):
        assert_same_bits(actual, expected, name)


def test_bug_21_one_bias_is_dropped_or_doubled() -> None:
    """b_ih and b_hh are added; from_gates puts all of b into the first."""
    lstm = model()
    with lstm.editing() as parameters:
        total = parameters["bias_ih_l0"] + parameters["bias_hh_l0"]
        parameters["bias_ih_l0"][...] = 0
        parameters["bias_hh_l0"][...] = total
    assert_same_bits(lstm(inputs())[0], model()(inputs())[0])
    results = step_of(lstm, inputs())
    assert_same_bits(results["bias_ih_l0"], results["bias_hh_l0"])
