"""batches: ragged tables, padding, and which examples a run takes when."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm.tasks._base.batches import Ragged, ShuffledBatches, StreamBatches, in_chunks
from tests.support import Array, assert_same_bits

lengths_of_sequences = st.lists(st.integers(0, 6), min_size=1, max_size=8)


def ragged(lengths: list[int], features: int = 2) -> tuple[Ragged, list[Array]]:
    """Sequences with all numbers different, and not zero."""
    rows = 1 + np.arange(sum(lengths) * features, dtype=np.float32).reshape(-1, features)
    sequences = np.split(rows, np.cumsum(lengths)[:-1])
    return Ragged.of(sequences, rows[:0]), sequences


def some(lengths: list[int], data: st.DataObject) -> Array:
    """Numbers of sequences, in any order, none or more than once."""
    numbers = st.integers(0, len(lengths) - 1)
    return np.array(data.draw(st.lists(numbers, max_size=10)), np.int64)


# --- ragged tables --------------------------------------------------------------------------------


@given(lengths_of_sequences)
def test_a_table_gives_its_sequences_back(lengths: list[int]) -> None:
    table, sequences = ragged(lengths)
    assert len(table) == len(lengths)
    assert table.lengths.tolist() == lengths
    for found, sequence in zip(table, sequences, strict=True):
        assert_same_bits(found, sequence)


def test_ids_have_no_further_axis() -> None:
    table = Ragged.of([np.array([3, 4]), np.array([], int), np.array([5])], np.array([], int))
    assert [list(ids) for ids in table] == [[3, 4], [], [5]]
    padded, lengths = table.padded()
    assert padded.tolist() == [[3, 0, 5], [4, 0, 0]]
    assert lengths.tolist() == [2, 0, 1]
    assert padded.dtype == np.int64


@given(lengths_of_sequences, st.data())
def test_some_are_taken_in_the_order_asked_for(lengths: list[int], data: st.DataObject) -> None:
    table, sequences = ragged(lengths)
    which = some(lengths, data)
    taken = table.take(which)
    assert len(taken) == len(which)
    for found, number in zip(taken, which, strict=True):
        assert_same_bits(found, sequences[number])


@given(lengths_of_sequences, st.data())
def test_padded_are_the_steps_and_zeros_past_the_ends(
    lengths: list[int], data: st.DataObject
) -> None:
    table, sequences = ragged(lengths)
    which = some(lengths, data)
    padded, taken = table.padded(which)
    longest = max((lengths[number] for number in which), default=0)
    assert padded.shape == (longest, len(which), 2)
    assert padded.dtype == np.float32
    for b, number in enumerate(which):
        assert taken[b] == lengths[number]
        assert_same_bits(padded[: taken[b], b], sequences[number])
        assert not padded[taken[b] :, b].any()


def test_padded_takes_a_slice_too() -> None:
    table, _ = ragged([2, 0, 3, 1])
    for part in (slice(None), slice(1, 3), slice(3, 3)):
        padded, lengths = table.padded(part)
        expected, same = table.padded(np.arange(4)[part])
        assert_same_bits(padded, expected)
        assert_same_bits(lengths, same)


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2, 9, 65, 66, 100, 1000])
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 7), (8, 64), (1, 2000)])
def test_windows_go_on_where_the_ones_before_ended(length: int, batch: int, steps: int) -> None:
    ids = np.arange(length)
    if length < batch + 1:
        with pytest.raises(ValueError, match="ids: expected at least"):
            StreamBatches(ids, batch, steps)
        return
    batches = StreamBatches(ids, batch, steps)
    inputs, targets = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert_same_bits(targets, inputs + 1)
    assert (np.diff(inputs, axis=0) == 1).all()
    # The streams in a row are the text, less a rest shorter than the number of streams.
    assert_same_bits(inputs.T.reshape(-1), ids[: inputs.size])
    assert 0 <= length - 1 - inputs.size < batch
    assert batches.predicted == inputs.size
    lengths = {len(window) for window, _ in batches}
    assert max(lengths) <= steps
    assert max(lengths) - min(lengths) <= 1


def test_windows_say_where_texts_begin() -> None:
    ids = np.arange(41)
    begins = ids % 7 == 0
    batches = StreamBatches(ids, 4, 3, begins)
    for inputs, targets, begun in batches:
        assert_same_bits(begun, inputs % 7 == 0)
        assert_same_bits(targets, inputs + 1)
    with pytest.raises((TypeError, ValueError), match="begins"):
        StreamBatches(ids, 4, 3, begins[:-1])


@pytest.mark.parametrize(
    ("batch", "steps", "reset"), [(1, 5, 20), (4, 5, 20), (7, 5, 10), (3, 5, 1)]
)
def test_streams_begin_anew_now_and_then(batch: int, steps: int, reset: int) -> None:
    """Each after so many ids, at the first step of a window, and not all at once."""
    length = 40 * steps
    batches = StreamBatches(np.arange(batch * length + 1), batch, steps, reset=reset)
    begins = np.concatenate([window[2] for window in batches])
    assert begins.shape == (length, batch)
    period = max(reset, steps)
    for b in range(batch):
        (places,) = np.nonzero(begins[:, b])
        assert places[0] < period
        assert (np.diff(places) == period).all()
        assert (places % steps == 0).all()
    assert begins.sum(axis=1).max() <= -(-batch * steps // period)
    with_texts = StreamBatches(np.arange(41), 2, 5, np.arange(41) == 7, reset=10)
    (places,) = np.nonzero(np.concatenate([window[2] for window in with_texts])[:, 0])
    assert places.tolist() == [0, 7, 10]


def test_windows_are_a_sequence() -> None:
    batches = StreamBatches(np.arange(100), 2, 10)
    assert_same_bits(batches[-1][0], batches[len(batches) - 1][0])
    assert len(batches[1:3]) == 2
    with pytest.raises(IndexError):
        batches[len(batches)]
    batches[0][0][:] = 0
    assert batches[0][0].any(), "a batch is a copy"


# --- batches --------------------------------------------------------------------------------------


def batches(count: int, size: int, epochs: int = 3, **options: object) -> ShuffledBatches:
    return ShuffledBatches(
        lambda which: which, count, batch_size=size, epochs=epochs, **{"seed": 1, **options}
    )


@given(st.integers(1, 40), st.integers(1, 50), st.booleans())
def test_every_epoch_has_every_example_once(count: int, size: int, sorted_: bool) -> None:
    lengths = np.random.default_rng(count).integers(0, 9, count) if sorted_ else None
    run = batches(count, size, lengths=lengths)
    assert len(run) == 3 * run.per_epoch
    for epoch in range(3):
        taken = [run[epoch * run.per_epoch + k] for k in range(run.per_epoch)]
        assert sorted(np.concatenate(taken).tolist()) == list(range(count))
        sizes = Counter(map(len, taken))
        assert set(sizes) <= {min(size, count), count % size}


def test_epochs_and_seeds_differ_and_a_batch_depends_on_its_number_alone() -> None:
    run = batches(100, 10)
    first = [run[k].tolist() for k in range(len(run))]
    assert [run[k].tolist() for k in reversed(range(len(run)))] == first[::-1]
    assert [batches(100, 10)[k].tolist() for k in range(len(run))] == first
    other = batches(100, 10, seed=2)
    assert [other[k].tolist() for k in range(len(run))] != first
    assert first[:10] != first[10:20] != first[20:]
    assert first[0] != list(range(10))


def test_an_index_is_one_of_a_sequence() -> None:
    run = batches(10, 4)
    assert run[-1].tolist() == run[len(run) - 1].tolist()
    assert len(list(run)) == len(run) == 9
    for index in (9, -10):
        with pytest.raises(IndexError):
            run[index]


def test_with_lengths_a_batch_has_similar_ones_and_epochs_still_differ() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 2000)
    run = batches(2000, 16, lengths=lengths)
    spreads = [np.ptp(lengths[run[k]]) for k in range(run.per_epoch)]
    apart = [np.ptp(lengths[batch]) for batch in np.split(np.arange(2000), 125)]
    assert np.mean(spreads) < np.mean(apart) / 10
    means = [lengths[run[k]].mean() for k in range(run.per_epoch)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3, "long ones come last"
    assert {tuple(run[k]) for k in range(125)}.isdisjoint(tuple(run[125 + k]) for k in range(125))


def test_what_is_drawn_for_a_batch_depends_on_its_number_alone() -> None:
    def make(which: Array, rng: np.random.Generator) -> tuple[list[int], float]:
        return which.tolist(), rng.random()

    def run(seed: int) -> ShuffledBatches:
        return ShuffledBatches(make, 10, batch_size=4, epochs=3, seed=seed, draws=True)

    first = [run(1)[k] for k in range(9)]
    assert [run(1)[k] for k in reversed(range(9))] == first[::-1]
    assert [which for which, _ in first] == [batches(10, 4)[k].tolist() for k in range(9)]
    drawn = {run(seed)[k][1] for seed in (1, 2) for k in range(9)}
    assert len(drawn) == 18


def test_no_epochs_are_no_batches() -> None:
    assert len(batches(10, 4, epochs=0)) == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"count": 0}, ValueError, "count: expected a whole number >= 1, got 0"),
        ({"size": 0}, ValueError, "batch_size: expected a whole number >= 1, got 0"),
        ({"size": 2.5}, TypeError, "batch_size: expected a whole number, got 2.5"),
        ({"epochs": -1}, ValueError, "epochs: expected a whole number >= 0, got -1"),
    ],
)
def test_sizes_that_cannot_be(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        batches(**{"count": 5, "size": 2, **options})  # type: ignore[arg-type]


@given(st.integers(0, 30), st.integers(1, 12))
def test_chunks_follow_each_other_and_are_no_larger(count: int, size: int) -> None:
    chunks = [range(count)[chunk] for chunk in in_chunks(count, size)]
    assert [k for chunk in chunks for k in chunk] == list(range(count))
    assert all(0 < len(chunk) <= size for chunk in chunks)
