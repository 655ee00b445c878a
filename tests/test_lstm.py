"""The LSTM layer's face: construction, initial weights, shapes, state_dict, dropout, tapes, copies.

What it computes is compared in test_lstm_oracle.py, test_lstm_gradients.py and test_lstm_laws.py.
"""

from __future__ import annotations

import copy
import pickle
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from fastlstm import LSTM
from tests.support import (
    assert_close,
    assert_same_bits,
    normal,
    output_shape,
    plain_lstm,
    random_state,
    sigmoid,
    tolerance_of,
)

DTYPES = [np.float32, np.float64]


# --- construction --------------------------------------------------------------------------------


def test_repr_tells_what_it_was_made_of() -> None:
    lstm = LSTM(
        3, 4, 2, bias=False, batch_first=True, dropout=0.25, bidirectional=True,
        input_dropout=0.5, locked_dropout=True, weight_dropout=0.125,
    )  # fmt: skip
    assert repr(lstm) == (
        "LSTM(3, 4, 2, bias=False, batch_first=True, dropout=0.25, bidirectional=True, "
        "input_dropout=0.5, locked_dropout=True, weight_dropout=0.125)"
    )
    assert repr(LSTM(3, 4, dtype=np.float64)) == "LSTM(3, 4, 1, dtype='float64')"


def test_dropout_without_a_second_layer_warns() -> None:
    with pytest.warns(UserWarning, match="num_layers=1"):
        LSTM(2, 3, dropout=0.5)


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        ((0, 3), {}, "input_size"),
        ((3, -1), {}, "hidden_size"),
        ((3, 3, 0), {}, "num_layers"),
        ((3, 3, 2), {"dropout": 1.5}, "dropout"),
        ((3, 3, 2), {"dropout": float("nan")}, "dropout"),
    ],
)
def test_sizes_out_of_range_are_refused(
    arguments: tuple[int, ...], options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        LSTM(*arguments, **options)


@pytest.mark.parametrize("options", [{"bias": 1}, {"dtype": np.float16}, {"dropout": "0.5"}])
def test_options_of_the_wrong_type_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(options))):
        LSTM(3, 3, 2, **options)


# --- initial weights -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_initial_weights_are_uniform_within_one_over_the_root_of_hidden_size(dtype: type) -> None:
    lstm = LSTM(20, 25, 2, bidirectional=True, dtype=dtype, rng=0)
    for name, weight in lstm.parameters().items():
        assert weight.dtype == dtype
        assert float(np.abs(weight).max()) <= 1 / 5 * (1 + 1e-6)
        assert kstest(weight.ravel().astype(float), "uniform", (-1 / 5, 2 / 5)).pvalue > 1e-4, name
    weights = np.concatenate([weight.ravel() for weight in lstm.parameters().values()])
    assert len(np.unique(weights)) > 0.99 * len(weights)  # no array is drawn twice


def test_a_seed_a_generator_or_fresh_entropy_draws_them() -> None:
    def weights(rng: Any) -> bytes:
        return LSTM(2, 3, rng=rng).weight_hh_l0.tobytes()

    assert weights(7) == weights(7) == weights(np.random.default_rng(7))
    assert weights(7) != weights(8)
    assert weights(None) != weights(None)


# --- parameters ----------------------------------------------------------------------------------


def test_parameters_have_torchs_names_shapes_and_order() -> None:
    """As torch.nn.LSTM(3, 5, 2, bidirectional=True).state_dict() lists them."""
    shapes = {
        name: array.shape for name, array in LSTM(3, 5, 2, bidirectional=True).state_dict().items()
    }
    assert list(shapes.items()) == [
        ("weight_ih_l0", (20, 3)),
        ("weight_hh_l0", (20, 5)),
        ("bias_ih_l0", (20,)),
        ("bias_hh_l0", (20,)),
        ("weight_ih_l0_reverse", (20, 3)),
        ("weight_hh_l0_reverse", (20, 5)),
        ("bias_ih_l0_reverse", (20,)),
        ("bias_hh_l0_reverse", (20,)),
        ("weight_ih_l1", (20, 10)),
        ("weight_hh_l1", (20, 5)),
        ("bias_ih_l1", (20,)),
        ("bias_hh_l1", (20,)),
        ("weight_ih_l1_reverse", (20, 10)),
        ("weight_hh_l1_reverse", (20, 5)),
        ("bias_ih_l1_reverse", (20,)),
        ("bias_hh_l1_reverse", (20,)),
    ]  # fmt: skip


