"""Embedding, Linear and Dropout: values, gradients, initialisation, tapes and bad input."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import _core, threads
from fastlstm.layers import Dropout, Embedding, Linear
from fastlstm.optim import SGD
from fastlstm.tape import Tape
from fastlstm.threads import set_num_threads
from tests.finite_differences import gradient
from tests.strange import (
    assert_refuses_shapes,
    assert_refuses_what_is_no_such_array,
    assert_takes_any_layout,
    spoil,
)
from tests.support import Array, assert_close, assert_same_bits, normal, tolerance_of
from tests.test_arrays import Argument

DTYPES = [np.float32, np.float64]
LEADING = [(), (1,), (4,), (2, 3), (2, 1, 3), (0,), (2, 0)]
GRADIENT_BOUND = 1e-6

needs_kernels = pytest.mark.skipif(
    not _core.VECTOR[4],
    reason=f"instruction set {_core.ISA} has no packed kernels, and BLAS promises no bits",
)


# --- what all three do ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A layer, an input that it takes, and its forward in one form for all."""

    make: Callable[[Any], Any]
    x: Callable[[Any], Array]
    forward: Callable[[Any, Array], tuple[Array, Tape]]


def plain_forward(layer: Any, x: Array) -> tuple[Array, Tape]:
    output, tape = layer.forward(x)
    return output, tape


def dropout_forward(layer: Any, x: Array) -> tuple[Array, Tape]:
    output, tape = layer.forward(x, np.random.default_rng(5))
    return output, tape


KINDS = {
    "embedding": Kind(
        lambda dtype: Embedding(6, 3, dtype=dtype, rng=1),
        lambda _: np.array([[1, 5, 1, 0], [2, 1, 4, 4]]),
        plain_forward,
    ),
    "linear": Kind(
        lambda dtype: Linear(5, 3, dtype=dtype, rng=1),
        lambda dtype: normal(np.random.default_rng(2), (2, 4, 5), dtype),
        plain_forward,
    ),
    "dropout": Kind(
        lambda _: Dropout(0.4),
        lambda dtype: normal(np.random.default_rng(2), (2, 4, 5), dtype),
        dropout_forward,
    ),
}

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_kind
@every_dtype
def test_results_are_fresh_and_inputs_stay(kind: Kind, dtype: Any) -> None:
    layer, x = kind.make(dtype), kind.x(dtype)
    before, weights = x.copy(), layer.state_dict()
    output, tape = kind.forward(layer, x)
    d_output = normal(np.random.default_rng(3), output.shape, dtype)
    d_before, kept = d_output.copy(), output.copy()
    d_x, grads = layer.backward(tape, d_output)
    results = [output, *grads.values()] + ([] if d_x is None else [d_x])
    for k, result in enumerate(results):
        assert result.dtype == dtype
        assert result.flags.writeable
        for other in (*results[:k], x, d_output, *layer.parameters().values()):
            assert not np.shares_memory(result, other)
    assert_same_bits(x, before)
    assert_same_bits(d_output, d_before)
    assert_same_bits(output, kept)
    for name, weight in layer.parameters().items():
        assert_same_bits(weight, weights[name], name)
    assert grads.keys() == layer.parameters().keys()


@every_kind
@every_dtype
def test_the_tape_does_not_see_what_happens_to_inputs_and_outputs(kind: Kind, dtype: Any) -> None:
    def run(*, spoiled: bool) -> list[Array]:
        layer, x = kind.make(dtype), kind.x(dtype)
        output, tape = kind.forward(layer, x)
        if spoiled:
            spoil(x, output)
        d_x, grads = layer.backward(tape, np.ones_like(output))
        return [*grads.values()] + ([] if d_x is None else [d_x])

    for actual, expected in zip(run(spoiled=True), run(spoiled=False), strict=True):
        assert np.isfinite(expected).all()
        assert_same_bits(actual, expected)


@every_kind
def test_nothing_is_accumulated_from_backward_to_backward(kind: Kind) -> None:
    layer, x = kind.make(np.float32), kind.x(np.float32)
    results = []
    for _ in range(2):
        output, tape = kind.forward(layer, x)
        d_x, grads = layer.backward(tape, output)
        results.append([*grads.values()] + ([] if d_x is None else [d_x]))
    for first, second in zip(*results, strict=True):
        assert_same_bits(first, second)


