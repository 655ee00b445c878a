"""corpus: texts read from files, and what is no text."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastlstm.tasks.corpus import CorpusError, default_corpus, read_corpus, split_corpus

CHINESE = "話說天下大勢，分久必合，合久必分。\n"


def test_a_corpus_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbf" + CHINESE.encode() + b"two\r\nthree\rfour\n")
    assert read_corpus(path) == CHINESE + "two\nthree\rfour\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \r\n\t", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"caf\xe9 au lait", r"no UTF-8 text \(byte 0xe9 at offset 3\)"),
        ("text".encode("utf-16"), "no UTF-8 text"),
        ("text".encode("utf-16-le"), r"binary \(a NUL at offset 1\)"),
        ("合".encode()[:2], "no UTF-8 text"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=message) as caught:
        read_corpus(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file"):
        read_corpus(tmp_path / "nothing")
    with pytest.raises(CorpusError, match="is a folder"):
        read_corpus(tmp_path)


def test_the_default_corpus_is_pythons_manual() -> None:
    text = default_corpus()
    assert text.startswith('The "assert" statement\n')
    assert len(text) > 400_000


def test_the_last_twentieth_is_held_out() -> None:
    text = "".join(chr(48 + k) for k in range(1039))
    training, held_out = split_corpus(text)
    assert training + held_out == text
    assert len(held_out) == 51
