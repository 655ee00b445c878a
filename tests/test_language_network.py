"""language_model.network: gradients beside finite differences and torch, states, dropout, tying."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm.losses import softmax_cross_entropy
from fastlstm.tasks.language_model.network import LanguageNetwork
from fastlstm.tasks.language_model.segments import Segments, begun
from tests.finite_differences import assert_gradients
from tests.support import Array, assert_close, assert_same_bits, normal, plain_lstm, plain_rnn

INPUTS, OUTPUTS, HIDDEN, STEPS, BATCH = 6, 5, 3, 4, 2
OPTIONS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "rnn": {"cell": "rnn"},
    "deep": {"num_layers": 2},
    "tied": {"tied": True, "embedding_size": HIDDEN},
    "tied, as many outputs as inputs": {
        "tied": True, "embedding_size": HIDDEN, "outputs": INPUTS, "small": True,
    },
    "tied, a vector of the processor full": {
        "tied": True, "embedding_size": HIDDEN, "inputs": 17, "outputs": 16,
    },
    "dropout": {"num_layers": 2, "dropout": 0.4, "input_dropout": 0.3},
    "dropout of an RNN": {"cell": "rnn", "num_layers": 2, "dropout": 0.4, "input_dropout": 0.3},
    "locked dropout": {
        "num_layers": 2, "dropout": 0.4, "input_dropout": 0.3, "locked_dropout": True,
        "weight_dropout": 0.3,
    },
}  # fmt: skip
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def network(start: Any = 1, **options: Any) -> LanguageNetwork:
    settings = {
        "inputs": INPUTS, "outputs": OUTPUTS, "embedding_size": 2, "hidden_size": HIDDEN,
        "dtype": np.float64,
    }  # fmt: skip
    start = np.random.default_rng(start) if isinstance(start, int) else start
    return LanguageNetwork(start=start, **{**settings, **options})


def batch_of(seed: int = 2, most: int = OUTPUTS) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, INPUTS, (STEPS, BATCH)), rng.integers(0, most, (STEPS, BATCH))


def state_of(net: LanguageNetwork, seed: int = 3) -> tuple[Array, ...]:
    rng = np.random.default_rng(seed)
    shape = (net.recurrent.num_layers, BATCH, HIDDEN)
    return tuple(normal(rng, shape) for _ in net.read(batch_of()[0])[1])


def plain_logits(net: LanguageNetwork, ids: Array, state: tuple[Array, ...] | None = None) -> Array:
    """Logits (T, B, outputs) of ids (T, B), in float64 and step by step."""
    weights = {name: array.astype(np.float64) for name, array in net.parameters().items()}
    x = weights["embedding.weight"][ids]
    if net.recurrent.__class__.__name__ == "RNN":
        output, _ = plain_rnn(net.recurrent, x, None if state is None else state[0])
    else:
        output, _ = plain_lstm(net.recurrent, x, state)
    head = weights.get("head.weight", weights["embedding.weight"][: net.outputs])
    return output @ head.T + weights["head.bias"]


# --- the loss and its gradients -------------------------------------------------------------------


@every_option
@pytest.mark.parametrize("carried", [False, True])
def test_gradients_are_finite_differences(options: dict[str, Any], carried: bool) -> None:
    """With dropout the masks are drawn from the same seed each time."""
    net = network(**options)
    batch, state = batch_of(most=INPUTS), state_of(net) if carried else None

    def run() -> tuple[float, dict[str, Array], Any]:
        return net.loss_and_grads(batch, state, np.random.default_rng(9))

    def loss(arrays: dict[str, Array]) -> float:
        net.parameters().load_state_dict(arrays | {"embedding.weight": embedding(arrays)})
        return run()[0]

    def embedding(arrays: dict[str, Array]) -> Array:
        """What can only be read stays as it is, whatever it is."""
        return np.where(np.arange(net.embedding.num_embeddings)[:, None] < net.outputs,
                        arrays["embedding.weight"], 0)  # fmt: skip

    _, grads, _ = run()
    assert grads.keys() == net.parameters().keys()
    assert_gradients(loss, net.parameters().state_dict(), grads)


@every_option
def test_the_loss_is_that_of_a_literal_computation(options: dict[str, Any]) -> None:
    net = network(**options)
    ids, targets = batch_of()
    state = state_of(net)
    loss, _, (after, *_) = net.loss_and_grads((ids, targets), state, None)
    logits = plain_logits(net, ids, state)
    assert loss == pytest.approx(softmax_cross_entropy(logits, targets)[0], rel=1e-12)
    assert after.shape == state[0].shape


def test_a_state_is_carried_from_window_to_window() -> None:
    net = network(num_layers=2)
    ids, targets = batch_of()
    whole = net.loss_and_grads((ids, targets), None, None)[0]
    first, _, state = net.loss_and_grads((ids[:1], targets[:1]), None, None)
    rest, _, _ = net.loss_and_grads((ids[1:], targets[1:]), state, None)
    assert (first + 3 * rest) / 4 == pytest.approx(whole, rel=1e-12)


def test_targets_that_cannot_come_do_not_count() -> None:
    net = network()
    ids, targets = batch_of()
    unknown = targets == targets[0, 0]
    assert 0 < unknown.sum() < unknown.size
    loss, _, _ = net.loss_and_grads((ids, np.where(unknown, OUTPUTS, targets)), None, None)
    rows, wanted = plain_logits(net, ids)[~unknown], targets[~unknown]
    assert loss == pytest.approx(softmax_cross_entropy(rows, wanted)[0], rel=1e-12)


def test_where_no_target_counts_nothing_is_learnt() -> None:
    net = network()
    loss, grads, state = net.loss_and_grads((batch_of()[0], np.full((STEPS, BATCH), 5)), None, None)
    assert loss == 0
    assert not any(grad.any() for grad in grads.values())
    assert len(state) == 2


def test_what_can_only_be_read_is_embedded_as_zeros() -> None:
    for options in OPTIONS.values():
        net = network(**options)
        weight = net.parameters()["embedding.weight"]
        assert not weight[net.outputs :].any()
        assert weight[: net.outputs].all()


def test_small_embeddings_are_small() -> None:
    wide = {"inputs": 500, "outputs": 500, "embedding_size": 8}
    small = network(small=True, **wide).parameters()["embedding.weight"]
    assert 0.099 < np.abs(small).max() <= 0.1
    large = network(**wide).parameters()["embedding.weight"]
    assert large.std() == pytest.approx(1, rel=0.05)


def test_forget_gates_begin_open() -> None:
    parameters = network(num_layers=2).parameters()
    for layer in range(2):
        bias = sum(parameters[f"recurrent.bias_{part}_l{layer}"] for part in ("ih", "hh"))
        assert_close(bias[HIDDEN : 2 * HIDDEN], np.ones(HIDDEN), 1e-15)


# --- texts that begin within a window -------------------------------------------------------------


BEGINS = np.array([[0, 1], [1, 0], [0, 0], [1, 1]], bool)  # (T, B)


@every_option
@pytest.mark.parametrize("carried", [False, True])
def test_gradients_where_texts_begin(options: dict[str, Any], carried: bool) -> None:
    net = network(**options)
    batch = (*batch_of(), BEGINS)
    state = state_of(net) if carried else None

    def run() -> tuple[float, dict[str, Array], Any]:
        return net.loss_and_grads(batch, state, np.random.default_rng(9))

    def loss(arrays: dict[str, Array]) -> float:
        weight = arrays["embedding.weight"].copy()
        weight[net.outputs :] = 0
        net.parameters().load_state_dict(arrays | {"embedding.weight": weight})
        return run()[0]

    assert_gradients(loss, net.parameters().state_dict(), run()[1])


@every_option
def test_a_text_begins_without_a_past(options: dict[str, Any]) -> None:
    """Each stretch of each stream alone, from a zero state or from the carried one."""
    net = network(**options)
    ids, targets = batch_of()
    state = state_of(net)
    found, after = net.log_prob(ids, targets, state, BEGINS)
    loss, _, trained = net.loss_and_grads((ids, targets, BEGINS), state, None)
    assert loss == pytest.approx(-found.mean(), rel=1e-12)
    for b, cuts in enumerate(([0, 1, 3, 4], [0, 3, 4])):
        for first, last in itertools.pairwise(cuts):
            own = None if BEGINS[first, b] else tuple(part[:, b] for part in state)
            alone, end = net.log_prob(ids[first:last, b], targets[first:last, b], own)
            assert_close(found[first:last, b], alone, 1e-12)
        for part, carried, expected in zip(after, trained, end, strict=True):
            assert_close(part[:, b], expected, 1e-12)
            assert_close(carried[:, b], expected, 1e-12)


def test_where_no_text_begins_nothing_is_cut() -> None:
    assert Segments.of(None) is None
    assert Segments.of(np.zeros((3, 2), bool)) is None
    assert Segments.of(np.arange(3)[:, np.newaxis] < [1, 0]) is None  # the first step is no cut


@given(st.integers(1, 6), st.integers(1, 4), st.data())
def test_segments_are_cut_and_joined(steps: int, batch: int, data: st.DataObject) -> None:
    flags = data.draw(st.lists(st.booleans(), min_size=steps * batch, max_size=steps * batch))
    begins = np.array(flags).reshape(steps, batch)
    segments = Segments.of(begins)
    if segments is None:
        return
    x = 1 + np.arange(steps * batch, dtype=np.float64).reshape(steps, batch, 1)
    padded = segments.cut(x)
    assert_same_bits(segments.join(padded), x)
    assert segments.lengths.sum() == steps * batch
    assert padded.shape == (segments.lengths.max(), begins[1:].sum() + batch, 1)
    for s, length in enumerate(segments.lengths):
        assert padded[:length, s].all()
        assert not padded[length:, s].any()
        # One stream's, in order.
        assert (np.diff(padded[:length, s, 0]) == batch).all()
    state = segments.first(begun((np.ones((1, batch, 2)),), begins))
    assert state is not None
    assert state[0].sum() == 2 * (~begins[0]).sum()


# --- tied weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [OUTPUTS, INPUTS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tied_gradients_are_the_sum_of_those_of_both_uses(outputs: int, dtype: type) -> None:
    """An untied network with the same weights has them apart (Press & Wolf 2017)."""
    options = {"outputs": outputs, "embedding_size": HIDDEN, "dtype": dtype}
    tied = network(tied=True, **options)
    arrays = tied.parameters().state_dict()
    arrays["head.weight"] = arrays["embedding.weight"][:outputs]
    untied = network(arrays, **options)
    batch = batch_of()
    loss, grads, _ = tied.loss_and_grads(batch, None, None)
    expected, apart, _ = untied.loss_and_grads(batch, None, None)
    assert loss == pytest.approx(expected, rel=1e-6)
    apart["embedding.weight"][:outputs] += apart.pop("head.weight")
    for name, grad in grads.items():
        assert_close(grad, apart[name], 1e-5 if dtype == np.float32 else 1e-13, name)


@pytest.mark.oracle
def test_a_tied_network_equals_torchs() -> None:
    torch = pytest.importorskip("torch")
    net = network(tied=True, embedding_size=HIDDEN, num_layers=2)
    (ids, targets), state = batch_of(), state_of(net)
    loss, grads, _ = net.loss_and_grads((ids, targets), state, None)

    embedding = torch.nn.Embedding(INPUTS, HIDDEN, dtype=torch.float64)
    lstm = torch.nn.LSTM(HIDDEN, HIDDEN, 2, dtype=torch.float64)
    arrays = {name: torch.from_numpy(a.copy()) for name, a in net.parameters().items()}
    embedding.weight.data = arrays["embedding.weight"]
    lstm.load_state_dict(
        {k.removeprefix("recurrent."): a for k, a in arrays.items() if k.startswith("recurrent.")}
    )
    bias = arrays["head.bias"].requires_grad_()
    output, _ = lstm(embedding(torch.from_numpy(ids)), tuple(map(torch.from_numpy, state)))
    logits = output @ embedding.weight[:OUTPUTS].T + bias
    found = torch.nn.functional.cross_entropy(
        logits.reshape(-1, OUTPUTS), torch.from_numpy(targets).reshape(-1)
    )
    found.backward()
    assert loss == pytest.approx(found.item(), rel=1e-12)
    d_embedding = embedding.weight.grad.clone()
    d_embedding[OUTPUTS:] = 0
    theirs = {"embedding.weight": d_embedding, "head.bias": bias.grad}
    theirs |= {f"recurrent.{name}": p.grad for name, p in lstm.named_parameters()}
    for name, grad in grads.items():
        assert_close(grad, theirs[name].numpy(), 1e-12, name)


# --- dropout --------------------------------------------------------------------------------------


@every_option
def test_dropout_acts_in_training_alone_and_by_the_generator(options: dict[str, Any]) -> None:
    net, batch = network(**options), batch_of()

    def loss(seed: int | None) -> float:
        rng = None if seed is None else np.random.default_rng(seed)
        return net.loss_and_grads(batch, None, rng)[0]

    drops = any(name.endswith("dropout") for name in options)
    assert loss(1) == loss(1)
    assert (loss(1) != loss(2)) == (loss(1) != loss(None)) == drops


@pytest.mark.parametrize("locked", [False, True])
def test_locked_dropout_drops_the_same_features_at_all_steps(locked: bool) -> None:
    net = network(dropout=0.5, locked_dropout=locked)
    dropped, mask = net._drop(np.ones((50, 4, 8)), 0.5, np.random.default_rng(0))
    assert mask is not None
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert (dropped == dropped[0]).all() == locked
    assert (dropped[:, 0] == dropped[:, 1]).all(axis=0).mean() < 0.9


# --- use ------------------------------------------------------------------------------------------


@every_option
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_probabilities_are_those_of_a_literal_computation(
    options: dict[str, Any], dtype: type
) -> None:
    net = network(**options, dtype=dtype)
    ids, targets = batch_of(most=INPUTS)
    found, _ = net.log_prob(ids, targets, None)
    logits = plain_logits(net, ids)
    rows = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    can = targets < net.outputs
    expected = np.take_along_axis(rows, np.where(can, targets, 0)[..., None], 2)[..., 0]
    assert_close(found, np.where(can, expected, 0), 1e-5 if dtype == np.float32 else 1e-12)
    assert found.dtype == np.float64
    alone, state = net.log_prob(ids[:, 0], targets[:, 0], None)
    assert_close(alone, found[:, 0], 1e-6 if dtype == np.float32 else 1e-12)
    assert state[0].shape == (net.recurrent.num_layers, HIDDEN)


def test_the_mean_loss_does_not_depend_on_the_windows() -> None:
    net = network(num_layers=2)
    ids, targets = batch_of(most=INPUTS)
    whole = net.mean_loss([(ids, targets)])
    assert whole == pytest.approx(net.loss_and_grads((ids, targets), None, None)[0], rel=1e-12)
    parts = [(ids[k : k + 1], targets[k : k + 1]) for k in range(STEPS)]
    assert net.mean_loss(parts) == pytest.approx(whole, rel=1e-12)


# --- beginnings -----------------------------------------------------------------------------------


@every_option
def test_a_network_begins_with_given_arrays(options: dict[str, Any]) -> None:
    net = network(**options)
    twin = network(net.parameters().state_dict(), **options)
    ids = batch_of()[0]
    assert_same_bits(twin.head(twin.read(ids)[0]), net.head(net.read(ids)[0]))
    assert twin.parameters().keys() == net.parameters().keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tied": True}, "tied: .* hidden_size = 3 numbers, got embedding_size = 2"),
        ({"cell": "gru"}, "cell: expected one of lstm, rnn, got 'gru'"),
        ({"cell": "rnn", "weight_dropout": 0.1}, "cell='rnn' has neither"),
        ({"cell": "rnn", "locked_dropout": True}, "cell='rnn' has neither"),
        ({"dropout": 1.0}, "dropout: expected a finite number >= 0 and < 1"),
        ({"input_dropout": -1}, "input_dropout: expected"),
        ({"weight_dropout": 2}, "weight_dropout: expected"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**options)