@every_kind
def test_a_tape_serves_once(kind: Kind) -> None:
    layer = kind.make(np.float32)
    output, tape = kind.forward(layer, kind.x(np.float32))
    layer.backward(tape, output)
    with pytest.raises(RuntimeError, match=r"^tape: used"):
        layer.backward(tape, output)


@every_kind
def test_a_tape_of_another_layer_is_refused(kind: Kind) -> None:
    layer, twin = kind.make(np.float32), kind.make(np.float32)
    output, tape = kind.forward(twin, kind.x(np.float32))
    with pytest.raises(ValueError, match=r"^tape: .* another layer"):
        layer.backward(tape, output)
    for thing in (None, "tape", output, (tape,)):
        with pytest.raises(TypeError, match=r"^tape: expected the Tape"):
            layer.backward(thing, output)
    twin.backward(tape, output)  # was not used up


@pytest.mark.parametrize("name", ["embedding", "linear"])
def test_a_tape_is_stale_when_weights_have_changed(name: str) -> None:
    kind = KINDS[name]
    layer = kind.make(np.float32)
    output, tape = kind.forward(layer, kind.x(np.float32))
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match=r"^tape: stale"):
        layer.backward(tape, output)


@every_kind
def test_a_refused_gradient_does_not_use_the_tape_up(kind: Kind) -> None:
    layer = kind.make(np.float32)
    output, tape = kind.forward(layer, kind.x(np.float32))
    for bad in (output.astype(np.float64), output[..., :-1], output[np.newaxis], output.tolist()):
        with pytest.raises((TypeError, ValueError), match=r"^d_output: expected"):
            layer.backward(tape, bad)
    layer.backward(tape, output)


@pytest.mark.parametrize("name", ["embedding", "linear"])
def test_inference_has_the_bits_of_forward(name: str) -> None:
    kind = KINDS[name]
    layer, x = kind.make(np.float32), kind.x(np.float32)
    assert_same_bits(layer(x), kind.forward(layer, x)[0])


@pytest.mark.parametrize("name", ["embedding", "linear"])
def test_weights_are_read_only_and_initialised_from_the_seed(name: str) -> None:
    layer, twin, double = (KINDS[name].make(dtype) for dtype in (np.float32, *DTYPES))
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0] = 1
    for key, weight in layer.parameters().items():
        assert_same_bits(weight, twin.parameters()[key])
        assert_same_bits(weight, double.parameters()[key].astype(np.float32))
    assert not np.array_equal(layer.weight, type(layer)(*layer.weight.shape[::-1], rng=7).weight)


@pytest.mark.parametrize("make", [Embedding, Linear])
def test_sizes_dtypes_and_seeds_are_checked(make: Any) -> None:
    first, second = ("num_embeddings", "embedding_dim") if make is Embedding else (
        "in_features", "out_features",
    )  # fmt: skip
    for bad in (0, -1, 2**31):
        with pytest.raises(ValueError, match=f"^{first}: "):
            make(bad, 3)
        with pytest.raises(ValueError, match=f"^{second}: "):
            make(3, bad)
    for wrong in (2.0, "2", None, True):
        with pytest.raises(TypeError, match=f"^{first}: expected a whole number"):
            make(wrong, 3)
        with pytest.raises(TypeError, match=f"^{second}: expected a whole number"):
            make(3, wrong)
    for dtype in (np.float16, np.int64, "f16", None, object, ">f4"):
        with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64"):
            make(3, 3, dtype=dtype)
    with pytest.raises(TypeError, match=r"^rng: "):
        make(3, 3, rng="seed")
    with pytest.raises(ValueError, match=r"^rng: "):
        make(3, 3, rng=-1)


# --- every array argument ------------------------------------------------------------------------


def passes(kind: Kind, x: Any) -> list[Array]:
    layer = kind.make(np.float32)
    output, tape = kind.forward(layer, x)
    d_x, grads = layer.backward(tape, np.ones_like(output))
    return [output, *grads.values()] + ([] if d_x is None else [d_x])


