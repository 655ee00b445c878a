"""Input, locked and weight dropout: their masks, and what an LSTM is under them.

The oracle is torch.nn.LSTM with the same masks multiplied in by hand, stored and live.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm._dropout import NO_MASKS, Dropouts, Masks
from fastlstm.packing import Packing
from tests.finite_differences import gradient
from tests.support import (
    Array,
    assert_close,
    assert_same_bits,
    normal,
    random_state,
    run_case,
    tolerance_of,
    torch_runner,
)
from tests.witnesses.dropped import Dropped, FrozenGenerator, draw_dropped
from tests.witnesses.stored import DROPPED_SEEDS, DROPPED_SEEDS_FLOAT32, stored_dropped

KINDS: list[dict[str, Any]] = [
    {"input_dropout": 0.4},
    {"dropout": 0.4, "locked_dropout": True},
    {"weight_dropout": 0.4},
    {"input_dropout": 0.2, "dropout": 0.3, "locked_dropout": True, "weight_dropout": 0.4},
]
LENGTHS = np.array([3, 0, 5, 1, 4])


def kind_name(options: dict[str, Any]) -> str:
    return "-".join(name for name, value in options.items() if not isinstance(value, bool))


# --- against torch -------------------------------------------------------------------------------


def assert_results(dropped: Dropped, dtype: Any, expected: dict[str, Array]) -> None:
    case = dropped.case
    actual = run_case(case, dtype, FrozenGenerator(case.seed), **dropped.options())
    assert list(actual) == list(expected)
    for name, array in expected.items():
        what = f"{name} of {dropped.options()}, {case.describe()}"
        assert_close(actual[name], array, tolerance_of(dtype), what)


@pytest.mark.parametrize("seed", DROPPED_SEEDS)
def test_float64_equals_what_torch_computed_under_the_same_masks(seed: int) -> None:
    assert_results(draw_dropped(seed), np.float64, stored_dropped(seed))


@pytest.mark.parametrize("seed", DROPPED_SEEDS_FLOAT32)
def test_float32_equals_what_torch_computed_under_the_same_masks(seed: int) -> None:
    assert_results(draw_dropped(seed), np.float32, stored_dropped(seed))


def test_every_kind_of_dropout_meets_every_kind_of_batch() -> None:
    cases = [draw_dropped(seed) for seed in DROPPED_SEEDS_FLOAT32]
    for field in ("input_dropout", "dropout", "weight_dropout"):
        met = {
            (d.locked_dropout, d.case.lengths is not None, d.case.bidirectional)
            for d in cases
            if getattr(d, field)
        }
        assert len(met) == 6, field  # not locked with lengths, see draw_dropped


@pytest.fixture
def run_torch() -> Iterator[Any]:
    with torch_runner("make_dropped") as run:
        yield run


@pytest.mark.oracle
@pytest.mark.parametrize("seed", [*DROPPED_SEEDS, *range(1000, 1080)])
def test_float64_equals_torch_under_the_same_masks(run_torch: Any, seed: int) -> None:
    dropped = draw_dropped(seed)
    expected = run_torch(dropped, "float64")
    assert_results(dropped, np.float64, expected)
    if seed in DROPPED_SEEDS:
        for name, array in stored_dropped(seed).items():
            assert_close(array, expected[name], 1e-12, name)


# --- where nothing is dropped --------------------------------------------------------------------


@pytest.mark.parametrize("options", KINDS, ids=kind_name)
def test_dropout_acts_only_in_a_forward_with_a_generator(options: dict[str, Any]) -> None:
    plain, dropping = LSTM(4, 5, 2, rng=0), LSTM(4, 5, 2, **options, rng=0)
    x = normal(np.random.default_rng(1), (5, 5, 4), np.float32)
    expected = plain.forward(x, lengths=LENGTHS)
    assert_same_bits(dropping(x, lengths=LENGTHS)[0], expected[0])
    output, _, tape = dropping.forward(x, lengths=LENGTHS)
    assert_same_bits(output, expected[0])
    grads = plain.backward(expected[-1], output)[-1]
    for name, array in dropping.backward(tape, output)[-1].items():
        assert_same_bits(array, grads[name], name)
    dropped = dropping.forward(x, lengths=LENGTHS, rng=np.random.default_rng(0))[0]
    assert not np.array_equal(dropped, expected[0])
    again = dropping.forward(x, lengths=LENGTHS, rng=np.random.default_rng(0))[0]
    assert_same_bits(again, dropped)
    # Panels of dropped weights are not kept for who comes next.
    assert_same_bits(dropping(x, lengths=LENGTHS)[0], expected[0])


def test_a_probability_of_zero_draws_nothing_and_changes_nothing() -> None:
    lstm = LSTM(4, 5, 2, locked_dropout=True, rng=0)
    x = normal(np.random.default_rng(1), (5, 3, 4), np.float32)
    rng = np.random.default_rng(0)
    output, _, tape = lstm.forward(x, rng=rng)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    expected, _, plain_tape = lstm.forward(x)
    assert_same_bits(output, expected)
    grads = lstm.backward(plain_tape, output)[-1]
    for name, array in lstm.backward(tape, output)[-1].items():
        assert_same_bits(array, grads[name], name)


def test_dropout_between_layers_draws_what_it_always_drew() -> None:
    """The first numbers of the generator, one for each element: seeds keep their meaning."""
    lower, upper = LSTM(2, 3, rng=0), LSTM(3, 3, rng=1)
    both = LSTM(2, 3, 2, dropout=0.5, rng=0)
    renamed = {name.replace("l0", "l1"): array for name, array in upper.state_dict().items()}
    both.load_state_dict(lower.state_dict() | renamed)
    x = normal(np.random.default_rng(1), (4, 5, 2), np.float32)
    numbers = np.random.default_rng(7).random((4 * 5, 3), np.float32).reshape(4, 5, 3)
    masked = lower(x)[0] * np.where(numbers >= 0.5, np.float32(2), np.float32(0))
    assert_same_bits(both.forward(x, rng=np.random.default_rng(7))[0], upper(masked)[0])


def test_with_probability_one_nothing_is_left() -> None:
    x = normal(np.random.default_rng(1), (4, 3, 2), np.float32)
    lstm = LSTM(2, 3, input_dropout=1, weight_dropout=1, rng=0)
    output, _, tape = lstm.forward(x, rng=np.random.default_rng(0))
    d_x, _, grads = lstm.backward(tape, output)
    assert_same_bits(d_x, np.zeros_like(x))
    for name in ("weight_ih_l0", "weight_hh_l0"):
        assert_same_bits(grads[name], np.zeros_like(grads[name]))
    with lstm.editing() as edited:
        edited["weight_hh_l0"][...] = 0
    assert_close(output, lstm(np.zeros_like(x))[0], 1e-6)


# --- the masks -----------------------------------------------------------------------------------


def binomial_bound(p: float, size: int) -> float:
    """Five standard deviations of a mean of so many zeros and ones."""
    return 5 * float(np.sqrt(p * (1 - p) / size))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_is_zero_and_the_rest_keeps_the_mean(p: float) -> None:
    masks = Masks(Dropouts(p, p, True, p), np.random.default_rng(0))
    packing, dtype = Packing(3, 200), np.dtype(np.float64)
    rows = np.ones((600, 50))
    on_input = masks.on_input(packing, rows, first=True)
    between = masks.on_input(packing, rows, first=False)
    on_weights = masks.on_weights((400, 100), dtype)
    assert on_input is not None
    assert between is not None
    assert on_weights is not None
    assert not np.array_equal(on_input.factors, between.factors)
    for factors in (on_input.factors, between.factors, on_weights):
        kept = factors != 0
        assert abs(1 - kept.mean() - p) < binomial_bound(p, factors.size)
        np.testing.assert_allclose(factors[kept], 1 / (1 - p), rtol=1e-15)
        # Neither the rows nor the columns are alike.
        for axis in (0, 1):
            bound = binomial_bound(p, factors.shape[axis])
            assert (abs(1 - kept.mean(axis) - p) < bound).all()
            assert len(np.unique(kept, axis=axis).T if axis else np.unique(kept, axis=0)) > 1


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "lengths"])
def test_a_mask_of_a_sequence_is_the_same_at_all_of_its_steps(lengths: Array | None) -> None:
    packing, ones = Packing(5, 5, lengths), np.ones((5, 5, 40))
    rows = packing.pack(ones)
    mask = Masks(Dropouts(0.5), np.random.default_rng(0)).on_input(packing, rows, first=True)
    assert mask is not None
    masked = packing.unpack(mask.times(rows, out=np.empty_like(rows)))
    for b, length in enumerate([5] * 5 if lengths is None else lengths):
        assert (masked[:length, b] == masked[:1, b]).all()
        assert not masked[length:, b].any()
    firsts = masked[0, LENGTHS > 0]
    assert len(np.unique(firsts, axis=0)) == len(firsts)


def test_rows_are_masked_in_place_as_apart() -> None:
    """... also of so many rows that factors are gathered in several goes."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(100, 301, 9)
    packing = Packing(300, 9, lengths)
    assert packing.rows > 1024
    rows = normal(rng, (packing.rows, 6))
    mask = Masks(Dropouts(0.5), rng).on_input(packing, rows, first=True)
    assert mask is not None
    apart = mask.times(rows, out=np.empty_like(rows))
    factors = packing.unpack(apart)[0] / packing.unpack(rows)[0]
    expected = packing.unpack(rows) * factors
    assert_close(packing.unpack(apart), expected, 1e-15)
    assert_same_bits(mask.times(rows, out=rows), apart)


