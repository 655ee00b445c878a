"""CTC: loss and gradient beside torch's, all paths counted one by one, and logarithms; its laws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from fastlstm import threads
from fastlstm.ctc import ctc_loss
from tests.finite_differences import gradient
from tests.strange import (
    assert_refuses_shapes,
    assert_refuses_what_is_no_such_array,
    assert_takes_any_layout,
)
from tests.support import Array, assert_close, assert_same_bits, normal
from tests.test_arrays import Argument
from tests.witnesses.ctc_cases import CTCCase, draw_ctc

STORED = Path(__file__).with_name("witnesses") / "ctc.npz"
SEEDS = range(60)
# Of a loss, relatively (absolutely below 1), and of one element of a sequence's gradient.
ROUNDING = {np.float32: 1e-6, np.float64: 1e-13}
# What torch computes with logarithms of float32 is off by more than our rounding.
TORCHS_ROUNDING = {np.float32: 1e-4, np.float64: 1e-11}

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def run(case: CTCCase, dtype: Any = np.float64, **options: Any) -> tuple[Any, Array]:
    loss, d_logits = ctc_loss(
        case.logits.astype(dtype), case.targets, case.input_lengths, case.target_lengths,
        blank=case.blank, **options,
    )  # fmt: skip
    assert d_logits.dtype == dtype
    assert d_logits.shape == case.logits.shape
    return loss, d_logits


def assert_near(actual: Any, expected: Any, bound: float) -> None:
    """Elements within bound · max(1, |expected|), and NaN and infinities where they are."""
    np.testing.assert_allclose(actual, expected, rtol=bound, atol=bound, equal_nan=True)


def case_of(
    steps: int, batch: int, classes: int, size: int, seed: int = 0, scale: float = 3
) -> CTCCase:
    """A case with random labels, whose blank is class 0; every sequence is full and possible."""
    rng = np.random.default_rng(seed)
    logits = scale * normal(rng, (steps, batch, classes))
    targets = rng.integers(1, classes, (batch, size))
    return CTCCase(logits, targets, np.full(batch, steps), np.full(batch, size), 0)


# --- torch ---------------------------------------------------------------------------------------


@every_dtype
def test_losses_and_gradients_are_those_that_torch_computed(dtype: Any) -> None:
    with np.load(STORED, allow_pickle=False) as file:
        losses, gradients = file["losses"], file["gradients"]
    infinite = repeated = 0
    for seed in SEEDS:
        case = draw_ctc(seed)
        batch, size = case.logits.shape[1], case.logits.size
        expected, losses = losses[:batch], losses[batch:]
        d_expected, gradients = gradients[:size].reshape(case.logits.shape), gradients[size:]
        loss, d_logits = run(case, dtype, reduction="none")
        bound = 10 * ROUNDING[dtype]
        assert_near(loss, expected, bound)
        assert_near(d_logits, d_expected, bound * max(1, np.abs(case.logits).max()))
        infinite += int(np.isinf(expected).sum())
        repeated += int((np.diff(case.targets) == 0)[:, : case.target_lengths.min()].sum())
    assert not losses.size
    assert not gradients.size
    assert infinite > 20
    assert repeated > 20


@pytest.mark.oracle
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@every_dtype
def test_reductions_are_those_of_torch(reduction: str, zero_infinity: bool, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    from tests.witnesses.make_ctc import run_torch

    options: dict[str, Any] = {"reduction": reduction, "zero_infinity": zero_infinity}
    for seed in range(100, 160):
        case = draw_ctc(seed)
        targets = case.concatenated() if seed % 2 else case.targets
        theirs = run_torch(case, getattr(torch, np.dtype(dtype).name), targets, **options)
        loss, d_logits = ctc_loss(
            case.logits.astype(dtype), targets, case.input_lengths, case.target_lengths,
            blank=case.blank, **options,
        )  # fmt: skip
        assert_near(loss, theirs[0], TORCHS_ROUNDING[dtype])
        assert_near(d_logits, theirs[1], TORCHS_ROUNDING[dtype])


@pytest.mark.oracle
@pytest.mark.parametrize(("steps", "classes", "size"), [(200, 30, 40), (1500, 60, 300), (90, 2, 9)])
def test_long_sequences_equal_torchs(steps: int, classes: int, size: int) -> None:
    """Losses of up to ten thousand nats: e^-loss is far below what a double holds."""
    pytest.importorskip("torch")
    from tests.witnesses.make_ctc import run_torch

    case = case_of(steps, 2, classes, size)
    expected = run_torch(case, reduction="none")
    loss, d_logits = run(case, reduction="none")
    assert_near(loss, expected[0], 1e-13)
    assert_near(d_logits, expected[1], 1e-10)


# --- the definition ------------------------------------------------------------------------------


def collapsed(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    """Repetitions merged, then blanks taken out."""
    merged = [label for label, _ in itertools.groupby(path)]
    return tuple(label for label in merged if label != blank)


def probabilities(logits: Array, blank: int) -> dict[tuple[int, ...], float]:
    """Of every labelling that logits (T, C) may mean: all paths counted one by one."""
    log_probs = log_softmax(logits, axis=-1)
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        labels = collapsed(path, blank)
        probability = math.exp(log_probs[range(len(path)), list(path)].sum())
        found[labels] = found.get(labels, 0.0) + probability
    return found


@pytest.mark.parametrize(("steps", "classes"), [(1, 2), (2, 4), (5, 3), (7, 2), (4, 4)])
@pytest.mark.parametrize("blank", [0, 1])
def test_the_loss_is_the_logarithm_of_a_sum_over_all_paths(
    steps: int, classes: int, blank: int
) -> None:
    logits = 2 * normal(np.random.default_rng(steps), (steps, classes))
    found = probabilities(logits, blank)
    assert abs(sum(found.values()) - 1) < 1e-12
    for labels, probability in found.items():
        targets = np.array(labels, int)
        loss, _ = ctc_loss(logits, targets, steps, len(labels), blank=blank, reduction="sum")
        assert abs(loss + math.log(probability)) < 1e-12


def test_the_probabilities_of_all_labellings_add_up_to_one() -> None:
    steps, classes = 6, 4
    everything = [
        labels
        for size in range(steps + 1)
        for labels in itertools.product(range(1, classes), repeat=size)
    ]
    sizes = np.array([len(labels) for labels in everything])
    logits = normal(np.random.default_rng(0), (steps, 1, classes))
    losses, _ = ctc_loss(
        np.broadcast_to(logits, (steps, len(sizes), classes)),
        np.concatenate([np.array(labels, int) for labels in everything]),
        np.full(len(sizes), steps), sizes, reduction="none",
    )  # fmt: skip
    assert len(sizes) == 1093
    assert np.isinf(losses).any()
    assert abs(np.exp(-losses).sum() - 1) < 1e-12


def plain_loss(logits: Array, labels: list[int], blank: int = 0) -> float:
    """The forward recursion of Graves et al. 2006, eq. 5 to 8, with logarithms; logits (T, C)."""
    log_probs = log_softmax(logits.astype(np.float64), axis=-1)
    states = [blank, *itertools.chain(*((label, blank) for label in labels))]
    alpha = np.full(len(states), -np.inf)
    alpha[:2] = log_probs[0, states[:2]]
    for row in log_probs[1:]:
        before = alpha
        alpha = before.copy()
        alpha[1:] = np.logaddexp(alpha[1:], before[:-1])
        for s in range(3, len(states), 2):
            if states[s] != states[s - 2]:
                alpha[s] = np.logaddexp(alpha[s], before[s - 2])
        alpha = alpha + row[states]
    return -float(np.logaddexp.reduce(alpha[-2:]))


@every_dtype
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 40),
    classes=st.integers(2, 6),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
)
def test_the_loss_is_that_of_logarithms(
    dtype: Any, seed: int, steps: int, classes: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = scale * normal(rng, (steps, classes), dtype)
    labels = rng.integers(1, classes, int(rng.integers(0, steps + 1)))
    loss, _ = ctc_loss(logits, labels, steps, len(labels), reduction="sum")
    assert_near(loss, plain_loss(logits, labels.tolist()), ROUNDING[dtype])


def test_gradients_are_those_of_finite_differences() -> None:
    case = draw_ctc(3)
    assert case.logits.shape[1] > 1

    def loss(arrays: dict[str, Array]) -> float:
        value, _ = ctc_loss(
            arrays["logits"], case.targets, case.input_lengths, case.target_lengths,
            blank=case.blank, zero_infinity=True,
        )  # fmt: skip
        return value

    _, d_logits = run(case, zero_infinity=True)
    assert np.abs(d_logits).max() > 0.01
    assert_close(d_logits, gradient(loss, {"logits": case.logits})["logits"], 1e-6)


@pytest.mark.parametrize("labels", [[1, 2, 1], [1, 1, 2], [2, 2, 2], [1], []])
def test_gradients_of_labels_that_repeat_are_those_of_finite_differences(labels: list[int]) -> None:
    logits, targets = normal(np.random.default_rng(0), (6, 3)), np.array(labels, int)

    def loss(arrays: dict[str, Array]) -> float:
        return ctc_loss(arrays["logits"], targets, 6, len(labels), reduction="sum")[0]

    _, d_logits = ctc_loss(logits, targets, 6, len(labels), reduction="sum")
    assert_close(d_logits, gradient(loss, {"logits": logits})["logits"], 1e-6)


# --- laws ----------------------------------------------------------------------------------------


@every_dtype
def test_gradients_add_up_to_zero_at_each_step(dtype: Any) -> None:
    case = case_of(60, 3, 20, 15)
    _, d_logits = run(case, dtype, reduction="none")
    assert np.abs(d_logits).max() > 0.5
    assert np.abs(d_logits.sum(axis=2, dtype=np.float64)).max() < ROUNDING[dtype]


@every_dtype
@given(seed=st.integers(0, 2**32 - 1), shift=st.integers(-(10**4), 10**4))
def test_nothing_changes_when_all_logits_of_a_step_are_shifted(
    dtype: Any, seed: int, shift: int
) -> None:
    # Quarters, which a shift by whole numbers leaves exact: the results have the same bits.
    rng = np.random.default_rng(seed)
    logits = (rng.integers(-40, 40, (5, 4)) / 4).astype(dtype)
    shifted = logits + dtype(shift) * rng.integers(0, 2, (5, 1)).astype(dtype)
    expected, d_expected = ctc_loss(logits, np.array([1, 3]), 5, 2)
    loss, d_logits = ctc_loss(shifted, np.array([1, 3]), 5, 2)
    assert loss == expected
    assert_same_bits(d_logits, d_expected)


@every_dtype
@given(seed=st.integers(0, 2**32 - 1))
def test_neither_threads_nor_the_order_of_the_batch_change_a_bit(dtype: Any, seed: int) -> None:
    case = draw_ctc(seed)
    order = np.random.default_rng(seed).permutation(len(case.targets))
    turned = CTCCase(
        case.logits[:, order], case.targets[order], case.input_lengths[order],
        case.target_lengths[order], case.blank,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threads, "LEAST_WORK", 0)
        patched.setattr(threads, "_num_threads", 1)
        losses, d_logits = run(case, dtype, reduction="none")
        for num_threads in (2, 3):
            patched.setattr(threads, "_num_threads", num_threads)
            others, d_others = run(turned, dtype, reduction="none")
            assert_same_bits(others, losses[order])
            assert_same_bits(d_others, d_logits[:, order])
    for b, length in enumerate(case.input_lengths):
        alone, d_alone = ctc_loss(
            case.logits[:length, b].astype(dtype), case.targets[b, : case.target_lengths[b]],
            int(length), int(case.target_lengths[b]), blank=case.blank, reduction="none",
        )  # fmt: skip
        assert_same_bits(alone, losses[b : b + 1].reshape(()))
        assert_same_bits(d_alone, d_logits[:length, b])


@every_dtype
def test_what_lies_past_the_lengths_is_never_read(dtype: Any) -> None:
    case = case_of(9, 4, 5, 4)
    case.input_lengths[:] = [9, 5, 0, 7]
    case.target_lengths[:] = [4, 2, 0, 1]
    expected, d_expected = run(case, dtype)
    strange = draw_copy(case)
    for b in range(4):
        strange.logits[case.input_lengths[b] :, b] = [np.nan, np.inf, -np.inf, 7, 1e30]
        strange.targets[b, case.target_lengths[b] :] = [0, -100, 2**40, 5][b]
    loss, d_logits = run(strange, dtype)
    assert math.isfinite(loss)
    assert loss == expected
    assert_same_bits(d_logits, d_expected)
    for b in range(4):
        assert not d_logits[case.input_lengths[b] :, b].any()


def draw_copy(case: CTCCase) -> CTCCase:
    return CTCCase(
        case.logits.copy(), case.targets.copy(), case.input_lengths, case.target_lengths, case.blank
    )


def test_padded_and_concatenated_targets_are_one() -> None:
    for seed in SEEDS:
        case = draw_ctc(seed)
        expected, d_expected = run(case, reduction="none")
        loss, d_logits = ctc_loss(
            case.logits, case.concatenated(), case.input_lengths, case.target_lengths,
            blank=case.blank, reduction="none",
        )  # fmt: skip
        assert_same_bits(loss, expected)
        assert_same_bits(d_logits, d_expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_one_sequence_is_a_batch_of_one(reduction: Any) -> None:
    case = case_of(9, 1, 4, 3)
    expected, d_expected = run(case, reduction=reduction)
    assert type(expected) is float
    for scalar in (int, np.array, lambda length: np.array([length])):
        loss, d_logits = ctc_loss(
            case.logits[:, 0], case.targets[0], scalar(9), scalar(3), reduction=reduction
        )
        assert type(loss) is float
        assert loss == expected
        assert_same_bits(d_logits, d_expected[:, 0])


def test_the_mean_divides_by_the_labels_and_then_by_the_batch() -> None:
    case = case_of(9, 3, 4, 3)
    case.target_lengths[:] = [3, 0, 1]
    losses, d_losses = run(case, reduction="none")
    loss, d_logits = run(case, reduction="mean")
    assert abs(loss - (losses / [3, 1, 1]).mean()) < 1e-14
    assert_close(d_logits, d_losses / np.array([9, 3, 3])[:, None], 1e-14)
    loss, d_logits = run(case, reduction="sum")
    assert abs(loss - losses.sum()) < 1e-14
    assert_same_bits(d_logits, d_losses)


# --- what cannot be, and extremes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "least"), [([], 0), ([1], 1), ([1, 1], 3), ([1, 2], 2), ([1, 1, 1, 2], 6)]
)
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_labels_need_steps_and_repeated_ones_a_blank_between(
    labels: list[int], least: int, zero_infinity: bool
) -> None:
    logits = normal(np.random.default_rng(0), (8, 3))
    for length in range(9):
        loss, d_logits = ctc_loss(
            logits, np.array(labels, int), length, len(labels), zero_infinity=zero_infinity
        )
        assert not d_logits[length:].any()
        if length >= least:
            assert np.isfinite(d_logits).all()
            assert (loss == 0) == (length == 0)
            assert d_logits[:length].any() == (length > 0)
        elif zero_infinity:
            assert loss == 0
            assert not d_logits.any()
        else:
            assert loss == math.inf
            assert np.isnan(d_logits[:length]).all()


def test_a_certain_labelling_has_no_loss() -> None:
    logits = np.full((3, 3), -1e4)
    logits[[0, 1, 2], [1, 0, 2]] = 0
    loss, d_logits = ctc_loss(logits, np.array([1, 2]), 3, 2)
    assert loss == 0
    assert math.copysign(1, loss) == 1
    assert not d_logits.any()


@every_dtype
def test_a_class_that_cannot_be_has_no_gradient(dtype: Any) -> None:
    """In torch its gradient is NaN."""
    logits = normal(np.random.default_rng(0), (6, 4), dtype)
    logits[2, [1, 3]] = -np.inf
    loss, d_logits = ctc_loss(logits, np.array([1, 2]), 6, 2, reduction="sum")
    assert_near(loss, plain_loss(logits, [1, 2]), ROUNDING[dtype])
    assert not d_logits[2, [1, 3]].any()
    assert np.isfinite(d_logits).all()
    logits[:, 1] = -np.inf
    loss, _ = ctc_loss(logits, np.array([1, 2]), 6, 2)
    assert loss == math.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_a_nan_reaches_the_loss_and_its_own_sequence_alone(bad: float, zero_infinity: bool) -> None:
    case = case_of(5, 3, 4, 2)
    expected, d_expected = run(case, reduction="none")
    case.logits[3, 1, 2] = bad
    losses, d_logits = run(case, reduction="none", zero_infinity=zero_infinity)
    assert math.isnan(losses[1])
    assert np.isnan(d_logits[:, 1]).all()
    assert_same_bits(losses[::2], expected[::2])
    assert_same_bits(d_logits[:, ::2], d_expected[:, ::2])


@pytest.mark.parametrize("size", [1e3, 1e8, 1e20, 1e300])
def test_no_logit_is_too_far_off(size: float) -> None:
    """Both labels are all but impossible, so that the loss is as large as the logits."""
    logits = np.zeros((4, 3))
    logits[:, 1:] = -size
    loss, d_logits = ctc_loss(logits, np.array([1, 2]), 4, 2, reduction="sum")
    # 15 paths: the blanks are free, and each further label costs as much again.
    assert_near(loss / size, 2 - math.log(6) / size, 1e-15)
    if size < 1e10:
        assert_near(d_logits.sum(axis=0), [2, -1, -1], 1e-6)
    assert np.isfinite(d_logits).all()


def test_paths_are_kept_that_are_far_below_others_for_a_while() -> None:
    """For 50 steps the path that is right in the end is e^-2000 of the best; then it is alone."""
    logits = np.zeros((100, 3))
    logits[:50, 1] = -40
    logits[50:, 0] = -1000
    logits[50:, 2] = -990
    loss, d_logits = ctc_loss(logits, np.array([1, 2]), 100, 2, reduction="sum")
    assert_near(loss, plain_loss(logits, [1, 2]), 1e-13)
    assert np.isfinite(d_logits).all()
    assert np.abs(d_logits.sum(axis=1)).max() < 1e-12


def test_a_blank_over_many_states_does_not_drown_in_rounding() -> None:
    """In float32 the blank's posterior, added up state by state, would be off by 1e-6 or more."""
    case = case_of(1000, 1, 3, 400, scale=0.1)
    _, wide = run(case)
    _, d_logits = run(case, np.float32)
    assert np.abs(d_logits - wide).max() < 400 * 1e-8