def passes_back(kind: Kind, d_output: Any) -> list[Array]:
    layer = kind.make(np.float32)
    _, tape = kind.forward(layer, kind.x(np.float32))
    d_x, grads = layer.backward(tape, d_output)
    return [*grads.values()] + ([] if d_x is None else [d_x])


def array_arguments() -> list[Argument]:
    arguments = []
    for key, kind in KINDS.items():
        layer, x = kind.make(np.float32), kind.x(np.float32)
        output, _ = kind.forward(layer, x)
        named = "ids" if key == "embedding" else "x"
        arguments += [
            Argument(f"{key}-forward", named, x, lambda a, kind=kind: passes(kind, a)),
            Argument(
                f"{key}-backward", "d_output", output, lambda a, kind=kind: passes_back(kind, a)
            ),
        ]
        if key != "dropout":
            call = Argument(f"{key}-call", named, x, lambda a, layer=layer: [layer(a)])
            arguments.append(call)
    return arguments


every_argument = pytest.mark.parametrize("argument", array_arguments(), ids=str)


@every_argument
def test_any_layout_gives_the_same_bits(argument: Argument, tmp_path: Path) -> None:
    assert_takes_any_layout(argument, tmp_path)


@every_argument
def test_what_is_no_such_array_is_refused(argument: Argument) -> None:
    any_float = str(argument) == "dropout-forward"
    assert_refuses_what_is_no_such_array(argument, any_float=any_float)


@every_argument
def test_a_wrong_shape_is_refused(argument: Argument) -> None:
    *leading, last = argument.good.shape
    if argument.name == "d_output":
        wrong = [(*leading, last + 1), (*leading, last - 1), (last,), (1, *leading, last), ()]
        assert_refuses_shapes(argument, *wrong)
    elif str(argument).startswith("linear"):
        assert_refuses_shapes(argument, (*leading, last + 1), (*leading, last - 1), (last, 0), ())


# --- Embedding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", LEADING)
@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint32", "int64", "uint64"])
def test_embedding_looks_rows_up(shape: tuple[int, ...], kind: str) -> None:
    embedding = Embedding(7, 3, rng=0)
    ids = np.random.default_rng(1).integers(0, 7, shape).astype(kind)
    output = embedding(np.asarray(ids))
    assert output.shape == (*shape, 3)
    for index in np.ndindex(*shape):
        assert_same_bits(output[index], embedding.weight[int(ids[index])])


@every_dtype
def test_embedding_adds_the_gradients_of_an_id_that_comes_again(dtype: Any) -> None:
    embedding = Embedding(5, 2, dtype=dtype, rng=0)
    ids = np.array([[3, 0, 3], [3, 4, 0]])
    output, tape = embedding.forward(ids)
    d_output = np.arange(12, dtype=dtype).reshape(output.shape)
    d_x, grads = embedding.backward(tape, d_output)
    assert d_x is None
    expected = [[2 + 10, 3 + 11], [0, 0], [0, 0], [0 + 4 + 6, 1 + 5 + 7], [8, 9]]
    assert_same_bits(grads["weight"], np.array(expected, dtype))


def test_embedding_gradients_are_finite_differences() -> None:
    rng = np.random.default_rng(4)
    embedding, ids = Embedding(4, 3, dtype=np.float64, rng=rng), rng.integers(0, 4, (2, 5))
    factors = normal(rng, (2, 5, 3))

    def loss(arrays: dict[str, Array]) -> float:
        embedding.load_state_dict(arrays)
        return float((np.sin(embedding(ids)) * factors).sum())

    weights = embedding.state_dict()
    expected = gradient(loss, weights)
    embedding.load_state_dict(weights)
    output, tape = embedding.forward(ids)
    _, grads = embedding.backward(tape, np.cos(output) * factors)
    assert_close(grads["weight"], expected["weight"], GRADIENT_BOUND)


def test_embedding_of_no_ids_has_gradients_of_zero() -> None:
    embedding = Embedding(4, 3, rng=0)
    output, tape = embedding.forward(np.empty((2, 0), np.int64))
    _, grads = embedding.backward(tape, output)
    assert_same_bits(grads["weight"], np.zeros((4, 3), np.float32))


