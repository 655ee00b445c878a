"""Attention: for each query a mean of the keys, weighted by how well each of them answers it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike

from fastlstm._products import linear, matmul, matmul_batch, softmax_batch, sum_rows
from fastlstm._random import uniform_arrays
from fastlstm._validate import (
    Array,
    check_array,
    check_choice,
    check_dtype,
    check_extent,
    check_lengths,
    check_size,
)
from fastlstm._weights import PanelCache
from fastlstm.parameters import Layer
from fastlstm.tape import Tape, check_tape

SCORES = ("dot", "general", "additive")


@dataclass(frozen=True)
class Memory:
    """Keys as `Attention.memory` prepares them, for many calls with other queries.

    Attributes
    ----------
    lengths : ndarray of int64 (B,)
        Valid keys of each sequence.
    """

    _values: Array  # (B, S, K), zero past the ends
    _projected: Array  # (B, S, …), what queries are compared with
    lengths: Array
    _owner: Attention
    _version: int

    def take(self, which: Array) -> Memory:
        """Those of some sequences of the batch, by number, in this order."""
        return replace(
            self,
            _values=self._values[which],
            _projected=self._projected[which],
            lengths=self.lengths[which],
        )


class Attention(Layer):
    """Reads from a sequence of keys what each query asks for.

    The context of a query q is ``Σ_s a_s k_s`` over the keys k_s of its sequence, with weights
    a = softmax over s of score(q, k_s):

    - "dot": ``q · k_s``, which is ``torch.nn.functional.scaled_dot_product_attention`` with a
      scale of 1, and
    - "general": ``q · W k_s`` (Luong et al. 2015, "Effective approaches to attention-based neural
      machine translation");
    - "additive": ``v · tanh(W_q q + W_k k_s + b)`` (Bahdanau et al. 2015, "Neural machine
      translation by jointly learning to align and translate").

    Parameters
    ----------
    query_features, key_features : int
        Features of a query (Q) and of a key (K); equal for "dot".
    score : {"dot", "general", "additive"}
    hidden_features : int, optional
        Of "additive" (A), by default as many as a query has. The others have none.
    dtype : numpy.float32 or numpy.float64
        Of inputs, outputs and parameters.
    rng : numpy.random.Generator or int, optional
        Draws the initial parameters from U(-1/√n, 1/√n), n being K, or A for "additive".

    Attributes
    ----------
    weight : numpy.ndarray (Q, K)
        Of "general".
    query_weight (A, Q), key_weight (A, K), bias (A,), score_weight (A,) : numpy.ndarray
        Of "additive". All read-only: see `editing`, `load_state_dict`.

    Notes
    -----
    "dot" and "general" are batched matrix products and take O(B·T·S) memory; "additive" takes
    O(B·T·S·A).

    Examples
    --------
    >>> import numpy as np
    >>> keys = np.zeros((3, 1, 2), np.float32)  # (S, B, K)
    >>> keys[1] = 9, 0
    >>> query = np.ones((1, 1, 2), np.float32)  # (T, B, Q)
    >>> context, weights = Attention(2, 2, "dot")(query, keys)
    >>> weights.round(2), context.round(2)
    (array([[[0., 1., 0.]]], dtype=float32), array([[[9., 0.]]], dtype=float32))
    """

    def __init__(
        self,
        query_features: int,
        key_features: int,
        score: str = "general",
        *,
        hidden_features: int | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.query_features = check_size("query_features", query_features)
        self.key_features = check_size("key_features", key_features)
        self.score = check_choice("score", score, SCORES)
        if score == "dot" and self.query_features != self.key_features:
            raise ValueError(
                f"key_features: 'dot' compares queries and keys of as many features, got "
                f"{self.query_features} and {self.key_features}"
            )
        self.hidden_features = self._check_hidden(hidden_features)
        self.dtype = check_dtype("dtype", dtype)
        shapes = self._shapes()
        bound = 1 / math.sqrt(self.hidden_features or self.key_features)
        self._begin(
            rng, shapes, self.dtype, lambda rng: uniform_arrays(rng, shapes, bound, self.dtype)
        )
        self._panels = PanelCache(self._parameters)

    def _check_hidden(self, hidden_features: int | None) -> int | None:
        if self.score == "additive":
            hidden = self.query_features if hidden_features is None else hidden_features
            return check_size("hidden_features", hidden)
        if hidden_features is not None:
            raise ValueError(f"hidden_features: {self.score!r} has none, got {hidden_features!r}")
        return None

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        queries, keys, hidden = self.query_features, self.key_features, self.hidden_features
        if hidden is not None:
            check_extent("hidden_features * features", hidden, max(queries, keys))
            return {
                "query_weight": (hidden, queries),
                "key_weight": (hidden, keys),
                "bias": (hidden,),
                "score_weight": (hidden,),
            }
        if self.score == "general":
            check_extent("query_features * key_features", queries, keys)
            return {"weight": (queries, keys)}
        return {}

    def memory(self, keys: Array, lengths: Array | None = None) -> Memory:
        """Prepare keys that many calls will read: what does not depend on queries is done once.

        Parameters
        ----------
        keys : ndarray (S, B, K)
        lengths : ndarray of integers (B,), optional
            Valid keys of each sequence; what lies past them is not read.

        Returns
        -------
        Memory
            In place of `keys`, until the parameters change.
        """
        rows = check_array("keys", keys, self.dtype, ("S", "B", self.key_features))
        steps, batch, _ = rows.shape
        check_extent("keys, their rows", steps, batch)
        values = _swapped(rows)  # a copy: the caller may change it
        if lengths is None:
            lengths = np.full(batch, steps)
        else:
            lengths = np.array(check_lengths(lengths, batch, steps))
            # What lies past an end may be anything, NaN included.
            values[np.arange(steps) >= lengths[:, np.newaxis]] = 0
        version = self._parameters.version
        return Memory(values, self._project(values), lengths, self, version)

    def __call__(
        self, query: Array, keys: Array | Memory, lengths: Array | None = None
    ) -> tuple[Array, Array]:
        """Read.

        Parameters
        ----------
        query : ndarray (T, B, Q)
        keys : ndarray (S, B, K), or Memory
            What `memory` made of them.
        lengths : ndarray of integers (B,), optional
            Valid keys of each sequence, from 0 to S; what lies past them is not read. A Memory has
            its own.

        Returns
        -------
        context : ndarray (T, B, K)
            Zeros for a sequence without a key.
        weights : ndarray (B, T, S)
            As ``torch.nn.MultiheadAttention`` returns them: each row sums to 1, and is zero past
            the end of the keys.

        Raises
        ------
        TypeError, ValueError
            If an argument is no array of the kind stated, or does not fit.
        RuntimeError
            If the parameters have changed since `memory`.
        """
        return self._read(*self._check(query, keys, lengths))[:2]

    def forward(
        self, query: Array, keys: Array | Memory, lengths: Array | None = None
    ) -> tuple[Array, Array, Tape]:
        """Read and keep what `backward` needs: ``context, weights, tape``. Otherwise as a call."""
        rows, memory = self._check(query, keys, lengths)
        context, weights, saved = self._read(rows, memory)
        kept = (rows, memory, weights.copy(), *saved)
        return context, weights, Tape(self, self._parameters.version, kept, context.shape)

    def backward(self, tape: Tape, d_context: Array) -> tuple[Array, Array, dict[str, Array]]:
        """Gradients of queries, keys and parameters.

        Parameters
        ----------
        tape : Tape
            Of the `forward` to differentiate; used up by this call.
        d_context : ndarray (T, B, K)
            Gradient of the loss with respect to the context.

        Returns
        -------
        d_query : ndarray (T, B, Q)
        d_keys : ndarray (S, B, K)
            Zero past the ends.
        grads : dict of str to ndarray
            Of every parameter. All arrays are fresh.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `Linear.backward`.
        """
        check_tape(tape, self)
        d_context = check_array("d_context", d_context, self.dtype, tape.d_shape)
        query, memory, weights, *saved = tape.take(self._parameters.version)
        d_rows = _swapped(d_context)
        d_weights = matmul_batch(d_rows, memory._values, transpose_b=True)
        d_weights -= (weights * d_weights).sum(axis=2, keepdims=True)
        d_scores = weights * d_weights
        d_values = matmul_batch(weights, d_rows, transpose_a=True)  # (B, S, K)
        if self.score == "additive":
            d_query, grads = self._additive_back(query, memory, d_scores, d_values, *saved)
        else:
            d_query, grads = self._product_back(query, memory, d_scores, d_values)
        return _swapped(d_query), _swapped(d_values), grads

    # --- scores -----------------------------------------------------------------------------------

    def _check(self, query: object, keys: object, lengths: Array | None) -> tuple[Array, Memory]:
        if isinstance(keys, Memory):
            memory = keys
            if lengths is not None:
                raise ValueError("lengths: a Memory has its own")
            if memory._owner is not self:
                raise ValueError("keys: this Memory was made by another layer")
            if memory._version != self._parameters.version:
                raise RuntimeError("keys: stale, the weights changed since `memory`; call it again")
        else:
            memory = self.memory(keys, lengths)  # type: ignore[arg-type]
        shape = ("T", len(memory.lengths), self.query_features)
        array = check_array("query", query, self.dtype, shape)
        check_extent("query, its rows", *array.shape[:2])
        return np.array(array.swapaxes(0, 1), order="C"), memory

    def _project(self, values: Array) -> Array:
        """What queries are compared with: (B, S, K), (B, S, Q) or (B, S, A)."""
        if self.score == "dot":
            return values
        name = "weight" if self.score == "general" else "key_weight"
        return self._map(values, name)

    def _map(self, x: Array, name: str, bias: Array | None = None) -> Array:
        """x (…, in) times the transpose of a parameter (out, in)."""
        weight = self._parameters[name]
        rows = x.reshape(-1, x.shape[-1])
        mapped = linear(rows, weight, bias, self._panels.transposed(name))
        return mapped.reshape(*x.shape[:-1], len(weight))

    def _read(self, query: Array, memory: Memory) -> tuple[Array, Array, tuple[Array, ...]]:
        """Contexts (T, B, K), weights (B, T, S), and what backward needs besides."""
        saved: tuple[Array, ...] = ()
        if self.score == "additive":
            asked = self._map(query, "query_weight", self._parameters["bias"])
            hidden = np.tanh(asked[:, :, np.newaxis] + memory._projected[:, np.newaxis])
            rows = hidden.reshape(-1, hidden.shape[-1])
            scores = matmul(rows, self._parameters["score_weight"][:, np.newaxis])
            scores = scores.reshape(hidden.shape[:-1])
            saved = (hidden,)
        else:
            scores = matmul_batch(query, memory._projected, transpose_b=True)
        weights = softmax_batch(scores, memory.lengths)
        return _swapped(matmul_batch(weights, memory._values)), weights, saved

    def _product_back(
        self, query: Array, memory: Memory, d_scores: Array, d_values: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Gradients through q·k or q·Wk; that of the keys is added to d_values (B, S, K)."""
        d_query = matmul_batch(d_scores, memory._projected)
        if self.score == "dot":
            matmul_batch(d_scores, query, transpose_a=True, out=d_values, accumulate=True)
            return d_query, {}
        d_projected = matmul_batch(d_scores, query, transpose_a=True)
        return d_query, {"weight": self._map_back(d_projected, "weight", memory._values, d_values)}

    def _additive_back(
        self, query: Array, memory: Memory, d_scores: Array, d_values: Array, hidden: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The same through v·tanh(W_q q + W_k k + b)."""
        size = hidden.shape[-1]
        d_score_weight = matmul(d_scores.reshape(1, -1), hidden.reshape(-1, size))[0]
        d_sums = 1 - hidden * hidden
        d_sums *= self._parameters["score_weight"]
        d_sums *= d_scores[..., np.newaxis]
        d_asked = d_sums.sum(axis=2)
        d_query = np.zeros_like(query)
        return d_query, {
            "query_weight": self._map_back(d_asked, "query_weight", query, d_query),
            "key_weight": self._map_back(
                d_sums.sum(axis=1), "key_weight", memory._values, d_values
            ),
            "bias": sum_rows(d_asked.reshape(-1, size)),
            "score_weight": d_score_weight,
        }

    def _map_back(self, d_mapped: Array, name: str, x: Array, d_x: Array) -> Array:
        """The gradient of the parameter of `_map`; that of x is added to d_x."""
        d_rows = d_mapped.reshape(-1, d_mapped.shape[-1])
        d_x += matmul(d_rows, self._parameters[name]).reshape(d_x.shape)
        return matmul(d_rows, x.reshape(-1, x.shape[-1]), transpose_a=True)


def _swapped(array: Array) -> Array:
    """(T, B, …) -> (B, T, …) or back, C-contiguous and fresh."""
    return np.array(array.swapaxes(0, 1), order="C")
