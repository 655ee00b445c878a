"""vocabularies: texts as ids and back, what unknown things cost, and writing piece by piece."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm.tasks.language_model.vocabularies import (
    CODE_POINTS,
    Characters,
    Tokens,
    Vocabulary,
    vocabulary_from_json,
    vocabulary_of,
)

ENGLISH = "the cat sat on the mat; the dog sat on the log.\n"
CHINESE = "話說天下大勢，分久必合，合久必分。\n"
LEVELS = ("char", "word", "whitespace", "subword")


def made(level: str, text: str = ENGLISH * 2 + CHINESE * 2, **options: int | None) -> Vocabulary:
    settings = {"min_frequency": None, "most": 300 if level == "subword" else None} | options
    return vocabulary_of([text], level=level, **settings)


def written(vocabulary: Vocabulary, text: str, prompt: str = "") -> str:
    return "".join(map(vocabulary.writer(prompt), vocabulary.encode(text).tolist()))


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_ids_lie_in_range_and_so_do_those_of_unknown_things(level: str) -> None:
    vocabulary = made(level)
    ids = vocabulary.encode("the zebra ate 合 \ud800 and ß\n\nx")
    assert ids.dtype == np.int64
    assert 0 <= ids.min() <= ids.max() < vocabulary.inputs
    assert vocabulary.outputs in (vocabulary.inputs, vocabulary.inputs - 1)
    assert 0 <= vocabulary.start < vocabulary.inputs
    assert vocabulary.encode("").tolist() == []
    assert len(vocabulary.tokens(ids)) == len(ids)


@pytest.mark.parametrize("level", LEVELS)
def test_a_vocabulary_comes_back_from_json(level: str) -> None:
    vocabulary = made(level)
    again = vocabulary_from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again.level == level
    assert again.encode(ENGLISH + CHINESE + "ß").tolist() == (
        vocabulary.encode(ENGLISH + CHINESE + "ß").tolist()
    )
    assert again.to_json() == vocabulary.to_json()
    assert repr(again) == repr(vocabulary)


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_written_is_what_was_read(level: str) -> None:
    vocabulary = made(level)
    text = "the cat sat on the log.\nthe dog\n"
    back = text.replace(".", " .") if level == "word" else text
    assert written(vocabulary, text) == (text.replace("log.", "log.") if level != "word" else back)


@pytest.mark.parametrize("saved", [
    {}, {"level": "char"}, {"level": "char", "characters": "", "unknown_probability": 0.1},
    {"level": "char", "characters": "aa", "unknown_probability": 0.1},
    {"level": "char", "characters": ["a"], "unknown_probability": 0.1},
    {"level": "char", "characters": "ab", "unknown_probability": 0},
    {"level": "word", "vocabulary": [1], "lowercase": False, "merges": []},
    {"level": "letter", "vocabulary": [], "lowercase": False, "merges": []},
])  # fmt: skip
def test_json_that_is_no_vocabulary_is_refused(saved: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        vocabulary_from_json(saved)


# --- characters -----------------------------------------------------------------------------------


def test_ids_are_places_in_the_vocabulary_in_any_order() -> None:
    vocabulary = Characters("zaß合b")
    assert vocabulary.encode("abzß合c\ud800").tolist() == [1, 4, 0, 2, 3, 5, 5]
    assert vocabulary.tokens(np.array([1, 5])) == ["a", "\N{REPLACEMENT CHARACTER}"]
    assert (vocabulary.inputs, vocabulary.outputs, vocabulary.start) == (6, 5, 5)


@given(st.text(), st.text(min_size=1))
def test_characters_are_found_as_a_dictionary_finds_them(text: str, known: str) -> None:
    characters = "".join(dict.fromkeys(c for c in known if not 0xD800 <= ord(c) < 0xE000)) or "a"
    table = {c: k for k, c in enumerate(characters)}
    expected = [table.get(c, len(characters)) for c in text]
    assert Characters(characters).encode(text).tolist() == expected


@pytest.mark.parametrize(
    ("characters", "error"), [("", ValueError), ("aba", ValueError), (b"ab", TypeError),
                              ("a\ud800", ValueError)],
)  # fmt: skip
def test_a_vocabulary_is_distinct_characters(characters: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="characters: expected"):
        Characters(characters)


def test_unknown_characters_share_what_turing_estimates() -> None:
    # "d" and "e" came once in 20 characters.
    assert Characters.of(["abc" * 6, "de"]).unknown_probability == pytest.approx(3 / 22)
    assert Characters.of(["ab"]).unknown_probability == pytest.approx(3 / 4)


def test_characters_that_are_left_out_are_counted_as_unknown() -> None:
    rare = Characters.of(["aaabbc"], min_frequency=2)
    assert (rare.characters, rare.unknown_probability) == ("ab", pytest.approx(2 / 8))
    few = Characters.of(["aaabbc"], most=1)
    assert (few.characters, few.unknown_probability) == ("a", pytest.approx(4 / 8))
    with pytest.raises(ValueError, match="min_frequency: no character comes 9 times"):
        Characters.of(["abc"], min_frequency=9)


def test_probabilities_of_all_of_unicode_add_up_to_one() -> None:
    vocabulary = Characters("abcd", 0.25)
    softmax = np.log([0.1, 0.2, 0.3, 0.4, 1.0])  # of an unknown one it says nothing
    found = np.exp(vocabulary.with_unknown(softmax, np.arange(5)))
    assert found[:4].sum() == pytest.approx(0.75, rel=1e-12)
    assert found[4] * (CODE_POINTS - 4) == pytest.approx(0.25, rel=1e-12)


# --- words ----------------------------------------------------------------------------------------


def test_line_ends_are_tokens_and_stand_before_a_text() -> None:
    vocabulary = made("whitespace", "a b\nb a\n")
    ids = vocabulary.encode("a  b \n\nb")
    assert vocabulary.tokens(ids) == ["a", "b", "<eos>", "<eos>", "b"]
    assert vocabulary.encode("\n").tolist() == [vocabulary.start]
    assert vocabulary.encode(" ").tolist() == []


def test_a_corpus_that_is_tokenised_already_says_what_is_unknown() -> None:
    """As the Penn Treebank does: its <unk> is what any other word is."""
    vocabulary = made("whitespace", " the <unk> sat \n the <unk> <unk> sat \n")
    ids = vocabulary.encode("the zebra <unk>")
    assert ids[1] == ids[2] == vocabulary.unknown
    assert vocabulary.tokens(ids) == ["the", "<unk>", "<unk>"]
    assert vocabulary.tokens(np.arange(vocabulary.outputs)) == ["<unk>", "<eos>", "sat", "the"]


def test_rare_words_are_unknown() -> None:
    vocabulary = made("word", "a a a b b c")
    assert vocabulary.tokens(vocabulary.encode("a b c")) == ["a", "b", "<unk>"]
    every = made("word", "a a a b b c", min_frequency=1)
    assert every.tokens(every.encode("a b c")) == ["a", "b", "c"]
    few = made("word", "a a a b b c", min_frequency=1, most=1)
    assert few.tokens(few.encode("a b c")) == ["a", "<unk>", "<unk>"]


def test_the_probability_of_an_unknown_word_is_that_of_its_token() -> None:
    log_prob = np.log([0.5, 0.25])
    assert made("word").with_unknown(log_prob, np.array([0, 1])).tolist() == log_prob.tolist()


def test_words_are_written_with_blanks_between_them() -> None:
    vocabulary = made("whitespace")
    assert written(vocabulary, "the cat", "") == "the cat"
    assert written(vocabulary, "the cat", "on") == " the cat"
    assert written(vocabulary, "the cat", "on ") == "the cat"
    assert written(vocabulary, "the cat", "on\n") == "the cat"
    assert written(vocabulary, "the\ncat", "on") == " the\ncat"


# --- pieces ---------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_pieces_are_written_as_they_were_and_no_character_comes_in_parts(text: str) -> None:
    vocabulary = made("subword")
    write = vocabulary.writer("")
    parts = [write(id_) for id_ in vocabulary.encode(text).tolist()]
    assert "".join(parts) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts) or "\ufffd" in text


def test_pieces_of_a_broken_character_end_at_a_line_end() -> None:
    vocabulary = made("subword")
    ids = vocabulary.encode("ab😀")[:-1].tolist()
    write = vocabulary.writer("")
    assert "".join(map(write, [*ids, vocabulary.start])) == "ab\N{REPLACEMENT CHARACTER}\n"
    assert write(vocabulary.encode("cat")[0]) in "cat"


def test_a_blank_is_dropped_at_the_beginning_of_a_line_alone() -> None:
    vocabulary = made("subword")
    assert written(vocabulary, "the cat", "on") == " the cat"
    assert written(vocabulary, "the cat", "on\n") == "the cat"


# --- figures --------------------------------------------------------------------------------------


def test_an_unknown_character_costs_its_share() -> None:
    vocabulary = Characters("ab", 0.5)
    cost = vocabulary.with_unknown(np.zeros(1), np.array([2]))[0]
    assert cost == pytest.approx(math.log(0.5 / (CODE_POINTS - 2)))


def test_tokens_are_made_of_words_or_pieces_alone() -> None:
    from fastlstm.tasks.text.tokenizer import Tokenizer

    with pytest.raises(ValueError, match="level: expected one of"):
        Tokens(Tokenizer.fit(["ab"], level="char"))