@pytest.mark.parametrize("bad", [-1, 6, 2**40, -(2**62)])
def test_embedding_refuses_an_id_out_of_range(bad: int) -> None:
    embedding = Embedding(6, 2, rng=0)
    for way in (embedding, embedding.forward):
        with pytest.raises(IndexError, match=f"^ids: expected values from 0 to 5, got {bad}$"):
            way(np.array([1, bad, 3]))
    with pytest.raises(IndexError, match=f"got {2**64 - 1}$"):
        embedding(np.array([2**64 - 1], np.uint64))


def test_ids_that_nobody_can_count_are_refused_before_they_are_read() -> None:
    with pytest.raises(ValueError, match=r"^ids, its elements"):
        Embedding(6, 2, rng=0)(np.broadcast_to(np.int64(0), (2**20, 2**20)))


def test_embedding_is_initialised_from_a_standard_normal_distribution() -> None:
    weight = Embedding(200, 300, rng=0).weight
    assert abs(weight.mean()) < 4 / math.sqrt(weight.size)
    assert abs(weight.var() - 1) < 4 * math.sqrt(2 / weight.size)
    assert abs((np.abs(weight) < 1).mean() - 0.682689) < 0.01


@pytest.mark.oracle
@every_dtype
def test_embedding_equals_torchs(dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    embedding, ids = Embedding(9, 4, dtype=dtype, rng=rng), rng.integers(0, 9, (3, 8))
    theirs = torch.nn.Embedding(9, 4, dtype=getattr(torch, np.dtype(dtype).name))
    assert [*theirs.state_dict()] == [*embedding.state_dict()]
    theirs.load_state_dict({"weight": torch.tensor(embedding.weight)})
    output, tape = embedding.forward(ids)
    d_output = normal(rng, output.shape, dtype)
    _, grads = embedding.backward(tape, d_output)
    expected = theirs(torch.tensor(ids))
    expected.backward(torch.tensor(d_output))
    assert_same_bits(output, expected.detach().numpy())
    assert_close(grads["weight"], theirs.weight.grad.numpy(), tolerance_of(dtype))


# --- Linear --------------------------------------------------------------------------------------


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("bias", [True, False])
@every_dtype
def test_linear_maps_the_last_axis(leading: tuple[int, ...], bias: bool, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    linear = Linear(4, 3, bias=bias, dtype=dtype, rng=rng)
    x = normal(rng, (*leading, 4), dtype)
    output = linear(x)
    assert output.shape == (*leading, 3)
    weight, shift = linear.weight.astype(float), linear.bias
    expected = np.zeros(output.shape)
    for index in np.ndindex(*output.shape):
        terms = [float(x[(*index[:-1], k)]) * weight[index[-1], k] for k in range(4)]
        expected[index] = math.fsum(terms) + (0 if shift is None else float(shift[index[-1]]))
    assert_close(output, expected, tolerance_of(dtype))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_linear_gradients_are_finite_differences(bias: bool, leading: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    linear = Linear(3, 4, bias=bias, dtype=np.float64, rng=rng)
    x, factors = normal(rng, (*leading, 3)), normal(rng, (*leading, 4))

    def loss(arrays: dict[str, Array]) -> float:
        given = arrays.pop("x")
        linear.load_state_dict(arrays)
        return float((np.sin(linear(given)) * factors).sum())

    weights = linear.state_dict()
    expected = gradient(loss, weights | {"x": x})
    linear.load_state_dict(weights)
    output, tape = linear.forward(x)
    d_x, grads = linear.backward(tape, np.cos(output) * factors)
    for name, actual in (grads | {"x": d_x}).items():
        assert_close(actual, expected.pop(name), GRADIENT_BOUND, name)
    assert not expected


@pytest.mark.parametrize("leading", [(0,), (2, 0)])
def test_linear_of_nothing_has_gradients_of_zero(leading: tuple[int, ...]) -> None:
    linear = Linear(4, 3, rng=0)
    output, tape = linear.forward(np.empty((*leading, 4), np.float32))
    d_x, grads = linear.backward(tape, output)
    assert d_x.shape == (*leading, 4)
    assert_same_bits(grads["weight"], np.zeros((3, 4), np.float32))
    assert_same_bits(grads["bias"], np.zeros(3, np.float32))


def test_linear_is_the_same_map_on_several_threads() -> None:
    rng = np.random.default_rng(3)
    linear, x = Linear(90, 70, dtype=np.float64, rng=rng), normal(rng, (501, 90))
    d_output = normal(rng, (501, 70))
    for num_threads in (1, 2, 3):
        set_num_threads(num_threads)
        output, tape = linear.forward(x)
        d_x, grads = linear.backward(tape, d_output)
        bias = linear.bias
        assert bias is not None
        assert_close(output, np.einsum("ni,oi->no", x, linear.weight) + bias, 1e-13, "output")
        assert_close(d_x, np.einsum("no,oi->ni", d_output, linear.weight), 1e-13, "d_x")
        assert_close(grads["weight"], np.einsum("no,ni->oi", d_output, x), 1e-13, "weight")
        assert_close(grads["bias"], np.einsum("no->o", d_output), 1e-13, "bias")


def test_linear_passes_infinities_and_nans_on() -> None:
    linear = Linear(2, 2, rng=0)
    linear.load_state_dict({"weight": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)})
    x = np.array([[np.inf, 1], [np.nan, 1], [3, 4]], np.float32)
    output = linear(x)
    assert output[0, 0] == np.inf
    assert np.isnan(output[1]).all()
    assert_same_bits(output[2], x[2])


def test_linear_refuses_more_rows_than_blas_can_count_before_it_copies_any() -> None:
    x = np.broadcast_to(np.float32(0), (2**16, 2**16, 3))
    for way in (Linear(3, 2, rng=0), Linear(3, 2, rng=0).forward):
        with pytest.raises(ValueError, match=r"^x, its rows: 65536 \* 65536"):
            way(x)


def test_linear_is_initialised_as_torch_does() -> None:
    linear = Linear(400, 300, rng=0)
    bound = 1 / math.sqrt(400)
    assert linear.bias is not None
    for array, slack in ((linear.weight, 0.01), (linear.bias, 0.1)):
        largest = np.abs(array).max()
        assert (1 - slack) * bound < largest <= bound
        assert abs(array.std() - bound / math.sqrt(3)) < slack * bound
        assert abs(array.mean()) < 4 * bound / math.sqrt(3 * array.size)


def test_linear_without_bias_has_none() -> None:
    linear = Linear(4, 3, bias=False, rng=0)
    assert [*linear.state_dict()] == ["weight"]
    assert linear.bias is None
    assert_same_bits(linear.weight, Linear(4, 3, rng=0).weight)
    for bad in (None, 1, "yes"):
        with pytest.raises(TypeError, match=r"^bias: expected True or False"):
            Linear(4, 3, bias=bad)  # type: ignore[arg-type]


@needs_kernels
@pytest.mark.parametrize("bias", [True, False])
@every_dtype
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 14),
    in_features=st.sampled_from([1, 7, 99, 200]),
    out_features=st.sampled_from([1, 16, 33, 64, 65, 150, 300]),
)
def test_a_row_of_linear_has_the_same_bits_in_any_batch_on_any_number_of_threads(
    dtype: Any, bias: bool, seed: int, rows: int, in_features: int, out_features: int
) -> None:
    rng = np.random.default_rng(seed)
    linear = Linear(in_features, out_features, bias=bias, dtype=dtype, rng=rng)
    x = normal(rng, (rows, in_features), dtype)
    d_output = normal(rng, (rows, out_features), dtype)
    results = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threads, "LEAST_WORK", 0)
        for num_threads in (1, 2, 3, 4):
            patched.setattr(threads, "_num_threads", num_threads)
            output, tape = linear.forward(x)
            d_x, grads = linear.backward(tape, d_output)
            results.append({"output": output, "d_x": d_x, **grads})
            for row in range(rows):
                assert_same_bits(linear(x[row]), output[row], f"row {row} alone")
            order = rng.permutation(rows)
            assert_same_bits(linear(x[order]), output[order], "another order")
    for other in results[1:]:
        for name, array in other.items():
            assert_same_bits(array, results[0][name], name)


