"""Pooling: each way beside sequences taken one at a time, finite differences, and torch."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import Pooling, _core
from fastlstm.optim import SGD
from tests.finite_differences import gradient
from tests.strange import (
    Argument,
    assert_refuses_shapes,
    assert_refuses_what_is_no_such_array,
    assert_takes_any_layout,
    spoil,
)
from tests.support import Array, assert_close, assert_same_bits, normal, tolerance_of

WAYS = ["last", "mean", "max", "attention"]
STEPS, BATCH, FEATURES = 6, 5, 4
LENGTHS = np.array([3, 0, 6, 1, 4])

needs_kernels = pytest.mark.skipif(
    not _core.VECTOR[4],
    reason=f"instruction set {_core.ISA} has no packed kernels, and BLAS promises no bits",
)
every_way = pytest.mark.parametrize("how", WAYS)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
both_directions = pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])


def make(how: str, dtype: Any = np.float64, **options: Any) -> Pooling:
    """A layer whose attention differs from step to step as much as it can."""
    pooling = Pooling(FEATURES, how, dtype=dtype, rng=1, **options)
    if how == "attention":
        with pooling.editing() as parameters:
            for array in parameters.values():
                array *= 4
    return pooling


def outputs(dtype: Any = np.float64, *, past: float | None = None) -> Array:
    """Random outputs; what lies past the ends is `past`."""
    output = normal(np.random.default_rng(2), (STEPS, BATCH, FEATURES), dtype)
    if past is not None:
        output[np.arange(STEPS)[:, np.newaxis] >= LENGTHS] = past
    return output


def pooled_one_by_one(pooling: Pooling, output: Array, lengths: Array) -> Array:
    """The definition: (T_b, F) -> (F,) for each sequence alone."""
    pooled = np.zeros(output.shape[1:])
    for b, length in enumerate(lengths):
        steps = output[:length, b].astype(np.float64)
        if not length:
            continue
        if pooling.how == "last":
            pooled[b] = steps[-1]
            if pooling.bidirectional:
                pooled[b, FEATURES // 2 :] = steps[0, FEATURES // 2 :]
        elif pooling.how == "attention":
            own = {k: a.astype(np.float64) for k, a in pooling.parameters().items()}
            scores = np.tanh(steps @ own["weight"].T + own["bias"]) @ own["query"]
            weights = np.exp(scores) / np.exp(scores).sum()
            pooled[b] = weights @ steps
        else:
            pooled[b] = getattr(steps, pooling.how)(axis=0)
    return pooled


# --- values ---------------------------------------------------------------------------------------


@every_way
@every_dtype
@both_directions
def test_values_are_those_of_each_sequence_alone(how: str, dtype: Any, bidirectional: bool) -> None:
    pooling, output = make(how, dtype, bidirectional=bidirectional), outputs(dtype)
    for lengths in (LENGTHS, np.full(BATCH, STEPS), np.zeros(BATCH, int)):
        pooled = pooling(output, lengths)
        assert pooled.dtype == dtype
        expected = pooled_one_by_one(pooling, output, lengths)
        assert_close(pooled, expected, tolerance_of(dtype))
        assert not pooled[lengths == 0].any()


@every_way
def test_without_lengths_every_step_is_valid(how: str) -> None:
    pooling, output = make(how), outputs()
    assert_same_bits(pooling(output), pooling(output, np.full(BATCH, STEPS)))


@every_way
def test_inference_has_the_bits_of_forward(how: str) -> None:
    pooling, output = make(how), outputs()
    assert_same_bits(pooling(output, LENGTHS), pooling.forward(output, LENGTHS)[0])


@every_way
@every_dtype
@both_directions
@pytest.mark.parametrize("past", [np.nan, np.inf, -np.inf])
def test_what_lies_past_an_end_is_not_read(
    how: str, dtype: Any, bidirectional: bool, past: float
) -> None:
    def run(past: float) -> list[Array]:
        pooling = make(how, dtype, bidirectional=bidirectional)
        pooled, tape = pooling.forward(outputs(dtype, past=past), LENGTHS)
        d_output, grads = pooling.backward(tape, np.ones_like(pooled))
        return [pooled, d_output, *grads.values()]

    for actual, expected in zip(run(past), run(0.0), strict=True):
        assert np.isfinite(expected).all()
        assert_same_bits(actual, expected)


@needs_kernels
@every_way
@every_dtype
@pytest.mark.parametrize("features", [1, 2, 7, 40, 130])
def test_a_sequence_has_the_same_bits_in_any_batch(how: str, dtype: Any, features: int) -> None:
    pooling = Pooling(features, how, dtype=dtype, rng=1)
    output = normal(np.random.default_rng(2), (50, 9, features), dtype)
    lengths = np.array([50, 1, 2, 7, 0, 33, 49, 16, 8])
    together = pooling(output, lengths)
    for b, length in enumerate(lengths):
        alone = pooling(output[:length, b : b + 1], lengths[b : b + 1])
        assert_same_bits(alone[0], together[b], f"sequence {b}")


@every_way
@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_pool(how: str, steps: int, batch: int) -> None:
    pooling = make(how)
    pooled, tape = pooling.forward(np.ones((steps, batch, FEATURES)), np.zeros(batch, int))
    assert_same_bits(pooled, np.zeros((batch, FEATURES)))
    d_output, grads = pooling.backward(tape, np.ones((batch, FEATURES)))
    assert_same_bits(d_output, np.zeros((steps, batch, FEATURES)))
    for name, grad in grads.items():
        assert_same_bits(grad, np.zeros_like(pooling.parameters()[name]), name)


@every_way
def test_a_nan_within_a_sequence_is_seen_in_it_and_nowhere_else(how: str) -> None:
    pooling, output = make(how), outputs()
    output[LENGTHS[0] - 1, 0] = np.nan
    with np.errstate(all="ignore"):
        pooled = pooling(output, LENGTHS)
    assert np.isnan(pooled[0]).all()
    assert np.isfinite(pooled[1:]).all()


def test_attention_survives_scores_of_any_size() -> None:
    pooling = Pooling(FEATURES, "attention", rng=1)
    with pooling.editing() as parameters:
        parameters["query"][:] = 1e30
    pooled, tape = pooling.forward(outputs(np.float32), LENGTHS)
    d_output, _ = pooling.backward(tape, np.ones_like(pooled))
    assert np.isfinite(pooled).all()
    assert np.isfinite(d_output).all()


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["mean", "attention"])
def test_the_weights_of_the_steps_are_what_the_sum_is_made_with(how: str) -> None:
    pooling, output = make(how), outputs()
    weights = pooling.weights(output, LENGTHS)
    assert weights.dtype == output.dtype
    assert_close(weights.sum(axis=0), (LENGTHS > 0).astype(float), 1e-15)
    assert not weights[np.arange(STEPS)[:, np.newaxis] >= LENGTHS].any()
    assert_close((weights[..., np.newaxis] * output).sum(axis=0), pooling(output, LENGTHS), 1e-14)


@pytest.mark.parametrize("how", ["last", "max"])
def test_ways_that_have_no_weights_say_so(how: str) -> None:
    with pytest.raises(ValueError, match=f"^weights: '{how}' has none"):
        make(how).weights(outputs(), LENGTHS)


# --- gradients ------------------------------------------------------------------------------------


@every_way
@both_directions
def test_gradients_are_finite_differences(how: str, bidirectional: bool) -> None:
    pooling = make(how, bidirectional=bidirectional)
    d_pooled = normal(np.random.default_rng(3), (BATCH, FEATURES))

    def loss(arrays: dict[str, Array]) -> float:
        output = arrays.pop("output")
        pooling.load_state_dict(arrays)
        return float((pooling(output, LENGTHS) * d_pooled).sum())

    arrays = {"output": outputs(), **pooling.state_dict()}
    expected = gradient(loss, arrays)
    pooling.load_state_dict({k: a for k, a in arrays.items() if k != "output"})
    _, tape = pooling.forward(arrays["output"], LENGTHS)
    d_output, grads = pooling.backward(tape, d_pooled)
    assert grads.keys() == pooling.parameters().keys()
    for name, array in {"output": d_output, **grads}.items():
        assert_close(array, expected[name], 1e-10, name)


@pytest.mark.oracle
@every_way
@every_dtype
def test_values_and_gradients_are_torchs(how: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    pooling, output = make(how, dtype), outputs(dtype)
    d_pooled = normal(np.random.default_rng(3), (BATCH, FEATURES), dtype)
    own = {k: torch.tensor(a, requires_grad=True) for k, a in pooling.parameters().items()}
    x = torch.tensor(output, requires_grad=True)
    valid = torch.tensor(np.arange(STEPS)[:, np.newaxis] < LENGTHS)
    alive = torch.tensor(LENGTHS > 0)
    if how == "last":
        expected = x[torch.tensor(LENGTHS - 1).clamp(min=0), torch.arange(BATCH)]
    elif how == "mean":
        expected = (x * valid[..., None]).sum(0) / torch.tensor(LENGTHS).clamp(min=1)[:, None]
    elif how == "max":
        expected = x.masked_fill(~valid[..., None], -torch.inf).amax(0)
    else:
        hidden = torch.tanh(torch.nn.functional.linear(x, own["weight"], own["bias"]))
        scores = (hidden @ own["query"]).masked_fill(~valid, -torch.inf)
        weights = scores.masked_fill(~alive, 0.0).softmax(0)
        expected = (weights[..., None] * x).sum(0)
    expected = expected.masked_fill(~alive[:, None], 0.0)
    expected.backward(torch.tensor(d_pooled))

    pooled, tape = pooling.forward(output, LENGTHS)
    d_output, grads = pooling.backward(tape, d_pooled)
    tolerance = tolerance_of(dtype)
    assert_close(pooled, expected.detach().numpy(), tolerance)
    assert_close(d_output, x.grad.numpy(), tolerance, "output")
    for name, grad in grads.items():
        assert_close(grad, own[name].grad.numpy(), tolerance, name)


def test_the_largest_gives_its_gradient_to_the_first_of_equals() -> None:
    pooling = make("max")
    _, tape = pooling.forward(np.zeros((3, 1, FEATURES)), np.array([2]))
    d_output, _ = pooling.backward(tape, np.ones((1, FEATURES)))
    assert d_output[:, 0, 0].tolist() == [1, 0, 0]


# --- as every layer -------------------------------------------------------------------------------


@every_way
@every_dtype
def test_results_are_fresh_and_inputs_stay(how: str, dtype: Any) -> None:
    pooling, output = make(how, dtype), outputs(dtype)
    before = output.copy()
    pooled, tape = pooling.forward(output, LENGTHS)
    kept = pooled.copy()
    d_pooled = normal(np.random.default_rng(3), pooled.shape, dtype)
    d_before = d_pooled.copy()
    d_output, grads = pooling.backward(tape, d_pooled)
    results = [pooled, d_output, *grads.values()]
    for k, result in enumerate(results):
        assert result.dtype == dtype
        assert result.flags.writeable
        for other in (*results[:k], output, d_pooled, *pooling.parameters().values()):
            assert not np.shares_memory(result, other)
    assert_same_bits(output, before)
    assert_same_bits(d_pooled, d_before)
    assert_same_bits(pooled, kept)


@every_way
def test_the_tape_does_not_see_what_happens_afterwards(how: str) -> None:
    def run(*, spoiled: bool) -> list[Array]:
        pooling, output, lengths = make(how), outputs(), LENGTHS.copy()
        pooled, tape = pooling.forward(output, lengths)
        if spoiled:
            spoil(output, pooled, lengths)
        d_output, grads = pooling.backward(tape, np.ones((BATCH, FEATURES)))
        return [d_output, *grads.values()]

    for actual, expected in zip(run(spoiled=True), run(spoiled=False), strict=True):
        assert_same_bits(actual, expected)


@every_way
def test_a_tape_serves_once_and_its_own_layer(how: str) -> None:
    pooling = make(how)
    pooled, tape = pooling.forward(outputs(), LENGTHS)
    with pytest.raises(ValueError, match=r"^tape: .* another layer"):
        make(how).backward(tape, pooled)
    pooling.backward(tape, pooled)
    with pytest.raises(RuntimeError, match=r"^tape: used"):
        pooling.backward(tape, pooled)


def test_a_tape_is_stale_when_the_weights_have_changed() -> None:
    pooling = make("attention")
    pooled, tape = pooling.forward(outputs(), LENGTHS)
    _, other = pooling.forward(outputs(), LENGTHS)
    _, grads = pooling.backward(other, pooled)
    SGD(pooling.parameters(), 0.1).step(grads)
    with pytest.raises(RuntimeError, match=r"^tape: stale"):
        pooling.backward(tape, pooled)


@every_way
def test_copies_and_pickles_pool_alike(how: str) -> None:
    pooling, output = make(how, bidirectional=True), outputs()
    for other in (copy.deepcopy(pooling), pickle.loads(pickle.dumps(pooling))):
        assert_same_bits(other(output, LENGTHS), pooling(output, LENGTHS))
        assert other.get_config() == pooling.get_config()


def test_what_it_was_made_with_is_shown_and_fixed() -> None:
    pooling = make("attention", np.float32)
    assert repr(pooling) == "Pooling(4, 'attention')"
    assert {k: a.shape for k, a in pooling.parameters().items()} == {
        "weight": (4, 4), "bias": (4,), "query": (4,),
    }  # fmt: skip
    assert not make("max").parameters()
    with pytest.raises(AttributeError, match="fixed at construction"):
        pooling.how = "mean"


def test_the_initial_weights_are_torchs_linear_ones() -> None:
    pooling = Pooling(400, "attention", rng=0)
    for name, array in pooling.parameters().items():
        assert np.abs(array).max() <= 1 / 20
        assert abs(array.std() - 1 / 20 / np.sqrt(3)) < 0.05 / 20, name


# --- bad input ------------------------------------------------------------------------------------


def arguments(how: str, dtype: Any) -> list[Argument]:
    pooling, output = make(how, dtype), outputs(dtype)

    def backward(d_pooled: Any) -> list[Array]:
        d_output, grads = pooling.backward(pooling.forward(output, LENGTHS)[1], d_pooled)
        return [d_output, *grads.values()]

    d_pooled = normal(np.random.default_rng(3), (BATCH, FEATURES), dtype)
    return [
        Argument("output", "output", output, lambda output: [pooling(output, LENGTHS)]),
        Argument("d_pooled", "d_pooled", d_pooled, backward),
        Argument(
            "lengths", "lengths", LENGTHS, lambda lengths: [pooling(output, lengths)],
            optional=True,
        ),
    ]  # fmt: skip


ARGUMENTS = [a for dtype in (np.float32, np.float64) for a in arguments("attention", dtype)]


@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_arrays_are_taken_in_any_layout_and_refused_in_any_other_form(
    argument: Argument, tmp_path: Path
) -> None:
    assert_takes_any_layout(argument, tmp_path)
    assert_refuses_what_is_no_such_array(argument)
    first, *others = argument.good.shape
    assert_refuses_shapes(argument, (), (first, *others, 1))
    if argument.name != "output":  # whose number of steps is free
        assert_refuses_shapes(argument, (first + 1, *others))
    if others:
        assert_refuses_shapes(argument, (first, *others[:-1], others[-1] + 1))


@pytest.mark.parametrize("lengths", [[-1, 0, 0, 0, 0], [7, 0, 0, 0, 0]])
def test_lengths_are_within_the_steps(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^lengths: expected values from 0 to 6, got"):
        make("mean")(outputs(), np.array(lengths))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "features: expected a whole number >= 1, got 0"),
        ((4, "sum"), ValueError, "how: expected one of last, mean, max, attention, got 'sum'"),
        ((4, None), ValueError, "how: expected one of last, mean, max, attention, got None"),
    ],
)
def test_what_it_cannot_be_made_with(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        Pooling(*arguments)


def test_two_directions_are_two_halves() -> None:
    with pytest.raises(ValueError, match="features: expected two halves, got 3"):
        Pooling(3, bidirectional=True)
    with pytest.raises(TypeError, match="bidirectional: expected True or False, got 1"):
        Pooling(4, bidirectional=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dtype: expected float32 or float64"):
        Pooling(4, dtype=np.float16)