# --- arguments -----------------------------------------------------------------------------------


def test_an_empty_batch_has_losses_but_no_mean() -> None:
    logits, none = np.zeros((3, 0, 4), np.float32), np.zeros(0, int)
    losses, d_logits = ctc_loss(logits, np.zeros((0, 2), int), none, none, reduction="none")
    assert losses.shape == (0,)
    assert d_logits.shape == logits.shape
    assert ctc_loss(logits, none, none, none, reduction="sum")[0] == 0
    with pytest.raises(ValueError, match=r"^logits: expected one sequence at least"):
        ctc_loss(logits, none, none, none)


def test_lengths_must_fit() -> None:
    case = case_of(5, 2, 4, 3)
    logits, targets, steps, sizes = (
        case.logits, case.targets, case.input_lengths, case.target_lengths,
    )  # fmt: skip
    for bad in ([5, 6], [-1, 5]):
        with pytest.raises(ValueError, match=r"^input_lengths: expected values from 0 to 5"):
            ctc_loss(logits, targets, np.array(bad), sizes)
    with pytest.raises(ValueError, match=r"^target_lengths: expected values from 0"):
        ctc_loss(logits, targets, steps, np.array([-1, 3]))
    with pytest.raises(ValueError, match=r"^target_lengths: expected at most 3, .* got 4$"):
        ctc_loss(logits, targets, steps, np.array([2, 4]))
    with pytest.raises(ValueError, match=r"^targets: expected shape \(6,\), got \(5,\)$"):
        ctc_loss(logits, targets.ravel()[:5], steps, sizes)
    with pytest.raises(ValueError, match=r"^input_lengths: expected a whole number <= 5, got 6$"):
        ctc_loss(logits[:, 0], targets[0], 6, 3)
    with pytest.raises(TypeError, match=r"^target_lengths: expected a numpy.ndarray"):
        ctc_loss(logits, targets, steps, 3)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64"])