@needs_kernels
@every_dtype
def test_so_it_has_among_more_rows_than_a_thread_takes_at_a_time(dtype: Any) -> None:
    """... where rows are shared out, and not panels."""
    rng = np.random.default_rng(3)
    linear, x = Linear(130, 150, dtype=dtype, rng=rng), normal(rng, (601, 130), dtype)
    set_num_threads(1)
    expected = linear(x)
    for num_threads in (2, 3):
        set_num_threads(num_threads)
        assert_same_bits(linear(x), expected, f"{num_threads} threads")
    for row in (0, 119, 120, 300, 600):
        assert_same_bits(linear(x[row]), expected[row], f"row {row} alone")


def double(linear: Linear) -> None:
    linear.load_state_dict({name: 2 * array for name, array in linear.state_dict().items()})


def edit(linear: Linear) -> None:
    with linear.editing() as parameters:
        for array in parameters.values():
            array *= 2


def step(linear: Linear) -> None:
    SGD(linear.parameters(), lr=1.0).step({k: -a for k, a in linear.state_dict().items()})


@pytest.mark.parametrize("change", [double, edit, step])
@every_dtype
def test_linear_sees_every_change_of_its_weights(
    change: Callable[[Linear], None], dtype: Any
) -> None:
    linear, x = Linear(5, 40, dtype=dtype, rng=0), normal(np.random.default_rng(0), (9, 5), dtype)
    before = linear(x)
    change(linear)
    assert_same_bits(linear(x), 2 * before)  # twice the terms of each sum: exact
    assert_same_bits(linear.forward(x)[0], 2 * before)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("changed", [0, 1])
