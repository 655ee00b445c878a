"""The compiled time loop, called as _stack.py calls it: cuts into chunks and blocks, and helpers.

What a whole LSTM computes is tested through the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import _core
from fastlstm.packing import Packing
from tests.support import Array, assert_close, assert_same_bits, normal, plain_run

DTYPES = [np.float32, np.float64]


@dataclass
class Loop:
    """One layer in one direction over a packed batch, all in float64 unless told otherwise."""

    packing: Packing
    x: Array
    weight_ih: Array
    weight_hh: Array
    bias: Array
    h_0: Array
    c_0: Array
    lengths: Array  # in packed order

    def forward(
        self, chunks: Array, blocks: Array, *, backwards: bool, keep: bool
    ) -> dict[str, Array]:
        rows, hidden = self.packing.rows, self.h_0.shape[1]
        widest = int(np.diff(self.packing.offsets[chunks]).max())
        dtype = self.x.dtype
        # NaN wherever something is to be written, so that what is not written shows.
        results = {
            "h": np.full((rows, hidden), np.nan, dtype),
            "c": np.full((rows if keep else 0, hidden), np.nan, dtype),
            "gates": np.full((rows if keep else widest, 4 * hidden), np.nan, dtype),
            "h_n": self.h_0.copy(),
            "c_n": self.c_0.copy(),
        }
        _core.forward(
            *results.values(), self.x, self.weight_ih, self.weight_hh, self.bias,
            self.packing.offsets, chunks, blocks, backwards, keep, False,
        )  # fmt: skip
        return results


def loop_of(seed: int, lengths: list[int], hidden: int = 5, inputs: int = 3) -> Loop:
    rng = np.random.default_rng(seed)
    batch = len(lengths)
    packing = Packing(max(lengths), batch, np.array(lengths))
    return Loop(
        packing,
        x=normal(rng, (packing.rows, inputs)),
        weight_ih=normal(rng, (4 * hidden, inputs)),
        weight_hh=0.5 * normal(rng, (4 * hidden, hidden)),
        bias=normal(rng, (4 * hidden,)),
        h_0=normal(rng, (batch, hidden)),
        c_0=normal(rng, (batch, hidden)),
        lengths=np.sort(lengths)[::-1],
    )


def whole(loop: Loop) -> tuple[Array, Array]:
    """Chunks and blocks that cut nothing."""
    steps = len(loop.packing.offsets) - 1
    return np.array([0, steps], np.intp), np.array([0, len(loop.h_0)], np.intp)


def cuts(values: list[int], end: int) -> Array:
    return np.array([0, *sorted(min(value, end) for value in values), end], np.intp)


lengths = st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any)


@given(lengths, st.booleans(), st.booleans())
def test_forward_runs_each_sequence_from_its_own_state(
    lengths: list[int], backwards: bool, keep: bool
) -> None:
    loop = loop_of(1, lengths)
    results = loop.forward(*whole(loop), backwards=backwards, keep=keep)
    for b, length in enumerate(loop.lengths):
        rows = loop.packing.offsets[:length] + b
        if backwards:
            rows = rows[::-1]
        outputs, h, c = plain_run(
            loop.x[rows], loop.h_0[b], loop.c_0[b], loop.weight_ih, loop.weight_hh, loop.bias
        )
        assert_close(results["h"][rows], outputs, 1e-12, "h")
        assert_close(results["h_n"][b], h, 1e-12, "h_n")
        assert_close(results["c_n"][b], c, 1e-12, "c_n")


@given(
    lengths,
    st.sets(st.integers(1, 5)),
    st.lists(st.integers(0, 6), max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_cuts_into_chunks_and_blocks_change_nothing(
    lengths: list[int], chunk_cuts: set[int], block_cuts: list[int], backwards: bool, keep: bool
) -> None:
    """... empty blocks, for threads that find nothing to do, included."""
    loop = loop_of(2, lengths)
    steps = len(loop.packing.offsets) - 1
    expected = loop.forward(*whole(loop), backwards=backwards, keep=True)
    chunks = cuts([cut for cut in chunk_cuts if cut < steps], steps)
    blocks = cuts(block_cuts, len(lengths))
    actual = loop.forward(chunks, blocks, backwards=backwards, keep=keep)
    for name in ("h", "h_n", "c_n", *(["c", "gates"] if keep else [])):
        assert_close(actual[name], expected[name], 1e-12, name)


@given(lengths, st.lists(st.integers(0, 6), max_size=4), st.booleans())
def test_blocks_change_nothing_backward(
    lengths: list[int], block_cuts: list[int], backwards: bool
) -> None:
    loop = loop_of(3, lengths)
    rng = np.random.default_rng(0)
    kept = loop.forward(*whole(loop), backwards=backwards, keep=True)
    d_output = normal(rng, kept["h"].shape)
    d_h_n, d_c_n = normal(rng, loop.h_0.shape), normal(rng, loop.h_0.shape)

    def run(blocks: Array) -> tuple[Array, Array, Array]:
        gates, d_h, d_c = kept["gates"].copy(), d_h_n.copy(), d_c_n.copy()
        _core.backward(
            gates, d_h, d_c, d_output, kept["c"], loop.c_0, loop.weight_hh,
            loop.packing.offsets, blocks, backwards,
        )  # fmt: skip
        return gates, d_h, d_c

    expected = run(whole(loop)[1])
    for actual, reference in zip(run(cuts(block_cuts, len(lengths))), expected, strict=True):
        assert_close(actual, reference, 1e-12)


@given(lengths, st.booleans())
def test_previous_h_is_the_step_before_or_the_initial_state(
    lengths: list[int], backwards: bool
) -> None:
    loop = loop_of(4, lengths)
    rng = np.random.default_rng(0)
    h = normal(rng, (loop.packing.rows, 10))[:, 5:]  # a column slice, as of a second direction
    out = np.full((len(h), 5), np.nan)
    _core.previous_h(out, h, loop.h_0, loop.packing.offsets, backwards)
    offsets = loop.packing.offsets
    for b, length in enumerate(loop.lengths):
        for t in range(length):
            before = t + 1 if backwards else t - 1
            expected = h[offsets[before] + b] if 0 <= before < length else loop.h_0[b]
            assert_same_bits(out[offsets[t] + b], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter_add_rows_is_numpys_add_at(dtype: type) -> None:
    rng = np.random.default_rng(0)
    ids, rows = rng.integers(0, 5, 40), normal(rng, (40, 3), dtype)
    out = normal(rng, (5, 3), dtype)
    expected = out.copy()
    np.add.at(expected, ids, rows)
    _core.scatter_add_rows(out, ids, rows)
    assert_same_bits(out, expected)
