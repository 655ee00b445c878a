"""Packing: what a packed batch must satisfy, whatever the lengths."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastlstm.packing import Packing
from tests.support import Array, assert_same_bits


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, int, Array | None]:
    """(steps, batch, lengths)."""
    steps, batch = draw(st.integers(0, 12)), draw(st.integers(0, 9))
    one_length = st.integers(0, steps) | st.sampled_from([0, steps])
    lengths = draw(st.none() | st.lists(one_length, min_size=batch, max_size=batch))
    return steps, batch, None if lengths is None else np.array(lengths, np.int64)


def lengths_of(problem: tuple[int, int, Array | None]) -> Array:
    steps, batch, lengths = problem
    return np.full(batch, steps) if lengths is None else lengths


def labels(steps: int, batch: int) -> Array:
    """(T, B, 2) in which every element tells its step and sequence."""
    return np.stack(np.meshgrid(np.arange(steps), np.arange(batch), indexing="ij"), axis=-1) + 0.5


@given(batches())
def test_rows_of_a_step_are_the_sequences_that_have_it(
    problem: tuple[int, int, Array | None],
) -> None:
    steps, batch, _ = problem
    lengths = lengths_of(problem)
    packing = Packing(*problem)
    assert packing.rows == int(lengths.sum())
    assert packing.offsets.dtype == np.intp
    packed = packing.pack(labels(steps, batch)) - 0.5
    assert packed.flags.c_contiguous
    order = np.argsort(-lengths, kind="stable")
    for t in range(len(packing.offsets) - 1):
        rows = packed[packing.offsets[t] : packing.offsets[t + 1]]
        assert (rows[:, 0] == t).all()
        # Always in the same order, the longest first, so that those that live on come first.
        np.testing.assert_array_equal(rows[:, 1], [b for b in order if lengths[b] > t])
        assert len(rows) > 0 or batch == 0


@given(batches())
def test_unpack_is_the_inverse_of_pack_but_for_zeros_past_the_ends(
    problem: tuple[int, int, Array | None],
) -> None:
    steps, batch, _ = problem
    packing, padded = Packing(*problem), labels(steps, batch)
    expected = padded.copy()
    expected[np.arange(steps)[:, np.newaxis] >= lengths_of(problem)] = 0
    assert_same_bits(packing.unpack(packing.pack(padded)), expected)


@given(batches())
def test_unsort_is_the_inverse_of_sort(problem: tuple[int, int, Array | None]) -> None:
    packing = Packing(*problem)
    states = np.arange(3.0 * problem[1] * 2).reshape(3, problem[1], 2)
    ordered = packing.sort(states)
    assert ordered.flags.c_contiguous
    assert not np.shares_memory(ordered, states)
    assert_same_bits(packing.unsort(ordered), states)
    order = np.argsort(-lengths_of(problem), kind="stable")
    assert_same_bits(ordered, states[:, order])


@given(batches())
def test_any_memory_layout_is_packed_alike(problem: tuple[int, int, Array | None]) -> None:
    packing = Packing(*problem)
    padded = labels(*problem[:2])
    expected = packing.pack(padded)
    assert_same_bits(packing.pack(np.asfortranarray(padded)), expected)
    assert_same_bits(packing.pack(padded.repeat(2, axis=2)[..., ::2]), expected)


@given(batches(), st.integers(1, 40))
def test_chunks_cut_all_steps_into_runs_of_about_so_many_rows(
    problem: tuple[int, int, Array | None], rows: int
) -> None:
    packing = Packing(*problem)
    longest = len(packing.offsets) - 1
    chunks, widest = packing.chunks(rows)
    assert chunks.dtype == np.intp
    assert chunks[0] == 0
    assert chunks[-1] == longest
    assert (np.diff(chunks) > 0).all() or longest == 0
    sizes = [0]
    for first, last in pairwise(chunks):
        sizes.append(packing.offsets[last] - packing.offsets[first])
        assert sizes[-1] <= rows or last - first == 1
    assert widest == max(sizes)
    for k, (first, last, own) in enumerate(packing.runs(rows)):
        assert (first, last) == (chunks[k], chunks[k + 1])
        assert (own.start, own.stop) == (packing.offsets[first], packing.offsets[last])
    assert len(packing.runs(rows)) == len(chunks) - 1


@given(batches(), st.integers(1, 40), st.integers(1, 12))
def test_what_calls_share_cannot_be_changed(
    problem: tuple[int, int, Array | None], rows: int, count: int
) -> None:
    packing = Packing(*problem)
    for array in (packing.offsets, packing.active, packing.chunks(rows)[0], packing.blocks(count)):
        assert not array.flags.writeable
    assert packing.chunks(rows) is packing.chunks(rows)
    assert packing.blocks(count) is packing.blocks(count)


@given(batches(), st.integers(1, 12))
def test_blocks_share_out_all_sequences(problem: tuple[int, int, Array | None], count: int) -> None:
    steps, batch, _ = problem
    assume(batch)
    packing = Packing(*problem)
    blocks = packing.blocks(count)
    assert blocks.dtype == np.intp
    assert 2 <= len(blocks) <= count + 1
    assert blocks[0] == 0
    assert blocks[-1] == batch
    assert (np.diff(blocks) >= 0).all()
    # No block has more rows than its share and one sequence.
    ordered = np.sort(lengths_of(problem))[::-1]
    for first, last in pairwise(blocks):
        assert ordered[first:last].sum() <= packing.rows / (len(blocks) - 1) + steps


@given(batches(), st.data())
def test_a_part_is_the_layout_of_its_rows(
    problem: tuple[int, int, Array | None], data: st.DataObject
) -> None:
    """... of sequences cut to those steps, the longest first as before."""
    packing = Packing(*problem)
    longest = len(packing.active)
    assume(longest > 0)
    first = data.draw(st.integers(0, longest - 1))
    last = data.draw(st.integers(first + 1, longest))
    part = packing.part(first, last)
    assert part.active.tolist() == packing.active[first:last].tolist()
    assert (
        part.offsets.tolist()
        == (packing.offsets[first : last + 1] - packing.offsets[first]).tolist()
    )
    assert part.batch == packing.active[first]
    assert part.equal == (len(set(part.active.tolist())) == 1)
    numbers = np.arange(part.rows, dtype=np.float64)[:, np.newaxis]
    assert part.pack(part.unpack(numbers)).tolist() == numbers.tolist()
    assert part.sort(np.arange(part.batch)[np.newaxis, :, np.newaxis]).ravel().tolist() == [
        *range(part.batch)
    ]


def test_equal_lengths_are_balanced_and_not_copied() -> None:
    packing = Packing(5, 8)
    assert packing.blocks(4).tolist() == [0, 2, 4, 6, 8]
    padded = labels(5, 8)
    assert np.shares_memory(packing.pack(padded), padded)
    assert np.shares_memory(Packing(5, 8, np.full(8, 5)).pack(padded), padded)


def test_one_example_in_full() -> None:
    packing = Packing(4, 3, np.array([1, 3, 2]))
    assert packing.offsets.tolist() == [0, 3, 5, 6]
    padded = np.arange(12.0).reshape(4, 3, 1)  # element = 3 t + b
    assert packing.pack(padded).ravel().tolist() == [1, 2, 0, 4, 5, 7]
    assert packing.unpack(packing.pack(padded)).reshape(4, 3).tolist() == [
        [0, 1, 2],
        [0, 4, 5],
        [0, 7, 0],
        [0, 0, 0],
    ]


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (3, 0), (0, 0)])
def test_a_batch_of_nothing_has_no_rows(steps: int, batch: int) -> None:
    for lengths in (None, np.zeros(batch, np.int64)):
        packing = Packing(steps, batch, lengths)
        assert packing.rows == 0
        assert packing.pack(np.empty((steps, batch, 2))).shape == (0, 2)
        assert packing.unpack(np.empty((0, 2))).shape == (steps, batch, 2)


# --- masks ---------------------------------------------------------------------------------------


@st.composite
def masks(draw: st.DrawFn) -> Array:
    """(T, B)."""
    steps, batch = draw(st.integers(0, 8)), draw(st.integers(0, 5))
    elements = st.lists(st.booleans(), min_size=steps * batch, max_size=steps * batch)
    return np.array(draw(elements), bool).reshape(steps, batch)


@given(masks())
def test_a_mask_packs_the_valid_steps_as_if_they_were_the_first_ones(mask: Array) -> None:
    steps, batch = mask.shape
    padded = labels(steps, batch)
    moved = np.zeros_like(padded)
    for b in range(batch):
        moved[: mask[:, b].sum(), b] = padded[mask[:, b], b]
    packing, plain = Packing(steps, batch, mask=mask), Packing(steps, batch, mask.sum(axis=0))
    assert_same_bits(packing.offsets, plain.offsets)
    assert_same_bits(packing.pack(padded), plain.pack(moved))
    assert_same_bits(packing.sort(padded[:1]), plain.sort(padded[:1]))
    assert_same_bits(packing.unpack(packing.pack(padded)), padded * mask[..., np.newaxis])
    assert packing.equal == mask.all()


@given(masks(), st.sampled_from([(False,), (True,), (False, True)]), st.integers(0, 2**32 - 1))
def test_gradients_of_held_outputs_are_packed_by_the_transpose_of_unpacking(
    mask: Array, backwards: tuple[bool, ...], seed: int
) -> None:
    packing, rng = Packing(*mask.shape, mask=mask), np.random.default_rng(seed)
    rows = rng.integers(-9, 9, (packing.rows, 4)).astype(float)  # so that sums are exact
    d_padded = rng.integers(-9, 9, (*mask.shape, 4)).astype(float)
    through_outputs = (packing.unpack_output(rows, backwards) * d_padded).sum()
    assert through_outputs == (rows * packing.pack_d_output(d_padded, backwards)).sum()


def test_held_outputs_of_one_example_in_full() -> None:
    mask = np.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 0]], bool)
    packing = Packing(5, 2, mask=mask)
    padded = np.repeat(np.arange(1.0, 11).reshape(5, 2, 1), 2, axis=2)  # element = 1 + 2 t + b
    rows = packing.pack(padded)
    assert rows[:, 0].tolist() == [3, 2, 7, 4]
    output = packing.unpack_output(rows, (False, True))
    assert output[..., 0].tolist() == [[0, 2], [3, 4], [3, 4], [7, 4], [7, 4]]
    assert output[..., 1].tolist() == [[3, 2], [3, 4], [7, 0], [7, 0], [0, 0]]
    d_rows = packing.pack_d_output(padded, (False, True))
    assert d_rows[:, 0].tolist() == [3 + 5, 2, 7 + 9, 4 + 6 + 8 + 10]
    assert d_rows[:, 1].tolist() == [1 + 3, 2, 5 + 7, 4]
