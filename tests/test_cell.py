"""LSTMCell: one step, as torch.nn.LSTMCell has it and to the bits of a layer of `LSTM`."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, LSTMCell, _core, load, save
from tests.finite_differences import gradient
from tests.support import Array, State, assert_close, assert_same_bits, normal, tolerance_of

DTYPES = [np.float32, np.float64]
TOLERANCE = 1e-6  # of central differences


def assert_same(actual: Array, expected: Array, name: str = "array") -> None:
    """To the bit where kernels are packed: BLAS rounds otherwise where other rows are beside."""
    if _core.VECTOR[4]:
        assert_same_bits(actual, expected, name)
    else:
        assert_close(actual, expected, tolerance_of(actual.dtype), name)


def layer_of(cell: LSTMCell) -> LSTM:
    """A layer of one direction with the cell's weights."""
    lstm = LSTM(cell.input_size, cell.hidden_size, bias=cell.bias, dtype=cell.dtype)
    lstm.load_state_dict({f"{name}_l0": array for name, array in cell.parameters().items()})
    return lstm


def states(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> State:
    return normal(rng, shape, dtype), normal(rng, shape, dtype)


# --- a loop over cells is an LSTM ----------------------------------------------------------------


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(1, 20),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from(DTYPES),
)
def test_step_by_step_it_has_the_bits_of_a_layer(
    seed: int, steps: int, hidden: int, batch: int, bias: bool, dtype: type
) -> None:
    rng = np.random.default_rng(seed)
    cell = LSTMCell(3, hidden, bias=bias, dtype=dtype, rng=rng)
    x = normal(rng, (steps, batch, 3), dtype)
    h, c = states(rng, (batch, hidden), dtype)
    expected, (h_n, c_n) = layer_of(cell)(x, (h[np.newaxis], c[np.newaxis]))
    for t in range(steps):
        (h_forward, c_forward), _ = cell.forward(x[t], (h, c))
        h, c = cell(x[t], (h, c))
        assert_same_bits(h_forward, h)
        assert_same_bits(c_forward, c)
        assert_same(h, expected[t], f"step {t}")
    assert_same(h, h_n[0])
    assert_same(c, c_n[0])


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_through_a_loop_are_those_of_a_layer(bias: bool) -> None:
    rng = np.random.default_rng(0)
    cell = LSTMCell(3, 5, bias=bias, dtype=np.float64, rng=rng)
    x, d_output = normal(rng, (6, 4, 3)), normal(rng, (6, 4, 5))
    h_0, c_0 = states(rng, (4, 5), np.float64)
    d_h, d_c = d_h_n, d_c_n = states(rng, (4, 5), np.float64)
    h, c, tapes = h_0, c_0, []
    for x_t in x:
        (h, c), tape = cell.forward(x_t, (h, c))
        tapes.append(tape)
    sums = {name: np.zeros(array.shape) for name, array in cell.parameters().items()}
    d_x = np.zeros_like(x)
    for t in reversed(range(6)):
        d_x[t], (d_h, d_c), grads = cell.backward(tapes[t], d_h + d_output[t], d_c)
        assert list(grads) == list(cell.parameters())
        for name, grad in grads.items():
            sums[name] += grad

    lstm = layer_of(cell)
    _, _, tape = lstm.forward(x, (h_0[np.newaxis], c_0[np.newaxis]))
    expected, d_state, expected_grads = lstm.backward(
        tape, d_output, (d_h_n[np.newaxis], d_c_n[np.newaxis])
    )
    assert_close(d_x, expected, 1e-12, "d_x")
    assert_close(d_h, d_state[0][0], 1e-12, "d_h_0")
    assert_close(d_c, d_state[1][0], 1e-12, "d_c_0")
    for name, total in sums.items():
        assert_close(total, expected_grads[f"{name}_l0"], 1e-12, name)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_element_by_element(batched: bool, bias: bool) -> None:
    rng = np.random.default_rng(1)
    cell = LSTMCell(2, 3, bias=bias, dtype=np.float64, rng=rng)
    axes = (4,) if batched else ()
    h, c = states(rng, (*axes, 3), np.float64)
    d_h, d_c = states(rng, (*axes, 3), np.float64)
    arrays = {"x": normal(rng, (*axes, 2)), "h": h, "c": c} | cell.state_dict()

    def loss(moved: dict[str, Array]) -> float:
        cell.load_state_dict({name: moved[name] for name in cell.parameters()})
        h, c = cell(moved["x"], (moved["h"], moved["c"]))
        return float((h * d_h).sum() + (c * d_c).sum())

    expected = gradient(loss, arrays)
    cell.load_state_dict({name: arrays[name] for name in cell.parameters()})
    _, tape = cell.forward(arrays["x"], (h, c))
    d_x, d_state, grads = cell.backward(tape, d_h, d_c)
    results = {"x": d_x, "h": d_state[0], "c": d_state[1]} | grads
    for name, actual in results.items():
        assert actual.shape == arrays[name].shape
        assert_close(actual, expected[name], TOLERANCE, name)


