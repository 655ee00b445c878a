"""_base.estimator: seeds, splits, stopping, Ctrl-C, files and parameters of all estimators.

SequenceClassifier stands for all of them here.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fastlstm import storage
from fastlstm.storage import FormatError
from fastlstm.tasks import SequenceClassifier
from fastlstm.tasks._base.estimator import Estimator
from fastlstm.tasks._base.supervision import labels_from_json, labels_to_json
from tests.processes import run_python
from tests.support import Array, assert_same_bits


def data(count: int = 40) -> tuple[list[Array], Array]:
    """Sequences of one number a step, and whether their mean is positive."""
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((rng.integers(2, 6), 1)) + rng.choice([-1, 1]) for _ in range(count)]
    return X, np.array([x.mean() > 0 for x in X])


def small(**options: Any) -> SequenceClassifier:
    settings = {
        "hidden_size": 3, "epochs": 3, "batch_size": 8, "validation_fraction": 0.1,
        "random_state": 0,
    }  # fmt: skip
    return SequenceClassifier(**{**settings, **options})


def weights(estimator: Estimator) -> Array:
    """All weights in one array."""
    return np.concatenate([a.ravel() for a in estimator.network_.parameters().values()])


# --- seeds ----------------------------------------------------------------------------------------


def test_a_seed_decides_everything() -> None:
    X, y = data()
    first = small().fit(X, y)
    assert_same_bits(weights(small().fit(X, y)), weights(first))
    assert_same_bits(weights(first.fit(X, y)), weights(small().fit(X, y)))
    assert not np.array_equal(weights(small(random_state=1).fit(X, y)), weights(first))
    again = small(random_state=np.random.RandomState(0))
    assert_same_bits(weights(again.fit(X, y)), weights(first))
    assert not np.array_equal(weights(again.fit(X, y)), weights(first))


def test_without_a_seed_numpys_global_one_decides_as_in_scikit_learn() -> None:
    X, y = data()
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(3)  # noqa: NPY002
        first, second = (weights(small(random_state=None).fit(X, y)) for _ in range(2))
        np.random.seed(3)  # noqa: NPY002
        assert_same_bits(weights(small(random_state=None).fit(X, y)), first)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    assert not np.array_equal(first, second)


# --- what is held out -----------------------------------------------------------------------------


@given(
    count=st.integers(2, 60),
    fraction=st.floats(0.01, 0.9),
    seed=st.integers(0, 100),
    classes=st.none() | st.integers(1, 6),
)
def test_a_split_is_of_all_examples_and_keeps_the_proportions(
    count: int, fraction: float, seed: int, classes: int | None
) -> None:
    labels = None
    if classes is not None:
        labels = np.random.default_rng(seed).integers(0, classes, count)
    able = count - (1 if labels is None else len(np.unique(labels)))
    assume(able)
    training, validation = small(validation_fraction=fraction)._split(
        count, seed=seed, stratify=labels
    )
    assert sorted([*training, *validation]) == list(range(count))
    assert (np.diff(training) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert len(validation) == min(max(1, round(count * fraction)), able)
    for label in [] if labels is None else np.unique(labels):
        assert label in labels[training]
        share = ((labels == label).sum() - 1) * len(validation) / able
        assert abs((labels[validation] == label).sum() - share) <= 1


def test_a_split_depends_on_its_seed_and_a_fraction_of_0_holds_nothing_out() -> None:
    estimator = small()
    splits = [estimator._split(100, seed=seed)[1].tolist() for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]
    training, validation = small(validation_fraction=0)._split(5, seed=0)
    assert training.tolist() == [0, 1, 2, 3, 4]
    assert not len(validation)


def test_what_cannot_be_split_says_so() -> None:
    with pytest.raises(ValueError, match=r"^validation_fraction: nothing of n_samples=1 can be"):
        small()._split(1, seed=0)
    with pytest.raises(ValueError, match=r"^validation_fraction: .* 0 holds nothing out"):
        small()._split(3, seed=0, stratify=np.arange(3))


def test_nothing_is_learnt_from_what_is_held_out() -> None:
    """Neither by the network nor by the standardising: other values there give the same bits."""
    X, y = data()
    estimator = small(epochs=1)
    seed = estimator._new_seed()
    _, validation = estimator._split(
        len(X), seed=seed, stratify=np.unique(y, return_inverse=True)[1]
    )
    expected = weights(estimator.fit(X, y))
    for k in validation:
        X[k] = X[k] * 3 + 1
    assert_same_bits(weights(estimator.fit(X, y)), expected)
    X[int(np.setdiff1d(np.arange(len(X)), validation)[0])] += 1
    assert not np.array_equal(weights(estimator.fit(X, y)), expected)


# --- stopping -------------------------------------------------------------------------------------


def with_validations(estimator: SequenceClassifier, values: list[float]) -> list[Array]:
    """Let the validations give these numbers; return the list of the weights at each."""
    seen: list[Array] = []
    train = estimator._train

    def trained(network: Any, *arguments: Any, validate: Any, **more: Any) -> None:
        def said() -> float:
            assert np.isfinite(validate())
            flat = [a.ravel() for a in network.parameters().values()]
            seen.append(np.concatenate(flat))
            return values[len(seen) - 1]

        train(network, *arguments, validate=said, **more)

    estimator._train = trained  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize(("patience", "validations"), [(1, 3), (2, 6), (None, 7)])
def test_patience_ends_the_training_and_the_best_weights_are_kept(
    patience: int | None, validations: int
) -> None:
    estimator = small(epochs=7, patience=patience)
    seen = with_validations(estimator, [3.0, 2.0, 2.0, 1.0, 5.0, 4.0, 3.0])
    estimator.fit(*data())
    assert len(seen) == validations
    best = seen[1] if patience == 1 else seen[3]
    assert_same_bits(weights(estimator), best)
    assert [step for step, _ in estimator.history_.validations] == [
        5 * (k + 1) for k in range(validations)
    ]


def test_without_validation_all_epochs_are_done() -> None:
    estimator = small(validation_fraction=0, patience=1, epochs=4).fit(*data())
    assert len(estimator.history_.losses) == 4 * 5
    assert estimator.history_.validations == []


def test_ctrl_c_leaves_the_best_weights_so_far() -> None:
    X, y = data()
    estimator = small(epochs=7)
    seen = with_validations(estimator, [3.0, 1.0, 2.0])
    estimator._train = interrupted(estimator._train, after=17)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(X, y)
    assert len(estimator.history_.losses) == 17
    assert_same_bits(weights(estimator), seen[1])
    assert estimator.predict(X).shape == (len(X),)


def test_ctrl_c_before_a_validation_leaves_the_weights_of_that_step() -> None:
    X, y = data()
    estimator = small(epochs=7)
    estimator._train = interrupted(estimator._train, after=3)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(X, y)
    assert len(estimator.history_.losses) == 3
    assert np.isfinite(estimator.predict_proba(X)).all()
    assert_same_bits(
        weights(pickle.loads(pickle.dumps(clone_state(estimator)))), weights(estimator)
    )


def clone_state(estimator: SequenceClassifier) -> SequenceClassifier:
    """The same without the method that a test has put into it."""
    copy = clone(estimator)
    vars(copy).update({k: v for k, v in vars(estimator).items() if k != "_train"})
    return copy


def interrupted(train: Callable[..., None], *, after: int) -> Callable[..., None]:
    """Training in which Ctrl-C comes within step number `after`."""

    def trained(network: Any, make_batch: Callable[..., Any], *more: Any, **named: Any) -> None:
        made = []

        def making(which: Array, *rng: np.random.Generator) -> Any:
            made.append(which)
            if len(made) == after:
                os.kill(os.getpid(), signal.SIGINT)
            return make_batch(which, *rng)

        train(network, making, *more, **named)

    return trained


INTERRUPTED = """
import sys, threading, time, os, signal
import numpy as np
from fastlstm.tasks import SequenceClassifier

