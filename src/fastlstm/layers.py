"""The layers around the recurrent ones: Embedding, Linear and Dropout.

Each has the same face as LSTM: a call infers, `forward` also gives a tape, `backward` takes the
tape and returns fresh gradients. All take any number of leading axes, and flatten them to rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastlstm._products import linear, matmul, scatter_add_rows, sum_rows
from fastlstm._random import dropout_mask, uniform_arrays
from fastlstm._validate import (
    Array,
    check_array,
    check_dtype,
    check_extent,
    check_flag,
    check_floats,
    check_given_generator,
    check_integers,
    check_number,
    check_size,
    compact,
)
from fastlstm._weights import PanelCache
from fastlstm.parameters import Layer, Parameters
from fastlstm.tape import Tape, check_tape


class Embedding(Layer):
    """A table of vectors, one for each id, with the parameter of ``torch.nn.Embedding``.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows (V) and columns (D) of the table.
    dtype : numpy.float32 or numpy.float64
        Of the table and the output.
    rng : numpy.random.Generator or int, optional
        Draws the initial table from N(0, 1); an int is a seed.

    Attributes
    ----------
    weight : numpy.ndarray (V, D)
        Read-only: see `editing`, `load_state_dict`.

    Examples
    --------
    >>> import numpy as np
    >>> embedding = Embedding(10, 3, rng=0)
    >>> embedding(np.array([[1, 2], [9, 1]])).shape
    (2, 2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.num_embeddings = check_size("num_embeddings", num_embeddings)
        self.embedding_dim = check_size("embedding_dim", embedding_dim)
        self.dtype = check_dtype("dtype", dtype)
        shape = (self.num_embeddings, self.embedding_dim)
        check_extent("num_embeddings * embedding_dim", *shape)
        self._begin(
            rng, {"weight": shape}, self.dtype,
            lambda rng: {"weight": rng.standard_normal(shape).astype(self.dtype)},
        )  # fmt: skip

    def __call__(self, ids: Array) -> Array:
        """Look the vectors up.

        Parameters
        ----------
        ids : ndarray of integers (...)
            Of any integer dtype and shape, each from 0 to V - 1.

        Returns
        -------
        ndarray (..., D)

        Raises
        ------
        TypeError
            If `ids` is no array of integers.
        IndexError
            If an id is out of range; a negative one does not count from the end.
        """
        return self._look_up(self._check_ids(ids))

    def forward(self, ids: Array) -> tuple[Array, Tape]:
        """Look the vectors up and keep what `backward` needs: ``output, tape``.

        Parameters and exceptions are those of a call.
        """
        checked = self._check_ids(ids)
        output = self._look_up(checked)
        saved = np.array(checked.ravel(), order="C")  # a copy: the caller may change it
        return output, Tape(self, self._parameters.version, (saved,), output.shape)

    def backward(self, tape: Tape, d_output: Array) -> tuple[None, dict[str, Array]]:
        """Gradient of the table: the rows of `d_output` are summed under their ids.

        Parameters
        ----------
        tape : Tape
            Of the `forward` to differentiate; used up by this call.
        d_output : ndarray (..., D)
            Gradient of the loss with respect to the output.

        Returns
        -------
        None
            Ids have no gradient.
        grads : dict of str to ndarray
            The gradient of "weight", (V, D), fresh.

        Raises
        ------
        TypeError
            If `tape` is no tape, or `d_output` is no array of the layer's dtype.
        ValueError
            If the tape is another layer's, or `d_output` has another shape than the output.
        RuntimeError
            If the tape was used before, or the weights have changed since `forward`.
        """
        check_tape(tape, self)
        check_array("d_output", d_output, self.dtype, tape.d_shape)
        (ids,) = tape.take(self._parameters.version)
        d_weight = np.zeros((self.num_embeddings, self.embedding_dim), self.dtype)
        scatter_add_rows(d_weight, ids, compact(d_output).reshape(-1, self.embedding_dim))
        return None, {"weight": d_weight}

    def _check_ids(self, ids: object) -> Array:
        return check_integers("ids", ids, ("...",), least=0, most=self.num_embeddings - 1)

    def _look_up(self, ids: Array) -> Array:
        # Faster than weight[ids], which is made for more general indices.
        return self._parameters["weight"].take(ids, axis=0)


class Linear(Layer):
    """y = x·Wᵀ + b over the last axis, with the parameters of ``torch.nn.Linear``.

    Where the packed kernels serve (all instruction sets but plain C), a row's output has the same
    bits in any batch and on any number of threads. They keep a second copy of W, in panels, which
    the first call after a change of the weights makes anew.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of the input and of the output.
    bias : bool
        Whether b is there.
    dtype : numpy.float32 or numpy.float64
        Of parameters, inputs and outputs.
    rng : numpy.random.Generator or int, optional
        Draws the initial parameters from U(-1/√in_features, 1/√in_features); an int is a seed.

    Attributes
    ----------
    weight : numpy.ndarray (out_features, in_features)
    bias : numpy.ndarray (out_features,), or None
        Read-only: see `editing`, `load_state_dict`.

    Examples
    --------
    >>> import numpy as np
    >>> linear = Linear(3, 4, rng=0)
    >>> linear(np.ones((5, 2, 3), np.float32)).shape
    (5, 2, 4)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.dtype = check_dtype("dtype", dtype)
        check_extent("in_features * out_features", self.in_features, self.out_features)
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        if check_flag("bias", bias):
            shapes["bias"] = (self.out_features,)
        bound = 1 / math.sqrt(self.in_features)
        self._begin(
            rng, shapes, self.dtype, lambda rng: uniform_arrays(rng, shapes, bound, self.dtype)
        )
        self._panels = PanelCache(self._parameters)

    @property
    def bias(self) -> Array | None:
        """b (out_features,), read-only, or None."""
        return self._parameters.get("bias")

    def get_config(self) -> dict[str, Any]:
        """Every argument of the constructor but `rng`; see `LSTM.get_config`."""
        return super().get_config() | {"bias": self.bias is not None}

    def __call__(self, x: Array) -> Array:
        """Map the last axis.

        Parameters
        ----------
        x : ndarray (..., in_features)
            Of the layer's dtype, in any memory layout.

        Returns
        -------
        ndarray (..., out_features)

        Raises
        ------
        TypeError
            If `x` is no array of the layer's dtype.
        ValueError
            If its last axis has another size, or its rows are more than BLAS can count.
        """
        x = self._check_input(x)
        return self._map(compact(x).reshape(-1, self.in_features), x.shape[:-1])

    def forward(self, x: Array) -> tuple[Array, Tape]:
        """Map the last axis and keep what `backward` needs: ``output, tape``.

        Parameters and exceptions are those of a call.
        """
        x = self._check_input(x)
        rows = np.array(x, order="C").reshape(
            -1, self.in_features
        )  # a copy: the caller may change it
        output = self._map(rows, x.shape[:-1])
        return output, Tape(self, self._parameters.version, (rows,), output.shape)

    def backward(self, tape: Tape, d_output: Array) -> tuple[Array, dict[str, Array]]:
        """Gradients of the input and the parameters.

        Parameters
        ----------
        tape : Tape
            Of the `forward` to differentiate; used up by this call.
        d_output : ndarray (..., out_features)
            Gradient of the loss with respect to the output.

        Returns
        -------
        d_x : ndarray (..., in_features)
        grads : dict of str to ndarray
            Gradients of "weight" and "bias". All arrays are fresh.

        Raises
        ------
        TypeError
            If `tape` is no tape, or `d_output` is no array of the layer's dtype.
        ValueError
            If the tape is another layer's, or `d_output` has another shape than the output.
        RuntimeError
            If the tape was used before, or the weights have changed since `forward`.
        """
        check_tape(tape, self)
        d_output = check_array("d_output", d_output, self.dtype, tape.d_shape)
        (rows,) = tape.take(self._parameters.version)
        d_rows = compact(d_output).reshape(-1, self.out_features)
        d_x = matmul(d_rows, self._parameters["weight"])
        grads = {"weight": matmul(d_rows, rows, transpose_a=True)}
        if self.bias is not None:
            grads["bias"] = sum_rows(d_rows)
        return d_x.reshape(*d_output.shape[:-1], self.in_features), grads

    def _check_input(self, x: object) -> Array:
        array = check_array("x", x, self.dtype, ("...", self.in_features))
        check_extent("x, its rows", *array.shape[:-1])
        return array

    def _map(self, rows: Array, leading: tuple[int, ...]) -> Array:
        """(rows, in_features) -> (*leading, out_features)."""
        panels = self._panels.transposed("weight")
        output = linear(rows, self._parameters["weight"], self.bias, panels)
        return output.reshape(*leading, self.out_features)


class Dropout(Layer):
    """Zeroes elements at random while training, so that no unit can rely on another one.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting";
    what is kept is scaled by 1 / (1 - p), so that inference needs no scaling, as in
    ``torch.nn.Dropout``. It has no parameters.

    Parameters
    ----------
    p : float
        Probability with which an element becomes zero, from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> output, tape = Dropout(0.5).forward(np.ones(1000, np.float32), np.random.default_rng(0))
    >>> np.unique(output)
    array([0., 2.], dtype=float32)
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_number("p", p, least=0.0, most=1.0)
        self._parameters = Parameters({})

    def __call__(self, x: Array) -> Array:
        """Infer: `x` (...), of float32 or float64, comes back itself; dropout does not act."""
        return check_floats("x", x, ("...",))

    def forward(self, x: Array, rng: np.random.Generator | None) -> tuple[Array, Tape]:
        """Drop elements, and keep for `backward` which ones.

        Parameters
        ----------
        x : ndarray (...)
            Of float32 or float64, in any memory layout.
        rng : numpy.random.Generator or None
            Draws the mask; with None nothing is dropped.

        Returns
        -------
        output : ndarray (...)
            Fresh, of the dtype of `x`.
        tape : Tape
            For one `backward`.

        Raises
        ------
        TypeError
            If `x` is no array of float32 or float64, or `rng` is no generator.
        """
        x = check_floats("x", x, ("...",))
        rng = check_given_generator("rng", rng)
        mask = None if rng is None else dropout_mask(rng, x.shape, self.p, x.dtype)
        output = _masked(x, mask)
        return output, _DropoutTape(self, self._parameters.version, mask, output)

    def backward(self, tape: Tape, d_output: Array) -> tuple[Array, dict[str, Array]]:
        """Gradient of the input: what was dropped gets none, the rest is scaled alike.

        Parameters
        ----------
        tape : Tape
            Of the `forward` to differentiate; used up by this call.
        d_output : ndarray (...)
            Gradient of the loss with respect to the output.

        Returns
        -------
        d_x : ndarray (...)
            Fresh.
        grads : dict
            Empty: there are no parameters.

        Raises
        ------
        TypeError
            If `tape` is no tape, or `d_output` is no array of the output's dtype.
        ValueError
            If the tape is another layer's, or `d_output` has another shape than the output.
        RuntimeError
            If the tape was used before.
        """
        tape = check_tape(tape, self)
        assert isinstance(tape, _DropoutTape)
        d_output = check_array("d_output", d_output, tape.d_dtype, tape.d_shape)
        (mask,) = tape.take(self._parameters.version)
        return _masked(d_output, mask), {}


class _DropoutTape(Tape):
    """A tape that knows the dtype, too, which the layer does not."""

    __slots__ = ("d_dtype",)

    def __init__(self, owner: object, version: int, mask: Array | None, output: Array) -> None:
        super().__init__(owner, version, (mask,), output.shape)
        self.d_dtype = output.dtype


def _masked(x: Array, mask: Array | None) -> Array:
    if mask is None:
        return np.array(x, order="C")
    with np.errstate(all="ignore"):  # an infinity that is dropped is NaN, as in PyTorch
        return np.multiply(x, mask, out=np.empty(x.shape, x.dtype))
