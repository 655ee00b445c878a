"""The definition: one LSTM layer in one direction, in float64 NumPy, to be read, not to be fast.

Forward, with W = weight_ih, U = weight_hh, the state (h_0, C_0) and σ(z) = 1 / (1 + e^-z)::

    [z_i, z_f, z_C, z_o] = W x_t + b_ih + U h_{t-1} + b_hh
    i_t = σ(z_i)    f_t = σ(z_f)    C̃_t = tanh(z_C)    o_t = σ(z_o)
    C_t = f_t ⊙ C_{t-1} + i_t ⊙ C̃_t
    h_t = o_t ⊙ tanh(C_t)

Backward, with d for the gradient of the loss; docs/backward.md derives it::

    dh_t   = d_output_t + Uᵀ dz_{t+1}                           dh_n joins at the last step
    dC_t   = dh_t ⊙ o_t ⊙ (1 - tanh²(C_t)) + dC_{t+1} ⊙ f_{t+1}   and dC_n with it
    dz_i   = dC_t ⊙ C̃_t ⊙ i_t ⊙ (1 - i_t)         dz_f = dC_t ⊙ C_{t-1} ⊙ f_t ⊙ (1 - f_t)
    dz_C   = dC_t ⊙ i_t ⊙ (1 - C̃_t²)              dz_o = dh_t ⊙ tanh(C_t) ⊙ o_t ⊙ (1 - o_t)
    dx_t   = Wᵀ dz_t     dW = Σ dz_t x_tᵀ     dU = Σ dz_t h_{t-1}ᵀ     db_ih = db_hh = Σ dz_t

The compiled layer is tested against this, and this against PyTorch and finite differences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit as sigmoid

from fastlstm._validate import Array, Shape, check_lengths, check_shape


class Cache(NamedTuple):
    """What `backward` needs of a `forward`."""

    x: Array  # (T, B, I), zero past the ends
    weight_ih: Array
    weight_hh: Array
    alive: Array  # (T, B, 1): whether the sequence has this step
    order: list[int]  # of the steps
    steps: dict[int, tuple[Array, ...]]  # h_{t-1}, C_{t-1}, i, f, C̃, o, C of each step, (B, H)


def forward(
    x: ArrayLike, h_0: ArrayLike, c_0: ArrayLike,
    weight_ih: ArrayLike, weight_hh: ArrayLike, bias_ih: ArrayLike, bias_hh: ArrayLike,
    *, lengths: Array | None = None, reverse: bool = False,
) -> tuple[Array, Array, Array, Cache]:  # fmt: skip
    """Run a batch of sequences: output (T, B, H), h_n (B, H), c_n (B, H), and for `backward`.

    Parameters
    ----------
    x, h_0, c_0 : array of floats (T, B, I), (B, H), (B, H)
    weight_ih, weight_hh, bias_ih, bias_hh : array of floats (4H, I), (4H, H), (4H,), (4H,)
        Rows in PyTorch's order: i, f, C̃ (there called g), o.
    lengths : ndarray of integers (B,), optional
        Valid steps of each sequence. Past its end x is not read, the state is held, the output 0.
    reverse : bool
        Whether to go from the last step to the first.

    Raises
    ------
    TypeError
        If an argument does not hold floats. Any of them will do: they become float64.
    ValueError
        If a shape or a length does not fit.
    """
    x = _float64("x", x, ("T", "B", "I"))
    T, B, I = x.shape  # noqa: E741
    h = _float64("h_0", h_0, (B, "H"))
    H = h.shape[1]
    C = _float64("c_0", c_0, (B, H))
    W = _float64("weight_ih", weight_ih, (4 * H, I))
    U = _float64("weight_hh", weight_hh, (4 * H, H))
    b = _float64("bias_ih", bias_ih, (4 * H,)) + _float64("bias_hh", bias_hh, (4 * H,))
    ends = np.full(B, T) if lengths is None else check_lengths(lengths, B, T)
    alive = np.arange(T)[:, None, None] < ends[:, None]
    cache = Cache(np.where(alive, x, 0.0), W, U, alive, list(range(T))[:: -1 if reverse else 1], {})

    output = np.zeros((T, B, H))
    for t in cache.order:
        z_i, z_f, z_C, z_o = np.split(cache.x[t] @ W.T + h @ U.T + b, 4, axis=1)
        i, f, C_tilde, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_C), sigmoid(z_o)
        C_t = f * C + i * C_tilde
        h_t = o * np.tanh(C_t)
        cache.steps[t] = (h, C, i, f, C_tilde, o, C_t)
        h, C = np.where(alive[t], h_t, h), np.where(alive[t], C_t, C)
        output[t] = np.where(alive[t], h_t, 0.0)
    return output, h, C, cache


def backward(
    cache: Cache, d_output: ArrayLike, d_h_n: ArrayLike, d_c_n: ArrayLike
) -> tuple[Array, Array, Array, dict[str, Array]]:
    """Gradients d_x (T, B, I), d_h_0 (B, H), d_c_0 (B, H), and of the parameters by name.

    d_output (T, B, H), d_h_n, d_c_n (B, H) are those of what `forward` returned. Raises as it.
    """
    W, U = cache.weight_ih, cache.weight_hh
    (T, B, _), H = cache.x.shape, U.shape[1]
    d_output = _float64("d_output", d_output, (T, B, H))
    d_h, d_C = _float64("d_h_n", d_h_n, (B, H)), _float64("d_c_n", d_c_n, (B, H))

    d_x, d_b = np.zeros(cache.x.shape), np.zeros(4 * H)
    d_W, d_U = np.zeros(W.shape), np.zeros(U.shape)
    for t in reversed(cache.order):
        h_prev, C_prev, i, f, C_tilde, o, C = cache.steps[t]
        alive = cache.alive[t]
        d_h_t = np.where(alive, d_output[t] + d_h, 0.0)
        d_C_t = np.where(alive, d_C + d_h_t * o * (1 - np.tanh(C) ** 2), 0.0)
        d_i, d_f = d_C_t * C_tilde * i * (1 - i), d_C_t * C_prev * f * (1 - f)
        d_C_tilde, d_o = d_C_t * i * (1 - C_tilde**2), d_h_t * np.tanh(C) * o * (1 - o)
        d_z = np.concatenate([d_i, d_f, d_C_tilde, d_o], axis=1)
        d_x[t] = d_z @ W
        d_W += d_z.T @ cache.x[t]
        d_U += d_z.T @ h_prev
        d_b += d_z.sum(axis=0)
        d_h, d_C = np.where(alive, d_z @ U, d_h), np.where(alive, d_C_t * f, d_C)
    grads = {"weight_ih": d_W, "weight_hh": d_U, "bias_ih": d_b, "bias_hh": d_b.copy()}
    return d_x, d_h, d_C, grads


def _float64(name: str, value: ArrayLike, shape: Shape) -> Array:
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected an array of floats, got {array.dtype}")
    return check_shape(name, array.astype(np.float64), shape)
