"""The compiled time loop, called as _stack.py calls it: chunks, blocks, shares, and helpers.

What a whole LSTM computes is tested through the layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import _core, _weights
from fastlstm.packing import Packing
from tests.support import Array, assert_close, assert_same_bits, normal, plain_run

DTYPES = [np.float32, np.float64]

no_kernels = pytest.mark.skipif(
    not _core.VECTOR[8], reason=f"instruction set {_core.ISA} has no packed kernels"
)
on_each_path = pytest.mark.parametrize(
    "packed", [pytest.param(False, id="blas"), pytest.param(True, id="packed", marks=no_kernels)]
)


@dataclass
class Loop:
    """One layer in one direction over a packed batch, all in float64."""

    packing: Packing
    x: Array
    weight_ih: Array
    weight_hh: Array
    bias: Array
    h_0: Array
    c_0: Array
    lengths: Array  # in packed order

    def forward(
        self, chunks: Array, blocks: Array, shares: Array | None = None,
        *, backwards: bool, keep: bool, packed: bool,
    ) -> dict[str, Array]:  # fmt: skip
        rows, hidden = self.packing.rows, self.h_0.shape[1]
        widest = int(np.diff(self.packing.offsets[chunks]).max())
        weights = self.weight_ih, self.weight_hh, self.bias[:, np.newaxis]
        flat = [_weights._pack_gates(a) if packed else a.reshape(-1) for a in weights]
        # NaN wherever something is to be written, so that what is not written shows.
        results = {
            "h": np.full((rows, hidden), np.nan),
            "c": np.full((rows if keep else 0, hidden), np.nan),
            "gates": np.full((rows if keep else 0, 4 * hidden), np.nan),
            "pre": np.full((widest, len(flat[2])), np.nan),
            "h_n": self.h_0.copy(),
            "c_n": self.c_0.copy(),
        }
        if keep and not packed:
            results["pre"] = results["gates"]
        _core.forward(
            *results.values(), self.x, *flat, self.packing.offsets, chunks, blocks,
            np.array([0, hidden]) if shares is None else shares, backwards, keep, False, packed,
        )  # fmt: skip
        return results

    def backward(
        self, kept: dict[str, Array], d_output: Array, d_h: Array, d_c: Array, blocks: Array,
        shares: Array | None = None, *, backwards: bool, packed: bool,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        results = kept["gates"].copy(), d_h.copy(), d_c.copy()
        weight = _weights._pack(self.weight_hh) if packed else self.weight_hh.reshape(-1)
        _core.backward(
            *results, d_output, kept["c"], self.c_0, weight, self.packing.offsets, blocks,
            np.array([0, self.h_0.shape[1]]) if shares is None else shares, backwards, packed,
        )  # fmt: skip
        return results


def loop_of(seed: int, lengths: list[int], hidden: int, inputs: int = 3) -> Loop:
    rng = np.random.default_rng(seed)
    batch = len(lengths)
    packing = Packing(max(lengths), batch, np.array(lengths))
    return Loop(
        packing,
        x=normal(rng, (packing.rows, inputs)),
        weight_ih=normal(rng, (4 * hidden, inputs)),
        weight_hh=1.2 / hidden**0.5 * normal(rng, (4 * hidden, hidden)),
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


# More sequences than a tile has rows, and units that fill no panel, one, several, and more than
# are multiplied in one go, 256.
lengths = st.lists(st.integers(0, 6), min_size=1, max_size=9).filter(any)
units = st.sampled_from([1, 5, 8, 19, 260])


@on_each_path
@given(lengths, units, st.booleans(), st.booleans())
def test_forward_runs_each_sequence_from_its_own_state(
    packed: bool, lengths: list[int], hidden: int, backwards: bool, keep: bool
) -> None:
    loop = loop_of(1, lengths, hidden)
    results = loop.forward(*whole(loop), backwards=backwards, keep=keep, packed=packed)
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


@on_each_path
@given(
    lengths,
    units,
    st.sets(st.integers(1, 5)),
    st.lists(st.integers(0, 9), max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_cuts_into_chunks_and_blocks_change_nothing(
    packed: bool,
    lengths: list[int],
    hidden: int,
    chunk_cuts: set[int],
    block_cuts: list[int],
    backwards: bool,
    keep: bool,
) -> None:
    """... empty blocks, for threads that find nothing to do, included."""
    loop = loop_of(2, lengths, hidden)
    steps = len(loop.packing.offsets) - 1
    expected = loop.forward(*whole(loop), backwards=backwards, keep=True, packed=packed)
    chunks = cuts([cut for cut in chunk_cuts if cut < steps], steps)
    blocks = cuts(block_cuts, len(lengths))
    actual = loop.forward(chunks, blocks, backwards=backwards, keep=keep, packed=packed)
    for name in ("h", "h_n", "c_n", *(["c", "gates"] if keep else [])):
        if packed:
            assert_same_bits(actual[name], expected[name], name)
        else:
            assert_close(actual[name], expected[name], 1e-12, name)


@on_each_path
@given(lengths, units, st.lists(st.integers(0, 9), max_size=4), st.booleans())
def test_blocks_change_nothing_backward(
    packed: bool, lengths: list[int], hidden: int, block_cuts: list[int], backwards: bool
) -> None:
    loop = loop_of(3, lengths, hidden)
    rng = np.random.default_rng(0)
    kept = loop.forward(*whole(loop), backwards=backwards, keep=True, packed=packed)
    given = [normal(rng, shape) for shape in (kept["h"].shape, *[loop.h_0.shape] * 2)]

    def run(blocks: Array) -> tuple[Array, Array, Array]:
        return loop.backward(kept, *given, blocks, backwards=backwards, packed=packed)

    expected = run(whole(loop)[1])
    for actual, reference in zip(run(cuts(block_cuts, len(lengths))), expected, strict=True):
        if packed:
            assert_same_bits(actual, reference)
        else:
            assert_close(actual, reference, 1e-12)


def shares_of(hidden: int, panel: int, cuts: list[int]) -> Array:
    """Boundaries of shares of whole panels of `panel` units; some shares may be empty."""
    panels = -(-hidden // panel)
    bounds = [min(cut % (panels + 1) * panel, hidden) for cut in cuts]
    return np.array([0, *sorted(bounds), hidden], np.intp)


# At most 4 threads: each may wait for another at every step.
share_cuts = st.lists(st.integers(0, 99), min_size=1, max_size=3)
# Of one panel, forward or back, or several, the last one whole or not.
units_to_share = st.sampled_from([5, 8, 19, 33, 64, 100])


@no_kernels
@given(
    lengths, units_to_share, st.sets(st.integers(1, 5)), share_cuts, st.booleans(), st.booleans()
)
def test_shares_of_units_change_nothing(
    lengths: list[int],
    hidden: int,
    chunk_cuts: set[int],
    cuts_of_units: list[int],
    backwards: bool,
    keep: bool,
) -> None:
    """... whatever the chunks, and where threads find nothing to do."""
    loop = loop_of(6, lengths, hidden)
    chunks, blocks = whole(loop)
    steps = chunks[-1]
    expected = loop.forward(chunks, blocks, backwards=backwards, keep=True, packed=True)
    chunks = cuts([cut for cut in chunk_cuts if cut < steps], steps)
    shares = shares_of(hidden, _core.VECTOR[8], cuts_of_units)
    actual = loop.forward(chunks, blocks, shares, backwards=backwards, keep=keep, packed=True)
    for name in ("h", "h_n", "c_n", *(["c", "gates"] if keep else [])):
        assert_same_bits(actual[name], expected[name], name)


@no_kernels
@given(lengths, units_to_share, share_cuts, st.booleans())
def test_shares_of_units_change_nothing_backward(
    lengths: list[int], hidden: int, cuts_of_units: list[int], backwards: bool
) -> None:
    loop = loop_of(7, lengths, hidden)
    rng = np.random.default_rng(0)
    kept = loop.forward(*whole(loop), backwards=backwards, keep=True, packed=True)
    given = [normal(rng, shape) for shape in (kept["h"].shape, *[loop.h_0.shape] * 2)]
    blocks = whole(loop)[1]
    expected = loop.backward(kept, *given, blocks, backwards=backwards, packed=True)
    shares = shares_of(hidden, 4 * _core.VECTOR[8], cuts_of_units)
    actual = loop.backward(kept, *given, blocks, shares, backwards=backwards, packed=True)
    for array, reference in zip(actual, expected, strict=True):
        assert_same_bits(array, reference)


@no_kernels
@given(lengths, units, st.booleans())
def test_both_paths_carry_the_same_gradients_back(
    lengths: list[int], hidden: int, backwards: bool
) -> None:
    loop = loop_of(5, lengths, hidden)
    rng = np.random.default_rng(0)
    given = [normal(rng, shape) for shape in ((loop.packing.rows, hidden), *[loop.h_0.shape] * 2)]
    results = []
    for packed in (False, True):
        kept = loop.forward(*whole(loop), backwards=backwards, keep=True, packed=packed)
        back = loop.backward(kept, *given, whole(loop)[1], backwards=backwards, packed=packed)
        results.append([kept["gates"], kept["c"], *back])
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, 1e-12)


@given(lengths, st.booleans(), st.data())
def test_previous_h_is_the_step_before_or_the_initial_state(
    lengths: list[int], backwards: bool, data: st.DataObject
) -> None:
    """... of the rows of some steps, and no more is written."""
    loop = loop_of(4, lengths, 5)
    rng = np.random.default_rng(0)
    h = normal(rng, (loop.packing.rows, 10))[:, 5:]  # a column slice, as of a second direction
    offsets = loop.packing.offsets
    first = data.draw(st.integers(0, len(offsets) - 1))
    last = data.draw(st.integers(first, len(offsets) - 1))
    expected = np.full((len(h), 5), np.nan)
    for b, length in enumerate(loop.lengths):
        for t in range(first, min(last, length)):
            before = t + 1 if backwards else t - 1
            row = offsets[t] - offsets[first] + b
            inside = 0 <= before < length
            expected[row] = h[offsets[before] + b] if inside else loop.h_0[b]
    out = np.full((len(h), 5), np.nan)
    _core.previous_h(out, h, loop.h_0, offsets, first, last, backwards)
    assert_same_bits(out, expected)


# Tiles of 6 or 3 rows, panels of 64 or 32 columns and less, blocks of 64 of the inner dimension
# and of 120 rows: some of each, or none.
PRODUCTS = [
    *product((1, 2, 7, 13), (1, 3, 31, 70), (1, 5, 33)),
    *product((5, 121), (1, 40, 129), (64, 65, 200)),
    (250, 9, 4),
]
TOLERANCES = {np.float32: 1e-6, np.float64: 2e-15}  # of the sizes of the terms


@no_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("transpose_a", "transpose_b", "accumulate"), [*product((False, True), repeat=3)]
)
def test_packed_products_of_every_kind(
    dtype: type, transpose_a: bool, transpose_b: bool, accumulate: bool
) -> None:
    """... within rounding of the truth, and to the same bits on any number of threads."""
    rng = np.random.default_rng(0)
    for m, n, k in PRODUCTS:
        a = normal(rng, (k, m) if transpose_a else (m, k), dtype)
        b = normal(rng, (n, k) if transpose_b else (k, n), dtype)
        before = normal(rng, (m, n), dtype) if accumulate else np.full((m, n), np.nan, dtype)
        expected = (a.T if transpose_a else a).astype(np.float64) @ (b.T if transpose_b else b)
        if accumulate:
            expected += before
        results = []
        for threads in (1, 2, 9):
            out = before.copy()
            _core.matmul(out, a, b, transpose_a, transpose_b, accumulate, threads, True)
            results.append(out)
        terms = float(np.abs(a).max() * np.abs(b).max()) * k**0.5 + 1
        error = float(np.abs(results[0] - expected).max()) / terms
        assert error <= TOLERANCES[dtype], f"{m} x {n} x {k}: {error:.3g}"
        assert_same_bits(results[1], results[0])
        assert_same_bits(results[2], results[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter_add_rows_is_numpys_add_at(dtype: type) -> None:
    rng = np.random.default_rng(0)
    ids, rows = rng.integers(0, 5, 40), normal(rng, (40, 3), dtype)
    out = normal(rng, (5, 3), dtype)
    expected = out.copy()
    np.add.at(expected, ids, rows)
    _core.scatter_add_rows(out, ids, rows)
    assert_same_bits(out, expected)