@pytest.mark.parametrize("options", KINDS, ids=kind_name)
def test_masks_do_not_depend_on_padding_or_on_other_lengths(options: dict[str, Any]) -> None:
    lstm = LSTM(3, 4, 2, **options, dtype=np.float64, rng=0)
    rng = np.random.default_rng(1)
    x = normal(rng, (5, 5, 3))
    expected, _, _ = lstm.forward(x, lengths=LENGTHS, rng=np.random.default_rng(2))
    padded = np.concatenate([x, normal(rng, (3, 5, 3))])
    longer, _, _ = lstm.forward(padded, lengths=LENGTHS, rng=np.random.default_rng(2))
    assert_close(longer[:5], expected, 1e-12)
    others = np.array([3, 7, 8, 1, 2])
    changed, _, _ = lstm.forward(padded, lengths=others, rng=np.random.default_rng(2))
    for b in (0, 3):  # of the same length in both
        assert_close(changed[: others[b], b], expected[: others[b], b], 1e-12)


def test_no_masks_are_none() -> None:
    packing, rows = Packing(2, 3), np.ones((6, 4))
    assert NO_MASKS.on_input(packing, rows, first=True) is None
    assert NO_MASKS.on_input(packing, rows, first=False) is None
    assert NO_MASKS.on_weights((4, 1), rows.dtype) is None


