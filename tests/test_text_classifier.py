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
from fastlstm.tasks._classes import class_weights
from fastlstm.tasks._corpus_vectors import (
    _information,
    _neighbours,
    _normalised,
    corpus_vectors,
)
from fastlstm.tasks._spelling import Spelling
from fastlstm.tasks._text_network import TextNetwork, WordVectors
from fastlstm.tasks._texts import Texts, Words
from fastlstm.tasks._vectors import read_vectors
from fastlstm.tasks.explanation import integrated_gradients
from fastlstm.tasks.text import UNKNOWN, Tokenizer
from tests.support import Array, assert_same_bits

GOOD, BAD = ["good", "great", "fine", "funny"], ["bad", "awful", "dull", "sad"]
THINGS = ["film", "plot", "actor", "scene", "song"]


def reviews() -> tuple[list[str], list[str]]:
    """Texts in which "not" turns the meaning of what follows."""
    texts, labels = [], []
    for words, label, turned in ((GOOD, "pos", "neg"), (BAD, "neg", "pos")):
        for word in words:
            for thing in THINGS:
                texts += [f"the {thing} is {word}", f"the {thing} is not {word}"]
                labels += [label, turned]
    return texts, labels


SMALL: dict[str, Any] = {
    "hidden_size": 8, "embedding_size": 8, "dropout": 0.0, "epochs": 25, "batch_size": 8,
    "learning_rate": 0.02, "validation_fraction": 0.0, "random_state": 0,
}  # fmt: skip


def small(**options: Any) -> TextClassifier:
    return TextClassifier(**{**SMALL, **options})


@pytest.fixture(scope="module")
def fitted() -> TextClassifier:
    return small().fit(*reviews())


def quick(**options: Any) -> TextClassifier:
    """One that has been trained, but hardly."""
    return small(epochs=1, batch_size=40, **options).fit(*reviews())


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


def test_vectors_that_are_not_trained_stay() -> None:
    for train_vectors in (True, False):
        classifier = quick(train_vectors=train_vectors)
        start = quick(train_vectors=train_vectors, learning_rate=1e-30)
        same = np.array_equal(classifier.network_.words.own.weight, start.network_.words.own.weight)
        assert same is not train_vectors


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


# --- explanations ---------------------------------------------------------------------------------


def test_contributions_add_up_to_the_log_odds(fitted: TextClassifier) -> None:
    for text in ("The film is not good!", "awful and dull, but funny", "nothing known here", "x"):
        for label in (None, "pos", "neg"):
            explanation = fitted.explain(text, label)
            place = fitted.classes_.tolist().index(explanation.label)
            p = fitted.predict_proba([text])[0, place]
            assert explanation.probability == pytest.approx(p, rel=1e-5)
            assert explanation.log_odds == pytest.approx(np.log(p / (1 - p)), abs=1e-4)
            total = sum(token.contribution for token in explanation.tokens)
            difference = explanation.log_odds - explanation.baseline
            assert total + explanation.error == pytest.approx(difference, abs=1e-6)
            assert abs(explanation.error) <= max(0.011 * abs(difference), 0.006)
            assert [token.text for token in explanation.tokens] == [
                text[token.start : token.stop] for token in explanation.tokens
            ]


def test_the_words_that_count_are_found() -> None:
    texts, labels = reviews()
    plain = [(text, label) for text, label in zip(texts, labels, strict=True) if "not" not in text]
    classifier = small().fit(*zip(*plain, strict=True))
    explanation = classifier.explain("the scene is awful", "neg")
    largest = max(explanation.tokens, key=lambda token: token.contribution)
    assert (largest.text, largest.start, largest.stop) == ("awful", 13, 18)


def test_what_speaks_for_one_of_two_classes_speaks_against_the_other(
    fitted: TextClassifier,
) -> None:
    text = "the scene is not awful"
    for_, against = (fitted.explain(text, label).tokens for label in ("pos", "neg"))
    for one, other in zip(for_, against, strict=True):
        assert one.contribution == pytest.approx(-other.contribution, abs=1e-4)