def test_none_stands_for_zeros() -> None:
    rng = np.random.default_rng(2)
    cell = LSTMCell(3, 4, rng=rng)
    x, zeros = normal(rng, (2, 3), np.float32), np.zeros((2, 4), np.float32)
    d_h, d_c = states(rng, (2, 4), np.float32)
    for actual, expected in zip(cell(x), cell(x, (zeros, zeros)), strict=True):
        assert_same_bits(actual, expected)
    for given_d, full in [((d_h,), (d_h, zeros)), ((None, d_c), (zeros, d_c))]:
        results = [cell.backward(cell.forward(x)[1], *d) for d in (given_d, full)]
        assert_same_bits(results[0][0], results[1][0])
        assert_same_bits(results[0][2]["weight_ih"], results[1][2]["weight_ih"])


# --- layouts, copies, tapes ----------------------------------------------------------------------


def test_a_single_sequence_needs_no_batch_axis_and_any_memory_layout_will_do() -> None:
    rng = np.random.default_rng(3)
    cell = LSTMCell(3, 4, rng=rng)
    x, (h, c) = normal(rng, (2, 3), np.float32), states(rng, (2, 4), np.float32)
    expected_h, expected_c = cell(x, (h, c))
    alone = cell(x[1], (h[1], c[1]))
    assert alone[0].shape == (4,)
    assert_same(alone[0], expected_h[1])
    assert_same(alone[1], expected_c[1])
    for lay in (np.asfortranarray, lambda a: a.repeat(2, axis=1)[:, ::2]):
        actual = cell(lay(x), (lay(h), lay(c)))
        assert_same_bits(actual[0], expected_h)
        assert_same_bits(actual[1], expected_c)


def test_what_goes_in_and_out_may_be_changed() -> None:
    rng = np.random.default_rng(4)
    cell = LSTMCell(3, 4, rng=rng)
    x, (h, c) = normal(rng, (2, 3), np.float32), states(rng, (2, 4), np.float32)
    d_h, d_c = states(rng, (2, 4), np.float32)
    given_arrays = [x, h, c, d_h, d_c]
    before = [array.copy() for array in given_arrays]
    expected = cell.backward(cell.forward(x, (h, c))[1], d_h, d_c)
    for array, same in zip(given_arrays, before, strict=True):
        assert_same_bits(array, same)
    (new_h, new_c), tape = cell.forward(x, (h, c))
    for array in (x, h, c, new_h, new_c):
        array[...] = np.nan
    d_x, d_state, grads = cell.backward(tape, d_h, d_c)
    assert_same_bits(d_x, expected[0])
    assert_same_bits(d_state[0], expected[1][0])
    assert_same_bits(grads["weight_hh"], expected[2]["weight_hh"])


@pytest.mark.parametrize("state", [False, True])
def test_a_batch_of_nothing(state: bool) -> None:
    cell = LSTMCell(3, 4)
    empty = np.zeros((0, 4), np.float32)
    (h, c), tape = cell.forward(np.zeros((0, 3), np.float32), (empty, empty) if state else None)
    assert h.shape == c.shape == (0, 4)
    d_x, _, grads = cell.backward(tape, h)
    assert d_x.shape == (0, 3)
    assert not any(grad.any() for grad in grads.values())


def test_a_tape_serves_one_backward_of_its_own_cell() -> None:
    cell, x = LSTMCell(3, 4), np.ones((2, 3), np.float32)
    (h, _), tape = cell.forward(x)
    with pytest.raises(ValueError, match=r"tape: .* was made by another layer"):
        LSTMCell(3, 4).backward(tape, h)
    with pytest.raises(ValueError, match=r"d_h: expected shape \(2, 4\), got \(1, 4\)"):
        cell.backward(tape, h[:1])
    with pytest.raises(TypeError, match="d_c: expected an array of float32"):
        cell.backward(tape, h, h.astype(np.float64))
    cell.backward(tape, h)  # a refusal has not used it up
    with pytest.raises(RuntimeError, match="tape: used already"):
        cell.backward(tape, h)
    _, tape = cell.forward(x)
    with cell.editing() as parameters:
        parameters["bias_hh"][...] = 1
    with pytest.raises(RuntimeError, match="tape: stale"):
        cell.backward(tape, h)


# --- the layer -----------------------------------------------------------------------------------


