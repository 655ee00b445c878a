"""Attention: each score beside its definition, finite differences, and torch; memories and bits."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import Attention, _core, threads
from fastlstm.attention import SCORES
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

QUERIES, KEYS, BATCH, FEATURES = 3, 5, 4, 2
LENGTHS = np.array([3, 0, 5, 1])

needs_kernels = pytest.mark.skipif(
    not _core.VECTOR[4],
    reason=f"instruction set {_core.ISA} has no packed kernels, and BLAS promises no bits",
)
every_score = pytest.mark.parametrize("score", SCORES)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def make(score: str, dtype: Any = np.float64, **options: Any) -> Attention:
    """A layer whose queries have as many features as its keys only if they must."""
    sizes = (FEATURES, FEATURES) if score == "dot" else (FEATURES + 1, FEATURES)
    if score == "additive":
        options = {"hidden_features": 4, **options}
    layer = Attention(*sizes, score, dtype=dtype, rng=1, **options)
    if layer.parameters():
        with layer.editing() as parameters:
            for array in parameters.values():
                array *= 3
    return layer


def inputs(
    score: str, dtype: Any = np.float64, *, past: float | None = None
) -> tuple[Array, Array]:
    """Random queries (T, B, Q) and keys (S, B, K); what lies past the ends is `past`."""
    rng = np.random.default_rng(2)
    query = normal(rng, (QUERIES, BATCH, FEATURES + (score != "dot")), dtype)
    keys = 2 * normal(rng, (KEYS, BATCH, FEATURES), dtype)
    if past is not None:
        keys[np.arange(KEYS)[:, np.newaxis] >= LENGTHS] = past
    return query, keys


def read_one_by_one(
    layer: Attention, query: Array, keys: Array, lengths: Array
) -> tuple[Array, Array]:
    """The definition, query by query."""
    own = {k: a.astype(np.float64) for k, a in layer.parameters().items()}
    steps, batch, _ = query.shape
    context = np.zeros((steps, batch, keys.shape[2]))
    weights = np.zeros((batch, steps, len(keys)))
    for t, b in np.ndindex(steps, batch):
        q, valid = query[t, b].astype(np.float64), keys[: lengths[b], b].astype(np.float64)
        if not len(valid):
            continue
        if layer.score == "dot":
            scores = [q @ k for k in valid]
        elif layer.score == "general":
            scores = [q @ own["weight"] @ k for k in valid]
        else:
            asked = own["query_weight"] @ q + own["bias"]
            scores = [own["score_weight"] @ np.tanh(asked + own["key_weight"] @ k) for k in valid]
        each = np.exp(np.array(scores))
        weights[b, t, : lengths[b]] = each / each.sum()
        context[t, b] = weights[b, t, : lengths[b]] @ valid
    return context, weights


# --- values ---------------------------------------------------------------------------------------


@every_score
@every_dtype
def test_values_are_their_definition(score: str, dtype: Any) -> None:
    layer, (query, keys) = make(score, dtype), inputs(score, dtype)
    for lengths in (LENGTHS, np.full(BATCH, KEYS), np.zeros(BATCH, int)):
        context, weights = layer(query, keys, lengths)
        expected = read_one_by_one(layer, query, keys, lengths)
        for actual, wanted in zip((context, weights), expected, strict=True):
            assert actual.dtype == dtype
            assert_close(actual, wanted, tolerance_of(dtype))
        assert not context[:, lengths == 0].any()
        assert not (weights * (np.arange(KEYS) >= lengths[:, None, None])).any()


@every_score
def test_without_lengths_every_key_is_valid(score: str) -> None:
    layer, (query, keys) = make(score), inputs(score)
    for actual, expected in zip(
        layer(query, keys), layer(query, keys, np.full(BATCH, KEYS)), strict=True
    ):
        assert_same_bits(actual, expected)


@every_score
@every_dtype
@pytest.mark.parametrize("past", [np.nan, np.inf])
def test_what_lies_past_an_end_is_not_read(score: str, dtype: Any, past: float) -> None:
    def run(past: float) -> list[Array]:
        layer = make(score, dtype)
        context, weights, tape = layer.forward(*inputs(score, dtype, past=past), LENGTHS)
        d_query, d_keys, grads = layer.backward(tape, np.ones_like(context))
        assert not d_keys[np.arange(KEYS)[:, np.newaxis] >= LENGTHS].any()
        return [context, weights, d_query, d_keys, *grads.values()]

    for actual, expected in zip(run(past), run(0.0), strict=True):
        assert np.isfinite(expected).all()
        assert_same_bits(actual, expected)


@every_score
@pytest.mark.parametrize(("queries", "keys", "batch"), [(0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0)])
def test_nothing_to_read(score: str, queries: int, keys: int, batch: int) -> None:
    layer = make(score)
    query = np.ones((queries, batch, layer.query_features))
    context, weights, tape = layer.forward(query, np.ones((keys, batch, FEATURES)))
    assert weights.shape == (batch, queries, keys)
    if not keys:
        assert_same_bits(context, np.zeros((queries, batch, FEATURES)))
    d_query, d_keys, grads = layer.backward(tape, np.ones_like(context))
    assert d_query.shape == query.shape
    assert_same_bits(d_keys, np.zeros((keys, batch, FEATURES)))
    assert grads.keys() == layer.parameters().keys()
    assert not any(grad.any() for grad in grads.values())


@needs_kernels
@every_score
@every_dtype
@pytest.mark.parametrize("features", [1, 7, 40, 130])
def test_a_query_has_the_same_bits_in_any_company(score: str, dtype: Any, features: int) -> None:
    layer = Attention(features, features, score, dtype=dtype, rng=1)
    rng = np.random.default_rng(2)
    query, keys = normal(rng, (9, 6, features), dtype), normal(rng, (70, 6, features), dtype)
    lengths = np.array([70, 1, 2, 0, 33, 49])
    context, weights = layer(query, keys, lengths)
    for b, length in enumerate(lengths):
        alone, alone_weights = layer(
            query[4:5, b : b + 1], keys[:length, b : b + 1], lengths[b : b + 1]
        )
        assert_same_bits(alone[0, 0], context[4, b], f"sequence {b}")
        assert_same_bits(alone_weights[0, 0], weights[b, 4, :length], f"sequence {b}")


@needs_kernels
@every_score
def test_threads_change_no_bit(score: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, (query, keys) = make(score, np.float32), inputs(score, np.float32)
    monkeypatch.setattr(threads, "LEAST_WORK", 0)

    def run(num_threads: int) -> list[Array]:
        monkeypatch.setattr(threads, "_num_threads", num_threads)
        context, weights, tape = layer.forward(query, keys, LENGTHS)
        d_query, d_keys, grads = layer.backward(tape, np.ones_like(context))
        return [context, weights, d_query, d_keys, *grads.values()]

    alone = run(1)
    for num_threads in (2, 3):
        for actual, expected in zip(run(num_threads), alone, strict=True):
            assert_same_bits(actual, expected)


@every_score
def test_a_nan_within_a_sequence_is_seen_in_it_and_nowhere_else(score: str) -> None:
    layer, (query, keys) = make(score), inputs(score)
    keys[2, 0] = np.nan
    context, _ = layer(query, keys, LENGTHS)
    assert np.isnan(context[:, 0]).all()
    assert np.isfinite(context[:, 1:]).all()


@pytest.mark.parametrize("score", ["dot", "general"])
def test_it_survives_scores_of_any_size(score: str) -> None:
    layer, (query, keys) = make(score, np.float32), inputs(score, np.float32)
    context, _, tape = layer.forward(query * np.float32(1e30), keys, LENGTHS)
    d_query, d_keys, _ = layer.backward(tape, np.ones_like(context))
    assert all(np.isfinite(array).all() for array in (context, d_query, d_keys))


# --- memories -------------------------------------------------------------------------------------


@every_score
def test_a_memory_stands_for_its_keys(score: str) -> None:
    layer, (query, keys) = make(score), inputs(score)
    expected = layer.forward(query, keys, LENGTHS)
    lengths = LENGTHS.copy()
    memory = layer.memory(keys, lengths)
    spoil(keys, lengths)
    actual = layer.forward(query, memory)
    for one, other in zip(actual[:2], expected[:2], strict=True):
        assert_same_bits(one, other)
    d_context = np.ones_like(actual[0])
    results = [layer.backward(tape, d_context) for tape in (actual[2], expected[2])]
    for one, other in zip(results[0][:2], results[1][:2], strict=True):
        assert_same_bits(one, other)


@every_score
def test_some_sequences_of_a_memory_are_taken_in_any_order(score: str) -> None:
    layer, (query, keys) = make(score), inputs(score)
    which = np.array([2, 0, 2])
    context, weights = layer(query[:, which], layer.memory(keys, LENGTHS).take(which))
    expected = layer(query[:, which], keys[:, which], LENGTHS[which])
    assert_close(context, expected[0], 1e-14)
    assert_close(weights, expected[1], 1e-14)


def test_a_memory_serves_its_own_layer_and_weights_and_has_its_own_lengths() -> None:
    layer, (query, keys) = make("general"), inputs("general")
    memory = layer.memory(keys, LENGTHS)
    with pytest.raises(ValueError, match=r"^lengths: a Memory has its own"):
        layer(query, memory, LENGTHS)
    with pytest.raises(ValueError, match=r"^keys: .* another layer"):
        make("general")(query, memory)
    with layer.editing() as parameters:
        parameters["weight"] += 1
    with pytest.raises(RuntimeError, match=r"^keys: stale"):
        layer(query, memory)


# --- gradients ------------------------------------------------------------------------------------


@every_score
def test_gradients_are_finite_differences(score: str) -> None:
    layer, (query, keys) = make(score), inputs(score)
    d_context = normal(np.random.default_rng(3), (QUERIES, BATCH, FEATURES))

    def loss(arrays: dict[str, Array]) -> float:
        query, keys = arrays.pop("query"), arrays.pop("keys")
        layer.load_state_dict(arrays)
        return float((layer(query, keys, LENGTHS)[0] * d_context).sum())

    weights = layer.state_dict()
    expected = gradient(loss, {"query": query, "keys": keys, **weights})
    layer.load_state_dict(weights)
    _, _, tape = layer.forward(query, keys, LENGTHS)
    d_query, d_keys, grads = layer.backward(tape, d_context)
    assert grads.keys() == layer.parameters().keys()
    for name, array in {"query": d_query, "keys": d_keys, **grads}.items():
        assert_close(array, expected[name], 1e-9, name)


@pytest.mark.oracle
@every_score
@every_dtype
def test_values_and_gradients_are_torchs(score: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    layer, (query, keys) = make(score, dtype), inputs(score, dtype)
    lengths = np.maximum(LENGTHS, 1)  # torch's softmax over nothing is NaN
    q, k = (torch.tensor(array.swapaxes(0, 1), requires_grad=True) for array in (query, keys))
    own = {n: torch.tensor(a, requires_grad=True) for n, a in layer.parameters().items()}
    mask = torch.tensor(np.arange(KEYS) < lengths[:, np.newaxis])[:, None]
    if score == "additive":
        linear = torch.nn.functional.linear
        sums = linear(q, own["query_weight"], own["bias"])[:, :, None]
        hidden = torch.tanh(sums + linear(k, own["key_weight"])[:, None])
        weights = (hidden @ own["score_weight"]).masked_fill(~mask, -torch.inf).softmax(-1)
        expected = weights @ k
    else:
        asked = q if score == "dot" else q @ own["weight"]
        expected = torch.nn.functional.scaled_dot_product_attention(
            asked, k, k, attn_mask=mask.expand(-1, QUERIES, -1), scale=1.0
        )
    d_context = normal(np.random.default_rng(3), (QUERIES, BATCH, FEATURES), dtype)
    expected.backward(torch.tensor(d_context.swapaxes(0, 1)))

    context, _, tape = layer.forward(query, keys, lengths)
    d_query, d_keys, grads = layer.backward(tape, d_context)
    tolerance = tolerance_of(dtype)
    assert_close(context.swapaxes(0, 1), expected.detach().numpy(), tolerance)
    assert_close(d_query.swapaxes(0, 1), q.grad.numpy(), tolerance, "query")
    assert_close(d_keys.swapaxes(0, 1), k.grad.numpy(), tolerance, "keys")
    for name, grad in grads.items():
        assert_close(grad, own[name].grad.numpy(), tolerance, name)


# --- as every layer -------------------------------------------------------------------------------


@every_score
@every_dtype
def test_results_are_fresh_and_inputs_stay(score: str, dtype: Any) -> None:
    layer, (query, keys) = make(score, dtype), inputs(score, dtype)
    kept = query.copy(), keys.copy()
    context, weights, tape = layer.forward(query, keys, LENGTHS)
    d_context = normal(np.random.default_rng(3), context.shape, dtype)
    d_query, d_keys, grads = layer.backward(tape, d_context)
    results = [context, weights, d_query, d_keys, *grads.values()]
    for k, result in enumerate(results):
        assert result.dtype == dtype
        assert result.flags.writeable
        assert result.flags.c_contiguous
        for other in (*results[:k], query, keys, d_context, *layer.parameters().values()):
            assert not np.shares_memory(result, other)
    assert_same_bits(query, kept[0])
    assert_same_bits(keys, kept[1])


@every_score
def test_the_tape_does_not_see_what_happens_afterwards(score: str) -> None:
    def run(*, spoiled: bool) -> list[Array]:
        layer, (query, keys), lengths = make(score), inputs(score), LENGTHS.copy()
        context, weights, tape = layer.forward(query, keys, lengths)
        d_context = np.ones_like(context)
        if spoiled:
            spoil(query, keys, lengths, context, weights)
        d_query, d_keys, grads = layer.backward(tape, d_context)
        return [d_query, d_keys, *grads.values()]

    for actual, expected in zip(run(spoiled=True), run(spoiled=False), strict=True):
        assert_same_bits(actual, expected)


@every_score
def test_a_tape_serves_once_and_its_own_layer(score: str) -> None:
    layer = make(score)
    context, _, tape = layer.forward(*inputs(score), LENGTHS)
    with pytest.raises(ValueError, match=r"^tape: .* another layer"):
        make(score).backward(tape, context)
    layer.backward(tape, context)
    with pytest.raises(RuntimeError, match=r"^tape: used"):
        layer.backward(tape, context)


def test_a_tape_is_stale_when_the_weights_have_changed() -> None:
    layer = make("additive")
    context, _, tape = layer.forward(*inputs("additive"))
    _, _, other = layer.forward(*inputs("additive"))
    SGD(layer.parameters(), 0.1).step(layer.backward(other, context)[2])
    with pytest.raises(RuntimeError, match=r"^tape: stale"):
        layer.backward(tape, context)


@every_score
def test_copies_and_pickles_read_alike(score: str) -> None:
    layer = make(score)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same_bits(other(*inputs(score))[0], layer(*inputs(score))[0])
        assert other.get_config() == layer.get_config()


def test_what_it_was_made_with_is_shown_and_fixed() -> None:
    layer = Attention(3, 4, "additive", hidden_features=5)
    assert repr(layer) == "Attention(3, 4, 'additive', hidden_features=5)"
    assert {k: a.shape for k, a in layer.parameters().items()} == {
        "query_weight": (5, 3), "key_weight": (5, 4), "bias": (5,), "score_weight": (5,),
    }  # fmt: skip
    assert Attention(3, 4, "additive").hidden_features == 3
    assert Attention(3, 4).weight.shape == (3, 4)
    assert not Attention(3, 3, "dot").parameters()
    with pytest.raises(AttributeError, match="fixed at construction"):
        layer.score = "dot"


@pytest.mark.parametrize("score", ["general", "additive"])
def test_the_initial_weights_are_uniform_within_their_bound(score: str) -> None:
    for name, array in Attention(400, 400, score, rng=0).parameters().items():
        assert np.abs(array).max() <= 1 / 20
        assert abs(array.std() - 1 / 20 / np.sqrt(3)) < 0.05 / 20, name


# --- bad input ------------------------------------------------------------------------------------


def arguments(score: str, dtype: Any) -> list[Argument]:
    layer, (query, keys) = make(score, dtype), inputs(score, dtype)

    def backward(d_context: Any) -> list[Array]:
        d_query, d_keys, grads = layer.backward(layer.forward(query, keys, LENGTHS)[2], d_context)
        return [d_query, d_keys, *grads.values()]

    d_context = normal(np.random.default_rng(3), (QUERIES, BATCH, FEATURES), dtype)
    return [
        Argument("query", "query", query, lambda query: [*layer(query, keys, LENGTHS)]),
        Argument("keys", "keys", keys, lambda keys: [*layer(query, keys, LENGTHS)]),
        Argument("d_context", "d_context", d_context, backward),
        Argument(
            "lengths", "lengths", LENGTHS, lambda lengths: [*layer(query, keys, lengths)],
            optional=True,
        ),
    ]  # fmt: skip


ARGUMENTS = [a for dtype in (np.float32, np.float64) for a in arguments("general", dtype)]


@pytest.mark.parametrize("argument", ARGUMENTS, ids=str)
def test_arrays_are_taken_in_any_layout_and_refused_in_any_other_form(
    argument: Argument, tmp_path: Path
) -> None:
    assert_takes_any_layout(argument, tmp_path)
    assert_refuses_what_is_no_such_array(argument)
    first, *others = argument.good.shape
    assert_refuses_shapes(argument, (), (first, *others, 1))
    if argument.name in ("d_context", "lengths"):  # the others' first axis is free
        assert_refuses_shapes(argument, (first + 1, *others))
    if others:
        assert_refuses_shapes(argument, (first, *others[:-1], others[-1] + 1))


def test_queries_and_keys_are_of_one_batch() -> None:
    query, keys = inputs("general")
    with pytest.raises(ValueError, match=r"^query: expected shape \(T, 4, 3\), got \(3, 3, 3\)"):
        make("general")(query[:, :3], keys)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 1), {}, ValueError, "query_features: expected a whole number >= 1, got 0"),
        ((1, 1.5), {}, TypeError, "key_features: expected a whole number, got 1.5"),
        ((1, 1, "cosine"), {}, ValueError, "score: expected one of dot, general, additive, got 'c"),
        ((2, 3, "dot"), {}, ValueError, "key_features: 'dot' compares .* got 2 and 3"),
        ((2, 2), {"hidden_features": 3}, ValueError, "hidden_features: 'general' has none, got 3"),
        ((2, 2, "additive"), {"hidden_features": 0}, ValueError, "hidden_features: expected a who"),
        ((2, 2), {"dtype": np.float16}, TypeError, "dtype: expected float32 or float64"),
        ((2**16, 2**16), {}, ValueError, r"query_features \* key_features: .* exceeds"),
        ((2**16, 2, "additive"), {}, ValueError, r"hidden_features \* features: .* exceeds"),
    ],
)
def test_what_it_cannot_be_made_with(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        Attention(*arguments, **options)