def test_a_copy_of_linear_has_weights_of_its_own(
    duplicate: Callable[[Linear], Linear], changed: int
) -> None:
    """... whichever of the two changes, and panels are no part of what is copied."""
    linear, x = Linear(6, 40, rng=0), normal(np.random.default_rng(0), (9, 6), np.float32)
    size = len(pickle.dumps(linear))
    before = linear(x)
    assert len(pickle.dumps(linear)) == size
    pair = linear, duplicate(linear)
    double(pair[changed])
    assert_same_bits(pair[changed](x), 2 * before)
    assert_same_bits(pair[1 - changed](x), before)


@pytest.mark.oracle
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(17, 9), (200, 330)])
@every_dtype
def test_linear_equals_torchs(dtype: Any, sizes: tuple[int, int], bias: bool) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    linear = Linear(*sizes, bias=bias, dtype=dtype, rng=rng)
    theirs = torch.nn.Linear(*sizes, bias=bias, dtype=getattr(torch, np.dtype(dtype).name))
    assert [*theirs.state_dict()] == [*linear.state_dict()]
    theirs.load_state_dict({k: torch.tensor(v) for k, v in linear.parameters().items()})
    x = normal(rng, (3, 5, sizes[0]), dtype)
    output, tape = linear.forward(x)
    d_output = normal(rng, output.shape, dtype)
    d_x, grads = linear.backward(tape, d_output)
    their_x = torch.tensor(x, requires_grad=True)
    expected = theirs(their_x)
    expected.backward(torch.tensor(d_output))
    assert_close(output, expected.detach().numpy(), tolerance_of(dtype), "output")
    assert_close(d_x, their_x.grad.numpy(), tolerance_of(dtype), "d_x")
    for name, parameter in theirs.named_parameters():
        assert_close(grads[name], parameter.grad.numpy(), tolerance_of(dtype), name)


# --- Dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@every_dtype
def test_dropout_zeroes_a_share_and_scales_the_rest(p: float, dtype: Any) -> None:
    x = np.full((100, 1000), 3, dtype)
    output, _ = Dropout(p).forward(x, np.random.default_rng(1))
    values = np.unique(output)
    assert len(values) == 2
    assert values[0] == 0
    assert abs(values[1] - 3 / (1 - p)) <= np.finfo(dtype).eps * values[1]
    deviation = math.sqrt(p * (1 - p) / x.size)
    assert abs((output == 0).mean() - p) < 4 * deviation
    # By rows and columns, too: the mask has no pattern.
    for axis in (0, 1):
        spread = math.sqrt(p * (1 - p) / x.shape[axis])
        assert np.abs((output == 0).mean(axis=axis) - p).max() < 6 * spread


