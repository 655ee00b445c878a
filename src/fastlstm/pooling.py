"""From a recurrent layer's outputs, one vector a sequence: last, mean, max or attention."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from fastlstm._products import linear, matmul, sum_rows
from fastlstm._random import uniform_arrays
from fastlstm._validate import (
    Array,
    check_array,
    check_choice,
    check_dtype,
    check_flag,
    check_lengths,
    check_size,
    compact,
)
from fastlstm._weights import PanelCache
from fastlstm.parameters import Layer
from fastlstm.tape import Tape, check_tape

WAYS = ("last", "mean", "max", "attention")


class Pooling(Layer):
    """Represents a sequence of vectors by one.

    Parameters
    ----------
    features : int
        Features of a step (F).
    how : {"last", "mean", "max", "attention"}
        The last valid step; the mean over the valid steps; the largest value of each feature; or
        the mean weighted by softmax over t of ``query · tanh(W y_t + b)``, whose parameters are
        learnt (Yang et al. 2016, "Hierarchical attention networks for document classification").
    bidirectional : bool
        Whether the second half of the features was made from the end to the beginning: its last
        step is then the first one in time. Concerns "last" alone.
    dtype : numpy.float32 or numpy.float64
        Of inputs, outputs and parameters.
    rng : numpy.random.Generator or int, optional
        Draws the parameters of "attention" from U(-1/√F, 1/√F).

    Attributes
    ----------
    weight (F, F), bias (F,), query (F,) : numpy.ndarray
        Of "attention"; the others have none.

    Examples
    --------
    >>> import numpy as np
    >>> output = np.arange(12, dtype=np.float32).reshape(3, 2, 2)  # (T, B, F)
    >>> Pooling(2, "mean")(output, np.array([3, 1]))
    array([[4., 5.],
           [2., 3.]], dtype=float32)
    """

    def __init__(
        self,
        features: int,
        how: str = "last",
        *,
        bidirectional: bool = False,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.features = check_size("features", features)
        self.how = check_choice("how", how, WAYS)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        if self.bidirectional and self.features % 2:
            raise ValueError(f"features: expected two halves, got {self.features}")
        self.dtype = check_dtype("dtype", dtype)
        shapes: dict[str, tuple[int, ...]] = {}
        if how == "attention":
            shapes = {"weight": (features, features), "bias": (features,), "query": (features,)}
        bound = 1 / math.sqrt(self.features)
        self._begin(
            rng, shapes, self.dtype, lambda rng: uniform_arrays(rng, shapes, bound, self.dtype)
        )
        self._panels = PanelCache(self._parameters)

    def __call__(self, output: Array, lengths: Array | None = None) -> Array:
        """Pool.

        Parameters
        ----------
        output : ndarray (T, B, F)
        lengths : ndarray of integers (B,), optional
            Valid steps of each sequence; what lies past them is not read.

        Returns
        -------
        ndarray (B, F)
            Zeros for a sequence without a step.

        Raises
        ------
        TypeError, ValueError
            If an argument is no array of the kind stated, or does not fit.
        """
        return self.forward(output, lengths)[0]

    def forward(self, output: Array, lengths: Array | None = None) -> tuple[Array, Tape]:
        """Pool and keep what `backward` needs: ``pooled, tape``. Otherwise as a call."""
        output, lengths = self._check(output, lengths)
        pool = getattr(self, f"_{self.how}")
        pooled, saved = pool(output, lengths)
        version = self._parameters.version
        return pooled, Tape(self, version, (output.shape, lengths, *saved), pooled.shape)

    def backward(self, tape: Tape, d_pooled: Array) -> tuple[Array, dict[str, Array]]:
        """Gradients of the outputs (T, B, F) and of the parameters.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `Linear.backward`.
        """
        check_tape(tape, self)
        d_pooled = compact(check_array("d_pooled", d_pooled, self.dtype, tape.d_shape))
        shape, lengths, *saved = tape.take(self._parameters.version)
        d_output = np.zeros(shape, self.dtype)
        back = getattr(self, f"_{self.how}_back")
        grads: dict[str, Array] = back(d_output, d_pooled, lengths, *saved)
        return d_output, grads

    def weights(self, output: Array, lengths: Array | None = None) -> Array:
        """What each step counts in "mean" and "attention", (T, B); the columns sum to 1."""
        output, lengths = self._check(output, lengths)
        if self.how == "attention":
            _, (weights, *_) = self._attention(output, lengths)
        elif self.how == "mean":
            weights = _valid(output, lengths) / np.maximum(lengths, 1)
        else:
            raise ValueError(f"weights: {self.how!r} has none")
        return np.asarray(weights, self.dtype)

    def _check(self, output: object, lengths: Array | None) -> tuple[Array, Array]:
        # Compact, for the order in which NumPy adds up depends on the layout in memory.
        array = compact(check_array("output", output, self.dtype, ("T", "B", self.features)))
        steps, batch, _ = array.shape
        if lengths is None:
            return array, np.full(batch, steps)
        # A copy, for the tape keeps it, and the caller may change it.
        return array, check_lengths(lengths, batch, steps).copy()

    # --- last -------------------------------------------------------------------------------------

    def _last(self, output: Array, lengths: Array) -> tuple[Array, tuple[Array, ...]]:
        pooled = np.zeros(output.shape[1:], self.dtype)
        for steps, columns, alive in self._ends(lengths):
            pooled[alive, columns] = output[steps, alive, columns]
        return pooled, ()

    def _last_back(self, d_output: Array, d_pooled: Array, lengths: Array) -> dict[str, Array]:
        for steps, columns, alive in self._ends(lengths):
            d_output[steps, alive, columns] = d_pooled[alive, columns]
        return {}

    def _ends(self, lengths: Array) -> list[tuple[Array, slice, Array]]:
        """For each direction: the step that it ends at, its columns, and who has a step at all."""
        alive = np.flatnonzero(lengths)
        last = lengths[alive] - 1
        if not self.bidirectional:
            return [(last, slice(None), alive)]
        half = self.features // 2
        return [(last, slice(half), alive), (np.zeros_like(last), slice(half, None), alive)]

    # --- mean and max -----------------------------------------------------------------------------

    def _mean(self, output: Array, lengths: Array) -> tuple[Array, tuple[Array, ...]]:
        valid = _valid(output, lengths)[..., np.newaxis]
        total = _add_up(np.where(valid, output, 0))
        return total / np.maximum(lengths, 1).astype(self.dtype)[:, np.newaxis], (valid,)

    def _mean_back(
        self, d_output: Array, d_pooled: Array, lengths: Array, valid: Array
    ) -> dict[str, Array]:
        each = d_pooled / np.maximum(lengths, 1).astype(self.dtype)[:, np.newaxis]
        np.multiply(valid, each, out=d_output)
        return {}

    def _max(self, output: Array, lengths: Array) -> tuple[Array, tuple[Array, ...]]:
        valid = _valid(output, lengths)[..., np.newaxis]
        if not len(output):
            return np.zeros(output.shape[1:], self.dtype), ()
        place = np.where(valid, output, -np.inf).argmax(axis=0)[np.newaxis]
        pooled = np.take_along_axis(output, place, axis=0)[0]
        pooled[lengths == 0] = 0
        return pooled, (place,)

    def _max_back(
        self, d_output: Array, d_pooled: Array, lengths: Array, *place: Array
    ) -> dict[str, Array]:
        if place:
            alive = (lengths > 0)[:, np.newaxis]
            np.put_along_axis(d_output, place[0], (d_pooled * alive)[np.newaxis], axis=0)
        return {}

    # --- attention --------------------------------------------------------------------------------

    def _attention(self, output: Array, lengths: Array) -> tuple[Array, tuple[Array, ...]]:
        steps, batch, features = output.shape
        valid = _valid(output, lengths)
        # What lies past an end may be anything, NaN included.
        output = np.where(valid[..., np.newaxis], output, 0)
        rows = output.reshape(-1, features)
        own = self._parameters
        panels = self._panels.transposed("weight")
        hidden = np.tanh(linear(rows, own["weight"], own["bias"], panels))
        scores = (hidden * own["query"]).sum(axis=1).reshape(steps, batch)
        scores = np.where(valid, scores, -np.inf)
        top = scores.max(axis=0, initial=np.finfo(self.dtype).min)
        weights = np.exp(scores - top)
        weights /= np.maximum(_add_up(weights), np.finfo(self.dtype).tiny)
        pooled = _add_up(weights[..., np.newaxis] * output)
        return pooled, (weights, output, hidden)

    def _attention_back(
        self,
        d_output: Array,
        d_pooled: Array,
        _lengths: Array,
        weights: Array,
        output: Array,
        hidden: Array,
    ) -> dict[str, Array]:
        own = self._parameters
        d_weights = np.einsum("bf,tbf->tb", d_pooled, output)
        d_scores = weights * (d_weights - (weights * d_weights).sum(axis=0))
        rows = output.reshape(-1, self.features)
        each = d_scores.reshape(-1, 1)
        d_query = (each * hidden).sum(axis=0)
        d_sums = each * own["query"] * (1 - hidden * hidden)
        d_output += weights[..., np.newaxis] * d_pooled
        d_output += matmul(d_sums, own["weight"]).reshape(d_output.shape)
        return {
            "weight": matmul(d_sums, rows, transpose_a=True),
            "bias": sum_rows(d_sums),
            "query": d_query,
        }


def _add_up(terms: Array) -> Array:
    """(T, ...) -> (...): step after step, so that a sequence's sum is the same in any batch."""
    # NumPy's sum takes a single column in another order.
    total: Array = terms.cumsum(axis=0)[-1] if terms[:1].size == 1 else terms.sum(axis=0)
    return total


def _valid(output: Array, lengths: Array) -> Array:
    """(T, B) of bool: which steps are within their sequence."""
    return np.arange(len(output))[:, np.newaxis] < lengths