def test_unknown_words_add_nothing(fitted: TextClassifier) -> None:
    explanation = fitted.explain("unheard-of is bad")
    contributions = {token.text: token.contribution for token in explanation.tokens}
    assert contributions["unheard"] == contributions["of"] == 0  # nor does their spelling
    assert fitted.explain("").tokens == ()


def test_an_integral_along_a_line_is_exact_for_polynomials() -> None:
    rng = np.random.default_rng(0)
    baseline, vectors, weight = rng.standard_normal((3, 4, 2))

    def gradient(line: Array) -> tuple[Array, Array]:
        product = np.einsum("tbd,td->b", line, weight)
        return product**3, 3 * product[:, np.newaxis] ** 2 * weight[:, np.newaxis]

    # f = (Σ w·x)³ along the line: each step's share of the change of the sum.
    share = (weight * (vectors - baseline)).sum(axis=1)
    start, end = float((weight * baseline).sum()), float((weight * vectors).sum())
    expected = share * (end**3 - start**3) / (end - start)
    np.testing.assert_allclose(integrated_gradients(gradient, baseline, vectors), expected)


def some_words(rng: np.random.Generator, *, letters: bool = True) -> Words:
    """Six words at (T, B) = (5, 2), three of them known."""
    spelling = Spelling(["ab", "abc", "bcd", "x"])
    spelt = spelling.matrix(["abc", "abcd", "bcd", "", "xabc", "abcdef"]) if letters else None
    return Words(rng.integers(6, size=(5, 2)), np.array([4, 5, 6, 1, 1, 1], np.int32), spelt)


def network_of(words: Words, **options: Any) -> TextNetwork:
    groups = 0 if words.letters is None else words.letters.shape[1]
    return TextNetwork(
        2, start=np.random.default_rng(0), vocabulary=7, groups=groups, size=3, hidden_size=4,
        bidirectional=True, pooling="attention", **options,
    )  # fmt: skip


def test_the_gradient_of_vectors_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    network = network_of(some_words(rng))
    vectors = rng.standard_normal((5, 2, 3)).astype(np.float32)
    d_logits = rng.standard_normal((2, 2)).astype(np.float32)
    logits, d_vectors = network.gradient(vectors, lambda _: d_logits)
    assert_same_bits(logits, network.logits_of(vectors))
    for place in np.ndindex(vectors.shape):
        step = np.zeros_like(vectors)
        step[place] = 1e-2
        change = network.logits_of(vectors + step) - network.logits_of(vectors - step)
        assert d_vectors[place] == pytest.approx((change * d_logits).sum() / 2e-2, abs=1e-4)


@pytest.mark.parametrize("letters", [True, False])
@pytest.mark.parametrize("word_dropout", [0.0, 0.5])
def test_the_gradients_of_a_network_are_those_of_finite_differences(
    letters: bool, word_dropout: float
) -> None:
    words = some_words(np.random.default_rng(1), letters=letters)
    network = network_of(words, word_dropout=word_dropout)
    batch = (words, np.array([5, 3]), (np.array([0, 1]), np.array([1, 0.5], np.float32)))

    def loss() -> float:
        return network.loss_and_grads(batch, None, np.random.default_rng(3))[0]

    _, grads, _ = network.loss_and_grads(batch, None, np.random.default_rng(3))
    assert grads.keys() == network.parameters().keys()
    for name in ["words.own.weight", "words.letters.weight", "reader.head.bias"]:
        for place in np.ndindex(grads[name].shape) if name in grads else ():
            values = []
            for step in (1e-2, -2e-2):
                with network.parameters().editing() as parameters:
                    parameters[name][place] += step
                values.append(loss())
            with network.parameters().editing() as parameters:
                parameters[name][place] += 1e-2
            expected = (values[0] - values[1]) / 2e-2
            assert grads[name][place] == pytest.approx(expected, abs=2e-4), (name, place)