def test_targets_and_lengths_may_be_of_any_integer_dtype(kind: str) -> None:
    case = case_of(5, 2, 4, 2)
    expected, d_expected = run(case)
    integers = (case.targets, case.input_lengths, case.target_lengths)
    loss, d_logits = ctc_loss(case.logits, *(array.astype(kind) for array in integers))
    assert loss == expected
    assert_same_bits(d_logits, d_expected)


@pytest.mark.parametrize("bad", [-1, 4, -100, 2**40])
def test_a_target_out_of_range_is_refused(bad: int) -> None:
    case = case_of(5, 2, 4, 3)
    case.targets[1, 1] = bad
    with pytest.raises(IndexError, match=rf"^targets: expected values from 0 to 3, got {bad}$"):
        run(case)


def test_the_blank_is_no_target() -> None:
    case = case_of(5, 2, 4, 3)
    case.targets[:] = [[1, 2, 3], [3, 1, 1]]
    with pytest.raises(ValueError, match=r"^targets: .* other than the blank, got 2$"):
        ctc_loss(case.logits, case.targets, case.input_lengths, case.target_lengths, blank=2)


def test_options_must_be_what_they_are() -> None:
    case = case_of(5, 2, 4, 3)
    for bad in (-1, 4):
        with pytest.raises(ValueError, match=r"^blank: expected a whole number"):
            ctc_loss(case.logits, case.targets, case.input_lengths, case.target_lengths, blank=bad)
    with pytest.raises(ValueError, match=r"^reduction: expected 'mean', 'sum' or 'none', got 'me"):
        run(case, reduction="median")
    with pytest.raises(TypeError, match=r"^zero_infinity: expected True or False, got 1$"):
        run(case, zero_infinity=1)


