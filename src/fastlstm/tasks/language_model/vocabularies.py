"""What a language model predicts: characters, words or pieces of words, as ids.

Ids from 0 to `outputs` - 1 can come next; those from there to `inputs` - 1 can only be read. One
of all stands before a text, and between texts.
"""

from __future__ import annotations

import codecs
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, Self

import numpy as np

from fastlstm._validate import Array, check_integers, check_number
from fastlstm.tasks.text.tokenizer import END, SPECIALS, Tokenizer

# Code points of a Python string: what unknown characters are drawn from.
CODE_POINTS = 0x110000
_PAGE = 256  # characters
LEVELS = ("char", "word", "whitespace", "subword")
# How corpora that are tokenised already write a word that is none of the vocabulary.
_UNKNOWN_WORD = "<unk>"
_LINE_END = "<eos>"


class Vocabulary(Protocol):
    """Texts as ids, and back."""

    @property
    def level(self) -> str:
        """One of `LEVELS`."""

    @property
    def inputs(self) -> int:
        """How many ids there are."""

    @property
    def outputs(self) -> int:
        """How many of them can come next."""

    @property
    def start(self) -> int:
        """What stands before a text."""

    @property
    def unknown(self) -> int:
        """What stands for all that is not in the vocabulary."""

    def encode(self, text: str) -> Array:
        """int64 ids (N,)."""

    def tokens(self, ids: Array) -> list[str]:
        """What each of ids (N,) stands for."""

    def with_unknown(self, log_prob: Array, ids: Array) -> Array:
        """Log-probabilities (N,) of ids by the softmax -> of what they stand for in the text."""

    def writer(self, prompt: str) -> Callable[[int], str]:
        """A function from each id that comes after a prompt to what it adds to the text."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object, for `vocabulary_from_json`."""