def test_word_dropout_takes_words_for_unknown_and_half_of_them_without_letters() -> None:
    words = WordVectors(6, 2, 3, start=np.random.default_rng(0), word_dropout=0.4)
    with words.parameters().editing() as parameters:
        parameters["own.weight"][...] = np.arange(6)[:, np.newaxis]
        parameters["letters.weight"][...] = 10
    places = np.zeros((100, 50), np.int64)
    batch = Words(places, np.array([5], np.int32), Spelling(["abc", "bcd"]).matrix(["abc"]))
    seen, counts = np.unique(
        words.forward(batch, np.random.default_rng(0))[0][..., 0], return_counts=True
    )
    known, unknown = 5, UNKNOWN
    assert seen.tolist() == [unknown, unknown + 10, known + 10]
    assert counts / places.size == pytest.approx([0.2, 0.2, 0.6], abs=0.03)
    assert (words.forward(batch, None)[0] == words(batch)).all()
    assert (words(batch) == known + 10).all()


# --- letters --------------------------------------------------------------------------------------


def test_groups_of_letters_are_those_that_several_words_have() -> None:
    spelling = Spelling.of(["cats", "cat", "catch", "dog"])
    assert spelling.groups == ("<ca", "<cat", "cat")
    matrix = spelling.matrix(["cat", "dog", "caté", ""]).toarray()
    third = 1 / np.sqrt(3)
    expected = [[third] * 3, [0, 0, 0], [third] * 3, [0, 0, 0]]
    np.testing.assert_allclose(matrix, expected, rtol=1e-6)
    assert matrix.dtype == np.float32


def test_unknown_words_are_known_by_their_letters() -> None:
    stems = ["calm", "dark", "fond", "glad", "kind", "loud", "mild", "neat", "pale", "rare"]
    texts = [f"{stem}{ending}" for stem in stems for ending in ("ness", "ly")] * 2
    labels = ["noun", "adverb"] * 20
    for letters, new in ((True, ["noun", "adverb"]), (False, None)):
        classifier = small(letters=letters, epochs=40).fit(texts, labels)
        predicted = classifier.predict(["sweetness", "sweetly"]).tolist()
        assert predicted == new if letters else predicted[0] == predicted[1]


@pytest.mark.parametrize("letters", [True, False])
def test_vectors_of_the_texts_tell_words_of_a_kind(letters: bool) -> None:
    texts = [
        f"the {animal} {sound}s at {place}"
        for animal, sound in (("dog", "bark"), ("wolf", "howl"), ("cow", "moo"))
        for place in ("night", "noon", "dawn")
    ] + ["we paid two coins", "they paid five coins", "you paid nine coins"]
    tokenizer = Tokenizer.fit(texts)
    spelling = Spelling.of(tokenizer.vocabulary) if letters else None
    read = Texts.read([*texts, ""], tokenizer, spelling)
    own, by_letters = corpus_vectors(read, len(tokenizer), 8, 0.5, np.random.default_rng(0))
    assert (by_letters is not None) is letters
    vectors = own[read.ids] + (read.letters @ by_letters if letters else 0)
    assert vectors.std() == pytest.approx(0.5, rel=1e-3)
    place = {word: k for k, word in enumerate(tokenizer.tokens(read.ids))}

    def like(one: str, other: str) -> float:
        a, b = vectors[place[one]], vectors[place[other]]
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    assert like("night", "dawn") > like("night", "coins")
    assert like("two", "nine") > like("two", "dog")


def test_few_texts_have_vectors_too() -> None:
    for texts in ([""], ["a"], ["a", "a"], ["one two"]):
        tokenizer = Tokenizer.fit(texts)
        read = Texts.read(texts, tokenizer, Spelling.of(tokenizer.vocabulary))
        own, _ = corpus_vectors(read, len(tokenizer), 5, 0.3, np.random.default_rng(0))
        assert own.shape == (len(tokenizer), 5)
        assert np.isfinite(own).all()


