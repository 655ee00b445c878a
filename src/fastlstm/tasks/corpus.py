"""A corpus: one text, read from a UTF-8 file, and cut into what trains and what is held out."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

# The default corpus under the name by which the command line speaks of it.
DEFAULT_CORPUS = "pydoc_data.topics"


class CorpusError(ValueError):
    """A corpus that cannot be read or learnt from; the message is one line and names the file."""


def read_corpus(path: str | PathLike[str]) -> str:
    """The text of a UTF-8 file, without a byte order mark, its lines ended by "\\n" alone.

    Raises
    ------
    CorpusError
        If there is no such file, or it cannot be read, is empty, or is no UTF-8 text. A NUL
        byte, which no text has, counts as binary.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise CorpusError(f"{path}: is a folder; a corpus is one text file") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}: is no UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start}); "
            "a corpus is a text file in UTF-8"
        ) from None
    if "\0" in text:
        raise CorpusError(
            f"{path}: is no text but binary (a NUL at offset {data.index(0)}); "
            "a corpus is a text file in UTF-8"
        )
    if not text.strip():
        raise CorpusError(f"{path}: is empty")
    return text.replace("\r\n", "\n")


def default_corpus() -> str:
    """Python's language reference as every CPython brings it: pydoc's topics, in sorted order.

    Raises
    ------
    CorpusError
        If this Python comes without it, as some distributions' do.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise CorpusError(
            f"{DEFAULT_CORPUS}: this Python comes without its own documentation; "
            "name a text file to learn from"
        ) from None
    return "\n".join(topics[name] for name in sorted(topics))


def split_corpus(text: str) -> tuple[str, str]:
    """The text to train on, and its last 5 % (rounded down), held out."""
    cut = len(text) - len(text) // 20
    return text[:cut], text[cut:]
