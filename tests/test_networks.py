"""networks: gradients beside finite differences, lengths, dropout, and beginning with arrays."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest

from fastlstm.losses import mean_squared_error, softmax_cross_entropy
from fastlstm.tasks._base.networks import Network, PooledNetwork, StepNetwork
from tests.finite_differences import assert_gradients, gradient
from tests.support import Array, assert_close, assert_same_bits, normal

STEPS, BATCH, FEATURES, HIDDEN, OUTPUTS, VOCABULARY = 4, 3, 2, 2, 3, 5
LENGTHS = np.array([2, 0, 4])

every_cell = pytest.mark.parametrize("cell", ["lstm", "rnn"])
ids_or_vectors = pytest.mark.parametrize("vocabulary", [None, VOCABULARY], ids=["vectors", "ids"])


def pooled(start: Any = 1, **options: Any) -> PooledNetwork:
    settings = {
        "pooling": "mean", "loss": softmax_cross_entropy, "features": FEATURES,
        "hidden_size": HIDDEN, "dtype": np.float64,
    }  # fmt: skip
    start = np.random.default_rng(start) if isinstance(start, int) else start
    return PooledNetwork(OUTPUTS, start=start, **{**settings, **options})


def by_step(start: Any = 1, **options: Any) -> StepNetwork:
    settings = {
        "loss": softmax_cross_entropy, "features": FEATURES, "hidden_size": HIDDEN,
        "dtype": np.float64,
    }  # fmt: skip
    start = np.random.default_rng(start) if isinstance(start, int) else start
    return StepNetwork(OUTPUTS, start=start, **{**settings, **options})


def inputs(vocabulary: int | None = None, *, past: float = 0.0) -> Array:
    rng = np.random.default_rng(2)
    if vocabulary is not None:
        return rng.integers(0, vocabulary, (STEPS, BATCH))
    x = normal(rng, (STEPS, BATCH, FEATURES))
    x[np.arange(STEPS)[:, np.newaxis] >= LENGTHS] = past
    return x


def targets(count: int) -> Array:
    return np.random.default_rng(3).integers(0, OUTPUTS, count)


def check_gradients(network: Network, batch: Any, *, seed: int | None = None) -> None:
    """Those of the loss, with the same dropout in every call if there is a seed."""

    def run() -> tuple[float, dict[str, Array], Any]:
        return network.loss_and_grads(batch, None, seed and np.random.default_rng(seed))

    def loss(arrays: dict[str, Array]) -> float:
        network.parameters().load_state_dict(arrays)
        return run()[0]

    _, grads, state = run()
    assert state is None
    assert_gradients(loss, network.parameters().state_dict(), grads)


# --- gradients ------------------------------------------------------------------------------------


@every_cell
@ids_or_vectors
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_gradients_of_a_pooled_network(cell: str, vocabulary: int | None, pooling: str) -> None:
    network = pooled(cell=cell, vocabulary=vocabulary, pooling=pooling, bidirectional=True)
    check_gradients(network, (inputs(vocabulary), LENGTHS, targets(BATCH)))


@every_cell
@ids_or_vectors
def test_gradients_of_a_network_of_steps(cell: str, vocabulary: int | None) -> None:
    network = by_step(cell=cell, vocabulary=vocabulary, bidirectional=True)
    check_gradients(network, (inputs(vocabulary), LENGTHS, targets(LENGTHS.sum())))


@every_cell
@pytest.mark.parametrize("make", [pooled, by_step])
def test_gradients_with_layers_and_dropout(cell: str, make: Any) -> None:
    network = make(cell=cell, num_layers=2, dropout=0.3, vocabulary=VOCABULARY)
    count = BATCH if make is pooled else LENGTHS.sum()
    check_gradients(network, (inputs(VOCABULARY), LENGTHS, targets(count)), seed=5)


@ids_or_vectors
@pytest.mark.parametrize("make", [pooled, by_step])
def test_gradients_with_noise_and_input_dropout(vocabulary: int | None, make: Any) -> None:
    network = make(noise=0.5, input_dropout=0.3, vocabulary=vocabulary)
    count = BATCH if make is pooled else LENGTHS.sum()
    check_gradients(network, (inputs(vocabulary), LENGTHS, targets(count)), seed=5)


def test_gradients_of_another_loss() -> None:
    target = normal(np.random.default_rng(4), (BATCH, OUTPUTS))
    network = pooled(loss=mean_squared_error)
    check_gradients(network, (inputs(), LENGTHS, target))


@ids_or_vectors
def test_the_gradient_of_the_vectors_that_were_read(vocabulary: int | None) -> None:
    network, d_prediction = pooled(vocabulary=vocabulary), np.ones((BATCH, OUTPUTS))
    x = inputs(vocabulary)
    _, tapes = network.forward(x, LENGTHS, None)
    d_vectors, _ = network.backward(tapes, d_prediction)
    if vocabulary is not None:  # read the same vectors without an embedding
        assert network.encoder.embedding is not None
        x = network.encoder.embedding(x)
        arrays = network.parameters().state_dict()
        del arrays["encoder.embedding.weight"]
        network = pooled(arrays)
    expected = gradient(lambda a: float(network(a["x"], LENGTHS).sum()), {"x": x})["x"]
    assert_close(d_vectors, expected, 1e-8)


# --- values ---------------------------------------------------------------------------------------


@every_cell
def test_a_pooled_network_does_not_look_past_ends(cell: str) -> None:
    batch = (LENGTHS, targets(BATCH))
    for pooling in ("last", "mean", "max", "attention"):
        network = pooled(cell=cell, pooling=pooling, bidirectional=True)
        assert_same_bits(network(inputs(past=np.nan), LENGTHS), network(inputs(), LENGTHS))
        loss, grads, _ = network.loss_and_grads((inputs(past=np.nan), *batch), None, None)
        expected, wanted, _ = network.loss_and_grads((inputs(), *batch), None, None)
        assert loss == expected
        for name, grad in grads.items():
            assert_same_bits(grad, wanted[name], name)


def test_steps_are_predicted_sequence_by_sequence() -> None:
    network, x = by_step(bidirectional=True), inputs(past=np.nan)
    rows = network(x, LENGTHS)
    assert rows.shape == (LENGTHS.sum(), OUTPUTS)
    for b, start in enumerate(np.cumsum(LENGTHS) - LENGTHS):
        length = LENGTHS[b]
        alone = network(x[:length, b : b + 1], LENGTHS[b : b + 1])
        assert_close(rows[start : start + length], alone, 1e-14)


@pytest.mark.parametrize("make", [pooled, by_step])
@pytest.mark.parametrize("name", ["dropout", "input_dropout", "noise"])
def test_chance_acts_in_training_alone_and_by_the_generator(make: Any, name: str) -> None:
    count = BATCH if make is pooled else LENGTHS.sum()
    network, batch = make(**{name: 0.5}), (inputs(), LENGTHS, targets(count))

    def loss(seed: int | None) -> float:
        rng = None if seed is None else np.random.default_rng(seed)
        value: float = network.loss_and_grads(batch, None, rng)[0]
        return value

    plain = softmax_cross_entropy(network(*batch[:2]), batch[2])[0]
    assert loss(None) == plain == network.loss(batch)
    assert loss(1) == loss(1) != plain
    assert loss(1) != loss(2)


def test_noise_has_the_deviation_asked_for() -> None:
    encoder = pooled(noise=0.5, features=1).encoder
    read = []
    encoder.recurrent = Spy(read)  # type: ignore[assignment]
    encoder.forward(np.ones((100, 100, 1)), np.full(100, 100), np.random.default_rng(0))
    assert abs(read[0].mean() - 1) < 0.02
    assert abs(read[0].std() - 0.5) < 0.02


class Spy:
    """In a recurrent layer's place: notes what it reads."""

    dropout = 0.0

    def __init__(self, read: list[Array]) -> None:
        self._read = read

    def forward(self, x: Array, *_: Any, **__: Any) -> tuple[Array, None, None]:
        self._read.append(x)
        return x, None, None