class Characters:
    """Characters by a table of code points.

    A text becomes an array of code points at once, and these are looked up by two of NumPy's
    gathers, as Unicode's own tables are laid out: the upper bits say which page of 256 characters,
    the lower ones which of these. Nothing is done in Python for each character. Character k has id
    k; the id after the last one stands for an unknown character and for what comes before a text,
    and never comes next.

    Probabilities are a distribution over all of Unicode, so that bits per character are honest on
    any text: the softmax covers the known characters; unknown ones share `unknown_probability`
    evenly.

    Parameters
    ----------
    characters : str
        Every character that is known, once.
    unknown_probability : float
        What is granted to all unknown characters together, at any place in a text.
    """

    level = "char"

    def __init__(self, characters: str, unknown_probability: float = 1e-6) -> None:
        self.characters = _check_characters(characters)
        self.unknown_probability = check_number(
            "unknown_probability", unknown_probability, above=0, below=1
        )
        self.outputs = self.start = self.unknown = len(characters)
        self.inputs = self.outputs + 1
        points = _code_points(characters)
        used = np.unique(points // _PAGE)
        self._pages = np.zeros(CODE_POINTS // _PAGE, np.int64)
        self._pages[used] = np.arange(1, len(used) + 1)
        # Page 0 is all that is unknown.
        self._table = np.full((len(used) + 1) * _PAGE, self.unknown)
        self._table[self._place(points)] = np.arange(len(points))

    @classmethod
    def of(cls, texts: Iterable[str], *, min_frequency: int = 1, most: int | None = None) -> Self:
        """Those of some texts, in the order of their code points.

        `unknown_probability` is the texts' own estimate of how often a new character comes: the
        share of those that came once only (Good 1953, Turing's estimate), or are left out, kept
        off 0 and 1 by counting one such character and one other one more.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        kept = {c: n for c, n in counts.most_common(most) if n >= min_frequency}
        if not kept:
            raise ValueError(
                f"min_frequency: no character comes {min_frequency} times, so none is known"
            )
        new = sum(n for c, n in counts.items() if n == 1 or c not in kept)
        return cls("".join(sorted(kept)), (new + 1) / (counts.total() + 2))

    def __repr__(self) -> str:
        return f"{len(self.characters)} characters"

    def encode(self, text: str) -> Array:
        """int64 ids (N,) of a text's characters, `unknown` for those that are not known."""
        ids: Array = self._table[self._place(_code_points(text))]
        return ids

    def _place(self, points: Array) -> Array:
        """Where code points stand in the table."""
        place: Array = self._pages[points // _PAGE] * _PAGE + points % _PAGE
        return place

    def tokens(self, ids: Array) -> list[str]:
        """The characters of ids (N,), U+FFFD for the unknown one."""
        known = self.characters + "\N{REPLACEMENT CHARACTER}"
        return [known[i] for i in check_integers("ids", ids, ("N",), least=0, most=self.unknown)]

    def with_unknown(self, log_prob: Array, ids: Array) -> Array:
        """See `Vocabulary`."""
        each = self.unknown_probability / (CODE_POINTS - len(self.characters))
        known = log_prob + math.log1p(-self.unknown_probability)
        return np.where(ids == self.unknown, math.log(each), known)

    def writer(self, prompt: str) -> Callable[[int], str]:  # noqa: ARG002
        """See `Vocabulary`."""
        return self.characters.__getitem__

    def to_json(self) -> dict[str, Any]:
        """See `Vocabulary`."""
        return {
            "level": "char",
            "characters": self.characters,
            "unknown_probability": self.unknown_probability,
        }


class Tokens:
    """Words, or pieces of them, by a `Tokenizer`; each line end is a token, "<eos>".

    All ids can come next: 0 is the unknown word (a word "<unk>", where the corpus has it), 1 the
    line end, which also stands before a text, and the others are the tokenizer's vocabulary.
    """

    unknown, start = 0, 1

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.level not in LEVELS[1:]:
            raise ValueError(f"level: expected one of {LEVELS[1:]}, got {tokenizer.level!r:.80}")
        self._tokenizer = tokenizer
        self.level = tokenizer.level
        own = (_UNKNOWN_WORD, _LINE_END)
        known = np.array([self._says(word) for word in tokenizer.vocabulary], bool)
        words = itertools.compress(tokenizer.vocabulary, known)
        self._names = (*own, *words)
        self.inputs = self.outputs = len(self._names)
        table = np.full(len(tokenizer), self.unknown)
        table[END] = self.start
        table[len(SPECIALS) :][known] = np.arange(len(own), self.outputs)
        self._table = table

    def _says(self, word: str) -> bool:
        """Whether this is more than that a word was unknown."""
        return self.level == "subword" or word != _UNKNOWN_WORD

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        *,
        level: str,
        min_frequency: int = 1,
        most: int | None = None,
    ) -> Self:
        """Those of some texts."""
        lines = (line for text in texts for line in text.split("\n"))
        return cls(
            Tokenizer.fit(lines, level=level, min_frequency=min_frequency, max_vocabulary=most)
        )

    def __repr__(self) -> str:
        return f"{self.outputs} {'pieces' if self.level == 'subword' else 'words'}"

    def encode(self, text: str) -> Array:
        """int64 ids (N,)."""
        lines = self._tokenizer.encode_many(text.split("\n"), end=True).rows
        return self._table[lines[:-1]]

    def tokens(self, ids: Array) -> list[str]:
        """The words of ids (N,)."""
        checked = check_integers("ids", ids, ("N",), least=0, most=self.outputs - 1)
        return [self._names[i] for i in checked.tolist()]

    def with_unknown(self, log_prob: Array, ids: Array) -> Array:  # noqa: ARG002
        """See `Vocabulary`: an unknown word has the probability of "<unk>"."""
        return log_prob

    def writer(self, prompt: str) -> Callable[[int], str]:
        """See `Vocabulary`."""
        if self.level == "subword":
            return _Pieces(self._tokenizer, prompt).write
        begun = not prompt or prompt[-1].isspace()

        def write(id_: int) -> str:
            nonlocal begun
            blank, begun = "" if begun else " ", id_ == self.start
            return "\n" if begun else blank + self._names[id_]

        return write

    def to_json(self) -> dict[str, Any]:
        """See `Vocabulary`."""
        return self._tokenizer.to_json()


class _Pieces:
    """Writes pieces of bytes; those of a character that is not complete are held back."""

    def __init__(self, tokenizer: Tokenizer, prompt: str) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = not prompt or prompt[-1] == "\n"

    def write(self, id_: int) -> str:
        if id_ == Tokens.start:
            text, self._begun = self._decoder.decode(b"", final=True), True
            self._decoder.reset()
            return text + "\n"
        text = self._decoder.decode(self._tokenizer.bytes_of(id_ + len(SPECIALS) - 2))
        if self._begun:  # the tokenizer puts a blank before a text
            text, self._begun = text.removeprefix(" "), False
        return text


def vocabulary_of(
    texts: Iterable[str], *, level: str, min_frequency: int | None, most: int | None
) -> Vocabulary:
    """The vocabulary of some texts."""
    if level == "char":
        return Characters.of(texts, min_frequency=min_frequency or 1, most=most)
    least = min_frequency or (1 if level == "whitespace" else 2)
    return Tokens.of(texts, level=level, min_frequency=least, most=most)


def vocabulary_from_json(saved: Mapping[str, Any]) -> Vocabulary:
    """What `to_json` gave; it may come from anybody. Raises KeyError, TypeError or ValueError."""
    if saved["level"] == "char":
        return Characters(saved["characters"], saved["unknown_probability"])
    return Tokens(Tokenizer.from_json(saved))


def _code_points(text: str) -> Array:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))


def _check_characters(characters: object) -> str:
    if not isinstance(characters, str):
        raise TypeError(f"characters: expected a str, got a {type(characters).__name__}")
    if not characters:
        raise ValueError("characters: expected at least one, got an empty string")
    if len(set(characters)) < len(characters):
        twice, _ = Counter(characters).most_common(1)[0]
        raise ValueError(f"characters: expected each once, but {twice!r} comes again")
    try:
        characters.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"characters: expected Unicode characters, got the surrogate "
            f"{characters[error.start]!r}"
        ) from None
    return characters