def call(place: int) -> Callable[[Any], list[Array]]:
    """ctc_loss with an array in one of the four places."""

    def with_array(array: Any) -> list[Array]:
        case = case_of(5, 3, 4, 2)
        arrays: list[Any] = [
            case.logits.astype("f"), case.targets, case.input_lengths, case.target_lengths,
        ]  # fmt: skip
        arrays[place] = array
        loss, d_logits = ctc_loss(*arrays)
        return [np.array([loss]), d_logits]

    return with_array


ARGUMENTS = [
    Argument("logits", "logits", case_of(5, 3, 4, 2).logits.astype("f"), call(0)),
    Argument("targets", "targets", case_of(5, 3, 4, 2).targets, call(1)),
    Argument("input_lengths", "input_lengths", np.array([3, 5, 4]), call(2)),
    Argument("target_lengths", "target_lengths", np.array([2, 0, 1]), call(3)),
]
every_argument = pytest.mark.parametrize("argument", ARGUMENTS, ids=str)


@every_argument
def test_any_layout_gives_the_same_bits(argument: Argument, tmp_path: Path) -> None:
    assert_takes_any_layout(argument, tmp_path)


@every_argument
def test_what_is_no_such_array_is_refused(argument: Argument) -> None:
    assert_refuses_what_is_no_such_array(argument, any_float=argument.name == "logits")


@every_argument
def test_a_shape_that_does_not_fit_is_refused(argument: Argument) -> None:
    wrong: dict[str, list[tuple[int, ...]]] = {
        "logits": [(), (4,), (5, 3, 4, 1)],
        "targets": [(), (2, 2), (4, 2), (3, 2, 1), (5,)],
        "input_lengths": [(), (2,), (4,), (3, 1)],
        "target_lengths": [(), (2,), (4,), (3, 1)],
    }
    assert_refuses_shapes(argument, *wrong[argument.name])


def test_inputs_stay_as_they_are() -> None:
    case = draw_ctc(3)
    kept = draw_copy(case)
    _, d_logits = run(case)
    assert_same_bits(case.logits, kept.logits)
    assert_same_bits(case.targets, kept.targets)
    assert d_logits.flags.writeable
    assert not np.shares_memory(d_logits, case.logits)
