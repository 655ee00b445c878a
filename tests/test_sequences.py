"""How a batch is taken: its layout found, checked, packed, and given back as it came."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import _sequences
from fastlstm._sequences import check_sequences, check_state, state_shape
from tests.support import Array, assert_same_bits, normal

F64 = np.dtype(np.float64)


def batch_of(steps: int, batch: int, batch_first: bool) -> Array:
    x = normal(np.random.default_rng(0), (steps, batch, 3))
    return x.swapaxes(0, 1) if batch_first else x


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.booleans())
def test_packed_and_unpacked_it_is_as_it_came_with_zeros_past_the_ends(
    lengths: list[int], batch_first: bool
) -> None:
    x = batch_of(5, len(lengths), batch_first)
    same, sequences = check_sequences(x, np.array(lengths), 3, F64, batch_first=batch_first)
    assert same is x
    rows = sequences.pack(x)
    assert rows.shape == (sum(lengths), 3)
    expected = x.copy()
    for b, length in enumerate(lengths):
        expected[(b, slice(length, None)) if batch_first else (slice(length, None), b)] = 0
    assert_same_bits(sequences.unpack(rows), expected)


@pytest.mark.parametrize("length", [None, 3, np.int32(3), np.array([3])])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_single_sequence_needs_no_batch_axis(length: object, batch_first: bool) -> None:
    x = batch_of(5, 1, False)[:, 0]
    _, sequences = check_sequences(x, length, 3, F64, batch_first=batch_first)
    rows = sequences.pack(x)
    end = 5 if length is None else 3
    assert_same_bits(rows, x[:end])
    expected = x.copy()
    expected[end:] = 0
    assert_same_bits(sequences.unpack(rows), expected)
    state = normal(np.random.default_rng(1), (2, 4))
    assert_same_bits(sequences.pack_state(state), state[:, np.newaxis])
    assert_same_bits(sequences.unpack_state(sequences.pack_state(state)), state)


def test_states_are_sorted_with_the_sequences_and_back() -> None:
    x = batch_of(4, 3, False)
    _, sequences = check_sequences(x, np.array([1, 4, 2]), 3, F64, batch_first=False)
    state = normal(np.random.default_rng(1), (2, 3, 4))
    packed = sequences.pack_state(state)
    assert_same_bits(packed, state[:, [1, 2, 0]])  # the longest first, as the rows of a step are
    assert_same_bits(sequences.pack(x)[:3], x[0, [1, 2, 0]])
    assert_same_bits(sequences.unpack_state(packed), state)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_mask_is_in_the_layout_of_x_and_changing_it_later_changes_nothing(
    batch_first: bool,
) -> None:
    x = batch_of(4, 2, batch_first)
    mask = np.array([[0, 1], [1, 0], [1, 1], [0, 0]], bool)
    given_mask = np.array(mask.T if batch_first else mask)
    _, sequences = check_sequences(x, None, 3, F64, batch_first=batch_first, mask=given_mask)
    given_mask[...] = False
    rows = sequences.pack(x)
    time_major = x.swapaxes(0, 1) if batch_first else x
    assert_same_bits(rows, time_major[[1, 0, 2, 2], [0, 1, 0, 1]])
    held = sequences.unpack_output(rows)
    held = held.swapaxes(0, 1) if batch_first else held
    assert_same_bits(held[3], time_major[2])
    assert_same_bits(held[1, 1], time_major[0, 1])
    d_rows = sequences.pack_d_output(np.ones_like(x))
    assert d_rows[:, 0].tolist() == [1, 2, 2, 2]


def test_a_layout_is_kept_only_for_equal_lengths_of_short_sequences() -> None:
    """Kept layouts of long sequences would hold memory; those of other lengths never return."""
    full, most = np.array([4, 4]), _sequences.LONGEST_KEPT
    for steps, lengths, kept in [
        (4, None, True),
        (most, None, True),
        (most + 1, None, False),
        (4, full, False),
        (4, np.array([4, 2]), False),
    ]:
        x = np.zeros((steps, 2, 3))
        first, second = (
            check_sequences(x, lengths, 3, F64, batch_first=False)[1] for _ in range(2)
        )
        assert (first is second) == kept


@pytest.mark.parametrize("batch_first", [False, True])
def test_layouts_of_one_shape_are_told_apart(batch_first: bool) -> None:
    """By steps and batch, by their order, and by whether there is a batch axis."""
    for shape in ((4, 2, 3), (2, 4, 3), (8, 1, 3), (1, 8, 3), (8, 3)):
        for other in (batch_first, not batch_first):
            x = np.arange(float(np.prod(shape))).reshape(shape)
            _, sequences = check_sequences(x, None, 3, F64, batch_first=other)
            assert_same_bits(sequences.unpack(sequences.pack(x)), x)
            time_major = x.swapaxes(0, 1) if other and x.ndim == 3 else x
            assert_same_bits(sequences.pack(x), time_major.reshape(-1, 3))


def test_a_packed_state_is_a_copy() -> None:
    for lengths in (None, np.array([2, 1])):
        _, sequences = check_sequences(batch_of(2, 2, False), lengths, 3, F64, batch_first=False)
        state = normal(np.random.default_rng(1), (2, 2, 4))
        packed = sequences.pack_state(state)
        assert not np.shares_memory(packed, state)
        assert packed.flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "lengths", "error", "words"),
    [
        ((5, 2, 4), None, ValueError, "x: expected shape (T, B, 3), got (5, 2, 4)"),
        ((5, 4), None, ValueError, "x: expected shape (T, 3), got (5, 4)"),
        ((3,), None, ValueError, "x: expected shape (T, B, 3), got (3,)"),
        ((5, 2, 3), 4, TypeError, "lengths"),
        ((5, 2, 3), np.array([5, 6]), ValueError, "lengths"),
        ((5, 2, 3), np.array([5]), ValueError, "lengths"),
        ((5, 3), 6, ValueError, "lengths"),
        ((5, 3), np.array([5, 5]), ValueError, "lengths"),
    ],
)
def test_what_does_not_fit_is_refused(
    shape: tuple[int, ...], lengths: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        check_sequences(np.zeros(shape), lengths, 3, F64, batch_first=False)
    assert words in str(caught.value)


def test_batch_first_is_named_in_the_refusal() -> None:
    with pytest.raises(ValueError, match=r"expected shape \(B, T, 3\)"):
        check_sequences(np.zeros((5, 2, 4)), None, 3, F64, batch_first=True)


@pytest.mark.parametrize(
    ("padded", "batch_first", "expected"),
    [
        ((5, 2, 3), False, (4, 2, 7)),
        ((5, 2, 3), True, (4, 5, 7)),
        ((5, 3), False, (4, 7)),
        ((5, 3), True, (4, 7)),
    ],
)
def test_states_have_the_shape_that_belongs_to_x(
    padded: tuple[int, ...], batch_first: bool, expected: tuple[int, ...]
) -> None:
    assert state_shape(padded, 4, 7, batch_first=batch_first) == expected


def test_a_state_is_missing_only_where_it_may_be() -> None:
    assert check_state("h_0", None, F64, (1, 2), required=False) is None
    with pytest.raises(TypeError, match="h_0"):
        check_state("h_0", None, F64, (1, 2), required=True)
    with pytest.raises(ValueError, match="h_0"):
        check_state("h_0", np.zeros((2, 2)), F64, (1, 2), required=False)
    given_state = np.ones((1, 2))
    assert check_state("h_0", given_state, F64, (1, 2), required=True) is given_state
