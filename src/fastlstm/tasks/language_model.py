"""A character language model: what comes next in a text, one character at a time.

Embedding, LSTM and Linear in a row. Character k of the vocabulary has id k; the id after the last
one is reserved for "nothing that I know": a character outside of the vocabulary, or what stands
before a text's first character. It is embedded as zeros, and training never moves it.

Probabilities are a distribution over all of Unicode, so that bits per character are honest on any
text: the softmax covers the known characters; unknown ones share `unknown_probability` evenly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastlstm import storage
from fastlstm._validate import (
    Array,
    check_dtype,
    check_generator,
    check_integers,
    check_number,
    check_size,
)
from fastlstm.layers import Dropout, Embedding, Linear
from fastlstm.losses import softmax_cross_entropy
from fastlstm.lstm import LSTM
from fastlstm.parameters import Parameters

KIND = "language-model"
# Code points of a Python string: what unknown characters are drawn from.
CODE_POINTS = 0x110000
# Characters that are scored in one call; bounds the memory, not the result.
SCORED_AT_ONCE = 512

State = tuple[Array, Array]
Batch = tuple[Array, Array]


class StreamBatches(Sequence[Batch]):
    """The (inputs, targets) of truncated backpropagation through time over one long text.

    The text is cut into `batch_size` streams of equal length that lie side by side, and those
    into windows. Window i + 1 goes on where window i ended, in every stream, so a state can be
    carried from one to the next. All windows are of nearly the same length, so that no short rest
    makes a noisy step.

    Parameters
    ----------
    ids : ndarray of integers (N,)
        The text.
    batch_size : int
        Streams (B).
    steps : int
        The longest window (T).

    Raises
    ------
    ValueError
        If the text has fewer than `batch_size` + 1 characters.

    Examples
    --------
    >>> import numpy as np
    >>> batches = StreamBatches(np.arange(9), batch_size=2, steps=2)
    >>> len(batches)
    2
    >>> inputs, targets = batches[1]
    >>> inputs.T.tolist(), targets.T.tolist()
    ([[2, 3], [6, 7]], [[3, 4], [7, 8]])
    """

    def __init__(self, ids: Array, batch_size: int, steps: int) -> None:
        checked = check_integers("ids", ids, ("N",), least=0, most=CODE_POINTS)
        batch_size, steps = check_size("batch_size", batch_size), check_size("steps", steps)
        length = (len(checked) - 1) // batch_size
        if length < 1:
            raise ValueError(
                f"ids: expected at least batch_size + 1 = {batch_size + 1} characters, "
                f"got {len(checked)}"
            )
        used = length * batch_size
        self._inputs = checked[:used].reshape(batch_size, length).T
        self._targets = checked[1 : used + 1].reshape(batch_size, length).T
        self._windows = -(-length // steps)

    @property
    def characters(self) -> int:
        """Characters that all windows together predict."""
        return int(self._targets.size)

    def __len__(self) -> int:
        return self._windows

    def __getitem__(self, index: Any) -> Any:
        """inputs (T, B) and targets (T, B), the inputs one character later."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        length = len(self._inputs)
        window = slice(place * length // len(self), (place + 1) * length // len(self))
        return self._inputs[window].copy(), self._targets[window].copy()


class CharacterModel:
    """A language model over characters: Embedding, LSTM, Linear.

    Parameters
    ----------
    characters : str
        The vocabulary: every character that the model knows, once.
    embedding_size, hidden_size, num_layers : int
        Sizes of the embedding and the LSTM.
    dropout : float
        Probability of zeroing an output of an LSTM layer in training, the last one included.
    unknown_probability : float
        What the model grants to all unknown characters together, at any place in a text.
    dtype : numpy.float32 or numpy.float64
        Of the parameters.
    rng : numpy.random.Generator or int, optional
        Draws the initial parameters. The forget gates' biases start at 1, so that a young model
        remembers (Jozefowicz, Zaremba & Sutskever 2015).

    Examples
    --------
    >>> model = CharacterModel("ab", hidden_size=4, rng=0)
    >>> model.encode("abc").tolist()
    [0, 1, 2]
    >>> len("".join(model.generate("a", 5, seed=1)))
    5
    """

    def __init__(
        self,
        characters: str,
        *,
        embedding_size: int = 64,
        hidden_size: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        unknown_probability: float = 1e-6,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        rng = check_generator("rng", rng)
        self.characters = _check_characters(characters)
        self.embedding_size = check_size("embedding_size", embedding_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        self.dropout = check_number("dropout", dropout, least=0, below=1)
        self.unknown_probability = check_number(
            "unknown_probability", unknown_probability, above=0, below=1
        )
        self.dtype = check_dtype("dtype", dtype)
        self._code_points = _code_points(characters)
        self._order = np.argsort(self._code_points)

        self.embedding = Embedding(
            len(characters) + 1, self.embedding_size, dtype=self.dtype, rng=rng
        )
        self.lstm = LSTM(
            self.embedding_size,
            self.hidden_size,
            self.num_layers,
            dropout=self.dropout if self.num_layers > 1 else 0.0,
            dtype=self.dtype,
            rng=rng,
        )
        self.last_dropout = Dropout(self.dropout)
        self.head = Linear(self.hidden_size, len(characters), dtype=self.dtype, rng=rng)
        self._parameters = Parameters.join(
            {
                "embedding": self.embedding.parameters(),
                "lstm": self.lstm.parameters(),
                "head": self.head.parameters(),
            }
        )
        self._initialise()

    @classmethod
    def for_text(cls, text: str, **options: Any) -> CharacterModel:
        """A model whose vocabulary is a text's; `options` are the constructor's keywords.

        `unknown_probability` is the text's own estimate of how often a new character comes: the
        share of those that came once only (Good 1953, Turing's estimate), kept off 0 and 1 by
        counting one such character and one other one more.
        """
        once = sum(count == 1 for count in Counter(text).values())
        options.setdefault("unknown_probability", (once + 1) / (len(text) + 2))
        return cls("".join(sorted(set(text))), **options)

    def _initialise(self) -> None:
        with self._parameters.editing() as parameters:
            parameters["embedding.weight"][self.unknown_id] = 0
            forget = slice(self.hidden_size, 2 * self.hidden_size)
            for layer in range(self.num_layers):
                parameters[f"lstm.bias_ih_l{layer}"][forget] = 1
                parameters[f"lstm.bias_hh_l{layer}"][forget] = 0

    def __repr__(self) -> str:
        return (
            f"CharacterModel({len(self.characters)} characters, "
            f"embedding_size={self.embedding_size}, hidden_size={self.hidden_size}, "
            f"num_layers={self.num_layers}, dropout={self.dropout:g}, dtype={self.dtype})"
        )

    # --- text and ids -----------------------------------------------------------------------------

    @property
    def unknown_id(self) -> int:
        """The reserved id: an unknown character, or what stands before a text."""
        return len(self.characters)

    def encode(self, text: str) -> Array:
        """int64 ids (N,) of a text's characters, `unknown_id` for those that are not known."""
        points = _code_points(text)
        place = np.searchsorted(self._code_points, points, sorter=self._order)
        ids = self._order[np.minimum(place, len(self._order) - 1)]
        return np.where(self._code_points[ids] == points, ids, self.unknown_id)

    def decode(self, ids: Array) -> str:
        """The text of ids (N,), with U+FFFD for the reserved one."""
        checked = check_integers("ids", ids, ("N",), least=0, most=self.unknown_id)
        known = self.characters + "\N{REPLACEMENT CHARACTER}"
        return "".join(known[i] for i in checked)

    # --- training ---------------------------------------------------------------------------------

    def parameters(self) -> Parameters:
        """All weights, under "embedding.…", "lstm.…" and "head.…"."""
        return self._parameters

    def loss_and_grads(
        self, batch: Batch, state: State | None, rng: np.random.Generator | None
    ) -> tuple[float, dict[str, Array], State]:
        """Mean cross-entropy in nats over a window, its gradients, and the state after it.

        Parameters
        ----------
        batch : pair of ndarray of integers (T, B)
            Inputs and targets, as from `StreamBatches`. Unknown targets are left out of the mean.
        state : pair of ndarray (num_layers, B, H), or None
            (h, c) from the window before.
        rng : numpy.random.Generator or None
            Draws the dropout masks; without it no dropout acts.
        """
        inputs, targets = batch
        embedded, embedding_tape = self.embedding.forward(inputs)
        output, state, lstm_tape = self.lstm.forward(embedded, state, rng=rng)
        output, dropout_tape = self.last_dropout.forward(output, rng if self.dropout else None)
        logits, head_tape = self.head.forward(output)
        loss, d_logits = softmax_cross_entropy(logits, targets, ignore_index=self.unknown_id)

        d_output, head_grads = self.head.backward(head_tape, d_logits)
        d_output, _ = self.last_dropout.backward(dropout_tape, d_output)
        d_embedded, _, lstm_grads = self.lstm.backward(lstm_tape, d_output)
        _, embedding_grads = self.embedding.backward(embedding_tape, d_embedded)
        parts = {"embedding": embedding_grads, "lstm": lstm_grads, "head": head_grads}
        grads = {
            f"{part}.{name}": grad for part, named in parts.items() for name, grad in named.items()
        }
        return loss, grads, state

    # --- use --------------------------------------------------------------------------------------

    def bits_per_character(
        self, text: str, *, on_progress: Callable[[int], None] | None = None
    ) -> float:
        """-log2 of the probability that the model gives to the whole text, over its length.

        Every character counts, the first one included, and is predicted from all before it. An
        unknown one has the probability ``unknown_probability / (0x110000 - known)``; a known one
        that of the softmax times ``1 - unknown_probability``.

        Parameters
        ----------
        text : str
            At least one character.
        on_progress : callable, optional
            Called with the number of characters scored since its last call.
        """
        if not text:
            raise ValueError("text: expected at least one character, got an empty string")
        ids = self.encode(text)
        inputs = np.concatenate(([self.unknown_id], ids[:-1]))
        state: State | None = None
        bits = 0.0
        for start in range(0, len(ids), SCORED_AT_ONCE):
            chunk = slice(start, start + SCORED_AT_ONCE)
            cost, state = self._bits(inputs[chunk], ids[chunk], state)
            bits += cost
            if on_progress is not None:
                on_progress(len(ids[chunk]))
        return bits / len(ids)

    def bits_per_character_of(self, batches: StreamBatches) -> float:
        """The same for the streams of `batches`, side by side: much quicker, but not quite exact.

        Each stream begins without a past, and its first character is not counted. For validation
        while training goes on.
        """
        state: State | None = None
        bits = 0.0
        for inputs, targets in batches:
            cost, state = self._bits(inputs, targets, state)
            bits += cost
        return bits / batches.characters

    def generate(
        self,
        prompt: str,
        length: int,
        *,
        temperature: float = 1.0,
        seed: np.random.Generator | int | None = None,
    ) -> Iterator[str]:
        """Go on from a prompt: `length` characters, each one as soon as it is drawn.

        Parameters
        ----------
        prompt : str
            What was written so far; may be empty. Unknown characters are read as such.
        length : int
            Characters to write.
        temperature : float
            Divides the logits: 1 draws as the model predicts, less is more cautious, 0 always
            takes the likeliest character.
        seed : numpy.random.Generator or int, optional
            The same seed writes the same text.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"prompt: expected a str, got a {type(prompt).__name__}")
        length = check_size("length", length, least=0)
        temperature = check_number("temperature", temperature, least=0)
        return self._write(prompt, length, temperature, check_generator("seed", seed))

    def _write(
        self, prompt: str, length: int, temperature: float, rng: np.random.Generator
    ) -> Iterator[str]:
        read = np.concatenate(([self.unknown_id], self.encode(prompt)))
        state: State | None = None
        for _ in range(length):
            logits, state = self._predict(read, state)
            drawn = _draw(logits[-1], temperature, rng)
            yield self.characters[drawn]
            read = np.array([drawn])

    def _bits(self, inputs: Array, targets: Array, state: State | None) -> tuple[float, State]:
        """What targets (T,) or (T, B) cost together, each after its input; and the state."""
        logits, state = self._predict(inputs, state)
        rows = logits.reshape(-1, len(self.characters))
        return -float(self._log2_probabilities(rows, targets.reshape(-1)).sum()), state

    def _predict(self, ids: Array, state: State | None) -> tuple[Array, State]:
        """ids (T,) or (T, B) -> float64 logits (T, …, V) for what comes next, and the state."""
        output, state = self.lstm(self.embedding(ids), state)
        logits: Array = self.head(output)
        return logits.astype(np.float64), state

    def _log2_probabilities(self, logits: Array, ids: Array) -> Array:
        """Logits (T, V) and the ids (T,) that came -> log2 of their probabilities (T,)."""
        known = ids != self.unknown_id
        shifted = logits - logits.max(axis=1, keepdims=True)
        chosen = np.take_along_axis(shifted, np.where(known, ids, 0)[:, np.newaxis], axis=1)[:, 0]
        softmax = (chosen - np.log(np.exp(shifted).sum(axis=1))) / math.log(2)
        each_unknown = self.unknown_probability / (CODE_POINTS - len(self.characters))
        return np.where(
            known, softmax + math.log2(1 - self.unknown_probability), math.log2(each_unknown)
        )

    # --- file -------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> None:
        """Write the whole model, vocabulary included, to one file, atomically."""
        storage.save(path, KIND, self._parameters.state_dict(), self._header())

    def _header(self) -> dict[str, Any]:
        return {
            "characters": self.characters,
            "embedding_size": self.embedding_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "unknown_probability": self.unknown_probability,
            "dtype": self.dtype.name,
        }

    @classmethod
    def load(cls, path: str | PathLike[str]) -> CharacterModel:
        """Read a file that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is none.
        fastlstm.storage.FormatError
            If it is no language model of ours, or of a newer version.
        """
        file = storage.load(path, KIND)
        number = (int, float)
        file.check_header(
            characters=str, embedding_size=int, hidden_size=int, num_layers=int,
            dropout=number, unknown_probability=number, dtype=str,
        )  # fmt: skip
        header = dict(file.header)
        try:
            # A header may claim any sizes: they are held against the arrays that are really there
            # before anything of those sizes is made.
            _check_sizes(header, file.arrays)
            storage.check_dtype_name(header["dtype"])
            model = cls(header.pop("characters"), **header, rng=0)
            model._parameters.load_state_dict(file.arrays)
        except (TypeError, ValueError) as error:
            raise storage.FormatError(
                f"{path}: its header and its arrays do not belong together: {error}"
            ) from None
        return model


def _draw(logits: Array, temperature: float, rng: np.random.Generator) -> int:
    """A random id by the softmax of logits (V,) / temperature; the likeliest one at 0."""
    if temperature == 0:
        return int(logits.argmax())
    with np.errstate(over="ignore"):  # a very low temperature makes -inf of all but the largest
        weights = np.exp((logits - logits.max()) / temperature)
    edges = weights.cumsum()
    return int(np.searchsorted(edges[:-1], rng.random() * edges[-1], side="right"))


def _check_sizes(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Check that the sizes that a file's header gives are those of its arrays."""
    known, hidden = len(header["characters"]), header["hidden_size"]
    expected = {
        "embedding.weight": (known + 1, header["embedding_size"]),
        "head.weight": (known, hidden),
        f"lstm.weight_hh_l{header['num_layers'] - 1}": (4 * hidden, hidden),
    }
    for name, shape in expected.items():
        found = arrays[name].shape if name in arrays else None
        if found != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {found}")


def _code_points(text: str) -> Array:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4")).astype(
        np.int64
    )


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