def test_vectors_of_the_texts_are_those_of_a_full_decomposition() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{k}" for k in rng.zipf(1.5, size=3000) if k < 60]
    texts = [" ".join(words[k : k + 10]) for k in range(0, len(words), 10)]
    tokenizer = Tokenizer.fit(texts)
    read = Texts.read(texts, tokenizer, None)
    own, _ = corpus_vectors(read, len(tokenizer), 50, 1.0, rng)  # all but the smallest
    rows = _normalised(_information(_neighbours(read))).toarray()
    left, values, _ = np.linalg.svd(rows)
    expected = (left[:, :50] * values[:50]) @ left[:, :50].T
    found = own[read.ids] @ own[read.ids].T
    # The same products of words with words, but for the factor that makes them as large as asked.
    found *= np.trace(expected) / np.trace(found)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_explanations_are_shown(fitted: TextClassifier) -> None:
    explanation = fitted.explain("a <bad> film", "neg")
    assert str(explanation).startswith("neg: 0.")
    assert "bad" in str(explanation)
    page = explanation.to_html()
    assert "&lt;<span" in page
    assert ">bad</span>&gt;" in page
    assert explanation._repr_html_() == page
    painted = explanation.to_terminal()
    assert "\x1b[30;48;5;82mbad\x1b[0m" in painted


def test_a_label_to_explain_is_a_class(fitted: TextClassifier) -> None:
    with pytest.raises(ValueError, match="label: expected one of"):
        fitted.explain("a", "so-so")
    with pytest.raises(TypeError, match="text"):
        fitted.explain(3)


# --- word vectors ---------------------------------------------------------------------------------


def test_vectors_come_from_files_of_all_makers(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    lines = "good 1 2.5 -3e-1\n. . . 4 5 6\nbad 7 8 9\ngood 0 0 0\n好 1 1 1\n"
    for header, ends in (("", "\n"), ("4 3\n", "\n"), ("", " \n"), ("4 3\n", "\r\n")):
        path.write_text(header + lines.replace("\n", ends), encoding="utf-8")
        vectors, which = read_vectors(path, ["bad", "dull", "好", "good", ". . ."])
        assert which.tolist() == [0, 2, 3, 4]
        expected = np.array([[7, 8, 9], [1, 1, 1], [1, 2.5, -0.3], [4, 5, 6]], np.float32)
        assert np.array_equal(vectors, expected)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "line 1"),
        ("good\n", "line 1"),
        ("good 1 2\nbad 3\n", "line 2: expected a word and 2 numbers"),
        ("2 2\nbad 3 4\ngood 1\n", "line 3"),
        ("good 1 x\n", "line 1.*float"),
        ("good 1 nan\n", "line 1: expected finite"),
        ("good 1 1e99\n", "line 1: expected finite"),
        ("ugly 1 2\n", "none of the 2 words"),
    ],
)
def test_files_that_are_no_vectors_are_refused(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=match), np.errstate(over="ignore"):
        read_vectors(path, ["good", "bad"])


def test_a_vocabulary_begins_with_vectors_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("good 3 4 5\nbad -3 -4 -5\n")
    classifier = quick(vectors=path, train_vectors=False, embedding_size=None)
    table = classifier.network_.words.own.weight
    good = classifier.tokenizer_.encode("good")[0]
    assert table[good].tolist() == [3, 4, 5]
    others = np.delete(table, classifier.tokenizer_.encode("good bad"), axis=0)
    assert others.std() == pytest.approx(np.std([3, 4, 5, -3, -4, -5]), rel=0.3)
    classifier.save(tmp_path / "model")
    path.unlink()
    assert TextClassifier.load(tmp_path / "model").vectors == str(path)
    with pytest.raises(FileNotFoundError):
        quick(vectors=path, embedding_size=None)
    path.write_text("good 3 4 5\n")
    with pytest.raises(ValueError, match="embedding_size: expected 3"):
        quick(vectors=path, embedding_size=4)
    with pytest.raises(ValueError, match="subword"):
        quick(vectors=path, level="subword")


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
