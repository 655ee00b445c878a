"""What words begin with: their letters, the texts themselves, or a file of vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastlstm.tasks import TextClassifier
from fastlstm.tasks.text.corpus_vectors import (
    _information,
    _neighbours,
    _normalised,
    corpus_vectors,
)
from fastlstm.tasks.text.spelling import Spelling
from fastlstm.tasks.text.tokenizer import Tokenizer
from fastlstm.tasks.text.vector_files import read_vectors
from fastlstm.tasks.text.words import Texts
from tests.reviews import quick, small


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


def test_vectors_that_are_not_trained_stay() -> None:
    for train_vectors in (True, False):
        classifier = quick(train_vectors=train_vectors)
        start = quick(train_vectors=train_vectors, learning_rate=1e-30)
        same = np.array_equal(classifier.network_.words.own.weight, start.network_.words.own.weight)
        assert same is not train_vectors