def test_input_dropout_is_as_dropout_where_it_is_not_said() -> None:
    assert pooled(dropout=0.4).encoder._input_dropout.p == 0.4
    assert pooled(dropout=0.4, input_dropout=0.0).encoder._input_dropout.p == 0


def test_a_noise_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="noise: expected a finite number >= 0, got -1"):
        pooled(noise=-1)


def test_forget_gates_of_an_lstm_begin_open() -> None:
    arrays = pooled(num_layers=2, bidirectional=True).parameters()
    forget = slice(HIDDEN, 2 * HIDDEN)
    suffixes = [f"_l{k}{way}" for k in range(2) for way in ("", "_reverse")]
    for suffix in suffixes:
        both = [arrays[f"encoder.recurrent.bias_{part}{suffix}"] for part in ("ih", "hh")]
        assert_close((both[0] + both[1])[forget], np.ones(HIDDEN), 1e-15)


# --- beginnings -----------------------------------------------------------------------------------


@every_cell
@ids_or_vectors
@pytest.mark.parametrize("make", [pooled, by_step])
def test_a_network_begins_with_given_arrays(cell: str, vocabulary: int | None, make: Any) -> None:
    options = {"cell": cell, "vocabulary": vocabulary, "num_layers": 2, "bidirectional": True}
    network = make(**options)
    twin = make(network.parameters().state_dict(), **options)
    x = inputs(vocabulary)
    assert_same_bits(twin(x, LENGTHS), network(x, LENGTHS))
    assert twin.parameters().keys() == network.parameters().keys()
    assert not np.array_equal(make(2, **options)(x, LENGTHS), network(x, LENGTHS))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: arrays.pop("head.bias"),
        lambda arrays: arrays.update({"head.more": np.zeros(1)}),
        lambda arrays: arrays.update({"head.bias": np.zeros(OUTPUTS + 1)}),
        lambda arrays: arrays.update({"head.bias": np.zeros(OUTPUTS, np.float32)}),
        lambda arrays: arrays.pop("encoder.recurrent.bias_ih_l0"),
    ],
)
@pytest.mark.parametrize("make", [pooled, by_step])
def test_arrays_that_are_not_the_networks_are_refused(make: Any, spoil: Any) -> None:
    arrays = make().parameters().state_dict()
    spoil(arrays)
    with pytest.raises((TypeError, ValueError)):
        make(arrays)


def test_no_memory_of_claimed_sizes_is_taken_before_the_arrays_are_seen() -> None:
    arrays = pooled().parameters().state_dict()
    tracemalloc.start()
    try:
        for options in ({"hidden_size": 2**13}, {"vocabulary": 2**28}, {"features": 2**20}):
            with pytest.raises(ValueError, match="arrays"):
                pooled(arrays, **options)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="cell: expected one of lstm, rnn, got 'gru'"):
        pooled(cell="gru")


@pytest.mark.parametrize("make", [pooled, by_step])
def test_copies_and_pickles_are_networks_of_their_own(make: Any) -> None:
    network, x = make(bidirectional=True), inputs()
    before = network(x, LENGTHS)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        with other.parameters().editing() as arrays:
            for array in arrays.values():
                array *= 2
        assert not np.array_equal(other(x, LENGTHS), before)
        assert_same_bits(network(x, LENGTHS), before)
