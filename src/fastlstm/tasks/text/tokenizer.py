"""Text as ids, and back: what the estimators of text share.

Words and characters are found and counted in plain Python, which on sentences is twice as fast as
handing them to the package tokenizers, starts no threads (so that a process may fork later), and
cannot take a word of the text for a special entry, as "<unk>" in a corpus. Subwords, byte-level
BPE, are learnt and applied by tokenizers. What a file holds is a vocabulary and merges, never a
tokenizers' own JSON, whose regular expressions and paddings may do anything to who loads it.

A token's place in its text is known at every level, for explanations.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array, check_choice, check_flag, check_integers, check_size
from fastlstm.tasks._base.batches import Ragged

LEVELS = ("word", "whitespace", "subword", "char")
# The ids of what is no part of a text; those of words, pieces or characters follow.
PADDING, UNKNOWN, BEGIN, END = range(4)
SPECIALS = ("<padding>", "<unknown>", "<begin>", "<end>")
# Pieces that are learnt where no number is given.
SUBWORDS = 8000

Span = tuple[int, int]

# Scripts without blanks between words: Chinese characters and kana.
_CJK = r"\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Punctuation and symbols: of ASCII, Latin-1, Arabic and Indic scripts, the general ones but for
# the joiners U+200C and U+200D, CJK and full-width ones, and pictures.
_PUNCTUATION = (
    r"!-/:-@\[-`{-~\xa1-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf\xd7\xf7\u055a-\u055f\u0589\u05be"
    r"\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965\u0e2f\u0e5a\u0e5b\u2010-\u2027\u2030-\u206f"
    r"\u20a0-\u20cf\u2190-\u2bff\u2e00-\u2e7f\u3001-\u3004\u3008-\u3020\u3030\u303d\ufe30-\ufe6b"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\uffee\U0001f000-\U0001faff"
)
_LETTERS = rf"[^\s{_CJK}{_PUNCTUATION}]+"
# A word, with apostrophes inside; else a single character.
_WORD = re.compile(rf"{_LETTERS}(?:['’]{_LETTERS})*|\S")
_BLANKS = re.compile(r"\S+")
_CHARACTER = re.compile(r"(?s:.)")
_PATTERNS = {"word": _WORD, "whitespace": _BLANKS, "char": _CHARACTER}
_IDEOGRAPH = re.compile(f"[{_CJK}]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_texts(X: Any, name: str = "X") -> list[str]:
    """Return texts as a list of str.

    Parameters
    ----------
    X : iterable of str
        A list, an array, a pandas Series, a generator.
    name : str
        Of the argument, for messages.

    Raises
    ------
    TypeError
        If it is one string, or anything but strings is in it: bytes, numbers, None.
    ValueError
        If it is empty, of more than one axis, or has a missing value (NaN, pandas.NA).
    """
    if isinstance(X, (str, bytes)):
        raise TypeError(
            f"{name}: expected a list of texts, got one {type(X).__name__}; put it into a list"
        )
    if hasattr(X, "toarray"):
        raise TypeError(f"{name}: expected a list of texts, got a sparse matrix")
    if getattr(X, "ndim", 1) != 1:
        raise ValueError(
            f"{name}: expected one axis of texts, got shape {X.shape}; choose the column of texts"
        )
    if isinstance(X, Mapping) or not isinstance(X, Iterable):
        raise TypeError(f"{name}: expected a list of texts, got a {type(X).__name__}")
    texts = list(X)
    if not texts:
        raise ValueError(f"{name}: expected at least one text, got none (0 sample(s))")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            _refuse(f"{name}[{i}]", text)
    return texts


def _refuse(name: str, value: Any) -> None:
    """Raise for what is no text."""
    missing = type(value).__name__ in ("NAType", "NaTType")
    if missing or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        raise ValueError(
            f"{name}: expected a text, got {value!r}, a missing value; leave it out or put '' there"
        )
    hint = "; decode it first" if isinstance(value, (bytes, np.bytes_)) else ""
    raise TypeError(f"{name}: expected a text, got {value!r:.80}{hint}")


def level_of(texts: Iterable[str]) -> str:
    """What level="auto" means for these texts: "char" if most of what is not blank is CJK."""
    ideographs = others = 0
    for text in texts:
        found = 0 if text.isascii() else len(_IDEOGRAPH.findall(text))
        ideographs += found
        others += len(text) - found - sum(map(str.isspace, text))
    return "char" if ideographs > others else "word"


class Tokenizer:
    """Cuts texts into words, pieces or characters, and numbers these.

    Made by `fit`. Ids 0 to 3 are padding, unknown, begin and end; no text has them but unknown.

    Parameters
    ----------
    level : {"word", "whitespace", "subword", "char"}
        "word": words, each punctuation mark, and each character of a script without blanks;
        "whitespace": what stands between blanks, for texts that are tokenised already;
        "subword": pieces of byte-level BPE, in which nothing is unknown; "char": characters.
    vocabulary : sequence of str
        What has ids 4, 5, …
    lowercase : bool
        Whether texts are lower-cased first.
    merges : sequence of str, optional
        Of BPE, in order: two pieces and a blank between them.

    Raises
    ------
    TypeError, ValueError
        If they do not make a tokenizer.
    ImportError
        If tokenizers is needed and not installed.

    Examples
    --------
    >>> tokenizer = Tokenizer.fit(["A dog.", "A cat."], lowercase=True)
    >>> tokenizer.vocabulary
    ('.', 'a', 'cat', 'dog')
    >>> tokenizer.encode("a mouse.", end=True).tolist()
    [5, 1, 4, 3]
    >>> tokenizer.spans("a mouse.")
    [(0, 1), (2, 7), (7, 8)]
    """

    def __init__(
        self,
        level: str,
        vocabulary: Sequence[str],
        *,
        lowercase: bool = False,
        merges: Sequence[str] = (),
    ) -> None:
        self.level = check_choice("level", level, LEVELS)
        self.vocabulary = tuple(vocabulary)
        self.lowercase = check_flag("lowercase", lowercase)
        self.merges = tuple(merges)
        for piece in (*self.vocabulary, *self.merges):
            if not isinstance(piece, str) or not piece:
                raise ValueError(f"vocabulary: expected strings, got {piece!r:.80}")
        self._ids = {piece: id_ for id_, piece in enumerate(self.vocabulary, len(SPECIALS))}
        if len(self._ids) != len(self.vocabulary):
            raise ValueError("vocabulary: has an entry twice")
        if merges and level != "subword":
            raise ValueError(f"merges: level {level!r} has none")
        self._bpe = _bpe(self.vocabulary, self.merges) if level == "subword" else None

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        *,
        level: str = "word",
        lowercase: bool = False,
        min_frequency: int = 1,
        max_vocabulary: int | None = None,
    ) -> Self:
        """A tokenizer with the vocabulary of some texts, the most frequent entries first.

        Parameters
        ----------
        texts : iterable of str
        level : str
            As above, or "auto": see `level_of`.
        lowercase : bool
        min_frequency : int
            What comes less often is unknown; of "subword", pairs that are not merged.
        max_vocabulary : int, optional
            The most entries besides the special ones, by default all; 8000 of "subword", where it
            is 256 at least.
        """
        texts = [_clean(text) for text in texts]
        level = level_of(texts) if level == "auto" else level
        if level not in LEVELS:
            raise ValueError(f"level: expected auto or one of {', '.join(LEVELS)}, got {level!r}")
        least = check_size("min_frequency", min_frequency)
        most = None if max_vocabulary is None else check_size("max_vocabulary", max_vocabulary)
        if check_flag("lowercase", lowercase):
            texts = [_lower(text) for text in texts]
        if level == "subword":
            vocabulary, merges = _learn_bpe(texts, least, SUBWORDS if most is None else most)
            return cls(level, vocabulary, lowercase=lowercase, merges=merges)
        find = _PATTERNS[level].findall
        counts = Counter(token for text in texts for token in find(text))
        known = [(-n, token) for token, n in counts.items() if n >= least]
        return cls(level, [token for _, token in sorted(known)[:most]], lowercase=lowercase)

    def __len__(self) -> int:
        """How many ids there are, the special ones included."""
        return len(SPECIALS) + len(self.vocabulary)

    def __repr__(self) -> str:
        return f"Tokenizer({self.level!r}, {len(self)} ids, lowercase={self.lowercase})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.level, self.vocabulary))

    def __reduce__(self) -> tuple[Callable[..., Tokenizer], tuple[dict[str, Any]]]:
        return type(self).from_json, (self.to_json(),)

    # --- to ids -----------------------------------------------------------------------------------

    def encode(self, text: str, *, begin: bool = False, end: bool = False) -> Array:
        """The ids of a text, (N,) of int32, between begin and end where asked for."""
        return self.encode_many([text], begin=begin, end=end).rows

    def encode_many(
        self, texts: Iterable[str], *, begin: bool = False, end: bool = False
    ) -> Ragged:
        """The ids of texts, as one table."""
        first, last = [BEGIN] * begin, [END] * end
        every = [first + self._encode(text) + last for text in texts]
        lengths = np.array([len(ids) for ids in every], np.int64)
        flat = (id_ for ids in every for id_ in ids)
        return Ragged(np.fromiter(flat, np.int32, int(lengths.sum())), lengths)

    def spans(self, text: str) -> list[Span]:
        """Where each token stands: ``text[start:end]``.

        Pieces of one character's bytes have all of it.
        """
        prepared = self._prepare(text)
        if not prepared:
            return []
        if self._bpe is None:
            return [found.span() for found in _PATTERNS[self.level].finditer(prepared)]
        # Each but the first blank, which is not in the text, belongs to the piece behind it.
        offsets = self._bpe.encode(" " + prepared).offsets
        return [(max(0, start - 1), max(0, stop - 1)) for start, stop in offsets]

    def cut(self, text: str) -> list[str]:
        """The tokens of a text, known or not, lower-cased if that is asked for."""
        prepared = self._prepare(text)
        if not prepared:
            return []
        if self._bpe is not None:
            return list(self._bpe.encode(" " + prepared).tokens)
        return _PATTERNS[self.level].findall(prepared)

    def id_of(self, token: str) -> int:
        """Of a token that `cut` gave."""
        return self._ids.get(token, UNKNOWN)

    def _prepare(self, text: str) -> str:
        text = _clean(text)
        return _lower(text) if self.lowercase else text

    def _encode(self, text: str) -> list[int]:
        get = self._ids.get
        return [get(token, UNKNOWN) for token in self.cut(text)]

    # --- from ids ---------------------------------------------------------------------------------

    def tokens(self, ids: Array) -> list[str]:
        """What ids (N,) stand for; the special ones as "<unknown>" and so on."""
        checked = check_integers("ids", ids, ("N",), least=0, most=len(self) - 1)
        names = (*SPECIALS, *self.vocabulary)
        return [names[id_] for id_ in checked.tolist()]

    def decode(self, ids: Array) -> str:
        """The text of ids (N,); only "subword" and "char" have its blanks as they were.

        Unknown ones are U+FFFD, the other special ones nothing.
        """
        checked = check_integers("ids", ids, ("N",), least=0, most=len(self) - 1)
        kept = checked[(checked >= len(SPECIALS)) | (checked == UNKNOWN)]
        names = (*SPECIALS[:UNKNOWN], "\N{REPLACEMENT CHARACTER}", *SPECIALS[2:], *self.vocabulary)
        tokens = [names[id_] for id_ in kept.tolist()]
        if self._bpe is not None:
            text = b"".join(map(_bytes_of, tokens)).decode(errors="replace")
            return text.removeprefix(" ")
        return ("" if self.level == "char" else " ").join(tokens)

    def bytes_of(self, id_: int) -> bytes:
        """The bytes of one piece, which may be parts of characters; of "subword" alone."""
        return _bytes_of(self.vocabulary[id_ - len(SPECIALS)])

    def pieces(self, ids: Array) -> list[str]:
        """What each of ids (N,) adds to the text; the special ones as in `tokens`.

        At the levels "subword" and "char" they join to the text. A character whose bytes are in
        several pieces comes with the last one.
        """
        names = self.tokens(ids)
        if self._bpe is None:
            return names
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces = [
            name if id_ < len(SPECIALS) else decoder.decode(_bytes_of(name))
            for id_, name in zip(ids.tolist(), names, strict=True)
        ]
        if pieces:
            pieces[0] = pieces[0].removeprefix(" ")
        return pieces

    # --- files ------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """A JSON object, for `from_json`."""
        return {
            "level": self.level,
            "lowercase": self.lowercase,
            "vocabulary": list(self.vocabulary),
            "merges": list(self.merges),
        }

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        """The tokenizer that gave this object; it may come from anybody.

        Raises
        ------
        TypeError, ValueError
            If it is no such object.
        """
        types = {"level": str, "lowercase": bool, "vocabulary": list, "merges": list}
        if not isinstance(saved, dict) or saved.keys() != types.keys():
            raise ValueError(f"tokenizer: expected an object of {list(types)}, got {saved!r:.80}")
        for name, kind in types.items():
            if type(saved[name]) is not kind:
                raise ValueError(f"tokenizer: expected {name} to be {kind.__name__}")
        return cls(
            saved["level"],
            saved["vocabulary"],
            lowercase=saved["lowercase"],
            merges=saved["merges"],
        )


def _clean(text: str) -> str:
    """A text of the same length that can be encoded: halves of pairs of surrogates are no text."""
    return text if text.isascii() else _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _lower(text: str) -> str:
    """In lower case and of the same length, so that places stay what they are."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(character.lower()[0] for character in text)


