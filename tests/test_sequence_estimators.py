"""SequenceClassifier, SequenceRegressor, SequenceTagger: what they learn, take and refuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import r2_score
from sklearn.utils.class_weight import compute_sample_weight

from fastlstm import _core, storage
from fastlstm.storage import FormatError
from fastlstm.tasks import SequenceClassifier, SequenceRegressor, SequenceTagger
from fastlstm.tasks._base.estimator import Estimator
from tests.support import Array, assert_close, assert_same_bits

SETTINGS = {
    "hidden_size": 4, "epochs": 2, "batch_size": 8, "validation_fraction": 0.1, "random_state": 0,
}  # fmt: skip

needs_kernels = pytest.mark.skipif(
    not _core.VECTOR[4],
    reason=f"instruction set {_core.ISA} has no packed kernels, and BLAS promises no bits",
)


def sequences(count: int = 40, features: int = 2, *, least: int = 1) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((rng.integers(least, 7), features)) for _ in range(count)]


def classes_of(X: list[Array]) -> Array:
    """Three of them, which the first number decides."""
    return np.array(["abc"[np.digitize(x[0, 0], [-0.5, 0.5])] for x in X])


def targets_of(X: list[Array]) -> Array:
    return np.array([[x[:, 0].mean(), 1000 * x[-1, 1] + 50] for x in X])


def steps_of(X: list[Array]) -> list[Array]:
    """Whether the first features so far have a positive sum."""
    return [np.where(np.cumsum(x[:, 0]) > 0, "plus", "minus") for x in X]


def padded(X: list[Array]) -> tuple[Array, Array]:
    """As one array, with NaN past the ends, and lengths."""
    array = np.full((len(X), 8, X[0].shape[1]), np.nan)
    for row, x in zip(array, X, strict=True):
        row[: len(x)] = x
    return array, np.array([len(x) for x in X])


CASES: dict[str, tuple[Any, Callable[[list[Array]], Any]]] = {
    "classifier": (SequenceClassifier, classes_of),
    "regressor": (SequenceRegressor, targets_of),
    "tagger": (SequenceTagger, steps_of),
}
every = pytest.mark.parametrize(("make", "y_of"), CASES.values(), ids=CASES.keys())


def fitted(make: Any, y_of: Any, **options: Any) -> Any:
    X = sequences()
    return make(**{**SETTINGS, **options}).fit(X, y_of(X))


def weights(estimator: Estimator) -> Array:
    return np.concatenate([a.ravel() for a in estimator.network_.parameters().values()])


def answers(estimator: Any, X: Any, **options: Any) -> Array:
    """Probabilities or numbers, of all sequences or steps in one array."""
    predict = getattr(estimator, "predict_proba", estimator.predict)
    return np.concatenate([np.atleast_2d(one) for one in predict(X, **options)])


# --- what they learn ------------------------------------------------------------------------------


LEARNING = {"hidden_size": 8, "learning_rate": 0.03, "noise": 0.0, "random_state": 0}


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_a_classifier_learns(pooling: str) -> None:
    X = sequences(160)
    classifier = SequenceClassifier(pooling=pooling, epochs=20, **LEARNING)
    classifier.fit(X[:110], classes_of(X[:110]))
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    assert classifier.score(X[110:], classes_of(X[110:])) > 0.8


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_a_regressor_learns_targets_of_very_different_sizes(cell: str) -> None:
    X = sequences(160)
    y = targets_of(X)
    regressor = SequenceRegressor(cell=cell, epochs=25, **LEARNING)
    predicted = regressor.fit(X[:110], y[:110]).predict(X[110:])
    assert predicted.shape == (50, 2)
    assert r2_score(y[110:, 0], predicted[:, 0]) > 0.7
    assert r2_score(y[110:, 1], predicted[:, 1]) > 0.7
    assert regressor.score(X[110:], y[110:]) == r2_score(y[110:], predicted)


def test_a_tagger_learns_what_needs_memory() -> None:
    X = sequences(160)
    tagger = SequenceTagger(bidirectional=False, epochs=15, **LEARNING)
    tagger.fit(X[:110], steps_of(X[:110]))
    assert tagger.classes_.tolist() == ["minus", "plus"]
    assert tagger.score(X[110:], steps_of(X[110:])) > 0.85


@every
def test_features_are_standardised_inside(make: Any, y_of: Any) -> None:
    """Powers of two and whole numbers, so that hardly a bit is lost on the way."""
    X = sequences()
    expected = answers(fitted(make, y_of), X)
    moved = [x * np.array([2.0**40, 2.0**-40]) + np.array([2.0**42, 0]) for x in X]
    found = answers(make(**SETTINGS).fit(moved, y_of(X)), moved)
    assert_close(found, expected, 1e-3)


def test_targets_are_standardised_inside() -> None:
    X = sequences()
    y = targets_of(X)[:, 0]
    expected = SequenceRegressor(**SETTINGS).fit(X, y).predict(X)
    found = SequenceRegressor(**SETTINGS).fit(X, 2.0**60 * y).predict(X)
    assert_close(found, 2.0**60 * expected, 1e-12)


def test_what_never_changes_is_no_trouble() -> None:
    X = [np.column_stack([x, np.full(len(x), 0.1)]) for x in sequences()]
    classifier = SequenceClassifier(**SETTINGS).fit(X, classes_of(X))
    assert np.isfinite(answers(classifier, X)).all()
    regressor = SequenceRegressor(**SETTINGS).fit(X, np.full(len(X), 0.1))
    assert np.abs(regressor.predict(X) - 0.1).max() < 0.5


def test_numbers_that_float32_would_round_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    X = [1.7e9 + rng.choice([0.0, 1.0]) + np.zeros(4) for _ in range(60)]
    y = [x[0] > 1.7e9 for x in X]
    assert SequenceClassifier(8, epochs=20, random_state=0).fit(X, y).score(X, y) == 1


@pytest.mark.parametrize(
    "names",
    [
        np.array([3, -1, 7]), np.array([1.0, 2.0, 4.0]), np.array(["ä", "bc", "日本"]),
        np.array(["a", "b", "c"], object),
    ],
)  # fmt: skip
def test_labels_come_back_as_they_were(names: Array) -> None:
    X = sequences()
    codes = np.unique(classes_of(X), return_inverse=True)[1]
    classifier = SequenceClassifier(**SETTINGS).fit(X, names[codes])
    assert classifier.classes_.tolist() == sorted(names.tolist())
    predicted = classifier.predict(X)
    assert predicted.dtype == names.dtype
    assert predicted.shape == (len(X),)
    assert set(predicted.tolist()) <= set(names.tolist())
    tagger = SequenceTagger(**SETTINGS).fit(X, [names[np.arange(len(x)) % 3] for x in X])
    assert {one.dtype for one in tagger.predict(X)} == {names.dtype}


# --- predictions ----------------------------------------------------------------------------------


@every
@needs_kernels
def test_a_prediction_has_the_same_bits_in_any_company(make: Any, y_of: Any) -> None:
    X = sequences()
    estimator = fitted(make, y_of)
    together = answers(estimator, X)
    assert_same_bits(np.concatenate([answers(estimator, [x]) for x in X]), together)
    backwards = [answers(estimator, X[::-1][k : k + 7]) for k in range(0, len(X), 7)]
    if make is not SequenceTagger:
        assert_same_bits(np.concatenate(backwards)[::-1], together)


@every
def test_padded_sequences_are_as_lists_of_them(make: Any, y_of: Any) -> None:
    X = sequences()
    array, lengths = padded(X)
    expected = fitted(make, y_of)
    estimator = make(**SETTINGS).fit(array, y_of(X), lengths=lengths)
    assert_same_bits(weights(estimator), weights(expected))
    found = answers(estimator, array, lengths=lengths)
    assert_same_bits(found, answers(expected, X))
    score = estimator.score(array, y_of(X), lengths=lengths)
    assert score == expected.score(X, y_of(X))
    more = make(**SETTINGS)
    known = {} if make is SequenceRegressor else {"classes": ["a", "b", "c"]}
    if make is not SequenceTagger:
        more.partial_fit(array, y_of(X), lengths=lengths, **known)
        assert_same_bits(weights(more), weights(make(**SETTINGS).partial_fit(X, y_of(X), **known)))


def test_labels_of_padded_sequences_may_be_padded_too() -> None:
    X = sequences()
    array, lengths = padded(X)
    y = np.full((len(X), 8), "past", "U5")
    for row, labels in zip(y, steps_of(X), strict=True):
        row[: len(labels)] = labels
    tagger = SequenceTagger(**SETTINGS).fit(array, y, lengths=lengths)
    assert tagger.classes_.tolist() == ["minus", "plus"]
    assert_same_bits(weights(tagger), weights(fitted(SequenceTagger, steps_of)))


@every
def test_sequences_without_a_step_are_taken(make: Any, y_of: Any) -> None:
    X = sequences()
    y = list(y_of(X))
    X[3], X[30] = np.empty((0, 2)), np.array([])
    if make is SequenceTagger:
        y[3] = y[30] = np.array([])
    estimator = make(**SETTINGS).fit(X, y)
    predicted = estimator.predict([X[3], X[0], []])
    if make is SequenceTagger:
        assert [len(one) for one in predicted] == [0, len(X[0]), 0]
        assert predicted[0].dtype == predicted[1].dtype
        assert estimator.predict_proba([[]])[0].shape == (0, 2)
    else:
        assert predicted[0].tolist() == predicted[2].tolist()
    assert estimator.score(X, y) == estimator.score(X, y)


def test_probabilities_are_such_and_agree_with_predictions() -> None:
    X = sequences()
    for make, y_of in (CASES["classifier"], CASES["tagger"]):
        estimator = fitted(make, y_of)
        proba = np.concatenate([np.atleast_2d(one) for one in estimator.predict_proba(X)])
        assert proba.dtype == np.float64
        assert (proba >= 0).all()
        assert_close(proba.sum(axis=1), np.ones(len(proba)), 1e-15)
        predicted = estimator.predict(X)
        flat = np.concatenate(predicted) if make is SequenceTagger else predicted
        assert flat.tolist() == estimator.classes_[proba.argmax(axis=1)].tolist()


def test_in_one_direction_a_label_depends_on_what_came_before_alone() -> None:
    X = sequences(least=3)
    tagger = fitted(SequenceTagger, steps_of, bidirectional=False)
    whole = tagger.predict_proba(X)
    for start, all_of_it in zip(tagger.predict_proba([x[:3] for x in X]), whole, strict=True):
        assert_close(start, all_of_it[:3], 1e-6)


# --- weights --------------------------------------------------------------------------------------


@every
def test_only_the_proportions_of_weights_matter(make: Any, y_of: Any) -> None:
    X = sequences()
    y = y_of(X)
    given = np.random.default_rng(1).uniform(0, 2, len(X))
    found = weights(make(**SETTINGS).fit(X, y, sample_weight=given))
    assert_same_bits(weights(make(**SETTINGS).fit(X, y, sample_weight=4 * given)), found)
    assert_same_bits(
        weights(make(**SETTINGS).fit(X, y, sample_weight=np.ones(len(X)))),
        weights(fitted(make, y_of)),
    )
    assert not np.array_equal(found, weights(fitted(make, y_of)))


@every
def test_a_sample_that_weighs_nothing_teaches_nothing(make: Any, y_of: Any) -> None:
    X = sequences()
    y = np.array([*y_of(X), None], object)[:-1]  # of any shapes
    light = np.flatnonzero(np.arange(len(X)) % 3 == 0)
    other = y.copy()
    if make is SequenceTagger:
        other[light] = [one[::-1] for one in y[light]]
    else:  # the same targets altogether, for their deviation does not know of weights
        other[light] = y[np.roll(light, 1)]
    given = np.ones(len(X))
    given[light] = 0
    options = {**SETTINGS, "validation_fraction": 0.0}
    found, expected = (
        weights(make(**options).fit(X, list(labels), sample_weight=given)) for labels in (other, y)
    )
    assert_close(found, expected, 1e-5 if make is SequenceRegressor else 0)


def test_balanced_classes_are_scikit_learns() -> None:
    X = sequences()
    y = np.array(["rare" if k % 7 == 0 else "often" for k in range(len(X))])
    balanced = compute_sample_weight("balanced", y)
    expected = weights(SequenceClassifier(**SETTINGS).fit(X, y, sample_weight=balanced))
    by_name = {label: balanced[y == label][0] for label in ("rare", "often")}
    for class_weight in ("balanced", by_name):
        classifier = SequenceClassifier(class_weight=class_weight, **SETTINGS).fit(X, y)
        assert_close(weights(classifier), expected, 1e-5)
    both = SequenceClassifier(class_weight=by_name, **SETTINGS)
    both.fit(X, y, sample_weight=1 / balanced)
    assert_close(weights(both), weights(SequenceClassifier(**SETTINGS).fit(X, y)), 1e-5)


def test_a_tagger_balances_by_steps() -> None:
    X = sequences()
    y = steps_of(X)
    counts = dict(zip(*np.unique(np.concatenate(y), return_counts=True), strict=True))
    by_name = {str(label): 1 / count for label, count in counts.items()}
    found = weights(SequenceTagger(class_weight="balanced", **SETTINGS).fit(X, y))
    expected = weights(SequenceTagger(class_weight=by_name, **SETTINGS).fit(X, y))
    assert_close(found, expected, 1e-5)


@every
def test_scores_are_weighted(make: Any, y_of: Any) -> None:
    X = sequences()
    estimator, y = fitted(make, y_of), y_of(X)
    given = np.arange(len(X)) % 2
    half = [k for k in range(len(X)) if k % 2]
    expected = estimator.score([X[k] for k in half], [y[k] for k in half])
    assert abs(estimator.score(X, y, sample_weight=given) - expected) < 1e-12


@every
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.ones(3), ValueError, r"sample_weight: expected shape \(40,\)"),
        (-np.ones(40), ValueError, "sample_weight: expected finite numbers >= 0"),
        (np.full(40, np.nan), ValueError, "sample_weight: expected finite numbers"),
        (np.zeros(40), ValueError, "sample_weight: .* not all of them zero"),
        (["much"] * 40, TypeError, "sample_weight: expected numbers"),
    ],
)
def test_weights_that_cannot_be(
    make: Any, y_of: Any, given: Any, error: type[Exception], message: str
) -> None:
    X = sequences()
    with pytest.raises(error, match=f"^{message}"):
        make(**SETTINGS).fit(X, y_of(X), sample_weight=given)


# --- further training -----------------------------------------------------------------------------


def test_a_classifier_learns_from_batches_that_come_one_by_one() -> None:
    X = sequences(200)
    y = classes_of(X)
    classifier = SequenceClassifier(**LEARNING)
    for _ in range(8):
        for start in range(0, 150, 50):
            part = slice(start, start + 50)
            classifier.partial_fit(X[part], y[part], classes=["c", "a", "b"])
    assert classifier.score(X[150:], y[150:]) > 0.8
    assert len(classifier.history_.losses) == 8 * 3 * 4
    assert classifier.history_.validations == []


def test_a_regressor_learns_from_batches_that_come_one_by_one() -> None:
    X = sequences(200)
    y = targets_of(X)
    regressor = SequenceRegressor(**LEARNING)
    for _ in range(8):
        for start in range(0, 150, 50):
            regressor.partial_fit(X[start : start + 50], y[start : start + 50])
    assert regressor.score(X[150:], y[150:]) > 0.7


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_training_goes_on_after_fit_a_pickle_and_a_file(name: str, tmp_path: Path) -> None:
    make, y_of = CASES[name]
    X = sequences()
    first = fitted(make, y_of)
    before = weights(first)
    first.save(tmp_path / "model")
    others = [pickle.loads(pickle.dumps(first)), make.load(tmp_path / "model")]
    first.partial_fit(X, y_of(X))
    assert not np.array_equal(weights(first), before)
    assert_same_bits(weights(others[0].partial_fit(X, y_of(X))), weights(first))
    others[1].partial_fit(X, y_of(X))
    assert np.isfinite(weights(others[1])).all()
    # Its memory of the gradients is kept from call to call, through a pickle too.
    copied = pickle.loads(pickle.dumps(first))
    assert_same_bits(
        weights(copied.partial_fit(X, y_of(X))), weights(first.partial_fit(X, y_of(X)))
    )


def test_fit_forgets_what_partial_fit_learnt() -> None:
    X = sequences()
    classifier = SequenceClassifier(**SETTINGS).partial_fit(X, classes_of(X), classes=list("abcd"))
    assert classifier.classes_.tolist() == list("abcd")
    classifier.fit(X, classes_of(X))
    assert_same_bits(weights(classifier), weights(fitted(SequenceClassifier, classes_of)))


def test_calls_of_partial_fit_that_cannot_be() -> None:
    X = sequences()
    y = classes_of(X)
    classifier = SequenceClassifier(**SETTINGS)
    with pytest.raises(ValueError, match=r"^classes: all of them must be passed on the first call"):
        classifier.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"^y: expected the classes 'a', 'b', got 'c' as well"):
        classifier.partial_fit(X, y, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"^classes: expected at least two classes, got 1 class"):
        classifier.partial_fit(X, y, classes=["a"])
    assert not hasattr(classifier, "classes_")
    classifier.partial_fit(X, y, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"^classes: expected 'a', 'b', 'c', as before, got 'a'"):
        classifier.partial_fit(X, y, classes=["a", "b"])
    with pytest.raises(ValueError, match=r"^X\[0\]: expected 2 features a step, got 1"):
        classifier.partial_fit([x[:, :1] for x in X], y)
    classifier.set_params(class_weight="balanced")
    with pytest.raises(ValueError, match=r"^class_weight: 'balanced' needs all samples at once"):
        classifier.partial_fit(X, y)
    regressor = SequenceRegressor(**SETTINGS).partial_fit(X, targets_of(X))
    with pytest.raises(
        ValueError, match=r"^y: expected 2 targets of each sequence, as in the call"
    ):
        regressor.partial_fit(X, targets_of(X)[:, 0])


def test_a_class_that_has_not_come_yet_is_known() -> None:
    X = sequences()
    classifier = SequenceClassifier(**SETTINGS).partial_fit(X, classes_of(X), classes=list("abcz"))
    assert classifier.predict_proba(X).shape == (len(X), 4)


# --- bad input ------------------------------------------------------------------------------------

NOT_FINITE = [*sequences()[:39], np.full((2, 2), np.nan)]
INPUTS: list[tuple[Any, type[Exception], str]] = [
    ([], ValueError, "X: expected at least one sequence"),
    (sequences()[:39], ValueError, "y: expected .*(39|of X)"),
    (NOT_FINITE, ValueError, "X: expected finite numbers .* got NaN in sequence 39"),
    ([x[:0] for x in sequences()], ValueError, "X: expected at least one step"),
    (["text"] * 40, TypeError, r"X\[0\]: expected numbers"),
    (np.ones(40), ValueError, r"X: expected shape \(n, T, F\) or \(n, T\), got \(40,\)"),
]


@every
@pytest.mark.parametrize(("X", "error", "message"), INPUTS)
def test_inputs_that_cannot_be(
    make: Any, y_of: Any, X: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        make(**SETTINGS).fit(X, y_of(sequences()))


@every
def test_huge_numbers_are_standardised_like_others_and_strange_ones_refused(
    make: Any, y_of: Any
) -> None:
    X = sequences()
    estimator = make(**SETTINGS).fit([2.0**900 * x for x in X], y_of(X))
    assert np.isfinite(answers(estimator, [2.0**900 * x for x in X])).all()
    with pytest.raises(ValueError, match=r"^X: 1e\+60 is too far from the numbers"):
        fitted(make, y_of).predict([[[1e60, 0.0]]])


@every
def test_predict_wants_the_features_of_fit(make: Any, y_of: Any) -> None:
    estimator = fitted(make, y_of)
    assert estimator.n_features_in_ == 2
    with pytest.raises(ValueError, match=r"^X\[1\]: expected 2 features a step, got 3"):
        estimator.predict([np.ones((4, 2)), np.ones((4, 3))])
    with pytest.raises(ValueError, match=r"^X: expected at least one sequence"):
        estimator.predict([])


@pytest.mark.parametrize(
    ("name", "y", "error", "message"),
    [
        ("classifier", None, ValueError, "y: expected a class for each sample, got None"),
        ("classifier", ["a"] * 40, ValueError, "y: expected at least two classes, got 1 class"),
        ("classifier", ["a", "b"], ValueError, "y: expected 40 classes, as X has, got 2"),
        ("classifier", ["a", 1] * 20, ValueError, "y: expected classes of one kind, got int, str"),
        ("classifier", ["a", None] * 20, ValueError, "y: expected classes of one kind"),
        ("classifier", [0.0, np.nan] * 20, ValueError, "y: expected classes. Input y contains NaN"),
        ("classifier", np.linspace(0, 1, 40), ValueError, "Unknown label type: continuous"),
        ("classifier", np.ones((40, 2)), ValueError, "y should be a 1d array"),
        ("regressor", None, ValueError, "y: expected a number for each sample, got None"),
        ("regressor", np.ones(39), ValueError, r"y: expected shape \(40,\) or \(40, K\)"),
        ("regressor", np.ones((40, 0)), ValueError, r"y: expected shape .* got \(40, 0\)"),
        ("regressor", np.ones((40, 1, 1)), ValueError, r"y: expected shape .* got \(40, 1, 1\)"),
        ("regressor", [np.nan] * 40, ValueError, "y: expected finite numbers. .* NaN"),
        ("regressor", [np.inf] * 40, ValueError, "y: expected finite numbers. .* infinity"),
        ("regressor", ["1"] * 40, TypeError, "y: expected numbers"),
        ("regressor", [1j] * 40, TypeError, "y: expected numbers"),
        ("tagger", None, TypeError, "y: expected a list with the labels of each sequence"),
        ("tagger", "labels", TypeError, "y: expected a list with the labels of each sequence"),
        ("tagger", steps_of(sequences())[1:], ValueError, "y: expected the labels of 40 sequ"),
        ("tagger", [["a"]] * 40, ValueError, r"y\[\d+\]: expected \d labels, as X\[\d+\] has"),
        ("tagger", classes_of(sequences()), ValueError, r"y\[0\]: expected \d labels, .*\(\)"),
        (
            "tagger", [["a"] * len(x) for x in sequences()], ValueError,
            "y: expected at least two classes",
        ),
        (
            "tagger", [["a" if k else 1] * len(x) for k, x in enumerate(sequences())], ValueError,
            "y: expected classes of one kind",
        ),
        (
            "tagger", [np.linspace(0.1, 0.9, len(x)) for x in sequences()], ValueError,
            "Unknown label type: continuous",
        ),
    ],
)  # fmt: skip
def test_targets_that_cannot_be(name: str, y: Any, error: type[Exception], message: str) -> None:
    make, _ = CASES[name]
    with pytest.raises(error, match=f"^{message}"):
        make(**SETTINGS).fit(sequences(), y)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ("heavy", "class_weight: expected None, 'balanced' or a dict, got 'heavy'"),
        ({"z": 1}, "class_weight: 'z' is none of the classes"),
        ({"a": -1}, r"class_weight\['a'\]: expected a finite number >= 0"),
        ({"a": 0, "b": 0, "c": 0}, "class_weight: expected a weight above 0"),
    ],
)
def test_class_weights_that_cannot_be(class_weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        fitted(SequenceClassifier, classes_of, class_weight=class_weight)


# --- copies and files -----------------------------------------------------------------------------


@every
def test_copies_pickles_and_files_predict_alike(make: Any, y_of: Any, tmp_path: Path) -> None:
    X = sequences()
    estimator = fitted(make, y_of)
    estimator.save(tmp_path / "model")
    for other in (
        copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator)),
        make.load(tmp_path / "model"),
    ):  # fmt: skip
        assert_same_bits(answers(other, X), answers(estimator, X))
        assert other.get_params() == estimator.get_params()
        assert other.score(X, y_of(X)) == estimator.score(X, y_of(X))


@pytest.mark.parametrize("single", [True, False])
def test_a_file_knows_whether_targets_had_an_axis(single: bool, tmp_path: Path) -> None:
    X = sequences()
    y = targets_of(X)[:, :1]
    regressor = SequenceRegressor(**SETTINGS).fit(X, y[:, 0] if single else y)
    regressor.save(tmp_path / "model")
    loaded = SequenceRegressor.load(tmp_path / "model")
    shape = (len(X),) if single else (len(X), 1)
    assert loaded.predict(X).shape == regressor.predict(X).shape == shape
    assert loaded.n_outputs_ == 1


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("regressor", lambda header, _: header["fitted"].pop("single")),
        ("regressor", lambda header, _: header["fitted"].update(single=1)),
        ("regressor", lambda header, _: header["fitted"].update(single=True)),
        ("regressor", lambda _, arrays: arrays.pop("targets.mean")),
        ("regressor", lambda _, arrays: arrays.update({"targets.mean": np.zeros(3)})),
        ("regressor", lambda _, arrays: arrays.update({"more": np.zeros(3)})),
        ("tagger", lambda header, _: header["params"].update(pooling="mean")),
        ("tagger", lambda header, _: header["fitted"].update(more=1)),
        ("tagger", lambda header, _: header["fitted"].update(classes={})),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    name: str, edit: Any, tmp_path: Path
) -> None:
    make, y_of = CASES[name]
    fitted(make, y_of).save(tmp_path / "model")
    file = storage.load(tmp_path / "model")
    edit(file.header, file.arrays)
    storage.save(tmp_path / "edited", file.kind, file.arrays, file.header)
    with pytest.raises(FormatError, match="edited"):
        make.load(tmp_path / "edited")
