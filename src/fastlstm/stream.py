"""A stream: an LSTM fed one step at a time, which carries its state itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import NoReturn

import numpy as np

from fastlstm import _core
from fastlstm._core.stream import IN_USE, stale
from fastlstm._stack import Stack
from fastlstm._validate import (
    Array,
    check_array,
    check_extent,
    check_output,
    check_pair,
    check_size,
    compact,
)
from fastlstm._weights import WeightCache, is_packed, padded_gates
from fastlstm.packing import Packing
from fastlstm.parameters import Parameters
from fastlstm.threads import hold_blas


class Stream(_core.Stepper):
    """An LSTM fed one step at a time; `LSTM.stream` opens it, and `step` is all that it is about.

    It begins with a zero state. On the packed kernels its steps have the bits of one call over the
    whole sequence. Dropout does not act. Every step runs on the calling thread, and a short one
    (below a million floating-point operations) keeps the GIL. On SciPy's BLAS each step also holds
    BLAS's pool at one thread, which takes longer than a short step itself.

    A stream is opened on the weights of that moment. When they have changed, the next `step`
    raises, and `reset` opens it again on the present ones; a state that was read before can be set
    afterwards. A stream is one user's: of two threads in it at once, the second one gets a
    RuntimeError. It cannot be copied or pickled, but its state can.

    Attributes
    ----------
    state : pair of ndarray (layers, B, H), or (layers, H) without a batch size
        (h, c) as they are now, as copies; can be set, with the checks of a call's state.
    batch_size : int or None
        As it was opened.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm import LSTM
    >>> lstm = LSTM(3, 4, rng=0)
    >>> stream = lstm.stream()
    >>> for x_t in np.ones((5, 3), np.float32):
    ...     h = stream.step(x_t)
    >>> output, _ = lstm(np.ones((5, 3), np.float32))
    >>> np.allclose(h, output[-1], rtol=1e-6)
    True
    """

    __slots__ = ("_batch_size", "_parameters", "_stack", "_weights")

    def __init__(
        self, stack: Stack, parameters: Parameters, weights: WeightCache, batch_size: int | None
    ) -> None:
        if stack.reverse:
            raise ValueError(
                "stream: expected an LSTM that begins at the first step, got one with reverse=True"
            )
        if stack.bidirectional:
            raise ValueError(
                "stream: expected an LSTM of one direction, got a bidirectional one, whose second "
                "direction begins at the last step"
            )
        if batch_size is not None:
            batch_size = check_size("batch_size", batch_size)
            columns = padded_gates(stack.hidden_size, stack.dtype)
            widest = max(stack.input_size, columns, 2 * stack.num_layers * stack.hidden_size)
            check_extent("batch_size", batch_size, widest)
        self._stack, self._parameters, self._weights = stack, parameters, weights
        self._batch_size = batch_size
        self.reset()

    def __repr__(self) -> str:
        sizes = f"{self._stack.input_size} -> {self._stack.hidden_size}"
        return f"<Stream of LSTM {sizes}, batch_size={self._batch_size}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Stream cannot be copied or pickled: open another and set its state")

    @property
    def batch_size(self) -> int | None:
        """Sequences side by side; None where steps have no such axis."""
        return self._batch_size

    @property
    def state(self) -> tuple[Array, Array]:
        """(h, c) as they are now, as copies; can be set."""
        return self._state()

    @state.setter
    def state(self, state: tuple[Array, Array]) -> None:
        h, c = check_pair("state", state)
        lead = (self._stack.num_layers, *self._rows())
        self._set_state(
            check_array("state[0] (h)", h, self._stack.dtype, (*lead, self._stack.state_size)),
            check_array("state[1] (c)", c, self._stack.dtype, (*lead, self._stack.hidden_size)),
        )

    def reset(self) -> None:
        """Back to a zero state, on the layer's present weights."""
        stack, rows = self._stack, self._rows()
        # The version is read first: weights that change meanwhile leave a stale stream.
        counter = self._parameters.counter
        version = counter[0]
        layers = [self._weights.forward(run.suffix) for (run,) in stack.layers]
        state = (stack.num_layers, *rows, stack.hidden_size)
        columns = padded_gates(stack.hidden_size, stack.dtype)
        self._open(
            [(own.ih, own.hh, own.bias) for own in layers],
            np.zeros((2, *state), stack.dtype),
            np.zeros(state, stack.dtype),
            np.empty((self._batch_size or 1, columns), stack.dtype),
            stack.input_size,
            counter,
            version,
            None if is_packed(stack.dtype) else hold_blas(),
        )

    def _rows(self) -> tuple[int, ...]:
        """The batch axis, where there is one."""
        return () if self._batch_size is None else (self._batch_size,)

    def _take_input(self, x_t: object) -> Array:
        shape = (*self._rows(), self._stack.input_size)
        return compact(check_array("x_t", x_t, self._stack.dtype, shape))

    def _take_output(self, out: object) -> Array:
        return check_output("out", out, self._stack.dtype, (*self._rows(), self._stack.state_size))


class VariantStream(Stream):
    """A stream of a cell that the compiled stepper does not know: sequences of one step.

    They take the general loop, to the same bits as one call over the whole sequence takes it, and
    some tens of microseconds more for a step than `Stream` does.
    """

    __slots__ = ("_in_use", "_kept", "_packing", "_version")

    def __init__(
        self, stack: Stack, parameters: Parameters, weights: WeightCache, batch_size: int | None
    ) -> None:
        self._in_use = Lock()
        super().__init__(stack, parameters, weights, batch_size)
        self._packing = Packing(1, batch_size or 1)

    def reset(self) -> None:
        """Back to a zero state, on the layer's present weights."""
        stack, rows = self._stack, self._batch_size or 1
        with self._alone():
            self._version = self._parameters.version
            self._kept = (
                np.zeros((stack.num_layers, rows, stack.state_size), stack.dtype),
                np.zeros((stack.num_layers, rows, stack.hidden_size), stack.dtype),
            )

    def step(self, x_t: Array, *, out: Array | None = None) -> Array:
        """Take x_t (B, I), or (I,), on, and return h of the last layer; see `Stream.step`."""
        x = self._take_input(x_t)
        target = None if out is None else self._take_output(out)
        with self._alone():
            if self._parameters.version != self._version:
                raise RuntimeError(stale(self._version, self._parameters.version))
            h, c = (array.copy() for array in self._kept)
            rows = x.reshape(-1, self._stack.input_size)
            output, _ = self._stack.forward(
                self._weights, self._packing, rows, h, c, zero_state=False, keep=False
            )
            self._kept = h, c
        result = output.reshape(*self._rows(), self._stack.state_size)
        if target is None:
            return result
        target[...] = result
        return target

    def _state(self) -> tuple[Array, Array]:
        with self._alone():
            h, c = self._kept
        lead = (self._stack.num_layers, *self._rows())
        return h.reshape(*lead, h.shape[-1]).copy(), c.reshape(*lead, c.shape[-1]).copy()

    def _set_state(self, h: Array, c: Array) -> None:
        with self._alone():
            old_h, old_c = self._kept
            self._kept = h.reshape(old_h.shape).copy(), c.reshape(old_c.shape).copy()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse whoever comes while another one is in here."""
        if not self._in_use.acquire(blocking=False):
            raise RuntimeError(IN_USE)
        try:
            yield
        finally:
            self._in_use.release()