# --- byte-level BPE -------------------------------------------------------------------------------


def _byte_characters() -> dict[str, int]:
    """The character that stands for each byte in pieces: printable ones for themselves (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {chr(byte): byte for byte in printable}
    return characters | {chr(256 + k): byte for k, byte in enumerate(others)}


_BYTES = _byte_characters()


def _bytes_of(piece: str) -> bytes:
    if piece == "\N{REPLACEMENT CHARACTER}":
        return piece.encode()
    return bytes(_BYTES[character] for character in piece)


def _import_tokenizers() -> Any:
    return import_extra("tokenizers", extra="tasks", purpose="subwords")


def _bpe(vocabulary: Sequence[str], merges: Sequence[str]) -> Any:
    """The tokenizer of the package, once it is seen that it cannot meet what it does not know."""
    known = frozenset(vocabulary)
    if not known.issuperset(_BYTES):
        raise ValueError("vocabulary: of subwords lacks single bytes")
    for piece in vocabulary:
        if not all(character in _BYTES for character in piece):
            raise ValueError(f"vocabulary: {piece!r:.80} is not made of bytes")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    for pair in pairs:
        if len(pair) != 2 or not known.issuperset((*pair, "".join(pair))):
            raise ValueError(f"merges: {' '.join(pair)!r:.80} is none of two known pieces")
    if len(set(pairs)) != len(pairs):
        raise ValueError("merges: has one twice")
    tokenizers = _import_tokenizers()
    ids = {piece: id_ for id_, piece in enumerate(vocabulary)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ids, pairs))
    tokenizer.pre_tokenizer = _byte_level(tokenizers)
    return tokenizer


def _byte_level(tokenizers: Any) -> Any:
    return tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)


def _learn_bpe(
    texts: Sequence[str], min_frequency: int, max_vocabulary: int
) -> tuple[list[str], list[str]]:
    """Vocabulary and merges (Sennrich et al. 2016, over bytes as in GPT-2)."""
    if max_vocabulary < len(_BYTES):
        raise ValueError(
            f"max_vocabulary: expected {len(_BYTES)} or more for subwords, one for each byte, "
            f"got {max_vocabulary}"
        )
    tokenizers = _import_tokenizers()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = _byte_level(tokenizers)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=max_vocabulary,
        min_frequency=min_frequency,
        initial_alphabet=sorted(_BYTES),
        show_progress=False,
    )
    with _without_threads():
        tokenizer.train_from_iterator((" " + text for text in texts), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(learnt["vocab"], key=learnt["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in learnt["merges"]]
    return vocabulary, merges


_ENVIRONMENT = threading.Lock()


@contextmanager
def _without_threads() -> Iterator[None]:
    """Let tokenizers start no threads: a process that forks after that is warned of a deadlock."""
    name = "TOKENIZERS_PARALLELISM"
    with _ENVIRONMENT:
        if name in os.environ:
            yield
            return
        os.environ[name] = "false"
        try:
            yield
        finally:
            del os.environ[name]
