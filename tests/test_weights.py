"""What the time loop is given for weights: panels as csrc/kernels.h has them, never stale ones."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, _core, _weights
from fastlstm._weights import ForwardWeights, PanelCache, WeightCache
from fastlstm.layers import Linear
from fastlstm.optim import SGD
from tests.support import Array, assert_same_bits, normal

needs_kernels = pytest.mark.skipif(
    not _core.VECTOR[4], reason=f"instruction set {_core.ISA} has no packed kernels"
)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZES = [1, 3, 8, 16, 21, 33, 64, 130]  # of H or columns; with 16 or 8, 4 or 2 in a vector


def layer(dtype: Any = np.float32, **options: Any) -> LSTM:
    return LSTM(3, 5, 2, bidirectional=True, dtype=dtype, rng=1, **options)


def suffixes(lstm: LSTM) -> list[str]:
    return [name.removeprefix("weight_hh") for name in lstm.parameters() if "weight_hh" in name]


# --- panels --------------------------------------------------------------------------------------


def panels_of(columns: list[Array | None]) -> Array:
    """Panels [panel][k][4][V] whose vectors hold these columns, one after another; None: zeros."""
    inner, dtype = next((len(c), c.dtype) for c in columns if c is not None)
    filled = [np.zeros(inner, dtype) if c is None else c for c in columns]
    width = 4 * _core.VECTOR[dtype.itemsize]
    panels = [np.stack(filled[at : at + width], axis=1) for at in range(0, len(filled), width)]
    return np.concatenate([panel.ravel() for panel in panels])


def plain_panels(b: Array) -> Array:
    """b (inner, columns): its columns in their order, and zeros up to a whole vector."""
    width = _core.VECTOR[b.itemsize]
    columns: list[Array | None] = [*b.T]
    return panels_of(columns + [None] * (-len(columns) % width))


def gate_panels(weight: Array) -> Array:
    """weight (4H, inner), transposed: a panel has V units, all their i, then f, g and o."""
    vector, hidden = _core.VECTOR[weight.itemsize], len(weight) // 4
    return panels_of(
        [
            weight[gate * hidden + unit] if unit < hidden else None
            for first in range(0, hidden, vector)
            for gate in range(4)
            for unit in range(first, first + vector)
        ]
    )


@needs_kernels
@every_dtype
@pytest.mark.parametrize("inner", [1, 7, 100])
def test_panels_have_four_vectors_of_columns(dtype: Any, inner: int) -> None:
    for columns in SIZES:
        b = normal(np.random.default_rng(columns), (inner, columns), dtype)
        expected = plain_panels(b)
        panels = np.full_like(expected, np.nan)
        _core.pack(panels, b, False)
        assert_same_bits(panels, expected, f"{columns} columns")
        assert_same_bits(_weights._pack(b), expected, f"{columns} columns")
        turned = np.ascontiguousarray(b.T)
        assert_same_bits(_weights._pack(turned, transposed=True), expected, f"{columns} rows")


@needs_kernels
@every_dtype
@pytest.mark.parametrize("inner", [1, 7, 100])
def test_panels_of_gates_have_the_four_gates_of_the_same_units(dtype: Any, inner: int) -> None:
    for hidden in SIZES:
        weight = normal(np.random.default_rng(hidden), (4 * hidden, inner), dtype)
        expected = gate_panels(weight)
        panels = np.full_like(expected, np.nan)
        _core.pack_gates(panels, weight)
        assert_same_bits(panels, expected, f"{hidden} units")
        assert_same_bits(_weights._pack_gates(weight), expected, f"{hidden} units")
        assert len(expected) == _weights.padded_gates(hidden, np.dtype(dtype)) * inner


@needs_kernels
@every_dtype
def test_panels_begin_with_a_cache_line(dtype: Any) -> None:
    """Vectors of 64 bytes that straddle lines cost a step of one sequence some 5 %."""
    kept = []
    for hidden in SIZES:
        weight = normal(np.random.default_rng(hidden), (4 * hidden, 3), dtype)
        kept += [_weights._pack(weight), _weights._pack_gates(weight)]
    assert {panels.ctypes.data % 64 for panels in kept} == {0}


# --- which weights -------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("bias", [False, True])
def test_what_is_derived_is_the_directions_own(dtype: Any, bias: bool) -> None:
    lstm = layer(dtype, bias=bias)
    weights, cache = lstm.parameters(), WeightCache(lstm.parameters())
    packed = _core.VECTOR[np.dtype(dtype).itemsize] > 0
    assert _weights.is_packed(np.dtype(dtype)) is packed
    for suffix in suffixes(lstm):
        ih, hh = weights[f"weight_ih{suffix}"], weights[f"weight_hh{suffix}"]
        both = np.zeros(len(ih), dtype)
        if bias:
            both = weights[f"bias_ih{suffix}"] + weights[f"bias_hh{suffix}"]
        own = cache.forward(suffix)
        assert own.packed is packed
        assert_same_bits(own.ih, gate_panels(ih) if packed else ih.ravel(), "ih")
        assert_same_bits(own.hh, gate_panels(hh) if packed else hh.ravel(), "hh")
        assert_same_bits(own.bias, gate_panels(both[:, np.newaxis]) if packed else both, "bias")
        expected = plain_panels(hh) if packed else hh.ravel()
        assert_same_bits(cache.backward_hh(suffix), expected, "backward")


@every_dtype
def test_a_dense_layer_has_panels_of_its_transpose_while_its_weights_stay(dtype: Any) -> None:
    linear = Linear(7, 70, dtype=dtype, rng=0)
    cache = PanelCache(linear.parameters())
    panels = cache.transposed("weight")
    if not _core.VECTOR[np.dtype(dtype).itemsize]:
        assert panels is None
        return
    assert panels is not None
    assert_same_bits(panels, plain_panels(linear.weight.T))
    assert cache.transposed("weight") is panels
    linear.load_state_dict({name: 2 * array for name, array in linear.state_dict().items()})
    renewed = cache.transposed("weight")
    assert renewed is not None
    assert_same_bits(renewed, 2 * panels)


# --- the cache -----------------------------------------------------------------------------------


def load(lstm: LSTM) -> None:
    lstm.load_state_dict({name: 2 * array for name, array in lstm.state_dict().items()})


def edit(lstm: LSTM) -> None:
    with lstm.editing() as parameters:
        for array in parameters.values():
            array *= 2


def step(lstm: LSTM) -> None:
    SGD(lstm.parameters(), lr=1.0).step({name: -a for name, a in lstm.state_dict().items()})


def update(lstm: LSTM) -> None:
    with lstm.parameters().updating() as owned:
        for array in owned.values():
            array *= 2


CHANGES: list[Callable[[LSTM], None]] = [load, edit, step, update]  # each doubles all weights


def results_of(lstm: LSTM) -> dict[str, Array]:
    """All that a call, a forward and a backward give."""
    rng = np.random.default_rng(0)
    x = normal(rng, (4, 2, 3), lstm.dtype)
    called, _ = lstm(x)
    output, (h_n, c_n), tape = lstm.forward(x)
    d_x, _, grads = lstm.backward(tape, normal(rng, output.shape, lstm.dtype))
    return {"called": called, "output": output, "h_n": h_n, "c_n": c_n, "d_x": d_x} | grads


def assert_fresh(lstm: LSTM) -> None:
    """It computes what a layer made this moment with its weights computes."""
    fresh = layer(lstm.dtype)
    fresh.load_state_dict(lstm.state_dict())
    expected = results_of(fresh)
    for name, array in results_of(lstm).items():
        assert_same_bits(array, expected[name], name)


def test_what_is_derived_is_kept_while_the_weights_stay() -> None:
    lstm = layer()
    before = [(lstm._weights.forward(s), lstm._weights.backward_hh(s)) for s in suffixes(lstm)]
    results_of(lstm)
    with pytest.raises(ValueError), lstm.editing() as parameters:  # noqa: PT011, PT012
        parameters["weight_hh_l0"][:] = 0
        raise ValueError
    for suffix, (forward, backward) in zip(suffixes(lstm), before, strict=True):
        assert lstm._weights.forward(suffix) is forward
        assert lstm._weights.backward_hh(suffix) is backward


@pytest.mark.parametrize("change", CHANGES)
@every_dtype
def test_every_way_to_change_weights_renews_it(change: Callable[[LSTM], None], dtype: Any) -> None:
    lstm = layer(dtype)
    before = results_of(lstm)
    stale = [lstm._weights.forward(suffix).hh.copy() for suffix in suffixes(lstm)]
    change(lstm)
    assert_fresh(lstm)
    for name, array in results_of(lstm).items():
        assert not np.array_equal(array, before[name]), name
    for suffix, half in zip(suffixes(lstm), stale, strict=True):
        assert_same_bits(lstm._weights.forward(suffix).hh, 2 * half, suffix)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda lstm: pickle.loads(pickle.dumps(lstm))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("changed", [0, 1])
def test_a_copy_has_weights_of_its_own(duplicate: Callable[[LSTM], LSTM], changed: int) -> None:
    """... whichever of the two changes, and panels are no part of what is copied."""
    lstm = layer()
    before = results_of(lstm)  # with all panels made
    size = len(pickle.dumps(layer()))
    assert len(pickle.dumps(lstm)) <= size + 64
    pair = lstm, duplicate(lstm)
    for name, array in results_of(pair[1]).items():
        assert_same_bits(array, before[name], name)
    edit(pair[changed])
    for name, array in results_of(pair[1 - changed]).items():
        assert_same_bits(array, before[name], name)
    assert_fresh(pair[changed])
    edit(pair[1 - changed])
    assert_fresh(pair[1 - changed])


def test_a_shallow_copy_shares_the_weights_and_their_changes() -> None:
    lstm = layer()
    results_of(lstm)
    twin = copy.copy(lstm)
    edit(twin)
    assert_fresh(twin)
    assert_fresh(lstm)


def test_weights_that_change_while_they_are_read_leave_nothing_that_passes_for_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread's change, at its worst moment: after the reading, before the keeping."""
    lstm = layer()
    derive = WeightCache._derive_forward
    read: list[ForwardWeights] = []

    def interrupted(cache: WeightCache, suffix: str) -> ForwardWeights:
        read.append(derive(cache, suffix))
        edit(lstm)
        return read[-1]

    with monkeypatch.context() as patched:
        patched.setattr(WeightCache, "_derive_forward", interrupted)
        assert lstm._weights.forward("_l0") is read[0]
    assert lstm._weights.forward("_l0") is not read[0]
    assert_fresh(lstm)