@every_dtype
def test_dropouts_backward_uses_the_mask_of_its_forward(dtype: Any) -> None:
    dropout, x = Dropout(0.3), np.ones((20, 30), dtype)
    output, tape = dropout.forward(x, np.random.default_rng(1))
    other, _ = dropout.forward(x, np.random.default_rng(2))
    assert not np.array_equal(output, other)
    d_output = normal(np.random.default_rng(3), x.shape, dtype)
    d_x, grads = dropout.backward(tape, d_output)
    assert_same_bits(d_x, d_output * output)
    assert grads == {}


def test_dropout_gradients_are_finite_differences() -> None:
    dropout, x = Dropout(0.5), normal(np.random.default_rng(1), (4, 5))

    def loss(arrays: dict[str, Array]) -> float:
        return float(np.sin(dropout.forward(arrays["x"], np.random.default_rng(7))[0]).sum())

    output, tape = dropout.forward(x, np.random.default_rng(7))
    d_x, _ = dropout.backward(tape, np.cos(output))
    assert_close(d_x, gradient(loss, {"x": x})["x"], GRADIENT_BOUND)


@every_dtype
def test_dropout_draws_from_its_generator_alone(dtype: Any) -> None:
    x = np.ones((8, 9), dtype)
    rng = np.random.default_rng(1)
    first, _ = Dropout(0.5).forward(x, rng)
    second, _ = Dropout(0.5).forward(x, rng)
    assert not np.array_equal(first, second)
    again, _ = Dropout(0.5).forward(x, np.random.default_rng(1))
    assert_same_bits(again, first)


@every_dtype
def test_dropout_of_nothing_and_of_everything(dtype: Any) -> None:
    x = normal(np.random.default_rng(1), (8, 9), dtype)
    for p, rng in ((0.0, np.random.default_rng(1)), (0.9, None)):
        dropout = Dropout(p)
        output, tape = dropout.forward(x, rng)
        d_x, _ = dropout.backward(tape, output)
        assert_same_bits(output, x)
        assert_same_bits(d_x, x)
        assert not np.shares_memory(output, x)
        assert not np.shares_memory(d_x, output)
    output, _ = Dropout(1.0).forward(x, np.random.default_rng(1))
    assert_same_bits(output, np.zeros_like(x))


def test_dropout_infers_the_identity() -> None:
    x = normal(np.random.default_rng(1), (3, 4), np.float32)[::2]
    assert np.shares_memory(Dropout(0.9)(x), x)
    assert_same_bits(Dropout(0.9)(x), x)
    assert Dropout().p == 0.5
    with pytest.raises(TypeError, match=r"^x: expected an array of float32 or float64, got int64"):
        Dropout()(np.arange(3))


@pytest.mark.parametrize("shape", LEADING)
def test_dropout_takes_any_shape(shape: tuple[int, ...]) -> None:
    dropout, x = Dropout(0.5), np.ones(shape, np.float32)
    output, tape = dropout.forward(x, np.random.default_rng(0))
    d_x, _ = dropout.backward(tape, x)
    assert type(output) is type(d_x) is np.ndarray
    assert_same_bits(output, d_x)
    assert output.shape == shape


def test_dropout_multiplies_as_torch_does_where_an_infinity_is_dropped() -> None:
    x = np.full(50, np.inf, np.float32)
    output, _ = Dropout(0.5).forward(x, np.random.default_rng(0))
    assert set(np.isnan(output)) == {True, False}
    assert np.isinf(output[~np.isnan(output)]).all()


def test_dropout_refuses_what_is_no_probability_or_generator() -> None:
    for bad in (-0.1, 1.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^p: expected a finite number >= 0 and <= 1"):
            Dropout(bad)
    for wrong in ("0.5", None, True, [0.5]):
        with pytest.raises(TypeError, match=r"^p: expected a number"):
            Dropout(wrong)  # type: ignore[arg-type]
    for wrong in (3, "rng", np.random.RandomState(0)):
        with pytest.raises(TypeError, match=r"^rng: expected a numpy\.random\.Generator or None"):
            Dropout().forward(np.ones(3), wrong)  # type: ignore[arg-type]


def test_layers_say_what_they_are() -> None:
    assert repr(Embedding(4, 3)) == "Embedding(4, 3)"
    assert repr(Linear(4, 3, bias=False)) == "Linear(4, 3, bias=False)"
    assert repr(Dropout(0.25)) == "Dropout(0.25)"