def test_parameters_are_named_and_drawn_as_those_of_a_layer() -> None:
    cell, lstm = LSTMCell(3, 4, rng=5), LSTM(3, 4, rng=5)
    assert {name: array.shape for name, array in cell.state_dict().items()} == {
        "weight_ih": (16, 3), "weight_hh": (16, 4), "bias_ih": (16,), "bias_hh": (16,),
    }  # fmt: skip
    for name, array in cell.parameters().items():
        assert_same_bits(array, lstm.parameters()[f"{name}_l0"])
    assert list(LSTMCell(3, 4, bias=False).parameters()) == ["weight_ih", "weight_hh"]
    assert_same_bits(cell.weight_hh, cell.parameters()["weight_hh"])


def test_a_change_of_weights_is_seen_by_the_next_step() -> None:
    cell, x = LSTMCell(3, 4), np.ones((2, 3), np.float32)
    before, _ = cell(x)
    with cell.editing() as parameters:
        parameters["weight_ih"] *= 2
    assert not np.array_equal(cell(x)[0], before)


def test_copies_pickles_and_files_give_the_same_steps(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    cell, x = LSTMCell(3, 4, bias=False, rng=6), np.ones((2, 3), np.float32)
    save(cell, tmp_path / "cell.safetensors")
    for other in (
        copy.deepcopy(cell),
        pickle.loads(pickle.dumps(cell)),
        load(tmp_path / "cell.safetensors", LSTMCell),
    ):
        assert repr(other) == "LSTMCell(3, 4, bias=False)"
        assert_same_bits(other(x)[0], cell(x)[0])


@pytest.mark.parametrize(
    ("x", "state", "error", "words"),
    [
        ((2, 4), None, ValueError, r"x: expected shape \(B, 3\), got \(2, 4\)"),
        ((4,), None, ValueError, r"x: expected shape \(3,\), got \(4,\)"),
        ((1, 2, 3), None, ValueError, r"x: expected shape \(B, 3\), got \(1, 2, 3\)"),
        ((2, 3), ((2, 4), (3, 4)), ValueError, r"state\[1\] \(c\): expected shape \(2, 4\)"),
        ((3,), ((1, 4), (1, 4)), ValueError, r"state\[0\] \(h\): expected shape \(4,\)"),
        ((2, 3), ((2, 4),), ValueError, "state: expected a pair"),
    ],
)
def test_what_does_not_fit_is_refused(
    x: tuple[int, ...], state: Any, error: type[Exception], words: str
) -> None:
    cell = LSTMCell(3, 4)
    arrays = None if state is None else tuple(np.zeros(shape, np.float32) for shape in state)
    for call in (cell, cell.forward):
        with pytest.raises(error, match=words):
            call(np.zeros(x, np.float32), arrays)


def test_wrong_types_are_refused() -> None:
    cell, x = LSTMCell(3, 4), np.zeros((2, 3), np.float32)
    with pytest.raises(TypeError, match="x: expected an array of float32, got float64"):
        cell(x.astype(np.float64))
    with pytest.raises(TypeError, match=r"x: expected a numpy\.ndarray of float32, got a list"):
        cell([[0.0, 0.0, 0.0]])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="state: expected a pair"):
        cell(x, np.zeros((2, 2, 4), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hidden_size"):
        LSTMCell(3, 0)
    with pytest.raises(TypeError, match="bias"):
        LSTMCell(3, 4, bias=1)  # type: ignore[arg-type]


# --- torch ---------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_it_equals_torch(dtype: type, bias: bool, batched: bool, with_state: bool) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    cell = LSTMCell(5, 9, bias=bias, dtype=dtype, rng=rng)
    theirs = torch.nn.LSTMCell(5, 9, bias=bias, dtype=torch.from_numpy(cell.weight_ih.copy()).dtype)
    assert list(theirs.state_dict()) == list(cell.state_dict())
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in cell.state_dict().items()})
    axes = (6,) if batched else ()
    x = normal(rng, (*axes, 5), dtype)
    state = states(rng, (*axes, 9), dtype) if with_state else None
    d_h, d_c = states(rng, (*axes, 9), dtype)

    (h, c), tape = cell.forward(x, state)
    d_x, d_state, grads = cell.backward(tape, d_h, d_c)
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, *(state or ()))]
    expected = theirs(leaves[0], tuple(leaves[1:]) if with_state else None)
    torch.autograd.backward(expected, [torch.from_numpy(d) for d in (d_h, d_c)])
    actual = [h, c, d_x, *(d_state if with_state else ()), *grads.values()]
    wanted = [*expected, *(a.grad for a in leaves), *(p.grad for p in theirs.parameters())]
    for ours, tensor in zip(actual, wanted, strict=True):
        assert_close(ours, tensor.detach().numpy(), tolerance_of(dtype))