@needs_kernels
def test_so_it_is_for_the_weights_of_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    lstm = layer()
    pack = _weights._pack

    def interrupted(weight: Array, *, transposed: bool = False) -> Array:
        panels = pack(weight, transposed=transposed)
        edit(lstm)
        return panels

    with monkeypatch.context() as patched:
        patched.setattr(_weights, "_pack", interrupted)
        stale = lstm._weights.backward_hh("_l0")
    assert_same_bits(lstm._weights.backward_hh("_l0"), 2 * stale)
    assert_fresh(lstm)


def test_nothing_made_in_the_middle_of_an_update_is_kept() -> None:
    lstm = layer()
    with lstm.parameters().updating() as owned:
        owned["weight_hh_l0"][...] *= 2
        for suffix in suffixes(lstm):
            lstm._weights.forward(suffix)
            lstm._weights.backward_hh(suffix)
        owned["weight_hh_l0"][...] *= 2
        owned["bias_hh_l1"][...] *= 2
    assert_fresh(lstm)


def test_threads_that_begin_together_find_the_same() -> None:
    lstm = layer()
    expected = results_of(layer())
    found: list[dict[str, Array]] = []
    for _ in range(10):
        edit(lstm)  # so that all of them have to derive anew
        lstm.load_state_dict(layer().state_dict())
        barrier = threading.Barrier(2)

        def run(barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            found.append(results_of(lstm))

        workers = [threading.Thread(target=run) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(found) == 20
    for results in found:
        for name, array in results.items():
            assert_same_bits(array, expected[name], name)
