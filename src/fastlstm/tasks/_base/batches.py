"""Sequences of different lengths as one table, and the batches that training takes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._validate import LARGEST_EXTENT, Array, check_array, check_integers, check_size

# Sequences of so many batches are sorted by length together, where that is asked for.
_POOL = 50


@dataclass(frozen=True)
class Ragged:
    """Sequences of any lengths, one behind the other.

    Attributes
    ----------
    rows : ndarray (N, ...)
        All steps: vectors (N, F), or ids (N,).
    lengths : ndarray of int64 (n,)
        Steps of each sequence, N in all.
    """

    rows: Array
    lengths: Array

    @classmethod
    def of(cls, sequences: Sequence[Array], like: Array) -> Ragged:
        """Of arrays (T_i, ...), all with the dtype and the other axes of `like` (0, ...)."""
        lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        return cls(np.concatenate([like, *sequences]), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Array]:
        ends = np.cumsum(self.lengths)
        for start, end in zip(ends - self.lengths, ends, strict=True):
            yield self.rows[start:end]

    def take(self, which: Array) -> Ragged:
        """Some of the sequences, in this order."""
        return Ragged(self.rows[self.steps(which)], self.lengths[which])

    def padded(self, which: Array | slice = slice(None)) -> tuple[Array, Array]:
        """Some sequences as one array (T, B, ...), zero past their ends, and lengths (B,)."""
        lengths = self.lengths[which]
        places = np.arange(len(self))[which]
        longest = int(lengths.max(initial=0))
        padded = np.zeros((len(lengths), longest, *self.rows.shape[1:]), self.rows.dtype)
        padded[np.arange(longest) < lengths[:, np.newaxis]] = self.rows[self.steps(places)]
        return padded.swapaxes(0, 1), lengths

    def stacked(self, count: int) -> Ragged:
        """Each `count` steps (N, F) as one with all their features; zeros fill up the last."""
        if count == 1:
            return self
        lengths = -(-self.lengths // count)
        starts = np.cumsum(lengths) - lengths
        before = np.cumsum(self.lengths) - self.lengths
        places = np.arange(len(self.rows)) + np.repeat(starts * count - before, self.lengths)
        rows = np.zeros((int(lengths.sum()) * count, self.rows.shape[1]), self.rows.dtype)
        rows[places] = self.rows
        return Ragged(rows.reshape(-1, count * self.rows.shape[1]), lengths)

    def steps(self, which: Array) -> Array:
        """Numbers of the rows of some sequences, sequence by sequence."""
        starts = (np.cumsum(self.lengths) - self.lengths)[which]
        lengths = self.lengths[which]
        before = np.cumsum(lengths) - lengths
        return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


class StreamBatches(Sequence[tuple[Array, ...]]):
    """The (inputs, targets) of truncated backpropagation through time over one long text of ids.

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
    begins : ndarray of bool (N,), optional
        Where a text begins, if they are several; then windows are (inputs, targets, begins).
    reset : int, optional
        After about so many ids a stream, too, begins anew, each at another time: at the first step
        of a window. With it windows have the third part as well.

    Raises
    ------
    ValueError
        If there are fewer than `batch_size` + 1 ids.

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

    def __init__(
        self,
        ids: Array,
        batch_size: int,
        steps: int,
        begins: Array | None = None,
        *,
        reset: int | None = None,
    ) -> None:
        checked = check_integers("ids", ids, ("N",), least=0, most=LARGEST_EXTENT)
        batch_size, steps = check_size("batch_size", batch_size), check_size("steps", steps)
        length = (len(checked) - 1) // batch_size
        if length < 1:
            raise ValueError(
                f"ids: expected at least batch_size + 1 = {batch_size + 1} ids, got {len(checked)}"
            )
        used = length * batch_size
        parts = [checked[:used], checked[1 : used + 1]]
        if begins is not None:
            parts.append(check_array("begins", begins, np.dtype(bool), checked.shape)[:used])
        elif reset is not None:
            parts.append(np.zeros(used, bool))
        self._parts = tuple(part.reshape(batch_size, length).T for part in parts)
        self._windows = -(-length // steps)
        # Windows from one beginning of a stream to the next, and of each stream the first of them.
        self._period = None if reset is None else max(1, check_size("reset", reset) // steps)
        self._phases = np.arange(batch_size) * (self._period or 1) // batch_size

    @property
    def predicted(self) -> int:
        """How many ids all windows together predict."""
        return int(self._parts[0].size)

    def __len__(self) -> int:
        return self._windows

    def __getitem__(self, index: Any) -> Any:
        """Inputs (T, B) and targets (T, B), the inputs one id later; and where texts begin."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        length = len(self._parts[0])
        window = slice(place * length // len(self), (place + 1) * length // len(self))
        parts = tuple(part[window].copy() for part in self._parts)
        if self._period is not None:
            parts[2][0] |= place % self._period == self._phases
        return parts


class ShuffledBatches(Sequence[Any]):
    """The batches of a whole training run: in each epoch all examples, in a new order.

    What batch k is depends on (seed, k) alone, so a run that was interrupted goes on to the same
    bits. The last batch of an epoch is as large as the others or has what is left.

    Parameters
    ----------
    make : callable
        ``make(which)`` returns the batch of the examples with these numbers, (B,) of int64; with
        `draws` it is ``make(which, rng)``.
    count : int
        How many examples there are.
    batch_size, epochs, seed : int
    lengths : ndarray (count,), optional
        Batches have examples of similar lengths: those of `_POOL` batches are drawn at random,
        sorted by length, cut into batches, and these taken in random order.
    draws : bool
        `make` also takes a generator, for what is drawn anew each time an example comes.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        count: int,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        lengths: Array | None = None,
        draws: bool = False,
    ) -> None:
        self._make = make
        self._count = check_size("count", count)
        self._batch_size = min(check_size("batch_size", batch_size), self._count)
        self.per_epoch = -(-self._count // self._batch_size)
        self._epochs = check_size("epochs", epochs, least=0)
        self._seed = seed
        self._lengths = lengths
        self._draws = draws
        self._drawn: tuple[int, list[Array]] = (-1, [])

    def __len__(self) -> int:
        return self.per_epoch * self._epochs

    def __getitem__(self, index: Any) -> Any:
        epoch, place = divmod(range(len(self))[index], self.per_epoch)
        if self._drawn[0] != epoch:
            self._drawn = epoch, self._draw(epoch)
        which = self._drawn[1][place]
        if not self._draws:
            return self._make(which)
        # From 1 on, for [seed, epoch] and [seed, epoch, 0] are one seed.
        return self._make(which, _generator(self._seed, epoch, place + 1))

    def _draw(self, epoch: int) -> list[Array]:
        """The numbers of the examples of each batch."""
        rng = _generator(self._seed, epoch)
        order = rng.permutation(self._count)
        if self._lengths is None:
            return self._cut(order)
        size = _POOL * self._batch_size
        batches = []
        for start in range(0, self._count, size):
            pool = order[start : start + size]
            batches += self._cut(pool[np.argsort(self._lengths[pool], kind="stable")])
        return [batches[k] for k in rng.permutation(len(batches))]

    def _cut(self, order: Array) -> list[Array]:
        size = self._batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]


def in_groups(lengths: Array, most: int) -> Iterator[Array]:
    """Numbers of sequences of similar lengths, for what is predicted at once.

    A group has at most `most` steps with its padding, or one sequence.
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > most:
            yield order[start:end]
            start = end


def _generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def in_chunks(count: int, size: int) -> Iterator[slice]:
    """0 to count in slices of at most `size`: what is predicted at once."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
