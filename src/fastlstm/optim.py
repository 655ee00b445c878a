"""Optimisers: SGD, Adam and AdamW with PyTorch's formulas, and clipping of gradients by their norm.

An optimiser changes the arrays that a `Parameters` owns, in place and in one pass, with no memory
beyond its moments. In what it reads and writes subnormal numbers count as zero, for a moment that
fades away would else slow down every step. Everything is checked before the first write.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fastlstm import _core
from fastlstm._validate import (
    Array,
    check_array,
    check_flag,
    check_floats,
    check_integers,
    check_names,
    check_number,
    check_pair,
    check_rate,
    compact,
)
from fastlstm.parameters import Parameters
from fastlstm.threads import team

# What an element of a step takes, in operations of a product: it waits for memory.
_OPERATIONS = 64.0


class _Optimiser:
    """What all optimisers share: the walk over the parameters, and the state that they keep.

    A subclass names its moments, and changes one block of one parameter in `_update`.
    """

    _moment_names: tuple[str, ...] = ()

    def __init__(self, parameters: Parameters, lr: float, weight_decay: float) -> None:
        if not isinstance(parameters, Parameters):
            raise TypeError(
                f"parameters: expected Parameters (such as layer.parameters()), "
                f"got a {type(parameters).__name__}"
            )
        self._parameters = parameters
        self.lr = lr
        self.weight_decay = check_number("weight_decay", weight_decay, least=0.0)
        self._step = 0
        self._moments: dict[str, Array] = {}

    def _start(self) -> None:
        """Make the moments, of zeros."""
        self._moments = {
            f"{moment}.{name}": np.zeros(array.shape, array.dtype)
            for moment in self._moment_names
            for name, array in self._parameters.items()
        }

    @property
    def lr(self) -> float:
        """The learning rate: of every step that is not given another one."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = check_rate("lr", value)

    def step(self, grads: Mapping[str, Array], *, lr: float | None = None) -> None:
        """Change the parameters once; their version moves.

        Parameters
        ----------
        grads : mapping of str to ndarray
            A gradient for every parameter, under its name, of its shape and dtype. Not modified.
        lr : float, optional
            The learning rate of this step alone, as a schedule gives it; `self.lr` by default.

        Raises
        ------
        TypeError
            If a gradient is no array of its parameter's dtype.
        ValueError
            If names are missing or unknown, a shape differs, or `lr` is negative or not finite.
            Nothing has changed then.
        """
        rate = self._lr if lr is None else check_rate("lr", lr)
        given = check_names("grads", grads, self._parameters)
        flat = {
            name: compact(check_array(f"grads[{name!r}]", given[name], weight.dtype, weight.shape))
            for name, weight in self._parameters.items()
        }
        self._step += 1
        # Infinities and NaNs take their course, as everywhere in IEEE arithmetic: an exception
        # would leave half of the weights behind.
        with self._parameters.updating() as owned:
            for name, weight in owned.items():
                if not weight.size:
                    continue
                moments = [self._moments[f"{moment}.{name}"] for moment in self._moment_names]
                arrays = [array.reshape(-1) for array in (weight, flat[name], *moments)]
                with team(_OPERATIONS * weight.size, blas=False) as threads:
                    self._update(*arrays, lr=rate, threads=threads)

    def _update(self, weight: Array, grad: Array, *moments: Array, lr: float, threads: int) -> None:
        """Change flat `weight` and `moments` in place."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """Copies of what goes on from step to step: "step", "lr", and a moment for each parameter.

        "step" is int64 and "lr" float64, of no axes; "<moment>.<parameter>" are like the parameter.
        The parameters themselves are not part of it.
        """
        numbers = {"step": np.array(self._step, np.int64), "lr": np.array(self._lr, np.float64)}
        return numbers | {name: array.copy() for name, array in self._moments.items()}

    def load_state_dict(self, state_dict: Mapping[str, Array]) -> None:
        """Go on from a state that `state_dict` gave, to the same bits; all is taken or nothing.

        Raises
        ------
        TypeError
            If an entry is no array of the dtype expected.
        ValueError
            If names are missing or unknown, or a shape or a value does not fit.
        """
        given = check_names("state_dict", state_dict, {"step", "lr"} | self._moments.keys())
        try:
            step = check_integers("state_dict['step']", given["step"], (), least=0, most=2**63 - 1)
        except IndexError as error:
            raise ValueError(str(error)) from None
        lr = check_array("state_dict['lr']", given["lr"], np.dtype(np.float64), ())
        rate = check_rate("state_dict['lr']", float(lr))
        moments = {
            name: np.array(
                check_array(f"state_dict[{name!r}]", given[name], own.dtype, own.shape), order="C"
            )
            for name, own in self._moments.items()
        }
        self._step, self._lr, self._moments = int(step), rate, moments


class SGD(_Optimiser):
    """Stochastic gradient descent, with momentum, as ``torch.optim.SGD``.

    For each parameter w with gradient g::

        g = g + weight_decay · w
        m = momentum · m + g                        (m = 0 at first)
        w = w - lr · m                              w = w - lr · (g + momentum · m) with nesterov

    Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning",
    with the learning rate outside of the momentum.

    Parameters
    ----------
    parameters : Parameters
        What to change: a layer's, or a network's by `Parameters.join`.
    lr : float
        Learning rate.
    momentum : float
        At least 0 and less than 1; without it no m is kept.
    nesterov : bool
        Look ahead; needs a momentum.
    weight_decay : float
        Strength of the L2 penalty.

    Examples
    --------
    >>> import numpy as np
    >>> parameters = Parameters({"w": np.array([1.0, 2.0])})
    >>> SGD(parameters, 0.5).step({"w": np.array([1.0, -1.0])})
    >>> parameters["w"]
    array([0.5, 2.5])
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.momentum = check_number("momentum", momentum, least=0.0, below=1.0)
        self.nesterov = check_flag("nesterov", nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum, got momentum=0")
        self._moment_names = ("momentum",) if self.momentum else ()
        self._start()

    def __repr__(self) -> str:
        return (
            f"SGD(lr={self.lr:g}, momentum={self.momentum:g}, nesterov={self.nesterov}, "
            f"weight_decay={self.weight_decay:g})"
        )

    def _update(self, weight: Array, grad: Array, *moments: Array, lr: float, threads: int) -> None:
        moment = moments[0] if moments else None
        _core.sgd(
            weight, grad, moment, lr, self.momentum, self.nesterov, self.weight_decay, threads
        )


class Adam(_Optimiser):
    """Adam (Kingma & Ba 2015), as ``torch.optim.Adam``.

    For each parameter w with gradient g, at step t (from 1 on)::

        g = g + weight_decay · w
        m = β₁ · m + (1 - β₁) · g                   v = β₂ · v + (1 - β₂) · g²
        w = w - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps)

    Parameters
    ----------
    parameters : Parameters
        What to change: a layer's, or a network's by `Parameters.join`.
    lr : float
        Learning rate.
    betas : pair of float
        (β₁, β₂), each at least 0 and less than 1.
    eps : float
        Keeps the division finite.
    weight_decay : float
        Strength of the L2 penalty, which goes through m and v; see `AdamW`.

    Examples
    --------
    >>> import numpy as np
    >>> parameters = Parameters({"w": np.array([1.0, 2.0])})
    >>> Adam(parameters, 0.1).step({"w": np.array([3.0, -4.0])})
    >>> parameters["w"].round(6)
    array([0.9, 2.1])
    """

    _moment_names = ("exp_avg", "exp_avg_sq")
    _decoupled = False  # whether weight decay leaves the gradient, and so the moments, alone

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        beta_1, beta_2 = check_pair("betas", betas, "(β₁, β₂) of numbers")
        self.betas = (
            check_number("betas[0]", beta_1, least=0.0, below=1.0),
            check_number("betas[1]", beta_2, least=0.0, below=1.0),
        )
        self.eps = check_number("eps", eps, least=0.0)
        self._start()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(lr={self.lr:g}, betas={self.betas}, eps={self.eps:g}, "
            f"weight_decay={self.weight_decay:g})"
        )

    def _update(self, weight: Array, grad: Array, *moments: Array, lr: float, threads: int) -> None:
        exp_avg, exp_avg_sq = moments
        beta_1, beta_2 = self.betas
        _core.adam(
            weight,
            grad,
            exp_avg,
            exp_avg_sq,
            lr / (1 - beta_1**self._step),
            math.sqrt(1 - beta_2**self._step),
            beta_1,
            beta_2,
            self.eps,
            0.0 if self._decoupled else self.weight_decay,
            1 - lr * self.weight_decay if self._decoupled else 1.0,
            threads,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as ``torch.optim.AdamW``.

    The weights shrink by themselves, w = (1 - lr · weight_decay) · w, before a step of `Adam`
    without decay; m and v never see the decay.

    Parameters
    ----------
    parameters, lr, betas, eps
        As for `Adam`.
    weight_decay : float
        Strength of the decay.

    Examples
    --------
    >>> import numpy as np
    >>> parameters = Parameters({"w": np.array([1.0])})
    >>> AdamW(parameters, 0.1, weight_decay=0.5).step({"w": np.array([0.0])})
    >>> parameters["w"]
    array([0.95])
    """

    _decoupled = True

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)


def clip_grad_norm(
    grads: Mapping[str, Array], max_norm: float
) -> tuple[Mapping[str, Array], float]:
    """Scale gradients so that their norm is `max_norm` at most (Pascanu et al. 2013).

    Parameters
    ----------
    grads : mapping of str to ndarray
        Of float32 or float64. Not modified.
    max_norm : float
        Greater than 0.

    Returns
    -------
    grads : mapping of str to ndarray
        The same object if the norm is no greater than `max_norm`, else fresh arrays in a dict:
        the gradients times max_norm / norm.
    norm : float
        The 2-norm of all gradients as one vector, before clipping, summed in float64.

    Raises
    ------
    TypeError
        If `grads` is no mapping of arrays of float32 or float64, or `max_norm` no number.
    ValueError
        If `max_norm` is not finite and greater than 0.
    FloatingPointError
        If the norm is infinite or NaN; it names the gradients to blame. So an optimiser is not
        reached, and the weights stay as they are.

    Examples
    --------
    >>> import numpy as np
    >>> clip_grad_norm({"w": np.array([3.0, 4.0])}, 1.0)
    ({'w': array([0.6, 0.8])}, 5.0)
    """
    max_norm = check_number("max_norm", max_norm, above=0.0)
    if not isinstance(grads, Mapping):
        raise TypeError(f"grads: expected a dict, got a {type(grads).__name__}")
    norms = {
        name: _norm(check_floats(f"grads[{name!r}]", grad, ("...",)))
        for name, grad in grads.items()
    }
    norm = math.hypot(*norms.values())
    if not math.isfinite(norm):
        culprits = ", ".join(f"{name} ({n})" for name, n in norms.items() if not math.isfinite(n))
        raise FloatingPointError(f"grads: the norm is not finite, because of {culprits or 'all'}")
    if norm <= max_norm:
        return grads, norm
    scale = max_norm / norm
    clipped = {
        name: np.multiply(grad, scale, out=np.empty(grad.shape, grad.dtype))
        for name, grad in grads.items()
    }
    return clipped, norm


def _norm(grad: Array) -> float:
    """The 2-norm of one array, in float64.

    Not a BLAS product: its sum, cut by the number of its threads, would not have the same bits on
    every machine.
    """
    return math.sqrt(_core.sum_of_squares(compact(grad).reshape(-1)))
