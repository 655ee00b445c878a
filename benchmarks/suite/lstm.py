"""One LSTM layer, float32: inference, training, streaming, weight gradients, and memory.

The public face is used wherever there is one, so that the suite runs on old commits and new ones
alike; where a commit has none, `setup` raises NotImplementedError and asv leaves a gap. asv calls
`setup` anew before each sample; what is measured therefore lasts long enough for a sample of one
call.
"""
# ruff: noqa: ARG002  (asv hands the parameters to every method)

from __future__ import annotations

import numpy as np

import fastlstm

# steps T, batch B, input size I and hidden size H
SHAPES = {
    "T100 B1 H64": (100, 1, 64, 64),
    "T100 B1 H256": (100, 1, 256, 256),
    "T100 B16 H128": (100, 16, 128, 128),
    "T100 B64 H256": (100, 64, 256, 256),
}
THREADS = [1, 2]


class _OverShapes:
    """A random layer and a random batch for each shape, on each number of threads."""

    params = (list(SHAPES), THREADS)
    param_names = ("shape", "threads")
    number = 1
    repeat = (10, 200, 1.0)  # samples in a round: at least, at most, and for how many seconds

    def setup(self, shape: str, threads: int) -> None:
        fastlstm.set_num_threads(threads)
        steps, batch, input_size, hidden_size = SHAPES[shape]
        rng = np.random.default_rng(0)
        self.lstm = fastlstm.LSTM(input_size, hidden_size, rng=rng)
        self.x = rng.standard_normal((steps, batch, input_size), dtype=np.float32)
        self.d_output = rng.standard_normal((steps, batch, hidden_size), dtype=np.float32)
        self.lstm(self.x)  # threads awake and weights in cache


class Forward(_OverShapes):
    """Inference over whole sequences."""

    def time_forward(self, shape: str, threads: int) -> None:
        self.lstm(self.x)


class Backward(_OverShapes):
    """Gradients of x and of all weights."""

    def setup(self, shape: str, threads: int) -> None:
        super().setup(shape, threads)
        _, _, self.tape = self.lstm.forward(self.x)  # serves one backward

    def time_backward(self, shape: str, threads: int) -> None:
        self.lstm.backward(self.tape, self.d_output)


class Training(_OverShapes):
    """A training step without the optimiser's: forward, then backward.

    The memory is the process's largest size, Python and the batch included.
    """

    def _run(self) -> None:
        _, _, tape = self.lstm.forward(self.x)
        self.lstm.backward(tape, self.d_output)

    def time_training(self, shape: str, threads: int) -> None:
        self._run()

    def peakmem_training(self, shape: str, threads: int) -> None:
        self._run()


class WeightGradients(_OverShapes):
    """The product of the gates' gradients, transposed, with the input: (4H, T·B)·(T·B, I).

    A private function, because all that is public returns the gradient of x too.
    """

    def setup(self, shape: str, threads: int) -> None:
        super().setup(shape, threads)
        try:
            from fastlstm._products import matmul
        except ImportError as error:
            raise NotImplementedError(str(error)) from error
        steps, batch, input_size, hidden_size = SHAPES[shape]
        rng = np.random.default_rng(1)
        self.d_gates = rng.standard_normal((steps * batch, 4 * hidden_size), dtype=np.float32)
        self.rows = self.x.reshape(steps * batch, input_size)
        self.matmul = matmul

    def time_weight_gradients(self, shape: str, threads: int) -> None:
        self.matmul(self.d_gates, self.rows, transpose_a=True)


class Step(_OverShapes):
    """Calls of one step each, with the state carried on: T of them."""

    params = (list(SHAPES)[:3], THREADS)

    def time_step(self, shape: str, threads: int) -> None:
        state = None
        for t in range(len(self.x)):
            _, state = self.lstm(self.x[t : t + 1], state)


class Stream(_OverShapes):
    """A stream that carries its state itself: T steps into one output."""

    params = (list(SHAPES)[:3], THREADS)

    def setup(self, shape: str, threads: int) -> None:
        super().setup(shape, threads)
        if not hasattr(self.lstm, "stream"):
            raise NotImplementedError("LSTM.stream")
        _, batch, _, hidden_size = SHAPES[shape]
        self.stream = self.lstm.stream(batch)
        self.out = np.empty((batch, hidden_size), np.float32)
        self.stream.step(self.x[0], out=self.out)

    def time_stream(self, shape: str, threads: int) -> None:
        step, out = self.stream.step, self.out
        for x_t in self.x:
            step(x_t, out=out)