@pytest.mark.parametrize("lengths", [None, [0, 0]])
@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0), (3, 2)])
def test_batches_of_nothing_pass(steps: int, batch: int, lengths: list[int] | None) -> None:
    lstm = LSTM(3, 4, 2, **KINDS[-1], rng=0)
    x = np.ones((steps, batch, 3), np.float32)
    given = None if lengths is None else np.array(lengths)[:batch]
    output, _, tape = lstm.forward(x, lengths=given, rng=np.random.default_rng(0))
    d_x, _, grads = lstm.backward(tape, output)
    assert d_x.shape == x.shape
    assert all(np.isfinite(array).all() for array in grads.values())


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("options", KINDS, ids=kind_name)
def test_gradients_are_finite_differences(options: dict[str, Any], bidirectional: bool) -> None:
    rng = np.random.default_rng(0)
    lstm = LSTM(2, 3, 2, bidirectional=bidirectional, **options, dtype=np.float64, rng=rng)
    lengths = np.array([2, 0, 4])
    d_output = normal(rng, (4, 3, 6 if bidirectional else 3))
    d_state = random_state(rng, lstm, 3)
    h_0, c_0 = random_state(rng, lstm, 3)
    arrays = {"x": normal(rng, (4, 3, 2)), "h_0": h_0, "c_0": c_0}
    arrays |= {name: 0.8 * normal(rng, w.shape) for name, w in lstm.parameters().items()}

    def loss(moved: dict[str, Array]) -> float:
        lstm.load_state_dict({name: moved[name] for name in lstm.parameters()})
        output, (h_n, c_n), _ = lstm.forward(
            moved["x"], (moved["h_0"], moved["c_0"]), lengths=lengths, rng=np.random.default_rng(5)
        )
        return float(
            (output * d_output).sum() + (h_n * d_state[0]).sum() + (c_n * d_state[1]).sum()
        )

    expected = gradient(loss, arrays)
    lstm.load_state_dict({name: arrays[name] for name in lstm.parameters()})
    tape = lstm.forward(arrays["x"], (h_0, c_0), lengths=lengths, rng=np.random.default_rng(5))[-1]
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, d_output, d_state)
    for name, actual in ({"x": d_x, "h_0": d_h_0, "c_0": d_c_0} | grads).items():
        assert_close(actual, expected[name], 1e-6, name)


# --- the face ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["input_dropout", "weight_dropout"])
@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan")])
def test_what_is_no_probability_is_refused(name: str, wrong: float) -> None:
    with pytest.raises(ValueError, match=name):
        LSTM(2, 3, **{name: wrong})  # type: ignore[arg-type]


def test_wrong_types_are_refused() -> None:
    with pytest.raises(TypeError, match="input_dropout"):
        LSTM(2, 3, input_dropout="0.5")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weight_dropout"):
        LSTM(2, 3, weight_dropout=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="locked_dropout"):
        LSTM(2, 3, locked_dropout=1)  # type: ignore[arg-type]


def test_what_is_handed_in_stays_as_it_was() -> None:
    """Masks are multiplied into copies: of x, in whatever way it comes, and of the weights."""
    lstm = LSTM(3, 4, 2, **KINDS[-1], rng=0)
    weights = lstm.state_dict()
    x = normal(np.random.default_rng(0), (30, 40, 3), np.float32)
    for given in (x, x[::-1], np.asfortranarray(x), x[:, 0]):
        before = given.copy()
        output, _, tape = lstm.forward(given, rng=np.random.default_rng(1))
        d_output = output.copy()
        lstm.backward(tape, d_output)
        assert_same_bits(given, before)
        assert_same_bits(d_output, output)
    for name, array in lstm.state_dict().items():
        assert_same_bits(array, weights[name], name)