rng = np.random.default_rng(0)
X = rng.standard_normal((200, 10, 2))
y = X.mean(axis=(1, 2)) > 0
classifier = SequenceClassifier(
    8, epochs=300, validation_fraction=0.1, patience=None, random_state=0
)

def press() -> None:
    while len(getattr(classifier, "history_", None) and classifier.history_.validations or ()) < 30:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press).start()
try:
    classifier.fit(X, y)
except KeyboardInterrupt:
    print("interrupted")
best = min(value for _, value in classifier.history_.validations)
print(len(classifier.history_.validations) >= 30, classifier.score(X, y) > 0.6)
path = sys.argv[1]
classifier.save(path)
loaded = SequenceClassifier.load(path)
print(np.array_equal(loaded.predict_proba(X), classifier.predict_proba(X)))
classifier.epochs = 1
print(classifier.fit(X, y).score(X, y) > 0.4)
"""


def test_a_real_ctrl_c_leaves_an_estimator_that_can_be_used(tmp_path: Path) -> None:
    printed = run_python("-c", INTERRUPTED, str(tmp_path / "model"))
    assert printed.split() == ["interrupted", "True", "True", "True", "True"]


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_the_best_weights() -> None:
    estimator = small(epochs=7)
    seen = with_validations(estimator, [1.0, 3.0, 2.0])
    train = estimator._train

    def spoiled(network: Any, make_batch: Any, *more: Any, **named: Any) -> None:
        made = []

        def making(which: Array, *rng: np.random.Generator) -> Any:
            x, lengths, target = make_batch(which, *rng)
            made.append(which)
            return (np.full_like(x, np.nan) if len(made) == 17 else x), lengths, target

        train(network, making, *more, **named)

    estimator._train = spoiled  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match="the loss is nan in step 17"):
        estimator.fit(*data())
    assert_same_bits(weights(estimator), seen[0])


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs: expected a whole number >= 1, got 0"),
        ({"epochs": 1.5}, TypeError, "epochs: expected a whole number, got 1.5"),
        ({"batch_size": 0}, ValueError, "batch_size: expected a whole number >= 1"),
        ({"batch_size": None}, TypeError, "batch_size: expected a whole number"),
        ({"learning_rate": 0}, ValueError, "learning_rate: expected a finite number > 0"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate: expected a number"),
        ({"weight_decay": -1}, ValueError, "weight_decay: expected a finite number >= 0"),
        ({"max_norm": 0}, ValueError, "max_norm: expected a finite number > 0"),
        ({"validation_fraction": 1}, ValueError, "validation_fraction: .*< 1, got 1"),
        ({"validation_fraction": -0.1}, ValueError, "validation_fraction: .*>= 0"),
        ({"patience": 0}, ValueError, "patience: expected a whole number >= 1, got 0"),
        ({"hidden_size": 0}, ValueError, "hidden_size: expected a whole number >= 1, got 0"),
        ({"num_layers": "2"}, TypeError, "num_layers: expected a whole number, got '2'"),
        ({"bidirectional": 1}, TypeError, "bidirectional: expected True or False, got 1"),
        ({"dropout": 1.5}, ValueError, "(dropout|p): expected a finite number .*<= 1"),
        ({"pooling": "sum"}, ValueError, "how: expected one of last, mean, max, attention"),
        ({"cell": "gru"}, ValueError, "cell: expected one of lstm, rnn, got 'gru'"),
        ({"random_state": "x"}, ValueError, ".*'x' cannot be used to seed"),
    ],
)
def test_settings_that_cannot_be_are_refused_and_leave_what_was_fitted(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    X, y = data()
    estimator = small().fit(X, y)
    before, expected = estimator.get_params(), estimator.predict_proba(X)
    estimator.set_params(**options)
    with pytest.raises(error, match=f"^{message}"):
        estimator.fit([x[:, :1] for x in X], np.where(y, "up", "down"))
    estimator.set_params(**before)
    assert_same_bits(estimator.predict_proba(X), expected)
    assert estimator.classes_.tolist() == [False, True]


def test_the_constructor_keeps_its_arguments_untouched() -> None:
    weird = {"hidden_size": object(), "class_weight": {1: 2}, "random_state": object()}
    estimator = SequenceClassifier(**weird)
    for name, value in weird.items():
        assert estimator.get_params()[name] is value
    assert vars(estimator).keys() == estimator.get_params().keys()


def test_what_is_not_fitted_says_so() -> None:
    X, y = data()
    for call in (
        lambda e: e.predict(X), lambda e: e.predict_proba(X), lambda e: e.score(X, y),
        lambda e: e.save("nowhere"),
    ):  # fmt: skip
        with pytest.raises(NotFittedError, match="SequenceClassifier instance is not fitted yet"):
            call(small())


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    small(verbose=True).fit(*data())
    captured = capsys.readouterr()
    assert "15/15" in captured.err
    assert captured.out == ""


# --- files ----------------------------------------------------------------------------------------


def test_a_file_gives_the_estimator_back(tmp_path: Path) -> None:
    X, y = data()
    estimator = small(bidirectional=False, pooling="attention", weight_decay=0.5).fit(X, y)
    estimator.save(tmp_path / "model")
    loaded = SequenceClassifier.load(tmp_path / "model")
    assert loaded.get_params() == estimator.get_params()
    assert_same_bits(loaded.predict_proba(X), estimator.predict_proba(X))
    assert_same_bits(loaded.classes_, estimator.classes_)
    assert loaded.n_features_in_ == 1
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()
    assert_same_bits(weights(loaded.fit(X, y)), weights(estimator.fit(X, y)))


def test_numbers_of_numpy_are_saved_and_what_json_cannot_hold_is_not(tmp_path: Path) -> None:
    estimator = small(
        hidden_size=np.int64(3), dropout=np.float64(0.25), random_state=np.random.RandomState(0),
        class_weight={False: 1.0, True: 2.0},
    )  # fmt: skip
    estimator.fit(*data()).save(tmp_path / "model")
    loaded = SequenceClassifier.load(tmp_path / "model")
    assert loaded.get_params()["dropout"] == 0.25
    assert loaded.random_state is None
    assert loaded.class_weight is None


def edited(path: Path, edit: Callable[[dict[str, Any], dict[str, Array]], None]) -> Path:
    """A file like this one, with a changed header or changed arrays."""
    file = storage.load(path)
    edit(file.header, file.arrays)
    target = path.with_name("edited")
    storage.save(target, file.kind, file.arrays, file.header)
    return target


EDITS: list[Callable[[dict[str, Any], dict[str, Array]], Any]] = [
    lambda header, _: header.pop("params"),
    lambda header, _: header.update(more=1),
    lambda header, _: header.update(params=[]),
    lambda header, _: header["params"].update(layers=2),
    lambda header, _: header["params"].update(hidden_size=2**14),
    lambda header, _: header["params"].update(num_layers=2**30),
    lambda header, _: header["params"].update(hidden_size="3"),
    lambda header, _: header["params"].update(cell="gru"),
    lambda header, _: header["params"].update(pooling=None),
    lambda header, _: header["fitted"].pop("classes"),
    lambda header, _: header["fitted"].update(classes={"dtype": "<U4", "values": []}),
    lambda header, _: header["fitted"].update(classes={"dtype": "|b1", "values": [True]}),
    lambda header, _: header["fitted"].update(classes=[]),
    lambda _, arrays: arrays.pop("features.mean"),
    lambda _, arrays: arrays.update({"features.deviation": np.array([0.0])}),
    lambda _, arrays: arrays.update({"features.deviation": np.array([np.nan])}),
    lambda _, arrays: arrays.update({"features.mean": np.zeros(2)}),
    lambda _, arrays: arrays.update({"features.mean": np.zeros(1, np.float32)}),
    lambda _, arrays: arrays.pop("network.head.bias"),
    lambda _, arrays: arrays.update({"network.head.bias": np.zeros(3, np.float32)}),
    lambda _, arrays: arrays.update({"network.more": np.zeros(3, np.float32)}),
]


@pytest.mark.parametrize("edit", EDITS)
def test_a_file_that_does_not_belong_together_is_refused(tmp_path: Path, edit: Any) -> None:
    path = tmp_path / "model"
    small().fit(*data()).save(path)
    with pytest.raises(FormatError, match=re.escape(str(tmp_path / "edited"))):
        SequenceClassifier.load(edited(path, edit))


def test_an_argument_that_a_file_does_not_name_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "model"
    small().fit(*data()).save(path)
    old = edited(path, lambda header, _: header["params"].pop("patience"))
    assert SequenceClassifier.load(old).patience == SequenceClassifier().patience


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    storage.save(tmp_path / "lstm", "lstm", {}, {})
    with pytest.raises(FormatError, match="sequence-classifier"):
        SequenceClassifier.load(tmp_path / "lstm")
    with pytest.raises(FileNotFoundError):
        SequenceClassifier.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "classes",
    [
        np.array([False, True]), np.array([-3, 5], np.int8), np.array([0, 2**64 - 1], np.uint64),
        np.array([0.5, 1.5]), np.array(["ä", "日本"]), np.array(["a", "b"], object),
    ],
)  # fmt: skip
def test_classes_survive_a_file(classes: Array) -> None:
    found = labels_from_json(labels_to_json(classes))
    assert found.tolist() == classes.tolist()
    assert found.dtype == classes.dtype


@pytest.mark.parametrize(
    "saved",
    [
        {"dtype": "<U100000000000", "values": [1]},
        {"dtype": "<i8", "values": ["a"]},
        {"dtype": "|u1", "values": [256]},
        {"dtype": "<i8", "values": [[1]]},
        {"dtype": "|O", "values": [[1], [2]]},
        {"dtype": "|O", "values": {}},
        {"dtype": "<M8[s]", "values": [1]},
        {"dtype": "|V8", "values": [1]},
        {"dtype": ["<i8"], "values": [1]},
        {"dtype": "<i8", "values": [None]},
    ],
)
def test_classes_of_a_strange_file_are_refused(saved: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        labels_from_json(saved)


def test_a_claimed_width_of_strings_takes_no_memory() -> None:
    assert labels_from_json({"dtype": "<U100000000000", "values": ["a"]}).dtype == np.dtype("U1")
