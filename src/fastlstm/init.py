"""Initial weights beyond torch's: matrices to set by hand, and whole layers set anew.

`glorot_uniform` and `orthogonal` draw one matrix; `keras`, `forget_bias` and `chrono` change the
weights of an LSTM or LSTMCell, all layers and directions of it. Every generator is
numpy.random's; an int is a seed.

>>> import numpy as np
>>> from fastlstm import LSTM, init
>>> lstm = LSTM(3, 8, rng=0)
>>> init.keras(lstm, 1)  # as keras.layers.LSTM begins
>>> init.forget_bias(lstm, 2.0)
>>> with lstm.editing() as parameters:  # an orthogonal matrix for each gate
...     parameters["weight_hh_l0"][...] = init.orthogonal(2, (4 * 8, 8), blocks=4)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from fastlstm._validate import Array, check_dtype, check_generator, check_number, check_size
from fastlstm.cell import LSTMCell
from fastlstm.lstm import LSTM

Rng = np.random.Generator | int | None


def glorot_uniform(
    rng: Rng, shape: tuple[int, int], dtype: DTypeLike = np.float32, *, gain: float = 1.0
) -> Array:
    """A matrix of U(-a, a), a = gain · √(6 / (rows + columns)) (Glorot & Bengio 2010).

    ``torch.nn.init.xavier_uniform_``, and what Keras calls by this name: there a kernel is (I, 4H)
    and here a weight_ih (4H, I), which is all the same to a sum.

    Parameters
    ----------
    rng : numpy.random.Generator or int, optional
    shape : pair of int
        (rows, columns) = (fan out, fan in).
    dtype : numpy.float32 or numpy.float64
    gain : float

    Returns
    -------
    ndarray (rows, columns)
    """
    rng, dtype = check_generator("rng", rng), check_dtype("dtype", dtype)
    rows, columns = _check_matrix(shape)
    bound = check_number("gain", gain) * math.sqrt(6 / (rows + columns))
    return rng.uniform(-abs(bound), abs(bound), (rows, columns)).astype(dtype)


def orthogonal(
    rng: Rng,
    shape: tuple[int, int],
    dtype: DTypeLike = np.float32,
    *,
    gain: float = 1.0,
    blocks: int = 1,
) -> Array:
    """A matrix Q with QᵀQ = gain² · 1, or QQᵀ = gain² · 1 if it has more columns than rows.

    Of all such matrices each is as probable as any other (Haar's measure): the Q of the QR of a
    Gaussian matrix, with R's diagonal made positive (Mezzadri 2007). So do
    ``torch.nn.init.orthogonal_`` and Keras; proposed for networks by Saxe, McClelland & Ganguli
    2014.

    What is orthogonal in an LSTM is a choice. Keras makes the whole recurrent kernel so, which is
    ``orthogonal(rng, (4 * H, H))`` for a weight_hh: its columns are orthonormal, and the matrix of
    one gate shrinks a vector to half its length in the mean. With ``blocks=4`` the matrix of each
    gate is orthogonal by itself and keeps all lengths.

    Parameters
    ----------
    rng : numpy.random.Generator or int, optional
    shape : pair of int
        (rows, columns).
    dtype : numpy.float32 or numpy.float64
    gain : float
    blocks : int
        Parts of equally many rows of which each is such a matrix.

    Returns
    -------
    ndarray (rows, columns)

    Raises
    ------
    ValueError
        If the rows cannot be cut into so many blocks.
    """
    rng, dtype = check_generator("rng", rng), check_dtype("dtype", dtype)
    rows, columns = _check_matrix(shape)
    blocks, gain = check_size("blocks", blocks), check_number("gain", gain)
    if rows % blocks:
        raise ValueError(f"blocks: expected a divisor of the {rows} rows of shape, got {blocks}")
    parts = [gain * _haar(rng, rows // blocks, columns) for _ in range(blocks)]
    return np.concatenate(parts).astype(dtype)


def keras(lstm: LSTM | LSTMCell, rng: Rng = None, *, unit_forget_bias: bool = True) -> None:
    """Set weights as ``keras.layers.LSTM`` has them in the beginning.

    weight_ih is `glorot_uniform` as a whole (four gates in one matrix), weight_hh `orthogonal` as
    a whole; biases are zero, but those of the forget gates one. Keras has one bias: bias_ih here,
    and bias_hh is zero. Parameters that a layer of Keras does not have stay as they are.

    Parameters
    ----------
    lstm : LSTM or LSTMCell
    rng : numpy.random.Generator or int, optional
    unit_forget_bias : bool
        Whether biases of forget gates are one, and not zero.
    """
    suffixes, rng = _directions(lstm), check_generator("rng", rng)
    with lstm.editing() as parameters:
        for suffix in suffixes:
            ih, hh = parameters[f"weight_ih{suffix}"], parameters[f"weight_hh{suffix}"]
            ih[...] = glorot_uniform(rng, ih.shape, ih.dtype)
            hh[...] = orthogonal(rng, hh.shape, hh.dtype)
            if lstm.bias:
                parameters[f"bias_ih{suffix}"][...] = 0
                parameters[f"bias_hh{suffix}"][...] = 0
    if lstm.bias and unit_forget_bias:
        forget_bias(lstm)


def forget_bias(lstm: LSTM | LSTMCell, value: float = 1.0) -> None:
    """Set the biases of all forget gates, so that a cell begins by remembering.

    b_ih becomes `value` and b_hh zero, for the forget gates alone. One, the default, was proposed
    by Gers, Schmidhuber & Cummins 2000 and made known by Jozefowicz, Zaremba & Sutskever 2015.

    Parameters
    ----------
    lstm : LSTM or LSTMCell
        With biases.
    value : float

    Raises
    ------
    ValueError
        If there are no biases.
    """
    value = check_number("value", value)
    _set_biases(lstm, slice(1, 2), lambda _: value)


def chrono(lstm: LSTM | LSTMCell, longest: float, rng: Rng = None) -> None:
    """Set the biases of forget and input gates for dependencies of up to `longest` steps.

    b_f = log(u) with u from U(1, longest - 1), and b_i = -b_f (Tallec & Ollivier 2018): a cell
    that forgets at the rate 1 / (1 + u) holds on for about 1 + u steps. b_ih has these values, and
    b_hh is zero there.

    Parameters
    ----------
    lstm : LSTM or LSTMCell
        With biases.
    longest : float
        Over how many steps something has to be remembered (T_max), from 2 on: such as the length
        of a sequence.
    rng : numpy.random.Generator or int, optional

    Raises
    ------
    ValueError
        If there are no biases, or `longest` is below 2.
    """
    longest, rng = check_number("longest", longest, least=2), check_generator("rng", rng)

    def draw(hidden: int) -> Array:
        remember = np.log(rng.uniform(1, longest - 1, hidden))
        return np.concatenate([-remember, remember])

    _set_biases(lstm, slice(0, 2), draw)


def _set_biases(lstm: LSTM | LSTMCell, gates: slice, make: Callable[[int], Array | float]) -> None:
    """Set b_ih of some gates (of i, f, g, o) to what is made for H units, and b_hh to zero."""
    suffixes = _directions(lstm)
    if not lstm.bias:
        raise ValueError(f"lstm: expected one with biases, got {lstm!r}")
    hidden = lstm.hidden_size
    rows = slice(gates.start * hidden, gates.stop * hidden)
    with lstm.editing() as parameters:
        for suffix in suffixes:
            parameters[f"bias_ih{suffix}"][rows] = make(hidden)
            parameters[f"bias_hh{suffix}"][rows] = 0


def _directions(lstm: object) -> list[str]:
    """Suffixes of the parameters' names."""
    if not isinstance(lstm, (LSTM, LSTMCell)):
        raise TypeError(f"lstm: expected an LSTM or LSTMCell, got a {type(lstm).__name__}")
    prefix = "weight_hh"
    return [name.removeprefix(prefix) for name in lstm.parameters() if name.startswith(prefix)]


def _check_matrix(shape: object) -> tuple[int, int]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise ValueError(f"shape: expected a pair (rows, columns), got {shape!r}")
    return check_size("shape[0]", shape[0]), check_size("shape[1]", shape[1])


def _haar(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """A random matrix of float64 with orthonormal columns, or rows where these are fewer."""
    gaussian = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(gaussian)
    # LAPACK chooses signs as it likes: without this, Q would not be uniform.
    q *= np.where(np.diagonal(r) < 0, -1, 1)
    return q if rows >= columns else q.T