def test_without_bias_there_are_no_biases() -> None:
    assert list(LSTM(3, 5, bias=False).parameters()) == ["weight_ih_l0", "weight_hh_l0"]


def test_a_state_dict_makes_another_layer_the_same() -> None:
    one, other = LSTM(3, 5, 2, rng=1), LSTM(3, 5, 2, rng=2)
    x = normal(np.random.default_rng(0), (4, 2, 3), np.float32)
    assert not np.array_equal(one(x)[0], other(x)[0])
    other.load_state_dict(one.state_dict())
    assert_same_bits(other(x)[0], one(x)[0])
    for name, array in one.state_dict().items():
        assert_same_bits(other.state_dict()[name], array, name)


def test_weights_are_attributes_and_read_only() -> None:
    lstm = LSTM(3, 5)
    assert_same_bits(lstm.weight_ih_l0, lstm.parameters()["weight_ih_l0"])
    with pytest.raises(ValueError, match="read-only"):
        lstm.weight_ih_l0[0, 0] = 1
    with pytest.raises(AttributeError, match="weight_ih_l1"):
        _ = lstm.weight_ih_l1


def test_edited_weights_act_from_the_next_call_on() -> None:
    lstm = LSTM(2, 3, dtype=np.float64, rng=1)
    x = normal(np.random.default_rng(0), (4, 2, 2))
    lstm(x)
    with lstm.editing() as edited:
        edited["weight_hh_l0"] *= -2
    assert_close(lstm(x)[0], plain_lstm(lstm, x)[0], 1e-12)


# --- the gates as the article writes them --------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_from_gates_computes_what_the_article_says(dtype: type) -> None:
    """Weights over [h, x]; f, i, C̃, o as the equations have them."""
    rng = np.random.default_rng(3)
    hidden, inputs, steps = 3, 2, 5
    W_f, W_i, W_C, W_o = (normal(rng, (hidden, hidden + inputs), dtype) for _ in range(4))
    b_f, b_i, b_C, b_o = (normal(rng, (hidden,), dtype) for _ in range(4))
    x = normal(rng, (steps, inputs), dtype)
    h = C = np.zeros(hidden)
    expected = np.zeros((steps, hidden))
    for t in range(steps):
        joined = np.concatenate([h, x[t]])
        f, i = sigmoid(W_f @ joined + b_f), sigmoid(W_i @ joined + b_i)
        C = f * C + i * np.tanh(W_C @ joined + b_C)
        h = sigmoid(W_o @ joined + b_o) * np.tanh(C)
        expected[t] = h
    lstm = LSTM.from_gates(W_f, b_f, W_i, b_i, W_C, b_C, W_o, b_o)
    output, (h_n, c_n) = lstm(x)
    assert output.dtype == dtype
    assert_close(output, expected, tolerance_of(dtype))
    assert_close(h_n[0], h, tolerance_of(dtype))
    assert_close(c_n[0], C, tolerance_of(dtype))


def test_from_gates_refuses_what_does_not_belong_together() -> None:
    W, b = np.zeros((3, 5)), np.zeros(3)
    with pytest.raises(ValueError, match="W_C"):
        LSTM.from_gates(W, b, W, b, W[:, :4], b, W, b)
    with pytest.raises(ValueError, match="b_o"):
        LSTM.from_gates(W, b, W, b, W, b, W, b[:2])
    with pytest.raises(ValueError, match="W_f"):
        LSTM.from_gates(W[:, :3], b, W, b, W, b, W, b)
    with pytest.raises(TypeError, match="b_i"):
        LSTM.from_gates(W, b, W, b.astype(np.float32), W, b, W, b)
    with pytest.raises(TypeError, match="W_f"):
        LSTM.from_gates(W.tolist(), b, W, b, W, b, W, b)


