"""Texts become ids and come back; what a file says makes a tokenizer, or an error."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlstm.tasks.text.tokenizer import (
    BEGIN,
    END,
    LEVELS,
    UNKNOWN,
    Tokenizer,
    check_texts,
    level_of,
)

ENGLISH = ["A dog, a cat.", "The dog doesn't bark!", "a cat sat; the dog ran."]
CHINESE = ["这部电影很好看。", "不好看,太无聊了。"]


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    return Tokenizer.fit(ENGLISH * 3 + CHINESE, level="subword", max_vocabulary=300)


# --- levels ---------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    return [text[start:stop] for start, stop in Tokenizer("word", []).spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It doesn't work, l'été.", ["It", "doesn't", "work", ",", "l'été", "."]),
        ("Is n't 3.5 < 4?", ["Is", "n't", "3", ".", "5", "<", "4", "?"]),
        ("很好看 iPhone手机。", ["很", "好", "看", "iPhone", "手", "机", "。"]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा", "।"]),
        ("한국어 영화", ["한국어", "영화"]),
        ("so 😀😀!", ["so", "😀", "😀", "!"]),
        (" \t\n\u3000", []),
        ("", []),
    ],
)
def test_words_are_letters_together_and_all_else_alone(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text(st.characters(codec="utf-8", max_codepoint=0x2FF)))
def test_words_of_western_text_are_the_ones_of_bert(text: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    text = text.translate(dict.fromkeys([0x27, *range(0x20), *range(0x7F, 0xA0), 0xAD], " "))
    # What Unicode calls punctuation stands alone there too, but not symbols and numbers' signs.
    text = "".join(c for c in text if c.isspace() or c.isalpha() or c in '.,;:!?()"-§¿¡«»')
    found = tokenizers.pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)
    assert words(text) == [word for word, _ in found]


def test_whitespace_leaves_tokens_as_they_are() -> None:
    tokenizer = Tokenizer.fit(["do n't re-imagine <unk> ."], level="whitespace")
    assert set(tokenizer.vocabulary) == {"do", "n't", "re-imagine", "<unk>", "."}
    assert UNKNOWN not in tokenizer.encode("<unk>")


def test_auto_takes_characters_for_chinese_and_words_for_the_rest() -> None:
    assert level_of(CHINESE) == "char"
    assert level_of(ENGLISH) == level_of([*ENGLISH, "好"]) == level_of([]) == "word"
    assert Tokenizer.fit(CHINESE, level="auto").level == "char"


def test_the_vocabulary_is_what_is_frequent() -> None:
    texts = ["b b b a a c c d"]
    assert Tokenizer.fit(texts).vocabulary == ("b", "a", "c", "d")
    assert Tokenizer.fit(texts, min_frequency=2).vocabulary == ("b", "a", "c")
    assert Tokenizer.fit(texts, max_vocabulary=2).vocabulary == ("b", "a")


def test_lower_case_keeps_places() -> None:
    tokenizer = Tokenizer.fit(["istanbul x"], lowercase=True)
    text = "İSTANBUL X"  # whose lower case has one character more
    assert tokenizer.decode(tokenizer.encode(text)) == "istanbul x"
    assert tokenizer.spans(text) == [(0, 8), (9, 10)]


def test_begin_and_end_stand_around_a_text() -> None:
    tokenizer = Tokenizer.fit(["a b"])
    assert tokenizer.encode("b c", begin=True, end=True).tolist() == [BEGIN, 5, UNKNOWN, END]
    assert tokenizer.tokens(tokenizer.encode("b c", begin=True)) == ["<begin>", "b", "<unknown>"]
    assert tokenizer.decode(np.array([BEGIN, 5, UNKNOWN, END, 0])) == "b \N{REPLACEMENT CHARACTER}"
    assert len(tokenizer) == 6


def test_ids_that_nothing_has_are_refused() -> None:
    with pytest.raises(IndexError, match="ids"):
        Tokenizer("char", "ab").decode(np.array([6]))


# --- laws -----------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(), max_size=30)  # surrogates and NUL as well


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=50)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
def test_tokens_have_places_in_order_and_what_was_learnt_is_known(
    pieces: Tokenizer, level: str, texts: list[str]
) -> None:
    tokenizer = pieces if level == "subword" else Tokenizer.fit(texts, level=level)
    encoded = tokenizer.encode_many(texts)
    assert encoded.rows.dtype == np.int32
    for text, ids in zip(texts, encoded, strict=True):
        assert np.array_equal(ids, tokenizer.encode(text))
        assert UNKNOWN not in ids
        spans = tokenizer.spans(text)
        assert len(spans) == len(ids)
        ends = [0, *(place for span in spans for place in span), len(text)]
        assert level == "subword" or ends == sorted(ends)
        assert all(0 <= start <= stop <= len(text) for start, stop in spans)
        covered = {place for span in spans for place in range(*span)}
        if level != "char":
            assert all(text[i].isspace() for i in range(len(text)) if i not in covered)


@pytest.mark.parametrize("level", ["char", "subword"])
@given(text=st.text(max_size=40))
def test_characters_and_pieces_give_the_text_back(pieces: Tokenizer, level: str, text: str) -> None:
    tokenizer = pieces if level == "subword" else Tokenizer.fit([text], level=level)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_pieces_are_those_of_tokenizers(pieces: Tokenizer) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.ByteLevelBPETokenizer(add_prefix_space=True)
    theirs.train_from_iterator(ENGLISH * 3 + CHINESE, 300, 1, show_progress=False)
    for text in [*ENGLISH, *CHINESE, "a new dog's 日本"]:
        encoded = theirs.encode(text)
        assert pieces.tokens(pieces.encode(text)) == encoded.tokens
        assert [id_ - 4 for id_ in pieces.encode(text)] == encoded.ids


@pytest.mark.parametrize("text", ["", "a", " two  blanks ", "日本 is 😀", "x\U0001f600\u200dé"])
def test_what_ids_add_to_a_text_joins_to_it(pieces: Tokenizer, text: str) -> None:
    for tokenizer in (pieces, Tokenizer.fit([text], level="char")):
        added = tokenizer.pieces(tokenizer.encode(text))
        assert "".join(added) == text
        assert len(added) == len(tokenizer.encode(text))


def test_special_ids_and_halves_of_characters_are_pieces_too(pieces: Tokenizer) -> None:
    assert pieces.pieces(pieces.encode("a", begin=True, end=True)) == ["<begin>", " a", "<end>"]
    broken = pieces.encode("é")[:-1]
    assert "".join(pieces.pieces(broken)) == ""
    words = Tokenizer.fit(["a b"])
    assert words.pieces(words.encode("b x a")) == ["b", "<unknown>", "a"]


# --- files ----------------------------------------------------------------------------------------


def test_json_and_pickle_give_the_same_tokenizer(pieces: Tokenizer) -> None:
    for tokenizer in (pieces, Tokenizer.fit(CHINESE, level="char"), Tokenizer.fit(ENGLISH)):
        for copy in (
            Tokenizer.from_json(tokenizer.to_json()),
            pickle.loads(pickle.dumps(tokenizer)),
        ):
            assert copy == tokenizer
            assert hash(copy) == hash(tokenizer)
            assert np.array_equal(copy.encode("a dog 好"), tokenizer.encode("a dog 好"))


def changed(saved: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**saved, **fields}


def test_json_that_makes_no_tokenizer_is_refused(pieces: Tokenizer) -> None:
    right = Tokenizer.fit(ENGLISH).to_json()
    subword = pieces.to_json()
    first = subword["vocabulary"]
    wrong = [
        None, [], {}, changed(right, more=1),
        changed(right, level="sentence"), changed(right, level=1), changed(right, lowercase=1),
        changed(right, vocabulary="abc"), changed(right, vocabulary=[1]),
        changed(right, vocabulary=["a", "a"]), changed(right, vocabulary=[""]),
        changed(right, merges=["a b"]),
        changed(subword, vocabulary=first[1:]), changed(subword, vocabulary=[*first, "日"]),
        changed(subword, merges=["a"]), changed(subword, merges=["Ġ nothing"]),
        changed(subword, merges=subword["merges"][:1] * 2), changed(subword, merges=[1]),
        changed(subword, merges=["a  b"]), changed(subword, merges=[" "]),
    ]  # fmt: skip
    for saved in wrong:
        with pytest.raises((TypeError, ValueError)):
            Tokenizer.from_json(saved)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"level": "sentence"}, "level"),
        ({"min_frequency": 0}, "min_frequency"),
        ({"max_vocabulary": 0}, "max_vocabulary"),
        ({"level": "subword", "max_vocabulary": 100}, "max_vocabulary"),
        ({"lowercase": "yes"}, "lowercase"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        Tokenizer.fit(ENGLISH, **options)


# --- processes and threads ------------------------------------------------------------------------

FORKING = """
import os
from fastlstm.tasks.text.tokenizer import Tokenizer
tokenizer = Tokenizer.fit(["a dog, a cat"] * 50, level="subword", max_vocabulary=270)
child = os.fork()
if not child:
    tokenizer.encode_many(["a dog"] * 100)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert "TOKENIZERS_PARALLELISM" not in os.environ
