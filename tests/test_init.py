"""Initial weights against the laws that their definitions state, and against Keras and torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, ks_2samp, kstest

import fastlstm
from fastlstm import LSTM, RNN, LSTMCell, init
from tests.keras_peer import import_keras, to_numpy
from tests.support import Array, assert_same_bits

# Tests of distributions are of one seed each: below this, something is wrong.
LEAST_P = 1e-4
LAYERS: list[Any] = [
    LSTM(3, 5, rng=0),
    LSTM(3, 5, 2, bidirectional=True, dtype=np.float64, rng=0),
    LSTM(3, 5, 2, reverse=True, rng=0),
    LSTMCell(3, 5, rng=0),
]
sizes = st.integers(1, 12)


def suffixes(layer: Any) -> list[str]:
    return [name[len("bias_ih") :] for name in layer.parameters() if name.startswith("bias_ih")]


def fresh(layer: Any) -> Any:
    """A layer of the same options, whose biases are none of them zero or one."""
    config = layer.get_config()
    return type(layer)(**config, rng=1)


# --- one matrix ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "gain"), [((200, 30), 1.0), ((7, 500), 2.5)])
def test_glorot_uniform_is_uniform_up_to_its_bound(shape: tuple[int, int], gain: float) -> None:
    drawn = init.glorot_uniform(0, shape, np.float64, gain=gain)
    bound = gain * math.sqrt(6 / sum(shape))
    assert drawn.shape == shape
    assert 0.99 * bound < np.abs(drawn).max() <= bound
    assert kstest(drawn.ravel(), "uniform", args=(-bound, 2 * bound)).pvalue > LEAST_P


@given(sizes, sizes, st.integers(1, 4), st.sampled_from([1.0, 0.5, -2.0]), st.integers(0, 99))
def test_orthogonal_blocks_are_orthogonal(
    rows: int, columns: int, blocks: int, gain: float, seed: int
) -> None:
    drawn = init.orthogonal(seed, (blocks * rows, columns), np.float64, gain=gain, blocks=blocks)
    assert drawn.shape == (blocks * rows, columns)
    for q in np.split(drawn, blocks):
        product = q.T @ q if rows >= columns else q @ q.T
        np.testing.assert_allclose(product, gain**2 * np.eye(min(q.shape)), atol=1e-13)


@pytest.mark.parametrize("shape", [(5, 5), (5, 3), (3, 5)])
def test_orthogonal_matrices_are_haar_distributed(shape: tuple[int, int]) -> None:
    """Any element of a unit vector that is uniform on the sphere of n dimensions is 2 β - 1, with
    β of both parameters (n - 1) / 2. Without its sign set right, q_11 is never positive."""
    rng = np.random.default_rng(1)
    drawn = np.array([init.orthogonal(rng, shape, np.float64) for _ in range(2000)])
    half = (max(shape) - 1) / 2
    for element in (drawn[:, 0, 0], drawn[:, -1, -1], drawn[:, 1, 2]):
        assert kstest((element + 1) / 2, beta(half, half).cdf).pvalue > LEAST_P
    determinants = np.linalg.det(drawn) if shape == (5, 5) else np.array([1.0, -1.0])
    assert abs(determinants.mean()) < 0.1  # rotations and reflections, as often


def test_blocks_of_an_orthogonal_matrix_keep_lengths_and_the_whole_shares_them_out() -> None:
    """What the docstring says of a weight_hh (4H, H)."""
    h = np.random.default_rng(2).standard_normal(50)
    for blocks, expected in ((4, 1.0), (1, 0.5)):
        weight = init.orthogonal(3, (200, 50), np.float64, blocks=blocks)
        lengths = np.linalg.norm(weight.reshape(4, 50, 50) @ h, axis=1) / np.linalg.norm(h)
        np.testing.assert_allclose(lengths, expected, rtol=1e-12 if blocks == 4 else 0.2)


@pytest.mark.parametrize("draw", [init.glorot_uniform, init.orthogonal])
def test_what_is_drawn_depends_on_the_generator_alone(draw: Any) -> None:
    assert draw(0, (4, 3)).dtype == np.float32
    assert draw(0, (4, 3), "float64").dtype == np.float64
    assert_same_bits(draw(0, (4, 3)), draw(np.random.default_rng(0), (4, 3)))
    rng = np.random.default_rng(0)
    assert not np.array_equal(draw(rng, (4, 3)), draw(rng, (4, 3)))
    assert not np.array_equal(draw(None, (4, 3)), draw(None, (4, 3)))


@pytest.mark.parametrize("draw", [init.glorot_uniform, init.orthogonal])
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0, (4,)), ValueError, r"shape: expected a pair \(rows, columns\), got \(4,\)"),
        ((0, 4), ValueError, "shape: expected a pair"),
        ((0, (4, 0)), ValueError, r"shape\[1\]: expected a whole number >= 1, got 0"),
        ((0, (4.0, 3)), TypeError, r"shape\[0\]: expected a whole number"),
        ((0, (4, 3), np.int32), TypeError, "dtype: expected float32 or float64"),
        ((0.5, (4, 3)), TypeError, r"rng: expected a numpy\.random\.Generator"),
    ],
)
def test_what_is_no_matrix_is_refused(
    draw: Any, arguments: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        draw(*arguments)


def test_blocks_divide_the_rows() -> None:
    with pytest.raises(ValueError, match="blocks: expected a divisor of the 6 rows"):
        init.orthogonal(0, (6, 3), blocks=4)


# --- whole layers --------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_keras_sets_every_direction(layer: Any) -> None:
    layer, hidden = fresh(layer), layer.hidden_size
    init.keras(layer, 0)
    parameters, drawn = layer.parameters(), []
    for suffix in suffixes(layer):
        ih, hh = parameters[f"weight_ih{suffix}"], parameters[f"weight_hh{suffix}"]
        bound = math.sqrt(6 / sum(ih.shape))
        assert 0.8 * bound < np.abs(ih).max() <= bound * (1 + 1e-7)
        np.testing.assert_allclose(hh.T @ hh, np.eye(hidden), atol=1e-6)
        bias = np.repeat([0, 1, 0, 0], hidden)
        np.testing.assert_array_equal(parameters[f"bias_ih{suffix}"], bias)
        assert not parameters[f"bias_hh{suffix}"].any()
        drawn += [ih[0, 0], hh[0, 0]]
    assert len(set(drawn)) == len(drawn), "no two matrices are alike"
    init.keras(layer, 0, unit_forget_bias=False)
    assert not any(parameters[f"bias_ih{suffix}"].any() for suffix in suffixes(layer))
    again = fresh(layer)
    init.keras(again, np.random.default_rng(0), unit_forget_bias=False)
    for name, array in parameters.items():
        assert_same_bits(again.parameters()[name], array, name)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@pytest.mark.parametrize("value", [1.0, -0.5])
def test_forget_bias_sets_the_sum_of_both_biases_of_forget_gates_alone(
    layer: Any, value: float
) -> None:
    layer, before = fresh(layer), fresh(layer).state_dict()
    init.forget_bias(layer, *([] if value == 1 else [value]))
    forget = slice(layer.hidden_size, 2 * layer.hidden_size)
    for suffix in suffixes(layer):
        ih, hh = before[f"bias_ih{suffix}"], before[f"bias_hh{suffix}"]
        ih[forget], hh[forget] = value, 0
    for name, array in layer.parameters().items():
        assert_same_bits(array, before[name], name)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_chrono_sets_forget_gates_and_the_opposite_at_input_gates(layer: Any) -> None:
    layer, before, hidden = fresh(layer), fresh(layer).state_dict(), layer.hidden_size
    init.chrono(layer, 100, 0)
    drawn = []
    for suffix in suffixes(layer):
        ih, hh = layer.parameters()[f"bias_ih{suffix}"], layer.parameters()[f"bias_hh{suffix}"]
        i, f = ih[:hidden], ih[hidden : 2 * hidden]
        assert_same_bits(i, -f)
        assert (f >= 0).all()
        assert (f <= math.log(99)).all()
        assert not hh[: 2 * hidden].any()
        assert_same_bits(ih[2 * hidden :], before[f"bias_ih{suffix}"][2 * hidden :])
        assert_same_bits(hh[2 * hidden :], before[f"bias_hh{suffix}"][2 * hidden :])
        drawn += f.tolist()
    assert len(set(drawn)) == len(drawn), "every unit and direction has its own"
    for name, array in layer.parameters().items():
        if name.startswith("weight"):
            assert_same_bits(array, before[name], name)


def test_chrono_biases_are_the_logarithms_of_uniform_times() -> None:
    lstm = LSTM(1, 3000, dtype=np.float64, rng=0)
    init.chrono(lstm, 50.5, 1)
    times = np.exp(lstm.bias_ih_l0[3000:6000])
    assert kstest(times, "uniform", args=(1, 48.5)).pvalue > LEAST_P
    init.chrono(lstm, 2)  # U(1, 1)
    assert not lstm.bias_ih_l0[:6000].any()


def test_weights_that_are_set_are_seen_by_the_next_call() -> None:
    lstm, x = LSTM(3, 4, rng=0), np.ones((2, 1, 3), np.float32)
    for change in (init.forget_bias, init.keras, lambda lstm: init.chrono(lstm, 9)):
        before, _ = lstm(x)
        change(lstm)
        assert not np.array_equal(lstm(x)[0], before)


def test_layers_that_have_no_such_weights_are_refused() -> None:
    for change in (init.keras, init.forget_bias, lambda layer: init.chrono(layer, 9)):
        with pytest.raises(TypeError, match="lstm: expected an LSTM or LSTMCell, got a RNN"):
            change(RNN(3, 4))
    bare = LSTM(3, 4, bias=False)
    init.keras(bare)
    for change in (init.forget_bias, lambda lstm: init.chrono(lstm, 9)):
        with pytest.raises(ValueError, match=r"lstm: expected one with biases, got LSTM\(3, 4"):
            change(bare)
    with pytest.raises(ValueError, match="longest: expected a finite number >= 2, got 1"):
        init.chrono(LSTM(3, 4), 1)
    with pytest.raises(TypeError, match="value: expected a number"):
        init.forget_bias(LSTM(3, 4), "1")  # type: ignore[arg-type]


def test_the_module_is_there_without_an_import_of_its_own() -> None:
    assert fastlstm.init is init


# --- Keras and torch -----------------------------------------------------------------------------


def assert_alike(ours: Array, theirs: Array, name: str) -> None:
    assert ours.shape == theirs.shape
    assert ks_2samp(ours.ravel(), theirs.ravel()).pvalue > LEAST_P, name


@pytest.mark.oracle
@pytest.mark.parametrize("unit_forget_bias", [False, True])
def test_a_layer_of_keras_begins_alike(unit_forget_bias: bool) -> None:
    keras = import_keras()
    keras.utils.set_random_seed(0)
    theirs = keras.layers.LSTM(60, unit_forget_bias=unit_forget_bias)
    theirs.build((None, None, 40))
    kernel, recurrent, bias = to_numpy(theirs.weights)
    lstm = LSTM(40, 60, rng=0)
    init.keras(lstm, 1, unit_forget_bias=unit_forget_bias)
    assert_alike(lstm.weight_ih_l0, kernel.T, "weight_ih")
    assert_alike(lstm.weight_hh_l0, recurrent.T, "weight_hh")
    # Both begin with orthonormal columns, of the whole matrix and not of a gate's.
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(60), atol=1e-5)
    np.testing.assert_allclose(lstm.weight_hh_l0.T @ lstm.weight_hh_l0, np.eye(60), atol=1e-5)
    assert_same_bits(lstm.bias_ih_l0 + lstm.bias_hh_l0, bias)


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(30, 30), (60, 20), (20, 60)])
def test_matrices_are_drawn_as_by_keras_and_torch(shape: tuple[int, int]) -> None:
    keras = import_keras()
    import torch

    torch.manual_seed(0)
    of_torch = torch.empty(shape)
    for ours, in_keras, in_torch in [
        (init.glorot_uniform, keras.initializers.GlorotUniform(1), torch.nn.init.xavier_uniform_),
        (init.orthogonal, keras.initializers.Orthogonal(seed=1), torch.nn.init.orthogonal_),
    ]:
        drawn = ours(2, shape)
        assert_alike(drawn, to_numpy(in_keras(shape)), "Keras")
        assert_alike(drawn, in_torch(of_torch).numpy(), "torch")