# --- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch_first", "bidirectional"), [*product((False, True), repeat=2)])
def test_shapes_and_dtypes(dtype: type, batch_first: bool, bidirectional: bool) -> None:
    lstm = LSTM(3, 5, 2, batch_first=batch_first, bidirectional=bidirectional, dtype=dtype)
    runs = 4 if bidirectional else 2
    for batch in (None, 1, 4):
        axes = (7,) if batch is None else (batch, 7) if batch_first else (7, batch)
        x = np.ones((*axes, 3), dtype)
        output, (h_n, c_n), tape = lstm.forward(x)
        d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, np.ones_like(output))
        assert output.shape == (*axes, 10 if bidirectional else 5)
        assert d_x.shape == x.shape
        for state in (h_n, c_n, d_h_0, d_c_0):
            assert state.shape == ((runs, 5) if batch is None else (runs, batch, 5))
        assert {name: g.shape for name, g in grads.items()} == {
            name: w.shape for name, w in lstm.parameters().items()
        }
        for array in (output, h_n, c_n, d_x, d_h_0, d_c_0, *grads.values()):
            assert array.dtype == dtype


@pytest.mark.parametrize("integer", [np.int8, np.uint8, np.int32, np.uint64])
def test_lengths_may_have_any_integer_dtype(integer: type) -> None:
    lstm = LSTM(2, 3, rng=0)
    x = np.ones((5, 3, 2), np.float32)
    lengths = np.array([2, 0, 5])
    expected, _ = lstm(x, lengths=lengths)
    assert_same_bits(lstm(x, lengths=lengths.astype(integer))[0], expected)


@pytest.mark.parametrize("lengths", [[6, 1, 1], [-1, 1, 1], [1, 1], [[1, 1, 1]]])
def test_lengths_that_do_not_fit_are_refused(lengths: list[Any]) -> None:
    lstm = LSTM(2, 3)
    with pytest.raises(ValueError, match="lengths"):
        lstm(np.ones((5, 3, 2), np.float32), lengths=np.array(lengths))


# --- dropout -------------------------------------------------------------------------------------


def test_dropout_acts_only_in_a_forward_with_a_generator() -> None:
    plain = LSTM(2, 3, 3, rng=0)
    dropping = LSTM(2, 3, 3, dropout=0.5, rng=0)
    x = normal(np.random.default_rng(1), (4, 2, 2), np.float32)
    expected, _ = plain(x)
    assert_same_bits(dropping(x)[0], expected)
    assert_same_bits(dropping.forward(x)[0], expected)
    assert_same_bits(plain.forward(x, rng=np.random.default_rng(0))[0], expected)
    dropped = dropping.forward(x, rng=np.random.default_rng(0))[0]
    assert not np.array_equal(dropped, expected)
    assert_same_bits(dropping.forward(x, rng=np.random.default_rng(0))[0], dropped)
    assert not np.array_equal(dropping.forward(x, rng=np.random.default_rng(1))[0], dropped)


def test_dropout_acts_between_layers_and_not_on_the_output() -> None:
    """A last layer that sees nothing but zeros below it still has its own, undropped, output."""
    lstm = LSTM(2, 3, 2, dropout=1.0, rng=0)
    x = normal(np.random.default_rng(1), (4, 5, 2), np.float32)
    output = lstm.forward(x, rng=np.random.default_rng(0))[0]
    last = LSTM(3, 3, rng=0)
    last.load_state_dict(
        {name.replace("l1", "l0"): w for name, w in lstm.state_dict().items() if "l1" in name}
    )
    assert_same_bits(output, last(np.zeros((4, 5, 3), np.float32))[0])