"""


def test_a_process_may_fork_after_learning_subwords_and_nobody_complains() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_setting_of_the_users_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    Tokenizer.fit(ENGLISH, level="subword", max_vocabulary=260)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


def test_threads_may_share_a_tokenizer(pieces: Tokenizer) -> None:
    expected = pieces.encode_many(ENGLISH * 20).rows
    found: list[bool] = []

    def work() -> None:
        found.append(np.array_equal(pieces.encode_many(ENGLISH * 20).rows, expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


# --- input ----------------------------------------------------------------------------------------


def test_texts_come_in_many_forms() -> None:
    pandas = pytest.importorskip("pandas")
    for X in (
        ["a", "b"], ("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], object),
        pandas.Series(["a", "b"], index=[7, 8]), (text for text in ("a", "b")),
    ):  # fmt: skip
        assert check_texts(X) == ["a", "b"]
    with pytest.raises(ValueError, match=r"X\[1\]: .*missing"):
        check_texts(pandas.Series(["a", pandas.NA]))
    with pytest.raises(ValueError, match="one axis"):
        check_texts(pandas.DataFrame({"text": ["a"]}))


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        ("a text", TypeError, "X: .*one str; put it into a list"),
        (b"bytes", TypeError, "one bytes"),
        (3, TypeError, "a int"),
        (None, TypeError, "NoneType"),
        ({"a": "b"}, TypeError, "a dict"),
        ([], ValueError, "at least one"),
        ([["a"]], TypeError, r"X\[0\]"),
        (["a", 3], TypeError, r"X\[1\]: .*got 3"),
        (["a", None], TypeError, r"X\[1\]: .*None"),
        (["a", b"b"], TypeError, "decode it"),
        (["a", float("nan")], ValueError, r"X\[1\]: .*missing"),
        (np.array([["a"]]), ValueError, "one axis"),
        (np.array("a"), ValueError, "one axis"),
        (np.array([1.0]), TypeError, r"X\[0\]"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(X: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        check_texts(X)
