"""TextClassifier: strings in, labels out, as scikit-learn has it; why, and from files."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.class_weight import compute_class_weight

import fastlstm
from fastlstm.storage import FormatError
from fastlstm.tasks import SequenceClassifier, TextClassifier
from fastlstm.tasks._base.supervision import class_weights
from fastlstm.tasks.text.network import TextNetwork
from tests.reviews import quick, reviews, small
from tests.support import assert_same_bits


@pytest.fixture(scope="module")
def fitted() -> TextClassifier:
    return small().fit(*reviews())


# --- learning -------------------------------------------------------------------------------------


def test_it_learns_that_not_turns_a_meaning(fitted: TextClassifier) -> None:
    texts, labels = reviews()
    assert fitted.score(texts, labels) == 1
    new = ["The song is not great", "is not sad", "the film is awful!"]
    assert fitted.predict(new).tolist() == ["neg", "pos", "neg"]


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "last"},
        {"pooling": "mean", "cell": "rnn"},
        {"pooling": "max", "bidirectional": False},
        {"pooling": "attention", "num_layers": 2},
        {"level": "char"},
        {"level": "subword", "max_vocabulary": 300},
        {"level": "whitespace"},
        {"min_frequency": 2, "max_vocabulary": 10, "word_dropout": 0.3, "dropout": 0.3},
        {"train_vectors": False, "class_weight": "balanced"},
    ],
    ids=str,
)
def test_every_option_trains_and_comes_back_from_a_file(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    texts, labels = reviews()
    classifier = small(epochs=3, **options).fit(texts, labels)
    losses = classifier.history_.losses
    assert np.mean(losses[-10:]) < np.mean(losses[:5])
    classifier.save(tmp_path / "model")
    loaded = TextClassifier.load(tmp_path / "model")
    assert_same_bits(loaded.predict_proba(texts[:5]), classifier.predict_proba(texts[:5]))
    assert loaded.get_params() == classifier.get_params()


def test_probabilities_are_softmax_and_labels_keep_their_kind() -> None:
    texts, names = reviews()
    for labels in (
        np.array(names),
        np.array(names, dtype=object),
        np.array(names) == "pos",
        np.where(np.array(names) == "pos", 7, -1),
    ):
        classifier = small(epochs=1).fit(texts, labels)
        proba = classifier.predict_proba(texts)
        assert proba.shape == (len(texts), 2)
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
        predicted = classifier.predict(texts)
        assert predicted.dtype == labels.dtype
        assert np.array_equal(predicted, classifier.classes_[proba.argmax(axis=1)])
        assert classifier.classes_.tolist() == sorted(set(labels.tolist()))


def test_one_seed_is_one_model() -> None:
    texts, _ = reviews()
    first, second, third = (quick(random_state=seed).predict_proba(texts) for seed in (3, 3, 4))
    assert_same_bits(first, second)
    assert not np.array_equal(first, third)


def test_a_texts_probabilities_do_not_depend_on_the_others(fitted: TextClassifier) -> None:
    texts = [*reviews()[0], "", "a much longer text " * 20]
    together = fitted.predict_proba(texts)
    np.testing.assert_allclose(
        np.concatenate([fitted.predict_proba([text]) for text in texts]), together, rtol=1e-6
    )
    assert np.array_equal(fitted.predict_proba(texts[::-1])[::-1], together)


def test_what_is_held_out_stops_the_training() -> None:
    texts, _ = reviews()
    noise = np.random.default_rng(0).integers(2, size=len(texts))
    classifier = small(validation_fraction=0.25, patience=2, epochs=30).fit(texts, noise)
    values = [value for _, value in classifier.history_.validations]
    assert len(values) < 30
    assert len(values) - 1 - int(np.argmin(values)) == 2


def test_ctrl_c_leaves_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, seen = small(validation_fraction=0.2, patience=5), []
    plain = TextNetwork.loss_and_grads

    def pressing(network: TextNetwork, *arguments: Any) -> Any:
        seen.append(None)
        if len(seen) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(network, *arguments)

    monkeypatch.setattr(TextNetwork, "loss_and_grads", pressing)
    texts, labels = reviews()
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(texts, labels)
    assert len(seen) == 20
    assert classifier.score(texts, labels) > 0.3
    classifier.partial_fit(texts, labels)


def test_weights_of_texts_count() -> None:
    texts, labels = ["maybe so"] * 40, ["pos", "neg"] * 20
    weights = np.where(np.array(labels) == "pos", 3.0, 1.0)
    classifier = small(epochs=20).fit(texts, labels, sample_weight=weights)
    assert classifier.predict_proba(["maybe so"])[0, 1] == pytest.approx(3 / 4, abs=0.06)
    zero = small(epochs=1).partial_fit(["a"], ["pos"], ["pos", "neg"], sample_weight=[2.0])
    assert len(zero.history_.losses) == 1


def test_a_fit_that_fails_leaves_what_was_there(fitted: TextClassifier) -> None:
    classifier = pickle.loads(pickle.dumps(fitted))
    with pytest.raises(ValueError, match="how"):
        classifier.set_params(pooling="sum").fit(["a", "b"], [0, 1])
    assert classifier.predict(["the film is awful"]).tolist() == ["neg"]


# --- partial_fit ----------------------------------------------------------------------------------


def test_partial_fit_goes_on_with_the_first_vocabulary() -> None:
    texts, labels = reviews()
    classifier = small()
    classifier.partial_fit(texts[:40], labels[:40], classes=["neg", "pos"])
    vocabulary = classifier.tokenizer_.vocabulary
    for _ in range(20):
        classifier.partial_fit([*texts, "an unheard-of word"], [*labels, "pos"])
    assert classifier.tokenizer_.vocabulary == vocabulary
    assert classifier.score(texts, labels) > 0.95
    assert len(classifier.history_.losses) == 5 + 20 * 11


def test_partial_fit_after_fit_or_load_goes_on(fitted: TextClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    texts, labels = reviews()
    opposite = ["pos" if label == "neg" else "neg" for label in labels]
    for classifier in (
        TextClassifier.load(tmp_path / "model"),
        pickle.loads(pickle.dumps(fitted)),
    ):
        for _ in range(25):
            classifier.partial_fit(texts, opposite)
        assert classifier.score(texts, opposite) > 0.9


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((["a"], ["pos"], None), "classes: all of them must be passed"),
        ((["a"], ["pos"], ["pos"]), "at least two"),
        ((["a"], ["so-so"], ["pos", "neg"]), "got 'so-so' as well"),
        ((["a"], [3], [1, 2]), "got 3 as well"),
        ((["a", "b"], ["pos"], ["pos", "neg"]), "y: expected 2"),
    ],
)
def test_a_first_partial_fit_that_makes_no_sense(arguments: Any, match: str) -> None:
    classifier = small()
    with pytest.raises(ValueError, match=match):
        classifier.partial_fit(*arguments)
    with pytest.raises(NotFittedError):
        classifier.predict(["a"])


def test_later_ones_may_not_change_the_classes(fitted: TextClassifier) -> None:
    with pytest.raises(ValueError, match="classes: expected"):
        fitted.partial_fit(["a"], ["pos"], classes=["pos", "neg", "so-so"])
    with pytest.raises(ValueError, match="class_weight"):
        small(class_weight="balanced").partial_fit(["a"], [1], classes=[0, 1])


# --- scikit-learn ---------------------------------------------------------------------------------


def test_it_stands_in_pipelines_and_searches() -> None:
    texts, labels = reviews()
    shout = FunctionTransformer(lambda X: [text.upper() for text in X])
    pipeline = make_pipeline(shout, small(epochs=3))
    assert pipeline.fit(texts, labels).predict(texts[:3]).shape == (3,)
    scores = cross_val_score(small(epochs=1), texts, labels, cv=2)
    assert scores.shape == (2,)
    search = GridSearchCV(small(epochs=1), {"pooling": ["max", "mean"]}, cv=2, n_jobs=2)
    search.fit(np.array(texts), labels)
    assert search.best_params_["pooling"] in ("max", "mean")


def test_processes_of_joblib_share_the_cores() -> None:
    count = joblib.delayed(fastlstm.get_num_threads)
    limits = joblib.Parallel(n_jobs=2)(count() for _ in range(2))
    assert all(n <= max(1, (os.cpu_count() or 1) // 2) for n in limits)


def test_clones_have_the_same_arguments_and_nothing_learnt(fitted: TextClassifier) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(["a"])
    with pytest.raises(NotFittedError):
        copy.explain("a")
    tags = fitted.__sklearn_tags__()
    assert (tags.estimator_type, tags.input_tags.string) == ("classifier", True)


def test_threads_may_predict_at_once(fitted: TextClassifier) -> None:
    texts, _ = reviews()
    expected, found = fitted.predict_proba(texts), []

    def work() -> None:
        found.append(np.array_equal(fitted.predict_proba(texts), expected))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [True] * 4


# --- weights of classes ---------------------------------------------------------------------------


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    targets = np.array([0] * 7 + [1] * 2 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    np.testing.assert_allclose(class_weights("balanced", np.array(list("abc")), targets), expected)
    assert class_weights({"b": 3}, np.array(list("abc")), targets).tolist() == [1, 3, 1]
    for wrong in ("heavy", {"d": 1}, {"a": -1}, {"a": "1"}, {"a": 0, "b": 0, "c": 0}, 3):
        with pytest.raises((TypeError, ValueError), match="class_weight"):
            class_weights(wrong, np.array(list("abc")), targets)


def test_a_rare_class_is_heard_if_it_is_weighted() -> None:
    texts = ["maybe so"] * 60  # nothing tells them apart
    labels = ["common"] * 50 + ["rare"] * 10
    plain = small(epochs=20).fit(texts, labels)
    balanced = small(epochs=20, class_weight="balanced").fit(texts, labels)
    assert plain.predict_proba(["maybe so"])[0, 1] == pytest.approx(1 / 6, abs=0.06)
    assert balanced.predict_proba(["maybe so"])[0, 1] == pytest.approx(1 / 2, abs=0.1)


# --- input ----------------------------------------------------------------------------------------


def test_texts_of_any_form_and_strange_ones_are_taken(fitted: TextClassifier) -> None:
    pandas = pytest.importorskip("pandas")
    texts, labels = reviews()
    expected = quick().predict_proba(texts)
    for X in (np.array(texts), np.array(texts, object), pandas.Series(texts), tuple(texts)):
        other = small(epochs=1, batch_size=40).fit(X, pandas.Series(labels))
        assert_same_bits(other.predict_proba(X), expected)
    strange = ["", "   ", "\ud800", "\0", "日本", "😀" * 1000, "not " * 2000]
    assert np.isfinite(fitted.predict_proba(strange)).all()
    assert small(epochs=1).fit(["", "", "a", ""], [0, 1, 0, 1]).predict([""]).shape == (1,)


@pytest.mark.parametrize(
    ("X", "y", "error", "match"),
    [
        ("one text", ["pos"], TypeError, "X: .*list of texts"),
        ([1, 2], [0, 1], TypeError, r"X\[0\]"),
        (["a", None], [0, 1], TypeError, r"X\[1\]"),
        (["a", float("nan")], [0, 1], ValueError, r"X\[1\]: .*missing"),
        ([], [], ValueError, "X: expected at least one"),
        (["a", "b"], ["pos", "pos"], ValueError, "two classes, got 1 class"),
        (["a", "b", "c"], [0, 1], ValueError, "y: expected 3 classes, as X has, got 2"),
        (["a", "b"], [0.5, 1.5], ValueError, "continuous"),
        (["a", "b"], ["pos", None], ValueError, "y: expected classes of one kind"),
        (["a", "b"], [0.0, float("nan")], ValueError, "NaN"),
        (["a", "b"], [[0, 1], [1, 0]], ValueError, "1d array"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(
    X: Any, y: Any, error: type[Exception], match: str
) -> None:
    classifier = small()
    with pytest.raises(error, match=match):
        classifier.fit(X, y)
    assert not hasattr(classifier, "network_")


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_size": 0}, {"level": "sentence"}, {"min_frequency": 0}, {"max_vocabulary": -1},
        {"embedding_size": 0}, {"num_layers": 0}, {"dropout": 1.5}, {"word_dropout": 1},
        {"pooling": "sum"}, {"cell": "gru"}, {"class_weight": "heavy"}, {"epochs": 0},
        {"batch_size": 0}, {"learning_rate": 0}, {"weight_decay": -1}, {"max_norm": 0},
        {"validation_fraction": 1}, {"patience": 0},
        {"random_state": "x"}, {"train_vectors": 1},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_arguments_are_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises((TypeError, ValueError)) as raised:
        small(**options).fit(*reviews())
    assert {"pooling": "how", "dropout": "p"}.get(name, name) in str(raised.value) or (
        name == "random_state"
    )


# --- files ----------------------------------------------------------------------------------------


def test_nothing_is_saved_before_fit(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        small().save(tmp_path / "model")


def test_files_of_others_are_refused(fitted: TextClassifier, tmp_path: Path) -> None:
    path = tmp_path / "model"
    X = [np.ones((3, 1)), np.zeros((3, 1))] * 4
    SequenceClassifier(2, epochs=1, validation_fraction=0).fit(X, [0, 1] * 4).save(path)
    with pytest.raises(FormatError, match="text-classifier"):
        TextClassifier.load(path)
    fitted.save(path)
    with pytest.raises(FormatError, match="sequence-classifier"):
        SequenceClassifier.load(path)