def test_a_dropped_part_is_zeroed_and_the_rest_scaled() -> None:
    """Seen through a second layer whose cell adds up what it is given, nearly linearly."""
    p, hidden = 0.3, 200
    lstm = LSTM(1, hidden, 2, dropout=p, dtype=np.float64, rng=0)
    tiny = 1e-4
    with lstm.editing() as edited:
        for name, array in edited.items():
            array[...] = 0
            if name == "weight_ih_l1":  # candidate g of unit k = tiny · output k of layer 0
                array[2 * hidden : 3 * hidden] = tiny * np.eye(hidden)
            if name == "bias_ih_l0":  # every unit of layer 0 gives the same
                array[2 * hidden : 3 * hidden] = 1
    x = np.zeros((1, 1, 1))
    full = lstm(x)[1][1][1, 0]
    dropped = lstm.forward(x, rng=np.random.default_rng(4))[1][1][1, 0]
    ratio = dropped / full
    zeros = np.abs(ratio) < 1e-12
    np.testing.assert_allclose(ratio[~zeros], 1 / (1 - p), rtol=1e-6)
    # Four standard deviations of a binomial.
    assert abs(zeros.mean() - p) < 4 * np.sqrt(p * (1 - p) / hidden)


def test_a_seed_is_no_generator_for_dropout() -> None:
    with pytest.raises(TypeError, match="rng"):
        LSTM(2, 3, 2, dropout=0.5).forward(np.ones((1, 1, 2), np.float32), rng=0)  # type: ignore[arg-type]


# --- tapes ---------------------------------------------------------------------------------------


def test_a_tape_serves_one_backward() -> None:
    lstm = LSTM(2, 3)
    output, _, tape = lstm.forward(np.ones((2, 2, 2), np.float32))
    lstm.backward(tape, output)
    with pytest.raises(RuntimeError, match="used already"):
        lstm.backward(tape, output)


@pytest.mark.parametrize("change", ["load_state_dict", "editing", "updating"])
def test_a_tape_is_stale_after_the_weights_changed(change: str) -> None:
    lstm = LSTM(2, 3)
    output, _, tape = lstm.forward(np.ones((2, 2, 2), np.float32))
    if change == "load_state_dict":
        lstm.load_state_dict(lstm.state_dict())
    elif change == "editing":
        with lstm.editing():
            pass
    else:
        with lstm.parameters().updating():
            pass
    with pytest.raises(RuntimeError, match="stale"):
        lstm.backward(tape, output)


def test_a_tape_belongs_to_its_layer() -> None:
    one, other = LSTM(2, 3, rng=0), LSTM(2, 3, rng=0)
    output, _, tape = one.forward(np.ones((2, 2, 2), np.float32))
    with pytest.raises(ValueError, match="another layer"):
        other.backward(tape, output)
    with pytest.raises(TypeError, match="tape"):
        one.backward(output, output)  # type: ignore[arg-type]
    one.backward(tape, output)  # a refusal does not use it up


@pytest.mark.parametrize("wrong", ["d_output", "d_h_n", "d_c_n", "dtype"])
def test_gradients_of_the_wrong_kind_are_refused_and_leave_the_tape(wrong: str) -> None:
    rng = np.random.default_rng(0)
    lstm = LSTM(2, 3, rng=rng)
    output, (h_n, c_n), tape = lstm.forward(normal(rng, (4, 2, 2), np.float32))
    d_output, d_h, d_c = output, h_n, c_n
    if wrong == "d_output":
        d_output = output.swapaxes(0, 1)
    elif wrong == "d_h_n":
        d_h = h_n[:, :1]
    elif wrong == "d_c_n":
        d_c = c_n[..., :2]
    else:
        d_output = output.astype(np.float64)
    with pytest.raises(TypeError if wrong == "dtype" else ValueError, match=r"d_output|d_state"):
        lstm.backward(tape, d_output, (d_h, d_c))
    lstm.backward(tape, output, (h_n, c_n))


def test_two_tapes_of_one_layer_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(0)
    lstm = LSTM(2, 3, 2, bidirectional=True, dtype=np.float64, rng=rng)
    inputs = [normal(rng, (4, 2, 2)), normal(rng, (3, 5, 2))]
    expected = []
    for x in inputs:
        output, _, tape = lstm.forward(x)
        expected.append(lstm.backward(tape, output)[0])
    runs = [lstm.forward(x) for x in inputs]
    for k in (1, 0):
        output, _, tape = runs[k]
        assert_same_bits(lstm.backward(tape, output)[0], expected[k])


# --- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_a_copy_computes_the_same_and_lives_on_its_own(duplicate: Any) -> None:
    rng = np.random.default_rng(0)
    lstm = LSTM(2, 3, 2, rng=rng)
    x = normal(rng, (4, 2, 2), np.float32)
    before = lstm(x)[0]
    other = duplicate(lstm)
    assert_same_bits(other(x)[0], before)
    with other.editing() as edited:
        edited["bias_ih_l0"] += 1
    assert not np.array_equal(other(x)[0], before)
    assert_same_bits(lstm(x)[0], before)
    assert not np.shares_memory(other.weight_ih_l0, lstm.weight_ih_l0)
    with pytest.raises(ValueError, match="read-only"):
        other.weight_ih_l0[0, 0] = 1
    output, _, tape = other.forward(x)
    other.backward(tape, output)


# --- numbers -------------------------------------------------------------------------------------


def test_float32_is_float64_rounded() -> None:
    """One layer, T = 50: the same weights and inputs in both."""
    rng = np.random.default_rng(0)
    narrow = LSTM(8, 16, 2, bidirectional=True, rng=rng)
    wide = LSTM(8, 16, 2, bidirectional=True, dtype=np.float64)
    wide.load_state_dict({k: v.astype(np.float64) for k, v in narrow.state_dict().items()})
    x, d_output = normal(rng, (50, 4, 8), np.float32), normal(rng, (50, 4, 32), np.float32)
    h_0, c_0 = random_state(rng, narrow, 4)
    output, _, tape = narrow.forward(x, (h_0, c_0))
    d_x, _, grads = narrow.backward(tape, d_output)
    state = h_0.astype(np.float64), c_0.astype(np.float64)
    wide_output, _, tape = wide.forward(x.astype(np.float64), state)
    wide_d_x, _, wide_grads = wide.backward(tape, d_output.astype(np.float64))
    assert output.shape == output_shape(narrow, 50, 4)
    assert_close(output, wide_output, 1e-5)
    assert_close(d_x, wide_d_x, 1e-5)
    for name, array in grads.items():
        assert_close(array, wide_grads[name], 1e-5, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_stays_in_its_sequence_and_after_its_step(dtype: type) -> None:
    rng = np.random.default_rng(0)
    lstm = LSTM(3, 20, dtype=dtype, rng=rng)
    x = normal(rng, (6, 3, 3), dtype)
    expected, _ = lstm(x)
    x[2, 1, 0] = np.nan
    output, _ = lstm(x)
    assert np.isnan(output[2:, 1]).all()
    assert_close(output[:2], expected[:2], tolerance_of(dtype))
    assert_close(output[:, ::2], expected[:, ::2], tolerance_of(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_gates_are_exact(dtype: type) -> None:
    """Huge biases shut and open the gates: the cell then holds, counts or forgets to the bit."""
    lstm = LSTM(1, 2, dtype=dtype)
    huge = np.finfo(dtype).max / 4
    c_0 = np.array([[[0.5, -2.0]]], dtype)
    x = np.zeros((3, 1, 1), dtype)
    for i, f, expected in ((-huge, huge, c_0), (huge, -huge, 0 * c_0 + 1), (huge, huge, c_0 + 3)):
        with lstm.editing() as edited:
            for array in edited.values():
                array[...] = 0
            edited["bias_ih_l0"][:] = np.repeat([i, f, huge, -huge], 2)
        output, (_, c_n) = lstm(x, (np.zeros_like(c_0), c_0))
        assert_same_bits(c_n, expected)
        assert not output.any()
